"""Times in and out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.errors import MalformedRecord
from streams.domain.times import event_at, iso, time_source, to_ms

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("time", "ms"),
    [
        (1_795_435_200, 1_795_435_200_000),
        (1_795_435_200.5, 1_795_435_200_500),
        (1_795_435_200_123, 1_795_435_200_123),
        (99_999_999_999, 99_999_999_999_000),
        (100_000_000_000, 100_000_000_000),
        (-100_000_000_000, -100_000_000_000),
        (1_795_435_200_000.5, 1_795_435_200_000),
        (1_795_435_200_001.5, 1_795_435_200_002),
        ("2026-11-23T21:00:00.123456+09:00", 1_795_435_200_123),
        ("2026-11-23T12:00:00.0005Z", 1_795_435_200_000),
        ("2026-11-23T12:00:00.0015Z", 1_795_435_200_002),
        ("2026-11-23T12:00:00Z", 1_795_435_200_000),
        ("2026-11-23T12:00:00.120Z", 1_795_435_200_120),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_a_time_may_come_as_seconds_milliseconds_or_iso(time: str | float, ms: int) -> None:
    """Numbers of 1e11 and more are milliseconds; halves are rounded to even; the same again each time."""
    assert to_ms(time, "timestamp") == ms
    assert to_ms(time, "timestamp") == ms


@pytest.mark.parametrize(
    ("time", "ms"),
    [
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        (253_402_300_799_999, 253_402_300_799_999),
        (-62_135_596_800_000, -62_135_596_800_000),
    ],
)
def test_the_first_and_the_last_moment_of_the_calendar_can_be_said(time: str | int, ms: int) -> None:
    """As a text and as a number; one more is refused, with the code of a value that cannot be."""
    assert to_ms(time, "sentAt") == ms
    for beyond in (253_402_300_800_000, -62_135_596_800_001, "9999-12-31T23:59:59-00:01"):
        with pytest.raises(MalformedRecord) as refused:
            to_ms(beyond, "sentAt")
        error = refused.value
        assert (error.code, error.field) == ("invalid-value", "sentAt")
        assert str(error) == f"sentAt: {error.problem}"
        assert "years 1 to 9999" in error.problem


@pytest.mark.parametrize(
    ("time", "problem"),
    [
        ("yesterday", "Invalid RFC3339"),
        ("2026-11-23T12:00:00", "timezone"),
        ("2026-11-23T12:00:00.12Z0", "Invalid RFC3339"),
        ("2026-11-23T12:00:60.000Z", "Invalid RFC3339"),
        ("", "Invalid RFC3339"),
        ("9999-12-31T23:59:59.0-00:01", "years 1 to 9999"),
        ("0001-01-01T00:00:00.0+00:01", "years 1 to 9999"),
        ("0001-01-01T00:00:00+23:59", "years 1 to 9999"),
    ],
)
def test_a_text_that_is_no_date_with_a_zone_is_refused(time: str, problem: str) -> None:
    """Also when its second was read before."""
    to_ms("2026-11-23T12:00:00.000Z", "sentAt")

    with pytest.raises(MalformedRecord, match=rf"^sentAt: .*{problem}"):
        to_ms(time, "sentAt")


@pytest.mark.parametrize("time", [1e20, -1e20, 10**30, 253_402_300_800_000, -62_135_596_800_001])
def test_a_number_outside_of_the_calendar_is_refused(time: float) -> None:
    """What cannot be shown as a date is not a time."""
    with pytest.raises(MalformedRecord, match=r"sentAt: .*years 1 to 9999"):
        to_ms(time, "sentAt")


@given(st.datetimes(timezones=st.just(UTC)))
def test_iso_is_read_back_as_the_same_time(time: datetime) -> None:
    """Writing loses nothing above a millisecond."""
    ms = to_ms(time.isoformat(timespec="milliseconds"), "")

    assert to_ms(iso(ms), "") == ms
    assert datetime.fromisoformat(iso(ms)) == time.replace(microsecond=time.microsecond // 1000 * 1000)
    assert len(iso(ms)) == len("2026-11-23T12:00:00.000Z")


def test_iso_of_a_time_outside_of_the_calendar_is_the_nearest_that_can_be_written() -> None:
    """A broker may accept any timestamp; showing it must not fail."""
    assert iso(2**63 - 1).startswith("9999-12-31T23:59:59")
    assert iso(-(2**63)).startswith("0001-01-01T00:00:00")
    assert iso(-1) == "1969-12-31T23:59:59.999Z"


def test_many_different_seconds_are_written_right() -> None:
    """The cache of prefixes is emptied, never wrong."""
    assert [iso(second * 1000)[17:19] for second in range(45_000)] == [f"{s % 60:02d}" for s in range(45_000)]


@pytest.mark.parametrize(
    ("given", "at", "source"),
    [
        (None, 2 * DAY_MS + 946_684_800_000, "record"),
        (946_684_800_000, 946_684_800_000, "given"),
        (946_684_799_999, 2 * DAY_MS + 946_684_800_000, "clamped"),
        (3 * DAY_MS + 946_684_800_000, 3 * DAY_MS + 946_684_800_000, "given"),
        (3 * DAY_MS + 946_684_800_001, 2 * DAY_MS + 946_684_800_000, "clamped"),
    ],
)
def test_event_time_is_as_given_within_limits(given: int | None, at: int, source: str) -> None:
    """From 2000 to a day after the arrival; otherwise the arrival counts, and the entry says so."""
    receipt = 2 * DAY_MS + 946_684_800_000

    assert event_at(given, receipt) == at
    assert time_source(given, receipt) == source
