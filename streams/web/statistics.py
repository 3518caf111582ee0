"""The statistics as they are answered: windows chosen, parts of all workers added up, rates made of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from streams.domain.delivery import UNKNOWN
from streams.domain.periods import EVERYTHING, RESOLUTIONS, Cover, cover, finest
from streams.domain.statistics import (
    ALL_HELD,
    CREATED_THEN,
    DAY,
    FULL,
    MINUTE_MS,
    SENT_THEN,
    WINDOW_MINUTES,
    Cell,
    Group,
    Held,
    activity,
    cohort,
    sum_up,
)
from streams.domain.summaries import activity_summary, summary
from streams.domain.times import LEAD_MS, iso
from streams.engine.reading import Reader
from streams.web import counting
from streams.web.asking import ASK_TIMEOUT_S
from streams.web.counting import Groups, Inquiry, StatsPart, StatsTables, Sums, level_of
from streams.web.problems import busy, invalid_parameter
from streams.web.queries import By, Dimension, StatsQuery, join, unwrapped, wrapped

__all__ = ["INTERNAL_STATS", "MOST_GROUPS", "Statistics"]

INTERNAL_STATS: Final = "/v1/internal/stats"
MOST_GROUPS: Final = 1_000
"""Groups that are shown; those of the most messages."""

MOST_ROWS: Final = 20_000
"""Intervals of all groups together."""

TURN_CELLS: Final = 1_000
"""Cells that are added up before others have their turn: some milliseconds."""

SCAN_TURN_S: Final = 5.0
SCAN_TIMEOUT_S: Final = 60.0
"""Full groups may be many, and a worker reads those of every window."""

ROUNDS: Final = 3
FAMILIES: Final = {"created": CREATED_THEN, "sent": SENT_THEN}

T = TypeVar("T")
Summarise = Callable[[Cell], dict[str, Any]]


class Scatter(Protocol):
    """Asks each holder for its partitions and returns the parts, if together they are the whole."""

    def __call__(
        self,
        kind: type[StatsPart],
        local: Callable[[Sequence[int]], Awaitable[StatsPart]],
        path: Callable[[Sequence[int]], str],
        within_s: float,
    ) -> Awaitable[list[StatsPart]]:
        """Raise Problem when a partition has nobody who answers for it."""


@dataclass
class Statistics:
    """Answers questions about statistics.

    Attributes:
        retention_ms: how long records are kept, and can be counted one by one.
        now: the time, ms.
    """

    reader: Reader
    tables: StatsTables
    scatter: Scatter
    retention_ms: int
    now: Callable[[], int]
    _sums: Sums = field(default_factory=Sums)
    _held: Held = ALL_HELD
    _scanning: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def stats(self, query: StatsQuery) -> bytes:
        """Return how messages stand as JSON: of all time, or of those created or sent in a period."""
        family = FAMILIES[query.by]
        return await self._answer(
            query,
            query.by,
            lambda cell: msgspec.to_builtins(summary(cell, family)),
            lambda cell: sum(cohort(cell, family).by_status),
        )

    async def activity(self, query: StatsQuery) -> bytes:
        """Return what happened as JSON, by event time."""

        def amount(cell: Cell) -> int:
            happened = activity(cell)
            return sum(happened.by_status) + sum(happened.outcomes)

        return await self._answer(
            query, None, lambda cell: msgspec.to_builtins(activity_summary(cell)), amount
        )

    async def part(self, partitions: Sequence[int], inquiry: Inquiry) -> StatsPart:
        """Return this worker's share; of full groups one question after the other."""
        if level_of(inquiry) != FULL:
            return await counting.part(self.reader, self.tables, self._sums, partitions, inquiry)
        try:
            await asyncio.wait_for(self._scanning.acquire(), SCAN_TURN_S)
        except TimeoutError:
            raise busy() from None
        try:
            return await counting.part(self.reader, self.tables, self._sums, partitions, inquiry)
        finally:
            self._scanning.release()

    async def _answer(
        self,
        query: StatsQuery,
        by: By | None,
        summarise: Summarise,
        amount: Callable[[Cell], int],
    ) -> bytes:
        """Return an answer as JSON; `by` is None where it is about what happened."""
        covered, parts = await self._gather(query, by)
        found = await _by_group(parts, len(query.group_by))
        sums = {group: _sum(cells.values()) async for group, cells in _in_turns(found.items())}
        answer = summarise(await _whole(sums.values()))
        if query.period is not None:
            answer |= {"from": iso(covered.begin), "to": iso(covered.end)}
            answer |= {"resolution": covered.resolution} | ({} if by is None else {"by": by})
        if query.interval is not None:
            answer["series"] = list(_series(await _by_minute(found), covered, query.interval, summarise))
        if query.group_by:
            amounts = {group: amount(cell) async for group, cell in _in_turns(sums.items())}
            some = [group for group, count in amounts.items() if count]
            shown = heapq.nsmallest(
                min(MOST_GROUPS, max(1, MOST_ROWS // max(1, len(answer.get("series", ()))))),
                some,
                key=lambda group: (-amounts[group], *map(_sortable, group)),
            )
            answer["groups"] = []
            for group in shown:
                # each may have a series of its own, and others wait
                await asyncio.sleep(0)
                one = {**_named(query.group_by, group), **summarise(sums[group])}
                if query.interval is not None:
                    one["series"] = list(_series(found[group], covered, query.interval, summarise))
                answer["groups"].append(one)
            answer["groupsLeftOut"] = len(some) - len(shown)
        return msgspec.json.encode(answer)

    async def _gather(self, query: StatsQuery, by: By | None) -> tuple[Cover, list[StatsPart]]:
        """Ask for windows that all workers still have; which these are is known when they have answered."""
        for _ in range(ROUNDS):
            held = self._held
            covered = self._cover(query, by, held)
            parts = await self._ask(
                Inquiry(
                    covered.first,
                    covered.last,
                    covered.spans,
                    covered.edges,
                    0 if query.interval is None else WINDOW_MINUTES[query.interval],
                    query.group_by,
                    dict(query.filters),
                )
            )
            true = reduce(Held.later, (part.held for part in parts), held)
            self._held = self._held.later(true)
            if query.period is None or true == held:
                return covered, parts
        raise busy()

    async def _ask(self, inquiry: Inquiry) -> list[StatsPart]:
        asked = wrapped(msgspec.msgpack.encode(inquiry))
        return await self.scatter(
            StatsPart,
            lambda partitions: self.part(partitions, inquiry),
            lambda partitions: f"{INTERNAL_STATS}?partitions={quote(join(partitions))}&inquiry={asked}",
            SCAN_TIMEOUT_S if level_of(inquiry) == FULL else ASK_TIMEOUT_S,
        )

    def _cover(self, query: StatsQuery, by: By | None, held: Held) -> Cover:
        if query.period is None:
            return EVERYTHING
        begin, end = query.period
        if query.interval is not None:
            _check_interval(begin, query.interval, held)
        # messages are listed by creation, and those of a minute must not have begun to be removed
        exact_from = self.now() - self.retention_ms + LEAD_MS if by == "created" else None
        return cover(begin, end, held, exact_from=exact_from, largest=query.interval or DAY)


def _check_interval(begin: int, interval: bytes, held: Held) -> None:
    needed = finest(begin, held)
    if WINDOW_MINUTES[needed] > WINDOW_MINUTES[interval]:
        since = iso(held.by_granularity()[interval] * MINUTE_MS)
        raise invalid_parameter(
            "interval",
            f"Windows of a {RESOLUTIONS[interval]} are kept from {since} on; ask for a later period, or with "
            f"interval={RESOLUTIONS[needed]}.",
        )


def unpacked(value: str) -> Inquiry:
    """Read an inquiry of another worker."""
    try:
        return msgspec.msgpack.decode(unwrapped(value) or b"", type=Inquiry)
    except msgspec.DecodeError as error:
        raise invalid_parameter("inquiry", "inquiry is not one that a worker gave.") from error


async def _in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items; others have their turn after so many."""
    for number, item in enumerate(items, 1):
        yield item
        if number % TURN_CELLS == 0:
            await asyncio.sleep(0)


def _sum(cells: Iterable[Cell]) -> Cell:
    whole = Cell()
    for cell in cells:
        sum_up(whole, cell)
    return whole


async def _whole(cells: Iterable[Cell]) -> Cell:
    """Add up many cells."""
    whole = Cell()
    async for cell in _in_turns(cells):
        sum_up(whole, cell)
    return whole


async def _by_group(parts: list[StatsPart], length: int) -> dict[Group, dict[int, Cell]]:
    """Add the parts of all workers up, by group and interval; of groups the first so many, the rest as one.

    Args:
        length: how many values a group has.
    """
    found: dict[Group, dict[int, Cell]] = {}
    groups = Groups(length)
    async for minute, group, cell in _in_turns(counted for part in parts for counted in part.counted):
        sum_up(found.setdefault(groups.apart(group), {}).setdefault(minute, Cell()), cell)
    return found


async def _by_minute(found: dict[Group, dict[int, Cell]]) -> dict[int, Cell]:
    """Add up over the groups."""
    by_minute: dict[int, Cell] = {}
    every = ((minute, cell) for cells in found.values() for minute, cell in cells.items())
    async for minute, cell in _in_turns(every):
        sum_up(by_minute.setdefault(minute, Cell()), cell)
    return by_minute


def _series(
    by_minute: dict[int, Cell], covered: Cover, interval: bytes, summarise: Summarise
) -> Iterator[dict[str, Any]]:
    """Yield each interval of the period, those of which nothing is counted too."""
    length = WINDOW_MINUTES[interval] * MINUTE_MS
    for start in range(covered.begin - covered.begin % length, covered.end, length):
        cell = by_minute.get(start // MINUTE_MS, Cell())
        ends = {"from": iso(max(start, covered.begin)), "to": iso(min(start + length, covered.end))}
        yield ends | summarise(cell)


def _named(group_by: Sequence[Dimension], group: Group) -> dict[str, str | None]:
    """Return the values of a group by their names; null for what nobody stated."""
    return {
        name: None if name == "provider" and value == UNKNOWN else value
        for name, value in zip(group_by, group, strict=True)
    }


def _sortable(value: str | None) -> tuple[bool, str]:
    return value is None, value or ""
