"""Times as integers: milliseconds since the epoch, UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final, TypeAlias

import msgspec

from streams.domain.errors import MalformedRecord

__all__ = ["EARLIEST_MS", "LEAD_MS", "TimeSource", "WireTime", "event_at", "is_plausible", "iso", "to_ms"]

WireTime: TypeAlias = str | int | float
"""How a time may be written on input: ISO 8601 with a zone, or epoch seconds or milliseconds."""

TimeSource: TypeAlias = str
"""``given``, ``clamped`` (given, but not plausible) or ``record`` (not given)."""

EARLIEST_MS: Final = 946_684_800_000
"""2000-01-01: what is dated before was written by a clock that had not been set."""

LEAD_MS: Final = 86_400_000
"""How far an event may lie in the future of its arrival."""

FIRST_IN_MS: Final = 100_000_000_000
"""Numbers of this magnitude and above are milliseconds: as seconds they would lie beyond the year 5138."""

OUTSIDE: Final = "Expected a time in the years 1 to 9999"
_SECOND: Final = timedelta(seconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_S: Final = -62_135_596_800
_GREATEST_S: Final = 253_402_300_799
_MILLIS: Final = tuple(f".{milli:03d}Z" for milli in range(1000))
_MILLI_OF: Final = {f"{milli:03d}Z": milli for milli in range(1000)}
_Moment: Final = Annotated[datetime, msgspec.Meta(tz=True)]
MOST_TEXTS: Final = 8_192


def to_ms(time: WireTime, field: str) -> int:
    """Return the milliseconds of a time as it came in; halves are rounded to even.

    Raises:
        MalformedRecord: it is no date, or a number outside the years 1 to 9999; `field` is to blame.
    """
    if isinstance(time, str):
        # as `iso` writes it, within a second that was read before: the rule, and a tenth of the work
        second, milli = _SECONDS.get(time[:20]), _MILLI_OF.get(time[20:])
        if second is None or milli is None:
            return _read(time, field)
        ms = second + milli
        _texts.keep(ms, time)
        return ms
    ms = round(time if abs(time) >= FIRST_IN_MS else time * 1000)
    if not _LEAST_S * 1000 <= ms <= _GREATEST_S * 1000 + 999:
        raise MalformedRecord("invalid-value", field, OUTSIDE)
    return ms


def _read(time: str, field: str) -> int:
    """Read any date of ISO 8601, and know its second from then on."""
    try:
        moment: datetime = msgspec.convert(time, _Moment)
    except msgspec.ValidationError as error:
        raise MalformedRecord("invalid-value", field, str(error)) from None
    since = moment - _EPOCH
    # a zone can move it out of the calendar
    if not _LEAST_S <= since // _SECOND <= _GREATEST_S:
        raise MalformedRecord("invalid-value", field, OUTSIDE)
    whole, micros = since.days * 86_400_000 + since.seconds * 1000, since.microseconds
    if time[19:20] == "." and time[:19] == _prefix(whole // 1000):
        if len(_SECONDS) >= MOST_TEXTS:
            _SECONDS.clear()
        _SECONDS[time[:20]] = whole
    return whole + (micros // 1000 if not micros % 1000 else round(micros / 1000))


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
