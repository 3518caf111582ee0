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


def producer(batch_bytes: int) -> AIOKafkaProducer:
    """A producer that is never started."""
    made = AIOKafkaProducer(transactional_id="t", max_batch_size=batch_bytes)
    made._closed = True
    return made


def packed(*names: str, batch_bytes: int = 16_384) -> list[Any]:
    """Pack a record for each header name; return the batches as a producer builds them."""
    outputs: list[Output] = [(b"k", b"%d" % n, [(name, b"h")], 1_000 + n) for n, name in enumerate(names)]
    packer = Packer(producer(batch_bytes))
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


async def test_a_name_that_comes_when_a_batch_is_full_goes_out_as_well() -> None:
    """Whether the batch is full, or does not take the name, is found at once."""
    names = ("a", PARSED) * 20

    batches = packed(*names, batch_bytes=100)

    read = [record.headers[0][0] for raw in batches for record in FetchedRecords(raw).next_batch()]
    assert read == list(names)
    assert len(batches) > 20
