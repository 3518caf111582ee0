"""Partition logs as a broker keeps them: batches, producers' sequences, open transactions, markers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiokafka.record.memory_records import MemoryRecords

__all__ = ["Batch", "Log", "Record", "batches_of"]

Outcome = Literal["commit", "abort"]

OK: Final = 0
OUT_OF_ORDER_SEQUENCE: Final = 45
DUPLICATE_SEQUENCE: Final = 46
INVALID_PRODUCER_EPOCH: Final = 47
INVALID_TIMESTAMP: Final = 32

#: Batches of a producer that a broker remembers to know them again.
REMEMBERED: Final = 5
#: ``message.timestamp.after.max.ms``
AFTER_MAX_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the engine sees it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class Batch:
    """A record batch; the offsets of its records are relative to it until it is appended."""

    records: list[Record]
    producer_id: int = -1
    epoch: int = -1
    sequence: int = -1
    is_transactional: bool = False
    marker: Outcome | None = None
    base: int = -1
    end: int = -1
    span: Span | None = None

    @property
    def is_visible(self) -> bool:
        """Whether ``read_committed`` delivers it."""
        return self.marker is None and (self.span is None or self.span.outcome == "commit")


@dataclass(slots=True)
class Span:
    """The batches of one transaction in one partition."""

    first: int
    outcome: Outcome | None = None


@dataclass(slots=True)
class Producer:
    """The state of one producer id in one partition: its epoch and last batches."""

    epoch: int
    #: first sequence, last sequence, base offset
    batches: list[tuple[int, int, int]] = field(default_factory=list)


def batches_of(buffer: bytes) -> Iterator[Batch]:
    """Parse what a produce request carries for one partition."""
    records = MemoryRecords(buffer)
    while records.has_next():
        batch = records.next_batch()
        yield Batch(
            [Record(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in batch],
            batch.producer_id,
            batch.producer_epoch,
            batch.base_sequence,
            batch.is_transactional,
        )


class Log:
    """One partition."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.batches: list[Batch] = []
        self.end = 0
        self._now_ms = now_ms
        self._ends: list[int] = []
        self._open: dict[int, Span] = {}
        self._producers: dict[int, Producer] = {}

    @property
    def stable_end(self) -> int:
        """The last stable offset: from here on a transaction is open."""
        return min((span.first for span in self._open.values()), default=self.end)

    def append(self, batch: Batch) -> tuple[int, int]:
        """Append a batch after the checks of a broker.

        Returns: the error code and the offset of the batch's first record, -1 if there is none.
        """
        if any(record.timestamp > self._now_ms() + AFTER_MAX_MS for record in batch.records):
            return INVALID_TIMESTAMP, -1
        if batch.producer_id >= 0:
            code, known = self._check(batch)
            if code or known is not None:
                return code, -1 if known is None else known
        self._add(batch)
        return OK, batch.base

    def _check(self, batch: Batch) -> tuple[int, int | None]:
        """Return the error code, and the offset of a batch that is there already."""
        producer = self._producers.get(batch.producer_id)
        first, last = batch.sequence, batch.sequence + len(batch.records) - 1
        if producer is None or not producer.batches:
            # Kafka takes any sequence when it knows none of the epoch: they may have been deleted
            if producer is not None and batch.epoch < producer.epoch:
                return INVALID_PRODUCER_EPOCH, None
            if producer is not None and batch.epoch > producer.epoch and first != 0:
                return OUT_OF_ORDER_SEQUENCE, None
            return OK, None
        if batch.epoch < producer.epoch:
            return INVALID_PRODUCER_EPOCH, None
        if batch.epoch > producer.epoch:
            return (OK if first == 0 else OUT_OF_ORDER_SEQUENCE), None
        for known_first, known_last, base in producer.batches:
            if (known_first, known_last) == (first, last):
                return OK, base
        return (OK if first == producer.batches[-1][1] + 1 else OUT_OF_ORDER_SEQUENCE), None

    def _add(self, batch: Batch) -> None:
        batch.base = self.end
        batch.records = [
            Record(self.end + number, record.timestamp, record.key, record.value, record.headers)
            for number, record in enumerate(batch.records)
        ]
        batch.end = self.end + max(1, len(batch.records))
        if batch.is_transactional and batch.marker is None:
            span = self._open.get(batch.producer_id)
            if span is None:
                span = self._open[batch.producer_id] = Span(batch.base)
            batch.span = span
        if batch.producer_id >= 0 and batch.marker is None:
            self._remember(batch)
        self.end = batch.end
        self.batches.append(batch)
        self._ends.append(batch.end)

    def _remember(self, batch: Batch) -> None:
        producer = self._producers.get(batch.producer_id)
        if producer is None or producer.epoch != batch.epoch:
            producer = self._producers[batch.producer_id] = Producer(batch.epoch)
        last = batch.sequence + len(batch.records) - 1
        producer.batches = [*producer.batches[1 - REMEMBERED :], (batch.sequence, last, batch.base)]

    def mark(self, producer_id: int, epoch: int, outcome: Outcome) -> None:
        """End a producer's transaction in this partition, and fence its earlier epochs."""
        producer = self._producers.get(producer_id)
        if producer is None or producer.epoch < epoch:
            self._producers[producer_id] = Producer(epoch)
        span = self._open.pop(producer_id, None)
        if span is not None:
            span.outcome = outcome
        self._add(Batch([], producer_id, epoch, marker=outcome))

    def read(self, position: int, limit: int) -> tuple[list[Record], int]:
        """Read as ``read_committed`` does.

        Returns: up to `limit` records, and the position after them and what is never delivered.
        """
        found: list[Record] = []
        stable = self.stable_end
        for batch in self.batches[bisect_right(self._ends, position) :]:
            if batch.base >= stable:
                break
            if batch.is_visible:
                for record in batch.records:
                    if record.offset < position:
                        continue
                    if len(found) == limit:
                        return found, position
                    found.append(record)
                    position = record.offset + 1
            if len(found) == limit and batch.is_visible:
                return found, position
            position = batch.end
        return found, position

    def committed(self) -> Iterator[Record]:
        """Iterate over all that ``read_committed`` delivers."""
        for batch in self.batches:
            if batch.base >= self.stable_end:
                return
            if batch.is_visible:
                yield from batch.records

    def holds(self, values: Iterable[Any]) -> bool:
        """Say whether records with all of these values are committed."""
        return set(values) <= {record.value for record in self.committed()}
