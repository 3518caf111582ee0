"""How outputs become record batches; real ones, which are read again."""

from __future__ import annotations

from typing import Any, cast

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record import MemoryRecords

from streams.engine.transactions import Packer
from streams.engine.units import NO_HEADERS, Output

ZSTD = 4
BATCH_BYTES = 600


class Producer:
    """Makes small batches."""

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, ZSTD, is_transactional=True)


def packer() -> Packer:
    return Packer(cast(Any, Producer()))


def packed(packer: Packer) -> dict[tuple[str, int], list[list[tuple[bytes | None, bytes | None]]]]:
    """What is in each batch, by where it goes."""
    return {
        where: [
            [(record.key, record.value) for record in MemoryRecords(bytes(batch._build())).next_batch()]
            for batch in batches
        ]
        for where, batches in packer._batches.items()
    }


def test_what_does_not_fit_goes_on_in_the_next_batch_in_order() -> None:
    """However much it is at once, and also a record that is larger than a batch."""
    outputs: list[Output] = [(b"k%d" % n, bytes(1000 if n == 7 else 90), NO_HEADERS, n) for n in range(20)]
    one = packer()
    for at in range(0, 20, 4):
        one.pack({("events", 3): outputs[at : at + 4]})
    counts = [batch.record_count() for batch in one._batches["events", 3]]
    batches = packed(one)["events", 3]

    assert [record for batch in batches for record in batch] == [(key, value) for key, value, _, _ in outputs]
    assert [len(batch) for batch in batches] == counts
    assert len(batches) > 3


def test_what_a_table_changed_is_packed_with_its_tombstones() -> None:
    """Keys and values as they stand in the changelog; what they are listed under is derived from them."""
    one = packer()
    one.pack_writes("changelog", 1, [(b"a", b"1", (), (b"listed",)), (b"b", None, (b"listed",), ())])
    one.pack_writes("changelog", 1, [(b"c", b"3", (), ())])

    assert packed(one) == {("changelog", 1): [[(b"a", b"1"), (b"b", None), (b"c", b"3")]]}


def test_nothing_makes_no_batch() -> None:
    """A partition without a record has no part in the transaction."""
    one = packer()
    one.pack({("events", 0): [], ("stats", 0): [(b"k", b"v", NO_HEADERS, None)]})

    assert packed(one) == {("stats", 0): [[(b"k", b"v")]]}
