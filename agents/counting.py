"""How what a unit of work adds to the statistics comes into their tables.

A unit changes cells of four granularities and three groupings, hundreds of them, whether it is of one record
or of thousands. So its changes are first written as one row of `pending_stats`; when there are enough rows,
a unit adds them up and writes each cell once. Who asks adds what is pending to the cells.

Pure but for the unit of work that is written to; knows no Faust.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from msgspec.structs import replace

from agents.publishing import CHANGED, MARK, PUBLISHED, STEP, Publishing, in_steps
from streams.domain.statistics import (
    Cell,
    Changes,
    Held,
    Pending,
    Tally,
    Windows,
    add_bounded,
    expired_spans,
    in_order,
    rolled_up,
)
from streams.engine.units import TableLike, Unit, View
from tables.formats import HEAD, MOST_ROWS, pending_row, pending_rows

__all__ = ["MOST_ENTRIES", "Counting"]

MOST_ENTRIES: Final = 2_000
"""Changes of a minute and group that may be pending; who asks reads them all."""

MOST_LET_GO: Final = 5_000
"""Cells that a unit deletes."""


class Counting(NamedTuple):
    """The tables of the statistics, and how they are kept and told of.

    Attributes:
        publishing: how what has changed is told.
        windows: how long windows are kept.
        most_entries: how many changes may be pending.
    """

    period_stats: TableLike[Cell]
    pending_stats: TableLike[Pending]
    publishing: Publishing
    windows: Windows = Windows()
    most_entries: int = MOST_ENTRIES

    def add_up(self, tally: Tally, unit: Unit) -> Iterator[None]:
        """Write what a unit adds: as a row that is pending, or with all of these rows into the cells.

        If time went on, tell of what has changed, and let go of windows that are kept no longer. In steps,
        after each of which others may have their turn.
        """
        changes = tally.changes
        if not changes and not tally.time:
            return
        pending = unit.table(self.pending_stats)
        head = pending.get(HEAD) or Pending()
        entries, end = head.entries + len(changes), head.end + 1
        if not tally.time and entries <= self.most_entries and end - head.first <= MOST_ROWS:
            row = [(*place, cell) for place, cell in changes.items()]
            pending.put(
                pending_row(head.end), Pending(first=head.end, end=end, entries=len(row), changes=row)
            )
            pending.put(HEAD, replace(head, end=end, entries=entries))
            return
        before = head.time
        if tally.time > before:
            head.time, head.held = tally.time, head.held.later(self.windows.held(tally.time))
        if changes or head.first < head.end:
            # a number of the sequence is left out, so that who keeps sums of cells sees that these change
            pending.put(HEAD, replace(head, first=end, end=end, entries=0))
        else:
            pending.put(HEAD, head)
        _gather(changes, pending, pending_rows(head))
        yield
        changed: dict[bytes, None] = {}
        yield from self._fold(changes, head.held, changed, unit)
        if tally.time:
            yield from self.publishing.tell(
                self.period_stats, self.pending_stats, changed, before, head, unit
            )
            yield from self._let_go(head.held, unit)
        else:
            for key in changed:
                pending.put(CHANGED + key, MARK)

    def _fold(self, changes: Changes, held: Held, changed: dict[bytes, None], unit: Unit) -> Iterator[None]:
        """Add changes to the cells, one write of each, and note of which is to be told."""
        period_stats = unit.table(self.period_stats)
        added = iter(rolled_up(changes, held))
        while some := list(islice(added, STEP)):
            period_stats.load([key for key, _ in some])
            for key, more in some:
                cell = period_stats.get(key) or Cell()
                add_bounded(cell, more)
                period_stats.put(key, in_order(cell))
                if key.startswith(PUBLISHED):
                    changed[key] = None
            unit.settle()
            yield

    def _let_go(self, held: Held, unit: Unit) -> Iterator[None]:
        """Delete cells of windows that are kept no longer, up to so many; the next time goes on."""
        period_stats, left = unit.table(self.period_stats), MOST_LET_GO
        for first, end in expired_spans(held):
            keys = unit.stored_keys(self.period_stats, first, end, left)
            left -= len(keys)
            for some in in_steps(keys, period_stats, unit):
                for key in some:
                    period_stats.delete(key)
                    self.publishing.forget(key, unit)
                yield


def _gather(changes: Changes, pending: View[Pending], keys: list[bytes]) -> None:
    """Add what is pending to what a unit adds."""
    pending.load(keys)
    for key in keys:
        row = pending.get(key)
        if row is not None:
            row.add_to(changes)
