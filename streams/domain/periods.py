"""How a period is put together from windows: the largest that fit, and what is left over at its ends.

Pure arithmetic. Which windows are still there is told, not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from streams.domain.statistics import ALL, DAY, HOUR, MINUTE, MINUTE_MS, WINDOW_MINUTES, Held, window_start

__all__ = ["EVERYTHING", "RESOLUTIONS", "Cover", "Edge", "Resolution", "Span", "cover", "finest"]

Resolution: TypeAlias = Literal["exact", "minute", "hour", "day"]
"""What the ends of a period stand on; "exact": they are as asked."""

RESOLUTIONS: Final[Mapping[bytes, Resolution]] = {MINUTE: "minute", HOUR: "hour", DAY: "day"}
_ORDER: Final[tuple[Resolution, ...]] = ("exact", "minute", "hour", "day")


class Span(msgspec.Struct, array_like=True, frozen=True):
    """The windows of a granularity from one minute on until before another."""

    granularity: bytes
    start: int
    end: int


class Edge(msgspec.Struct, array_like=True, frozen=True):
    """A part of a minute, from its begin until before its end, ms: counted message by message."""

    begin: int
    end: int


class Cover(NamedTuple):
    """What a period is put together from.

    Attributes:
        begin, end: the period that this comes to, ms.
        first, last: the first whole minute, and the first one behind all whole ones.
    """

    begin: int
    end: int
    resolution: Resolution
    first: int
    last: int
    spans: tuple[Span, ...]
    edges: tuple[Edge, ...] = ()


_FOREVER: Final = WINDOW_MINUTES[ALL]
EVERYTHING: Final = Cover(0, _FOREVER * MINUTE_MS, "exact", 0, _FOREVER, (Span(ALL, 0, _FOREVER),))
"""All time."""


def cover(begin: int, end: int, held: Held, *, exact_from: int | None = None, largest: bytes = DAY) -> Cover:
    """Put a period together.

    An end that lies between two windows is exact if messages may be counted one by one there; else it moves
    outward to the next window that there is. What began before the first window is left out.

    Args:
        begin, end: ms; the end not before the begin.
        exact_from: from when on messages may be counted one by one, ms; None: never.
        largest: the longest windows to use.
    """
    if begin >= end:
        return Cover(begin, begin, "exact", begin // MINUTE_MS, begin // MINUTE_MS, ())
    oldest = held.days * MINUTE_MS
    since, on_begin = _snapped(begin, held, exact_from, oldest, up=False)
    until, on_end = _snapped(end, held, exact_from, oldest, up=True)
    until = max(since, until)
    resolution = max(on_begin, on_end, key=_ORDER.index)
    first, last = -(-since // MINUTE_MS), until // MINUTE_MS
    if first > last:
        return Cover(since, until, resolution, first, first, (), (Edge(since, until),))
    ragged = (Edge(since, first * MINUTE_MS), Edge(last * MINUTE_MS, until))
    edges = tuple(edge for edge in ragged if edge.begin < edge.end)
    return Cover(since, until, resolution, first, last, tuple(_spans(first, last, largest)), edges)


def finest(ms: int, held: Held) -> bytes:
    """Return the granularity of the shortest window around a time that is still there; days in any case."""
    for granularity, oldest in held.by_granularity().items():
        if window_start(ms // MINUTE_MS, granularity) >= oldest:
            return granularity
    return DAY


def _snapped(ms: int, held: Held, exact_from: int | None, oldest: int, *, up: bool) -> tuple[int, Resolution]:
    """Return where one end of a period comes to lie, and what it stands on then."""
    ms = max(ms, 0)
    if ms < oldest:
        return oldest, "day"
    granularity = finest(ms, held)
    window = WINDOW_MINUTES[granularity] * MINUTE_MS
    rest = ms % window
    if not rest:
        return ms, "exact"
    if granularity == MINUTE and exact_from is not None and ms - rest >= exact_from:
        return ms, "exact"
    return ms - rest + (window if up else 0), RESOLUTIONS[granularity]


def _spans(first: int, last: int, largest: bytes) -> Iterator[Span]:
    """Yield the longest windows that fit, those of the same length that follow each other as one span."""
    lengths = [(g, WINDOW_MINUTES[g]) for g in (DAY, HOUR, MINUTE)]
    lengths = lengths[[g for g, _ in lengths].index(largest) :]
    at = first
    while at < last:
        granularity, length = next((g, n) for g, n in lengths if at % n == 0 and at + n <= last)
        # up to where a longer one begins to fit, or these fit no more
        end = at + length
        while end + length <= last and not any(
            end % n == 0 and end + n <= last for _, n in lengths if n > length
        ):
            end += length
        yield Span(granularity, at, end)
        at = end
