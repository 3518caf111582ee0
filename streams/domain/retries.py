"""When a webhook is tried again: the law, without a clock and without chance.

The default follows Standard Webhooks 1.0: ten attempts within 75 h 35 m. What is random comes from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Final, Literal, TypeAlias

__all__ = [
    "JITTER",
    "SCHEDULE_MS",
    "Verdict",
    "kmsg_schedule",
    "next_attempt_at",
    "retry_after_ms",
    "schedule_of",
    "verdict_of",
]

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS

SCHEDULE_MS: Final = (
    5 * SECOND_MS,
    5 * MINUTE_MS,
    30 * MINUTE_MS,
    2 * HOUR_MS,
    5 * HOUR_MS,
    10 * HOUR_MS,
    14 * HOUR_MS,
    20 * HOUR_MS,
    24 * HOUR_MS,
)
"""How long after each failed attempt the next one comes; after the last of them none does."""

JITTER: Final = 0.2
"""By what share a pause is shorter or longer, so that what failed together does not come again together."""

KMSG_LONGEST_MS: Final = 30 * SECOND_MS

LEAST_RETRY_AFTER_MS: Final = HOUR_MS
"""A receiver may ask for a pause of an hour, or twice what the schedule says."""

MOST_RETRY_AFTER_MS: Final = 10**9 * SECOND_MS
"""The longest ``Retry-After`` that is accepted: 32 years, less than the longest pause that can be stored."""

Verdict: TypeAlias = Literal["delivered", "failed", "throttled", "gone"]
"""What an answer says: it arrived; it did not; nor will others just now; nor ever."""

GONE: Final = 410
THROTTLES: Final = frozenset({429, 502, 503, 504})


def verdict_of(status: int) -> Verdict:
    """Say what a status of HTTP means; a redirect is a failure, for it is not followed."""
    if 200 <= status < 300:
        return "delivered"
    if status == GONE:
        return "gone"
    return "throttled" if status in THROTTLES else "failed"


def schedule_of(retries: int | None, default: Sequence[int] = SCHEDULE_MS) -> Sequence[int]:
    """Return the pauses of an endpoint, ms: those of k-msg's tracker if it says how many."""
    return default if retries is None else kmsg_schedule(retries)


def kmsg_schedule(retries: int) -> tuple[int, ...]:
    """Return the pauses of k-msg's tracker, ms: a second, doubling up to half a minute, so many times."""
    return tuple(min(SECOND_MS << min(number, 10), KMSG_LONGEST_MS) for number in range(retries))


def retry_after_ms(value: str | None, now_ms: int) -> int | None:
    """Read a ``Retry-After`` header: seconds, or a date (RFC 9110, 10.2.3); None: nothing usable."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return int(value[:9]) * SECOND_MS
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):
        # whatever a receiver may write
        return None
    if at.tzinfo is None:
        return None
    return min(max(0, round(at.timestamp() * 1000) - now_ms), MOST_RETRY_AFTER_MS)


def next_attempt_at(
    failed_at: int,
    attempts: int,
    random: float,
    asked_ms: int | None = None,
    schedule: Sequence[int] = SCHEDULE_MS,
) -> int | None:
    """Return when the next attempt is to be made, ms; None when there is none left.

    Args:
        failed_at: when the last attempt ended, ms.
        attempts: how many have been made.
        random: from 0 up to 1, evenly.
        asked_ms: how long the receiver asked to be left alone.
    """
    if attempts > len(schedule):
        return None
    pause = schedule[attempts - 1]
    jittered = round(pause * (1 - JITTER + 2 * JITTER * random))
    if asked_ms is not None:
        jittered = max(jittered, min(asked_ms, max(2 * pause, LEAST_RETRY_AFTER_MS)))
    return failed_at + jittered
