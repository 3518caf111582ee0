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

from streams.domain.statistics import Cell, Changes, Pending, Tally, add_bounded, in_order, rolled_up
from streams.engine.units import TableLike, Unit, View
from tables.formats import HEAD, MOST_ROWS, pending_row, pending_rows

__all__ = ["MOST_ENTRIES", "Counting"]

MOST_ENTRIES: Final = 2_000
"""Changes of a minute and group that may be pending; who asks reads them all."""

STEP: Final = 250
"""Cells that are written at a time."""


class Counting(NamedTuple):
    """The tables of the statistics, and how many changes may be pending."""

    period_stats: TableLike[Cell]
    pending_stats: TableLike[Pending]
    most_entries: int = MOST_ENTRIES

    def add_up(self, tally: Tally, unit: Unit) -> Iterator[None]:
        """Write what a unit adds: as a row that is pending, or with all of these rows into the cells.

        In steps, after each of which others may have their turn.
        """
        changes = tally.changes
        if not changes:
            return
        pending = unit.table(self.pending_stats)
        head = pending.get(HEAD) or Pending()
        entries, end = head.entries + len(changes), head.end + 1
        if entries <= self.most_entries and end - head.first <= MOST_ROWS:
            row = [(*place, cell) for place, cell in changes.items()]
            pending.put(
                pending_row(head.end), Pending(first=head.end, end=end, entries=len(row), changes=row)
            )
            pending.put(HEAD, Pending(first=head.first, end=end, entries=entries))
            return
        pending.put(HEAD, Pending(first=head.end, end=head.end))
        _gather(changes, pending, pending_rows(head))
        yield
        yield from self._fold(changes, unit)

    def _fold(self, changes: Changes, unit: Unit) -> Iterator[None]:
        """Add changes to the cells, one write of each."""
        period_stats = unit.table(self.period_stats)
        added = iter(rolled_up(changes))
        while some := list(islice(added, STEP)):
            period_stats.load([key for key, _ in some])
            for key, more in some:
                cell = period_stats.get(key) or Cell()
                add_bounded(cell, more)
                period_stats.put(key, in_order(cell))
            unit.settle()
            yield


def _gather(changes: Changes, pending: View[Pending], keys: list[bytes]) -> None:
    """Add what is pending to what a unit adds."""
    pending.load(keys)
    for key in keys:
        row = pending.get(key)
        if row is not None:
            row.add_to(changes)
