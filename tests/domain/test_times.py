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
        (1_795_435_200_123_500, 1_795_435_200_124),
        (1_795_435_200_122_500, 1_795_435_200_122),
        (1_795_435_200_123_456_789, 1_795_435_200_123),
        (-1_795_435_200_123_456_789, -1_795_435_200_123),
        (10**14 - 1, 10**14 - 1),
        (10**14, 10**11),
        (10**17 - 1, 10**14),
        (10**17, 10**11),
        ("1795435200", 1_795_435_200_000),
        ("1795435200.5", 1_795_435_200_500),
        ("+1795435200123", 1_795_435_200_123),
        ("1795435200123456", 1_795_435_200_123),
        ("-1", -1_000),
        ("2026-11-23 21:00:00+09", 1_795_435_200_000),
        ("2026-11-23T12:00Z", 1_795_435_200_000),
        ("20261123T120000Z", 1_795_435_200_000),
        ("2026-11-23T12:00:00,5-00:00", 1_795_435_200_500),
        ("2026-11-23t12:00:00z", 1_795_435_200_000),
        ("2026-W48-1T12:00:00Z", 1_795_435_200_000),
        ("2026-11-23T12:00:00.123456789Z", 1_795_435_200_123),
        ("2026-11-23T11:59:60Z", 1_795_435_200_000),
        ("2016-12-31T23:59:60.25Z", 1_483_228_800_250),
        ("2017-01-01T05:29:60+05:30", 1_483_228_800_000),
        ("20161231T235960Z", 1_483_228_800_000),
    ],
)
def test_a_time_may_be_written_in_many_ways(time: str | float, ms: int) -> None:
    """As ISO 8601, or in a unit that follows from its magnitude; halves are rounded to even."""
    assert to_ms(time, "timestamp") == ms
    assert to_ms(time, "timestamp") == ms


@pytest.mark.parametrize(
    ("time", "ms"),
    [
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ("9999-12-31T23:59:59.9999Z", 253_402_300_799_999),
        (-62_135_596_800_000, -62_135_596_800_000),
    ],
)
def test_the_first_and_the_last_moment_of_the_calendar_can_be_said(time: str | int, ms: int) -> None:
    """As a text and as a number."""
    assert to_ms(time, "sentAt") == ms


@pytest.mark.parametrize(
    "time",
    [
        "yesterday",
        "2026-11-23T12:00:00",
        "2026-11-23",
        "2026-11-23T12:00:00.12Z0",
        "2026-11-23T12:00:61Z",
        "2026-13-23T12:00:00Z",
        "",
        "z",
        "1e12",
        "0x10",
        " 1795435200",
        "١٧٩٥٤٣٥٢٠٠",
    ],
)
def test_a_text_that_is_no_time_with_a_zone_is_refused(time: str) -> None:
    """Also when its second was read before; the text itself is not in the answer."""
    to_ms("2026-11-23T12:00:00.000Z", "sentAt")

    with pytest.raises(MalformedRecord, match=r"^sentAt: Expected a date and time with a zone") as refused:
        to_ms(time, "sentAt")
    assert (refused.value.code, refused.value.field) == ("invalid-value", "sentAt")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "size", [10**30, 1e30, float("inf"), "9" * 40, 10**22, 300_000_000_000_000_000_000, 1e400]
)
def test_a_number_outside_of_the_calendar_is_its_first_or_last_moment(sign: int, size: float | str) -> None:
    """An impossible time must not cost the rest of its callback."""
    time = ("-" if sign < 0 else "") + size if isinstance(size, str) else sign * size

    assert to_ms(time, "sentAt") == (253_402_300_799_999 if sign > 0 else -62_135_596_800_000)


@pytest.mark.parametrize(
    ("time", "ms"),
    [
        ("9999-12-31T23:59:59.0-00:01", 253_402_300_799_999),
        ("0001-01-01T00:00:00.0+00:01", -62_135_596_800_000),
        ("0001-01-01T00:00:00+23:59", -62_135_596_800_000),
    ],
)
def test_a_zone_moves_no_date_out_of_the_calendar(time: str, ms: int) -> None:
    assert to_ms(time, "sentAt") == ms


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
