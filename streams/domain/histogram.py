"""A histogram of durations that adds up and subtracts, to within one percent.

Buckets are the same everywhere and for ever: bounds are whole milliseconds, each at most two percent above
the one before, so that the middle of a bucket is within one percent of all that it holds (source: DDSketch,
Masson et al., VLDB 2019, with the bounds as a table instead of a logarithm, whose last bit differs from
machine to machine). What people ask for (`CURVE_MS`) is among the bounds, so it is counted exactly.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final, TypeAlias

__all__ = [
    "BOUNDS",
    "CURVE_MS",
    "LONGEST_MS",
    "Durations",
    "bucket",
    "middle",
    "percentiles",
    "within",
]

Durations: TypeAlias = dict[int, int]
"""How many durations lie in a bucket, by its number; none that has none."""

SECOND_MS: Final = 1_000
CURVE_MS: Final = (
    5 * SECOND_MS,
    30 * SECOND_MS,
    60 * SECOND_MS,
    300 * SECOND_MS,
    3_600 * SECOND_MS,
    86_400 * SECOND_MS,
)
"""The times within which people want to know how much has arrived."""

LONGEST_MS: Final = 30 * 86_400 * SECOND_MS
"""What takes longer counts as this long."""


def _bounds() -> tuple[int, ...]:
    bounds = [0]
    while bounds[-1] < LONGEST_MS:
        last = bounds[-1]
        asked = next((ms for ms in CURVE_MS if ms > last), LONGEST_MS)
        bounds.append(min(max(last + 1, last * 102 // 100), asked))
    return tuple(bounds)


BOUNDS: Final = _bounds()
"""The longest duration of each bucket, ms."""

_LAST: Final = len(BOUNDS) - 1


def bucket(ms: int) -> int:
    """Return the number of the bucket that a duration lies in."""
    return bisect_left(BOUNDS, ms) if ms < LONGEST_MS else _LAST


def middle(number: int) -> float:
    """Return what stands for all durations of a bucket, ms: the value whose greatest error is the least."""
    longest = BOUNDS[number]
    shortest = BOUNDS[number - 1] + 1 if number else 0
    return float(longest) if shortest == longest else 2 * shortest * longest / (shortest + longest)


def percentiles(durations: Mapping[int, int], asked: tuple[int, ...]) -> list[float | None]:
    """Return, for each percentile asked for (ascending), the duration that so many do not exceed; ms.

    The least duration of which at least that share is no longer (nearest rank); None where there is none.
    """
    total = sum(durations.values())
    if total <= 0:
        return [None] * len(asked)
    found: list[float | None] = []
    numbers = iter(sorted(durations.items()))
    number, passed = -1, 0
    for percent in asked:
        rank = max(1, -(-total * percent // 100))
        while passed < rank:
            number, count = next(numbers)
            passed += count
        found.append(middle(number))
    return found


def within(durations: Mapping[int, int], ms: int) -> int:
    """Return how many took no longer than `ms`, one of the bounds."""
    last = bisect_left(BOUNDS, ms)
    return sum(count for number, count in durations.items() if number <= last)
