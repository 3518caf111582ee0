"""Rules of when a webhook is tried again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.retries import (
    JITTER,
    SCHEDULE_MS,
    kmsg_schedule,
    next_attempt_at,
    retry_after_ms,
    verdict_of,
)

HOUR_MS = 3_600_000


def test_ten_attempts_take_75_hours_and_a_half() -> None:
    """As Standard Webhooks has it; the mean of the jitter is the schedule."""
    at, attempts = 0, 1
    while (then := next_attempt_at(at, attempts, 0.5)) is not None:
        at, attempts = then, attempts + 1

    assert (attempts, at) == (10, 75 * HOUR_MS + 35 * 60_000 + 5_000)


@given(
    attempts=st.integers(1, 9),
    random=st.floats(0, 1, exclude_max=True),
    asked=st.none() | st.integers(0, 10**12),
)
def test_an_attempt_comes_within_its_jitter_and_not_before_it_was_asked_for(
    attempts: int, random: float, asked: int | None
) -> None:
    """A receiver may ask for more time, up to twice the pause or an hour; never for less."""
    pause = SCHEDULE_MS[attempts - 1]

    after = (next_attempt_at(1_000, attempts, random, asked) or 0) - 1_000

    assert after >= pause * (1 - JITTER) - 1
    granted = 0 if asked is None else min(asked, max(2 * pause, HOUR_MS))
    assert granted <= after <= max(granted, pause * (1 + JITTER) + 1)


def test_a_schedule_of_an_endpoint_takes_the_place_of_the_default() -> None:
    """k-msg's: a second, doubling to half a minute, as often as was said; none is none."""
    assert kmsg_schedule(7) == (1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000)
    assert next_attempt_at(0, 1, 0.5, schedule=kmsg_schedule(0)) is None
    assert next_attempt_at(0, 2, 0.5, schedule=kmsg_schedule(2)) == 2_000
    assert next_attempt_at(0, 3, 0.5, schedule=kmsg_schedule(2)) is None


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (None, None),
        ("120", 120_000),
        (" 0 ", 0),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("Wed, 25 Nov 2026 12:00:30 GMT", 30_000),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0),
        ("Wed, 25 Nov 2026 12:00:30 -0000", None),
        ("٣", None),
        ("Oct 99999999999999999999 + 1.1.1 +9999 Wed -", None),
        ("Wed, 25 Nov 99999999999999999999 12:00:30 GMT", None),
        (",", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 10**12),
        ("9" * 400, 999_999_999_000),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, ms: int | None) -> None:
    """What cannot be read asks for nothing; what is past, for no time."""
    now = round(datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp() * 1000)

    assert retry_after_ms(value, now) == ms


@given(st.integers(1_600_000_000, 3_800_000_000), st.integers(0, 10**13))
def test_a_date_that_someone_wrote_is_read(second: int, now: int) -> None:
    """To the second."""
    written = format_datetime(datetime.fromtimestamp(second, UTC), usegmt=True)

    assert retry_after_ms(written, now) == min(max(0, second * 1000 - now), 10**12)


def test_what_statuses_say() -> None:
    """2xx has arrived; a redirect is not followed; 410 is for ever; some say that there is too much."""
    by_verdict = {
        "delivered": {200, 204, 299},
        "failed": {301, 302, 308, 400, 401, 404, 500},
        "throttled": {429, 502, 503, 504},
        "gone": {410},
    }
    for verdict, statuses in by_verdict.items():
        assert {verdict_of(status) for status in statuses} == {verdict}
