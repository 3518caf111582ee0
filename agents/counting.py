"""How what a unit of work adds to the statistics comes into their tables.

A unit changes cells of four granularities and three groupings, hundreds of them, whether it is of one record
or of thousands. So its changes are first written as one row of `pending_stats`; when there are enough rows,
a unit adds them up and writes each cell once. Who asks adds what is pending to the cells.

Pure but for the unit of work that is written to; knows no Faust.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from msgspec.structs import replace

from agents.publishing import PUBLISHED, STEP, Publishing, in_steps
from streams.domain.statistics import (
    WHOLE,
    Cell,
    Changes,
    Held,
    Pending,
    Tally,
    Windows,
    add_stored,
    expired_spans,
    is_full,
    other_key,
    rolled_up,
    window_of,
)
from streams.engine.units import TableLike, Unit, View
from tables.formats import HEAD, MOST_ROWS, groups_row, pending_row, pending_rows, untold_row

__all__ = ["MOST_ENTRIES", "Counting"]

MOST_ENTRIES: Final = 5_000
"""Changes of a minute and group that may be pending; who asks reads each of them once."""

MOST_ROW_BYTES: Final = 1 << 20
"""Of the changes of a unit that may be pending; more are added to the cells at once."""

MOST_ROW_KEYS: Final = 1_000
MOST_KEYS_BYTES: Final = 256 << 10
"""Of cells that changed, in one row: a broker refuses a record that is too large."""

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
        entries, end = sum(map(len, changes.values())), head.end + 1
        pending_entries = head.entries + entries
        if not tally.time and pending_entries <= self.most_entries and end - head.first <= MOST_ROWS:
            row = Pending(first=head.end, end=end, entries=entries, changes=list(changes.items()))
            # names come from producers, so how large a change is depends on them
            if len(self.pending_stats.format.encode(row)) <= MOST_ROW_BYTES:
                pending.put(pending_row(head.end), row)
                pending.put(HEAD, replace(head, end=end, entries=pending_entries))
                return
        before, rows = head.time, pending_rows(head)
        if tally.time > before:
            head.time, head.held = tally.time, head.held.later(self.windows.held(tally.time))
        if changes or rows:
            # a number of the sequence is left out, so that who keeps sums of cells sees that these change
            head.first, head.end, head.entries = end, end, 0
        yield from _gather(changes, pending, rows)
        changed: dict[bytes, None] = {}
        yield from self._fold(changes, head.held, changed, unit)
        if tally.time:
            yield from self.publishing.tell(self.period_stats, pending, changed, before, head, unit)
            yield from self._let_go(head, unit)
        else:
            for keys in _rows_of(changed):
                pending.put(untold_row(head.untold_end), Pending(cells=keys))
                head.untold_end += 1
        pending.put(HEAD, head)

    def _fold(self, changes: Changes, held: Held, changed: dict[bytes, None], unit: Unit) -> Iterator[None]:
        """Add changes to the cells, one write of each, and note of which is to be told."""
        period_stats, rooms = unit.table(self.period_stats), Rooms(unit.table(self.pending_stats))
        added = iter(rolled_up(changes, held))
        while some := list(islice(added, STEP)):
            period_stats.load([key for key, _ in some])
            for group, more in some:
                key, cell = group, period_stats.get(group)
                if cell is None:
                    key = rooms.place(group)
                    cell = period_stats.get(key) or Cell()
                add_stored(cell, more)
                period_stats.put(key, cell)
                if key.startswith(PUBLISHED):
                    changed[key] = None
            rooms.note()
            unit.settle()
            yield

    def _let_go(self, head: Pending, unit: Unit) -> Iterator[None]:
        """Delete cells of windows that are kept no longer, up to so many; the next time goes on."""
        period_stats, left = unit.table(self.period_stats), MOST_LET_GO
        for first, end in expired_spans(head.gone, head.held):
            keys = unit.stored_keys(self.period_stats, first, end, left)
            left -= len(keys)
            for some in in_steps(keys, period_stats, unit):
                for key in some:
                    period_stats.delete(key)
                    self.publishing.forget(key, unit)
                yield
            yield from self._forget_rooms(first, end, unit)
        if left:
            head.gone = head.held

    def _forget_rooms(self, first: bytes, end: bytes, unit: Unit) -> Iterator[None]:
        """Delete the rows that say how many groups windows count, of windows from one key on to another."""
        pending = unit.table(self.pending_stats)
        keys = unit.stored_keys(self.pending_stats, groups_row(first), groups_row(end), MOST_LET_GO)
        for some in in_steps(keys, pending, unit):
            for key in some:
                pending.delete(key)
            yield


class Rooms:
    """Says which groups a window counts apart, as a unit of work adds to them.

    A window never counts a group otherwise than before: it has a cell, or it never gets one.
    """

    def __init__(self, pending: View[Pending]) -> None:
        self._pending = pending
        self._changed: dict[bytes, Pending] = {}

    def place(self, key: bytes) -> bytes:
        """Return the key of the cell that is to count a group that has none; counts it if it gets one."""
        window = window_of(key)
        if window[1:2] == WHOLE:
            return key
        row = groups_row(window)
        groups = self._changed.get(row) or self._pending.get(row) or Pending()
        if is_full(groups):
            return other_key(window)
        groups.entries += 1
        self._changed[row] = groups
        return key

    def note(self) -> None:
        """Write how many groups windows count."""
        for row, groups in self._changed.items():
            self._pending.put(row, groups)
        self._changed.clear()


def _rows_of(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield keys of cells row by row, within the limits of a row."""
    row: list[bytes] = []
    size = 0
    for key in keys:
        if row and (len(row) >= MOST_ROW_KEYS or size + len(key) > MOST_KEYS_BYTES):
            yield row
            row, size = [], 0
        row.append(key)
        size += len(key)
    if row:
        yield row


def _gather(changes: Changes, pending: View[Pending], keys: list[bytes]) -> Iterator[None]:
    """Add what is pending to what a unit adds, in steps."""
    entries = 0
    for key in keys:
        row = pending.get(key)
        if row is not None:
            row.add_to(changes)
            entries += row.entries
        if entries >= STEP:
            entries = 0
            yield
