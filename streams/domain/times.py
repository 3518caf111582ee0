"""Times as integers: milliseconds since the epoch, UTC."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Final, TypeAlias

from streams.domain.errors import MalformedRecord

__all__ = ["EARLIEST_MS", "LEAD_MS", "TimeSource", "WireTime", "event_at", "is_plausible", "iso", "to_ms"]

WireTime: TypeAlias = str | int | float
"""How a time may be written on input: ISO 8601 with a zone, or the time since the epoch, also as a text."""

TimeSource: TypeAlias = str
"""``given``, ``clamped`` (given, but not plausible) or ``record`` (not given)."""

EARLIEST_MS: Final = 946_684_800_000
"""2000-01-01: what is dated before was written by a clock that had not been set."""

LEAD_MS: Final = 86_400_000
"""How far an event may lie in the future of its arrival."""

FIRST_IN_MS: Final = 10**11
FIRST_IN_US: Final = 10**14
FIRST_IN_NS: Final = 10**17
"""Numbers of these magnitudes and above are milliseconds, microseconds and nanoseconds: in the unit before,
they would lie beyond the year 5138."""

EXPECTED: Final = "Expected a date and time with a zone, such as 2026-11-23T09:00:00Z, or the time since 1970"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_S: Final = -62_135_596_800
_GREATEST_S: Final = 253_402_300_799
LEAST_MS: Final = _LEAST_S * 1000
GREATEST_MS: Final = _GREATEST_S * 1000 + 999
"""The first and the last ms of the years 1 to 9999."""
_MILLIS: Final = tuple(f".{milli:03d}Z" for milli in range(1000))
_MILLI_OF: Final = {f"{milli:03d}Z": milli for milli in range(1000)}
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?")
_LEAP_SECOND: Final = re.compile(r"(?<=[0-9]{2}:[0-9]{2}:)60|(?<=[T ][0-9]{4})60")
MOST_TEXTS: Final = 8_192


def to_ms(time: WireTime, field: str) -> int:
    """Return the milliseconds of a time as it came in; halves are rounded to even.

    A time outside the years 1 to 9999 becomes the first or the last moment of these, so that an implausible
    time does not cost the rest of its callback.

    Raises:
        MalformedRecord: it is no time, or has no zone; `field` is to blame.
    """
    if isinstance(time, str):
        # as `iso` writes it, within a second that was read before: the rule, and a tenth of the work
        second, milli = _SECONDS.get(time[:20]), _MILLI_OF.get(time[20:])
        if second is None or milli is None:
            return _read(time, field)
        ms = second + milli
        _texts.keep(ms, time)
        return ms
    size = abs(time)
    if size < FIRST_IN_MS:
        return round(time * 1000)
    ms = round(time) if size < FIRST_IN_US else _from_smaller_unit(time, size)
    return min(max(ms, LEAST_MS), GREATEST_MS)


def _from_smaller_unit(time: float, size: float) -> int:
    """Return the ms of a time in microseconds or nanoseconds."""
    if size > GREATEST_MS * 10**6:
        # also infinity, which a number of hundreds of digits becomes
        return GREATEST_MS if time > 0 else LEAST_MS
    return round(Fraction(time) / (1000 if size < FIRST_IN_NS else 10**6))


def _read(time: str, field: str) -> int:
    """Read a time of any form, and know its second from then on if `iso` might have written it."""
    if _NUMBER.fullmatch(time):
        return to_ms(float(time) if "." in time else int(time), field)
    since = _moment(time, field) - _EPOCH
    whole, micros = since.days * 86_400_000 + since.seconds * 1000, since.microseconds
    if not LEAST_MS <= whole <= GREATEST_MS:  # its zone moves it out of the calendar
        return LEAST_MS if whole < 0 else GREATEST_MS
    if time[19:20] == "." and time[:19] == _prefix(whole // 1000):
        if len(_SECONDS) >= MOST_TEXTS:
            _SECONDS.clear()
        _SECONDS[time[:20]] = whole
    return min(whole + (micros // 1000 if not micros % 1000 else round(micros / 1000)), GREATEST_MS)


def _moment(time: str, field: str) -> datetime:
    """Read a date and time of ISO 8601 with a zone.

    Raises:
        MalformedRecord: it is none.
    """
    # RFC 3339 allows a z; a leap second is the first moment of the next minute, as POSIX has it
    text, leap_seconds = _LEAP_SECOND.subn("59", time[:-1] + "Z" if time[-1:] == "z" else time, 1)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("it has no zone")
        return moment + timedelta(seconds=leap_seconds)
    except (ValueError, OverflowError):
        raise MalformedRecord("invalid-value", field, EXPECTED) from None


class _Texts(dict[int, str]):
    """Times as they are written; a time is shown several times in the life of its message."""

    def __missing__(self, ms: int) -> str:
        second = ms // 1000
        text = _prefix(min(max(second, _LEAST_S), _GREATEST_S)) + _MILLIS[ms - second * 1000]
        self.keep(ms, text)
        return text

    def keep(self, ms: int, text: str) -> None:
        """Remember how a time is written."""
        if len(self) >= MOST_TEXTS:
            self.clear()
        self[ms] = text


@lru_cache(maxsize=4096)
def _prefix(second: int) -> str:
    """Format a second once: the traffic of a moment lies within a few of them."""
    return (_EPOCH + timedelta(seconds=second)).isoformat()[:19]


_texts: Final = _Texts()
_SECONDS: Final[dict[str, int]] = {}

iso: Final[Callable[[int], str]] = _texts.__getitem__
"""Write ms as ``2026-11-23T09:00:00.123Z``; beyond the years 1 to 9999 the nearest second that has a date."""


def is_plausible(given: int, receipt: int) -> bool:
    """Say whether something that arrived at `receipt` can have happened at `given`."""
    return EARLIEST_MS <= given <= receipt + LEAD_MS


def event_at(given: int | None, receipt: int) -> int:
    """Return the event time: as given when that is plausible, else the time of arrival."""
    if given is None or not EARLIEST_MS <= given <= receipt + LEAD_MS:
        return receipt
    return given


def time_source(given: int | None, receipt: int) -> TimeSource:
    """Say where `event_at` of the same arguments comes from."""
    if given is None:
        return "record"
    return "given" if is_plausible(given, receipt) else "clamped"
