"""How changed windows are told of: each partition tells what it counts of an hour or a day, group by group.

What is changed is marked when it is written, and told at the next tick, so that a window that changes a
thousand times in between is told of once. When a window has ended for so long that hardly anything is to
come, it is told of as final; what comes all the same is told as a correction.

Pure but for the unit of work that is written to; knows no Faust.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from streams.domain.statistics import (
    DAY,
    FULL,
    HOUR,
    Cell,
    Key,
    Pending,
    final_before,
    window_key,
)
from streams.engine.units import TableLike, Unit, View
from streams.messages import encode, stats_key, stats_row

__all__ = ["CHANGED", "GRACE_MS", "MARK", "PUBLISHED", "STEP", "Publishing", "in_steps"]

CHANGED: Final = b"\x02"
"""Begins the keys of rows that say which cells have changed since they were told of."""

MARK: Final = Pending()

PUBLISHED: Final = (HOUR + FULL, DAY + FULL)
"""What the keys of cells begin with that are told of; the others can be added up from these."""

GRACE_MS: Final = 96 * 3_600_000

STEP: Final = 250
"""Cells that are read and written at a time."""

MOST_TOLD: Final = 5_000
"""Changed cells that a unit tells of; the next tick goes on."""


class Publishing(NamedTuple):
    """Where windows are told of, and when they are final.

    Attributes:
        topic: in full.
        grace_ms: how long after its end a window is final.
    """

    topic: str
    grace_ms: int = GRACE_MS

    def tell(
        self,
        period_stats: TableLike[Cell],
        pending_stats: TableLike[Pending],
        changed: dict[bytes, None],
        before: int,
        head: Pending,
        unit: Unit,
    ) -> Iterator[None]:
        """Tell of what has changed, and of what has become final since a time, in steps.

        Args:
            changed: the keys of cells that this unit has changed.
            before: that time, ms; now it is what the head says.
        """
        pending = unit.table(pending_stats)
        for mark in unit.stored_keys(pending_stats, CHANGED, CHANGED + b"\xff", MOST_TOLD):
            pending.delete(mark)
            changed[mark[len(CHANGED) :]] = None
        ended = self._ended(period_stats, before, head.time, unit)
        marks = [CHANGED + key for key in ended if key not in changed]
        pending.load(marks)
        for mark in marks:
            # beyond what was read above, and told of now
            if pending.get(mark) is not None:
                pending.delete(mark)
        changed.update(ended)
        yield from self._emit(list(changed), period_stats, before, head.time, unit)

    def forget(self, packed: bytes, unit: Unit) -> None:
        """Let consumers' compacted topic forget a window that is kept no longer."""
        if packed.startswith(PUBLISHED):
            unit.emit(self.topic, stats_key(Key.unpack(packed)), None)

    def _ended(self, period_stats: TableLike[Cell], before: int, now: int, unit: Unit) -> dict[bytes, None]:
        """Return the cells of windows that are final now and were not before."""
        found: dict[bytes, None] = {}
        for granularity in (HOUR, DAY):
            first = window_key(granularity, FULL, final_before(before, self.grace_ms, granularity))
            end = window_key(granularity, FULL, final_before(now, self.grace_ms, granularity))
            while first < end and (keys := unit.stored_keys(period_stats, first, end, STEP)):
                found.update(dict.fromkeys(keys))
                first = keys[-1] + b"\0"
        return found

    def _emit(
        self, keys: list[bytes], period_stats: TableLike[Cell], before: int, now: int, unit: Unit
    ) -> Iterator[None]:
        cells = unit.table(period_stats)
        was_final, is_final = (
            {granularity: final_before(time, self.grace_ms, granularity) for granularity in (HOUR, DAY)}
            for time in (before, now)
        )
        for some in in_steps(keys, cells, unit):
            for packed in some:
                cell = cells.get(packed)
                if cell is None:
                    continue
                key = Key.unpack(packed)
                final, correction = (key.start < first[key.granularity] for first in (is_final, was_final))
                row = stats_row(key, cell, unit.partition, final, correction)
                unit.emit(self.topic, stats_key(key), encode(row))
            yield


def in_steps(keys: list[bytes], view: View[Any], unit: Unit) -> Iterator[list[bytes]]:
    """Yield the keys so many at a time, each time read; what was done to them is settled before the next."""
    for at in range(0, len(keys), STEP):
        some = keys[at : at + STEP]
        view.load(some)
        yield some
        unit.settle()
