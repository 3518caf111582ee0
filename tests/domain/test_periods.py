"""How a period is put together from windows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.domain.periods import Cover, cover, finest
from streams.domain.statistics import ALL_HELD, DAY, HOUR, MINUTE, WINDOW_MINUTES, Held

MIN = 60_000
DAYS = 1440 * MIN

times = st.integers(0, 40 * DAYS)


def covered(found: Cover) -> list[tuple[int, int]]:
    """All that is counted, in order, ms."""
    parts = [(span.start * MIN, span.end * MIN) for span in found.spans]
    return sorted([*parts, *((edge.begin, edge.end) for edge in found.edges)])


@given(times, times, st.sampled_from((MINUTE, HOUR, DAY)))
def test_a_period_is_covered_once_and_wholly(begin: int, end: int, largest: bytes) -> None:
    """Windows and edges follow each other from its begin to its end; edges lie within a minute each."""
    begin, end = sorted((begin, end))
    found = cover(begin, end, ALL_HELD, exact_from=0, largest=largest)

    at = begin
    for since, until in covered(found):
        assert since == at < until
        at = until
    assert (at, found.begin, found.end, found.resolution) == (end, begin, end, "exact")
    assert all(edge.end - edge.begin < MIN for edge in found.edges)
    for span in found.spans:
        length = WINDOW_MINUTES[span.granularity]
        assert length <= WINDOW_MINUTES[largest]
        assert span.start % length == span.end % length == 0


@given(times, times)
def test_the_largest_windows_that_fit_are_taken(begin: int, end: int) -> None:
    """However long the period: at most all minutes of two hours and all hours of two days, and the days."""
    begin, end = sorted((begin, end))
    windows = {MINUTE: 0, HOUR: 0, DAY: 0}
    for span in cover(begin, end, ALL_HELD, exact_from=0).spans:
        windows[span.granularity] += (span.end - span.start) // WINDOW_MINUTES[span.granularity]

    assert windows[MINUTE] < 120
    assert windows[HOUR] < 48


@given(times, times, st.integers(0, 40), st.integers(0, 960), st.integers(0, 960), st.none() | times)
def test_what_is_not_kept_is_not_asked_for(
    begin: int, end: int, days: int, hours: int, minutes: int, exact_from: int | None
) -> None:
    """All windows are still there, the period is wider than asked where it must be, and says so."""
    begin, end = sorted((begin, end))
    kept_hours = max(days * 24, hours // 24 * 24) * 60
    held = Held(max(kept_hours, minutes * 60), kept_hours, days * 1440)

    found = cover(begin, end, held, exact_from=exact_from)

    for span in found.spans:
        assert span.start >= held.by_granularity()[span.granularity]
    for edge in found.edges:
        assert exact_from is not None
        assert edge.begin // MIN * MIN >= exact_from
    oldest = held.days * MIN
    assert (found.begin <= begin or found.begin == oldest) and found.begin >= min(oldest, begin)
    assert begin == end or found.end >= end or found.end == oldest
    at = found.begin
    for since, until in covered(found):
        assert since == at
        at = until
    assert at == found.end
    assert (found.resolution == "exact") == ((found.begin, found.end) == (begin, end))


def test_an_end_moves_outward_to_the_next_window() -> None:
    """Without single messages to the minute, without minutes to the hour, without hours to the day."""
    at = 10 * DAYS + 3 * 60 * MIN + 5 * MIN + 7

    def moved(**held: int) -> tuple[int, int, str]:
        kept = Held(held.get("minute", 0), held.get("hour", 0))
        found = cover(at, at + 2 * DAYS, kept)
        return found.begin - 10 * DAYS, found.end - 12 * DAYS, found.resolution

    assert moved() == (185 * MIN, 186 * MIN, "minute")
    assert moved(minute=20 * 1440) == (180 * MIN, 240 * MIN, "hour")
    assert moved(minute=20 * 1440, hour=20 * 1440) == (0, DAYS, "day")
    assert moved(minute=11 * 1440) == (180 * MIN, 186 * MIN, "hour")


def test_the_shortest_window_that_is_kept() -> None:
    """Of minutes, hours and days; days, if nothing is."""
    held = Held(120, 60, 0)

    assert [finest(minute * MIN, held) for minute in (59, 60, 119, 120)] == [DAY, HOUR, HOUR, MINUTE]
