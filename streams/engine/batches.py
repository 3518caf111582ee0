"""What a poll brings: the records of one partition and the offsets that they stand for."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, Literal, Protocol

__all__ = ["HOLE", "SEEK_AGAIN_S", "Batch", "Record", "Seeks", "uncovered"]

#: Seconds after which a hole that is still there is sought again.
SEEK_AGAIN_S: Final = 2.0


class Record(Protocol):
    """A consumed Kafka record, as aiokafka's parser makes it; topic and partition stand in its batch."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch, UTC."""

    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # noqa: D102


class Batch:
    """Records polled together from one partition; covers the offsets ``[start, end)``.

    ``start`` is where the last poll or seek left the partition, ``end`` the consumer's position
    after this poll. Both may lie outside the records: control records, aborted transactions and
    compacted offsets are passed without a record.
    """

    __slots__ = ("_size_bytes", "end", "partition", "records", "start", "topic")

    def __init__(self, topic: str, partition: int, start: int, end: int, records: Sequence[Record]) -> None:
        self.topic = topic
        self.partition = partition
        self.start = start
        self.end = end
        self.records = records
        self._size_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the values and headers, as consumed; of a part of a batch, by its share of the records."""
        if self._size_bytes is None:
            values = sum([len(record.value or b"") for record in self.records])
            headers = [record.headers for record in self.records if record.headers]
            self._size_bytes = values + sum([len(value or b"") for each in headers for _, value in each])
        return self._size_bytes

    def after(self, offset: int) -> Batch:
        """Return the part of this batch that begins at `offset`."""
        if offset <= self.start:
            return self
        rest = [record for record in self.records if record.offset >= offset]
        return self._part(offset, self.end, rest)

    def split(self, limit: int) -> tuple[Batch, Batch | None]:
        """Return the first `limit` records of this batch, and the rest if there is one."""
        records = self.records
        if len(records) <= limit:
            return self, None
        middle = records[limit].offset
        return self._part(self.start, middle, records[:limit]), self._part(middle, self.end, records[limit:])

    def _part(self, start: int, end: int, records: Sequence[Record]) -> Batch:
        part = Batch(self.topic, self.partition, start, end, records)
        if self._size_bytes is not None and self.records:
            part._size_bytes = self._size_bytes * len(records) // len(self.records)
        return part

    def cut(self, limit: int) -> list[Batch]:
        """Return this batch as contiguous batches of at most `limit` records."""
        records = self.records
        if len(records) <= limit:
            return [self]
        firsts = range(0, len(records), limit)
        starts = [self.start, *(records[first].offset for first in firsts[1:])]
        ends = [*starts[1:], self.end]
        return [
            Batch(self.topic, self.partition, start, end, records[first : first + limit])
            for first, start, end in zip(firsts, starts, ends, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<Batch {self.topic}/{self.partition} [{self.start}, {self.end}) {len(self)} records>"


HOLE: Final = "hole"


def uncovered(batch: Batch, stand: int) -> Batch | Literal["hole"] | None:
    """Apply the coverage rule: say what of `batch` is to be applied by one who stands at `stand`.

    Returns:
        The batch from `stand` on; None when it ends before, for it was applied already; HOLE when it begins
        later, for what lies between was lost on its way and must be sought again first.
    """
    if batch.end <= stand:
        return None
    if batch.start > stand:
        return HOLE
    return batch.after(stand)


class Seeks:
    """Which holes were sought back: batches polled before a seek took effect ask for no other."""

    def __init__(self) -> None:
        self._asked: dict[Hashable, tuple[int, float]] = {}

    def is_due(self, where: Hashable, stand: int, now: float) -> bool:
        """Say whether to seek back to `stand`, at `now` seconds, and note that it is done."""
        sought, at = self._asked.get(where, (-1, 0.0))
        if sought == stand and now - at < SEEK_AGAIN_S:
            return False
        self._asked[where] = (stand, now)
        return True

    def forget(self) -> None:
        """Begin anew, with other stands."""
        self._asked.clear()
