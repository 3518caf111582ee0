"""Header names that are not UTF-8, on their way through a unit of work."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from streams.engine.parsing import FetchedRecords
from streams.engine.transactions import Packer
from streams.engine.units import Output

#: As parsing makes it of these bytes.
NAME = b"a\xff\xc3b"
PARSED = NAME.decode("utf-8", "surrogateescape")
IS_TRANSACTIONAL = 0x10


def producer() -> AIOKafkaProducer:
    """A producer that is never started."""
    made = AIOKafkaProducer(transactional_id="t")
    made._closed = True
    return made


def packed(*names: str) -> list[Any]:
    """Pack a record for each header name; return the batches as a producer builds them."""
    outputs: list[Output] = [(b"k", b"%d" % n, [(name, b"h")], 1_000 + n) for n, name in enumerate(names)]
    packer = Packer(producer())
    packer.pack({("letters", 0): outputs})
    batches = [batch for batch in packer._batches["letters", 0] if batch.record_count()]
    for batch in batches:
        batch._set_producer_state(7, 1, 0)
    return [bytes(batch._build()) for batch in batches]


@pytest.mark.parametrize(
    "names",
    [
        (PARSED,),
        (PARSED, "a", "b"),
        ("a", PARSED, "b"),
        ("a", "b", PARSED),
        (PARSED, PARSED),
        ("ü", PARSED, "ü"),
    ],
)
async def test_a_name_goes_out_with_the_bytes_that_came_in(names: tuple[str, ...]) -> None:
    """Wherever it stands among other records, which stay in order and in the transaction."""
    batches = packed(*names)

    assert sum(raw.count(NAME) for raw in batches) == names.count(PARSED)
    assert all(int.from_bytes(raw[21:23], "big") & IS_TRANSACTIONAL for raw in batches)
    read = [record for raw in batches for record in FetchedRecords(raw).next_batch()]
    assert [(record.timestamp, record.value, record.headers[0][0]) for record in read] == [
        (1_000 + n, b"%d" % n, name) for n, name in enumerate(names)
    ]
