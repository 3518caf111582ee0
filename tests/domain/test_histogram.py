"""A histogram of durations that adds up and subtracts."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from streams.domain.histogram import BOUNDS, CURVE_MS, Durations, bucket, middle, percentiles, within

DAYS_30 = 30 * 86_400_000
durations = st.integers(0, DAYS_30)


def histogram_of(times: list[int]) -> Durations:
    found: Durations = {}
    for ms in times:
        found[bucket(ms)] = found.get(bucket(ms), 0) + 1
    return found


@given(durations)
def test_a_bucket_tells_its_durations_to_one_percent(ms: int) -> None:
    """The middle of the bucket is within one percent of all that lies in it."""
    assert abs(middle(bucket(ms)) - ms) <= 0.01 * ms
    assert ms <= BOUNDS[bucket(ms)]
    assert bucket(ms) == 0 or ms > BOUNDS[bucket(ms) - 1]


def test_bounds_never_change() -> None:
    """They stand in cells by number: what people ask for is among them, and no more than needed."""
    assert set(CURVE_MS) < set(BOUNDS)
    assert (BOUNDS[0], BOUNDS[50], BOUNDS[100], BOUNDS[-1], len(BOUNDS)) == (0, 50, 100, DAYS_30, 980)
    assert bucket(DAYS_30 + 1) == bucket(2**62) == len(BOUNDS) - 1


@given(st.lists(durations, min_size=1), st.integers(1, 100))
def test_percentiles_are_within_one_percent(times: list[int], percent: int) -> None:
    """Of the nearest rank: the least duration that so many percent do not exceed."""
    right = sorted(times)[math.ceil(len(times) * percent / 100) - 1]

    (found,) = percentiles(histogram_of(times), (percent,))

    assert found is not None
    assert abs(found - right) <= 0.01 * right


@given(st.lists(durations), st.sampled_from(CURVE_MS))
def test_what_people_ask_for_is_counted_exactly(times: list[int], ms: int) -> None:
    """How many took no longer than a time of the curve."""
    assert within(histogram_of(times), ms) == sum(one <= ms for one in times)


def test_percentiles_of_nothing_are_none() -> None:
    """There is no time that nobody took."""
    assert percentiles({}, (50, 99)) == [None, None]
