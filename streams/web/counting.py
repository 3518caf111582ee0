"""What one worker answers about statistics: cells of its partitions, what is pending, and single messages.

A partition is answered for as it was at one moment, however long its rows are read: all its tables are
frozen in one step, between two units of work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import msgspec

from streams.domain.delivery import Delivery
from streams.domain.periods import Edge, Span
from streams.domain.statistics import (
    ALL,
    ALL_HELD,
    FULL,
    MINUTE_MS,
    OTHER,
    PROVIDER,
    WHOLE,
    WINDOW_MINUTES,
    Cell,
    Group,
    Held,
    Key,
    Pending,
    count_created,
    group_key,
    is_full,
    name_provider,
    other_group,
    standing,
    sum_up,
    window_key,
    window_start,
)
from streams.engine.reading import Listings, Reader, Rows, TableSnapshot
from streams.engine.units import TableLike
from streams.web.answers import PAGE_ROWS, Deliveries, require_held
from streams.web.queries import DIMENSIONS, Dimension
from tables.formats import HEAD, created_from, groups_row, pending_row

__all__ = ["Counted", "Inquiry", "StatsPart", "StatsTables", "Sums", "level_of", "part"]

TURN_ROWS: Final = 3 * PAGE_ROWS
"""Cells, changes and messages that are added up before others have their turn: some milliseconds."""

MOST_SPANS: Final = 256
"""Sums of windows that are kept, some kilobytes each: who looks at a chart asks for the same again."""

MOST_PART_GROUPS: Final = 20_000
"""Groups that a worker tells apart in an answer, the first that it comes to; the rest counts as one."""

_PROVIDER_AT: Final = DIMENSIONS.index("provider")


class Inquiry(msgspec.Struct, array_like=True, frozen=True):
    """What is asked of each worker; the asker has fixed the windows, so that all count the same.

    Attributes:
        first, last: the first whole minute, and the first one behind all whole ones.
        interval: how many minutes each count is about; 0: all.
        group_by: what the counts are told apart by.
        filters: what the messages must have.
    """

    first: int
    last: int
    spans: tuple[Span, ...]
    edges: tuple[Edge, ...] = ()
    interval: int = 0
    group_by: tuple[Dimension, ...] = ()
    filters: dict[Dimension, str] = {}


Counted: TypeAlias = tuple[int, Group, Cell]
"""A count: of the interval that begins with a minute, of the values of what it is grouped by."""


class StatsPart(msgspec.Struct, frozen=True):
    """One worker's share of the statistics.

    Attributes:
        held: which windows are there in all its partitions.
    """

    partitions: tuple[int, ...]
    held: Held
    counted: list[Counted]


class StatsTables(NamedTuple):
    """What the statistics are read from."""

    deliveries: Deliveries
    period_stats: TableLike[Cell]
    pending_stats: TableLike[Pending]


def level_of(inquiry: Inquiry) -> bytes:
    """Return the coarsest grouping that tells apart what is asked."""
    asked = {*inquiry.group_by, *inquiry.filters}
    if not asked:
        return WHOLE
    return PROVIDER if asked == {"provider"} else FULL


class _Counts:
    """Adds cells up by interval and group, as an inquiry has it."""

    def __init__(self, inquiry: Inquiry) -> None:
        self._interval = inquiry.interval
        self._group_by = [DIMENSIONS.index(name) for name in inquiry.group_by]
        self._filters = [(DIMENSIONS.index(name), value) for name, value in inquiry.filters.items()]
        self._groups = Groups(len(self._group_by))
        self.found: dict[tuple[int, Group], Cell] = {}

    def cell_at(self, minute: int, group: Group) -> Cell | None:
        """Return what counts a minute and full group; None if nobody asks for it."""
        if any(group[place] != value for place, value in self._filters):
            return None
        return self._cell(minute, tuple(group[place] for place in self._group_by))

    def add(self, minute: int, group: Group, cell: Cell) -> None:
        """Add a cell, stored under a group of any level."""
        if not group:
            sum_up(self._cell(minute, ()), cell)
            return
        full = (None, None, group[0], None) if len(group) == 1 else group
        into = self.cell_at(minute, full)
        if into is not None:
            sum_up(into, cell)
            name_provider(into, cell, full[_PROVIDER_AT])

    def add_all(self, minute: int, cells: dict[Group, Cell]) -> int:
        """Add cells that were added up over a span; return how many these are."""
        for group, cell in cells.items():
            self.add(minute, group, cell)
        return len(cells)

    def add_pending(
        self, inquiry: Inquiry, pending: dict[int, dict[Group, Cell]], placed: Callable[[int, Group], Group]
    ) -> int:
        """Add what is pending of whole minutes; return how many cells these are.

        Args:
            placed: returns the group that a group of a minute counts as.
        """
        added = 0
        for minute, cells in pending.items():
            if inquiry.first <= minute < inquiry.last:
                for group, cell in cells.items():
                    self.add(minute, placed(minute, group), cell)
                added += len(cells)
        return added

    def _cell(self, minute: int, group: Group) -> Cell:
        where = (minute - minute % self._interval if self._interval else 0), self._groups.apart(group)
        cell = self.found.get(where)
        if cell is None:
            cell = self.found[where] = Cell()
        return cell


class Groups:
    """Which groups are told apart: the first so many. So what is said of one of them is all there is.

    Args:
        length: how many values a group has.
    """

    def __init__(self, length: int) -> None:
        self._known: set[Group] = set()
        self._other: Group = (OTHER,) * length

    def apart(self, group: Group) -> Group:
        """Return the group, or the one that stands for all that are not told apart."""
        if group in self._known:
            return group
        if len(self._known) >= MOST_PART_GROUPS:
            return self._other
        self._known.add(group)
        return group


class Places:
    """Which group of a window a pending change will count as, once it is added to the cells.

    Made in one step with all else that is frozen.
    """

    def __init__(
        self,
        inquiry: Inquiry,
        level: bytes,
        pending: TableSnapshot[Pending],
        cells: Callable[[], TableSnapshot[Cell]],
        minutes: Iterable[int],
    ) -> None:
        self._level = level
        self._full: dict[int, bytes] = {}
        for minute in minutes if level != WHOLE else ():
            window = _window_at(inquiry, level, minute)
            if window is not None and is_full(pending.get(groups_row(window))):
                self._full[minute] = window
        self._cells = cells() if self._full else None

    def placed(self, minute: int, group: Group) -> Group:
        """Return the group that a group counts as: another if its window has no cell for it, nor room."""
        window = self._full.get(minute)
        if window is None or self._cells is None or self._cells.get(group_key(window, group)) is not None:
            return group
        return other_group(self._level)


def _window_at(inquiry: Inquiry, level: bytes, minute: int) -> bytes | None:
    """Return the window that a minute counts in; None if it is in none of those that are asked for."""
    for span in inquiry.spans:
        if span.start <= minute < span.end:
            return window_key(span.granularity, level, window_start(minute, span.granularity))
    return None


class Sums:
    """What was added up before and still holds, by partition.

    Rows that are pending never change, so each is read once for a level. Cells change when pending rows are
    added to them, which the first row that is pending then tells.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[int, bytes], tuple[int, int, dict[int, dict[Group, Cell]]]] = {}
        self._spans: dict[tuple[int, bytes, Span], tuple[int, dict[Group, Cell]]] = {}

    def pending(
        self, partition: int, head: Pending, rows: TableSnapshot[Pending], level: bytes
    ) -> tuple[dict[int, dict[Group, Cell]], int]:
        """Return what is pending by minute and group, of providers or full ones, and how many were read.

        It is good until others have their turn.
        """
        where = partition, level
        first, end, pending = self._pending.get(where, (-1, 0, {}))
        if first != head.first or end > head.end:
            end, pending = head.first, {}
        read = 0
        for number in range(end, head.end):
            row = rows.get(pending_row(number)) or Pending()
            for full, cells in row.changes:
                group = full if level == FULL else (full[_PROVIDER_AT],)
                for minute, cell in cells.items():
                    _add_to_group(pending.setdefault(minute, {}), minute, group, cell)
            read += row.entries
        self._pending[where] = head.first, head.end, pending
        return pending, read

    def span(self, partition: int, head: Pending, level: bytes, span: Span) -> dict[Group, Cell] | None:
        """Return the cells of a span by group, if none of them has changed since they were kept."""
        first, cells = self._spans.get((partition, level, span), (-1, None))
        return cells if first == head.first else None

    def keep(self, partition: int, head: Pending, level: bytes, span: Span, cells: dict[Group, Cell]) -> None:
        """Keep the cells of a span, and let the oldest go."""
        where = partition, level, span
        self._spans.pop(where, None)
        self._spans[where] = head.first, cells
        while len(self._spans) > MOST_SPANS:
            del self._spans[next(iter(self._spans))]


async def part(
    reader: Reader,
    tables: StatsTables,
    sums: Sums,
    partitions: Sequence[int],
    inquiry: Inquiry,
) -> StatsPart:
    """Return this worker's share of what is asked."""
    counts = _Counts(inquiry)
    held, read = ALL_HELD, 0
    for partition in partitions:
        require_held(reader, [partition])
        pending = reader.snapshot(tables.pending_stats, partition)
        head = pending.get(HEAD) or Pending()
        held = held.later(head.held)
        for rows in _counted(reader, tables, sums, partition, head, pending, inquiry, counts):
            read += rows
            # the loop that reads tables also feeds the consumer and must not stand still; but at each turn
            # it may have much to do first
            if read >= TURN_ROWS:
                read = 0
                await asyncio.sleep(0)
                require_held(reader, [partition])
    require_held(reader, partitions)
    return StatsPart(
        tuple(partitions), held, [(minute, group, cell) for (minute, group), cell in counts.found.items()]
    )


def _counted(
    reader: Reader,
    tables: StatsTables,
    sums: Sums,
    partition: int,
    head: Pending,
    pending: TableSnapshot[Pending],
    inquiry: Inquiry,
    counts: _Counts,
) -> Iterator[int]:
    """Add up one partition, in steps of so many rows; all is frozen in the first one."""
    level = level_of(inquiry)
    kept = not inquiry.interval and level != FULL
    known = {span: sums.span(partition, head, level, span) for span in inquiry.spans if kept}
    cells = {
        span: _rows(reader, tables, partition, span, level)
        for span in inquiry.spans
        if known.get(span) is None
    }
    edges = [(edge, _listings(reader, tables, partition, edge)) for edge in inquiry.edges]
    deliveries = reader.snapshot(tables.deliveries, partition)
    changes, read = sums.pending(partition, head, pending, FULL if level == FULL else PROVIDER)
    cells_now = partial(reader.snapshot, tables.period_stats, partition)
    places = Places(inquiry, level, pending, cells_now, changes)
    yield read + counts.add_pending(inquiry, changes, places.placed)
    for span in inquiry.spans:
        if not kept:
            yield from _add_cells(cells[span], counts.add)
            continue
        groups = known[span]
        if groups is None:
            groups = {}
            yield from _add_cells(cells[span], partial(_add_to_group, groups))
            sums.keep(partition, head, level, span, groups)
        yield counts.add_all(span.start, groups)
    for edge, listings in edges:
        yield from _add_messages(deliveries, listings, edge, counts)


def _add_to_group(groups: dict[Group, Cell], _minute: int, group: Group, cell: Cell) -> None:
    known = groups.get(group)
    if known is None:
        groups[group] = cell
    else:
        sum_up(known, cell)


def _rows(reader: Reader, tables: StatsTables, partition: int, span: Span, level: bytes) -> Rows[Cell]:
    """Return the cells of a span as they are now."""
    start = window_key(span.granularity, level, span.start)
    return reader.rows(tables.period_stats, partition, start, _end_key(span, level))


def _listings(reader: Reader, tables: StatsTables, partition: int, edge: Edge) -> Listings:
    """Return the messages that were created in a part of a minute, as they are now."""
    begin, end = created_from(edge.begin), created_from(edge.end)
    return reader.listings(tables.deliveries, partition, begin, end)


def _add_cells(rows: Rows[Cell], add: Callable[[int, Group, Cell], None]) -> Iterator[int]:
    """Add the cells of a span, in steps of so many."""
    while some := rows.take(PAGE_ROWS):
        for key, cell in some:
            _, _, minute, group = Key.unpack(key)
            add(minute, group, cell)
        yield len(some)


def _end_key(span: Span, level: bytes) -> bytes:
    """Return what no key of the span's windows comes up to; the last window there can be has none behind."""
    if span.end < WINDOW_MINUTES[ALL]:
        return window_key(span.granularity, level, span.end)
    return window_key(span.granularity, level, span.end - 1) + b"\xff"


def _add_messages(
    deliveries: TableSnapshot[Delivery], listings: Listings, edge: Edge, counts: _Counts
) -> Iterator[int]:
    """Count the messages that were created in a part of a minute, one by one."""
    while some := listings.take(PAGE_ROWS):
        for _, key in some:
            delivery = deliveries.get(key)
            if delivery is None:
                continue
            at = standing(delivery)
            into = counts.cell_at(edge.begin // MINUTE_MS, at[0])
            if into is not None:
                one = Cell(updated_at=delivery.updated_at)
                count_created(one, at)
                sum_up(into, one)
                name_provider(into, one, at[0][_PROVIDER_AT])
        yield len(some)
