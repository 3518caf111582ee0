"""The stream time of partitions, which replaces impossible timestamps of records.

Clients write -1, 0, seconds, microseconds and nanoseconds into the timestamp of a record, and most brokers
accept them. Retention, expiry and event times follow from it, so such a record gets the stream time of its
partition: as in Kafka Streams, the greatest timestamp that was read before. Records between the bounds stay
as they are, for nothing here knows which of their clocks is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from faust.types import TP

from streams.engine.batches import Record

__all__ = ["EARLIEST_MS", "LATEST_MS", "StreamTime"]

#: 2000-01-01 and 2100-01-01: later than any number of seconds, and earlier than any of microseconds.
EARLIEST_MS: Final = 946_684_800_000
LATEST_MS: Final = 4_102_444_800_000

_timestamp: Final = attrgetter("timestamp")


@dataclass(frozen=True)
class Restamped:
    """A record with another timestamp."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class StreamTime:
    """The greatest plausible timestamp that was read of each partition.

    Args:
        now_ms: returns the time of the clock, which stands for the stream time until there is one; ms.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._reached: dict[TP, int] = {}

    def restamp(self, tp: TP, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records of a partition, those with an impossible timestamp with the stream time."""
        latest = max(map(_timestamp, records), default=LATEST_MS)
        if latest < LATEST_MS and min(map(_timestamp, records)) >= EARLIEST_MS:
            if latest > self._reached.get(tp, 0):
                self._reached[tp] = latest
            return records
        return [self._restamp(tp, record) for record in records]

    def _restamp(self, tp: TP, record: Record) -> Record:
        reached = self._reached.get(tp)
        if EARLIEST_MS <= record.timestamp < LATEST_MS:
            self._reached[tp] = max(record.timestamp, reached or 0)
            return record
        at = self._now_ms() if reached is None else reached
        return Restamped(record.offset, at, record.key, record.value, record.headers)
