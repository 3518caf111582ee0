"""How time goes on for the statistics: windows are kept for so long, by the time that events have come to.

A worker's clock may be wrong, and so may a producer's; so time is what the worker's clock says, but never
more than the callbacks that most of its lanes have come to, and while it lags behind its inputs only as far
as these have come; and it goes on by an hour at most at a tick. A tick is a request like any other, so that
the table changes in the order of the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Final

from agents.sweeping import ANSWER_S, ProduceRequests
from streams.domain.delivery import Tick
from streams.domain.placement import partition_of
from streams.domain.statistics import MINUTE_MS, Pending
from streams.engine.calls import Calls
from streams.engine.reading import Reader
from streams.engine.units import TableLike
from streams.messages import encode
from tables.formats import HEAD

__all__ = ["Ticker"]

MOST_MS: Final = 3_600_000
"""How far time goes on at once: a clock that is wrong for a while does little harm."""

MANY_UNTOLD: Final = 16
"""Rows of changed cells that are more than has come since the last tick."""

MOST_ROUNDS: Final = 20
"""Ticks of a partition in a row; then others have their turn."""


@dataclass
class Ticker:
    """Tells the partitions that this worker holds how late it is.

    Attributes:
        statuses: the topic of the callbacks.
        produce: produces requests to a partition; returns when the broker has acknowledged all.
    """

    reader: Reader
    pending_stats: TableLike[Pending]
    statuses: str
    calls: Calls
    produce: ProduceRequests
    _keys: dict[int, bytes] = field(default_factory=dict)

    async def tick(self, now: int) -> None:
        """Let each partition know the time if anything has changed, or a minute has gone by.

        It is told again while some is left to be let go, or to be told of.
        """
        latest = self.reader.latest(self.statuses)
        for partition in sorted(self.reader.held()):
            head = self._head(partition)
            if head is None:
                continue
            # without any callback it stays as late as it was
            at = head.time if latest is None else min(now, latest, self.reader.clock(partition, now))
            if head.time:
                at = min(max(at, head.time), head.time + MOST_MS)
            at = max(at, 1)
            if _is_due(head, at) and await self._ask(partition, at):
                for _ in range(MOST_ROUNDS):
                    head = self._head(partition)
                    if head is None or not _is_unfinished(head) or not await self._ask(partition, at):
                        break

    def _head(self, partition: int) -> Pending | None:
        if partition not in self.reader.held():
            return None
        return self.reader.get(self.pending_stats, partition, HEAD)

    async def _ask(self, partition: int, at: int) -> bool:
        key = self._key(partition)
        with self.calls.expect() as call:
            await self.produce(partition, [(key, encode(Tick(key.decode())), [call.header], at)])
            return await call.until(1, ANSWER_S)

    def _key(self, partition: int) -> bytes:
        """Return a key that Kafka's partitioner lays there."""
        key = self._keys.get(partition)
        if key is None:
            names = (b"tick-%d" % number for number in count())
            key = next(name for name in names if partition_of(name, self.reader.partitions) == partition)
            self._keys[partition] = key
        return key


def _is_due(head: Pending, at: int) -> bool:
    return head.end > head.first or at // MINUTE_MS > head.time // MINUTE_MS or _is_unfinished(head)


def _is_unfinished(head: Pending) -> bool:
    """Say whether some of the last tick's work is left; what has changed since is for the next one."""
    untold = head.untold_end - head.untold
    if head.end > head.first:
        return untold > MANY_UNTOLD
    return untold > 0 or head.gone != head.held
