"""How changed windows are told of: each partition tells what it counts of an hour or a day, group by group.

What is changed is noted when it is written, and told at the next tick, so that a window that changes a
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
from tables.formats import untold_row

__all__ = ["GRACE_MS", "PUBLISHED", "STEP", "Publishing", "in_steps"]

PUBLISHED: Final = (HOUR + FULL, DAY + FULL)
"""What the keys of cells begin with that are told of; the others can be added up from these."""

GRACE_MS: Final = 96 * 3_600_000

STEP: Final = 250
"""Cells that are read and written at a time."""

MOST_TOLD: Final = 5_000
"""Cells noted before that a unit tells of, beside those that it has changed itself; the next tick goes on."""


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
        pending: View[Pending],
        changed: dict[bytes, None],
        before: int,
        head: Pending,
        unit: Unit,
    ) -> Iterator[None]:
        """Tell of what has changed, and of what has become final since a time, in steps.

        Args:
            changed: the keys of cells that this unit has changed.
            before: that time, ms; now it is what the head says.
            head: says which rows of changed cells there are, and then which are left.
        """
        changed.update(_taken(pending, head))
        ended = self._ended(period_stats, before, head.time, unit)
        if ended:
            yield from _leave_out(ended, pending, range(head.untold, head.untold_end))
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


def _taken(pending: View[Pending], head: Pending) -> dict[bytes, None]:
    """Take the cells that were noted first, up to so many, and let their rows go."""
    taken: dict[bytes, None] = {}
    while head.untold < head.untold_end and len(taken) < MOST_TOLD:
        row = untold_row(head.untold)
        noted = pending.get(row)
        if noted is not None:
            # mostly the same as in the row before
            taken.update(dict.fromkeys(noted.cells))
            pending.delete(row)
        head.untold += 1
    return taken


def _leave_out(cells: dict[bytes, None], pending: View[Pending], rows: range) -> Iterator[None]:
    """Note cells no longer that are told of now, in rows that are told of later; row by row."""
    for number in rows:
        row = untold_row(number)
        noted = pending.get(row)
        if noted is None:
            continue
        left = [key for key in noted.cells if key not in cells]
        if len(left) < len(noted.cells):
            pending.put(row, Pending(cells=left))
        yield


def in_steps(keys: list[bytes], view: View[Any], unit: Unit) -> Iterator[list[bytes]]:
    """Yield the keys so many at a time, each time read; what was done to them is settled before the next."""
    for at in range(0, len(keys), STEP):
        some = keys[at : at + STEP]
        view.load(some)
        yield some
        unit.settle()
