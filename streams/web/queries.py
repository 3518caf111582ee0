"""What can be asked, read from a query string: every value is checked, nothing unknown is passed over.

A filter that is silently ignored gives a wrong answer, so a parameter that is not known is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias
from urllib.parse import urlencode

from streams.domain.errors import MalformedRecord
from streams.domain.periods import RESOLUTIONS
from streams.domain.statistics import MINUTE_MS, WINDOW_MINUTES
from streams.domain.statuses import NAMES, PRECEDENCE, Status
from streams.domain.times import to_ms
from streams.web.problems import invalid_parameter

DEFAULT_LIMIT = 100
MAX_LIMIT = 200
MAX_WAIT_S = 30
_WAIT = re.compile(r"([0-9]{1,6})(ms|s)")
ENTRY_BYTES = 9
"""An index entry of a delivery: one byte for its status, eight for how recently it changed."""

CURSOR_VERSION = b"\x01"

Dimension: TypeAlias = Literal["tenant", "channel", "provider", "templateId"]
DIMENSIONS: Final[tuple[Dimension, ...]] = ("tenant", "channel", "provider", "templateId")
"""What statistics are told apart by, in the order of a full group."""

By: TypeAlias = Literal["created", "sent"]
INTERVALS: Final[Mapping[str, bytes]] = {name: granularity for granularity, name in RESOLUTIONS.items()}
MOST_INTERVALS: Final = 1_500
"""What a chart can show, and one answer hold."""


class Query(Protocol):
    """A parsed query string in which a name may stand more than once (a multidict)."""

    def keys(self) -> Iterable[str]:
        """Return the names."""

    def getall(self, key: str) -> list[str]:
        """Return all values of a name."""


@dataclass(frozen=True)
class Listing:
    """The deliveries of one status, newest first, from a place on.

    Attributes:
        after: the index entry and key of the last delivery already shown, None at the start.
    """

    status: Status
    limit: int = DEFAULT_LIMIT
    after: bytes | None = None

    @property
    def prefix(self) -> bytes:
        """What the list's index entries begin with."""
        return status_prefix(self.status)

    def query(self, partitions: Iterable[int]) -> str:
        """Ask another worker the same about these partitions."""
        asked = {"status": self.status, "limit": str(self.limit), "partitions": join(partitions)}
        return urlencode(asked | ({"cursor": cursor(self.after)} if self.after is not None else {}))


def status_prefix(status: Status) -> bytes:
    """Return what the index entries of this status begin with."""
    return bytes([PRECEDENCE[status]])


def single_values(query: Query, known: Iterable[str]) -> dict[str, str]:
    """Return the parameters by name; each must be known and stand once."""
    names = set(query.keys())
    for name in sorted(names - set(known)):
        raise invalid_parameter(name, f"There is no parameter {name!r} here.")
    values = {name: query.getall(name) for name in sorted(names)}
    for name, given in values.items():
        if len(given) > 1:
            raise invalid_parameter(name, f"{name!r} is given {len(given)} times; once is enough.")
    return {name: given[0] for name, given in values.items()}


def parse_limit(value: str | None) -> int:
    """Read how many rows an answer may have."""
    return DEFAULT_LIMIT if value is None else _limit(value)


def place_of(value: str | None, entry_bytes: int, prefixes: Sequence[bytes]) -> bytes | None:
    """Read the place in an index that a cursor holds; it must be of one of the lists asked for."""
    if value is None:
        return None
    position = _placed(value, entry_bytes)
    if not any(position.startswith(prefix) for prefix in prefixes):
        raise invalid_parameter("cursor", "cursor belongs to another list than this.")
    return position


def parse_listing(values: Mapping[str, str]) -> Listing:
    """Read which list is asked for, and from where on."""
    status = _status(values.get("status"))
    limit = parse_limit(values.get("limit"))
    after = _position(values["cursor"], status) if "cursor" in values else None
    return Listing(status, limit, after)


def parse_wait(values: Mapping[str, str]) -> float | None:
    """Read how long to wait for the outcome, ``5s`` or ``500ms``; seconds, None when it is not asked for."""
    if "wait" not in values:
        return None
    found = _WAIT.fullmatch(values["wait"])
    wait_s = int(found[1]) / (1000 if found[2] == "ms" else 1) if found else 0.0
    if not 0 < wait_s <= MAX_WAIT_S:
        raise invalid_parameter("wait", f"wait is a duration up to {MAX_WAIT_S}s, such as 5s or 500ms.")
    return wait_s


class Period(NamedTuple):
    """From when on, and until before when; ms."""

    begin: int
    end: int


@dataclass(frozen=True)
class StatsQuery:
    """Which statistics are asked for.

    Attributes:
        period: None: all time.
        by: which messages are of the period, those created then or those sent then.
        group_by: what the answer is told apart by.
        interval: granularity of a series; None: there is none.
        filters: what the messages must have.
    """

    period: Period | None
    by: By
    group_by: tuple[Dimension, ...]
    interval: bytes | None
    filters: Mapping[Dimension, str]


def parse_stats(query: Query, *, with_by: bool) -> StatsQuery:
    """Read what statistics are asked for."""
    values = single_values(query, ("from", "to", "groupBy", "interval", *DIMENSIONS, *(("by",) * with_by)))
    by = _one_of(values, "by", ("created", "sent")) or "created"
    period, interval = parse_period(values), _one_of(values, "interval", tuple(INTERVALS))
    if interval is not None and period is None:
        raise invalid_parameter("from", "from and to are required with interval.")
    named = values["groupBy"].split(",") if "groupBy" in values else []
    group_by = tuple(name for name in DIMENSIONS if name in named)
    if len(group_by) != len(named):
        raise invalid_parameter(
            "groupBy", f"groupBy is of {', '.join(DIMENSIONS)}, each once, with commas between."
        )
    filters = {name: _filter(name, values[name]) for name in DIMENSIONS if name in values}
    if period is not None and interval is not None:
        _check_length(period, WINDOW_MINUTES[INTERVALS[interval]] * MINUTE_MS)
    return StatsQuery(
        period,
        "sent" if by == "sent" else "created",
        group_by,
        None if interval is None else INTERVALS[interval],
        filters,
    )


def _filter(name: Dimension, value: str) -> str:
    """Return what messages must have; names of providers and channels are stored in lower case."""
    return value.lower() if name in ("channel", "provider") else value


def _check_length(period: Period, interval_ms: int) -> None:
    if (period.end - period.begin) // interval_ms > MOST_INTERVALS:
        raise invalid_parameter(
            "interval", f"The period has more than {MOST_INTERVALS:,} of these; ask for longer ones."
        )


def _one_of(values: Mapping[str, str], name: str, known: Sequence[str]) -> str | None:
    value = values.get(name)
    if value is not None and value not in known:
        raise invalid_parameter(name, f"{name} is one of {', '.join(known)}.")
    return value


def parse_period(values: Mapping[str, str]) -> Period | None:
    """Read ``from`` and ``to``, both or neither: ISO 8601 with a zone, or epoch seconds or milliseconds."""
    if "from" not in values and "to" not in values:
        return None
    begin, end = _moment(values, "from"), _moment(values, "to")
    if end < begin:
        raise invalid_parameter("to", "to is before from.")
    return Period(begin, end)


def parse_span(begin: str | float | None, end: str | float | None, last: int) -> Period:
    """Read ``from`` and ``to``, either of which may be left out: from the beginning, up to `last`."""
    span = Period(
        0 if begin is None else max(0, _time(begin, "from")), last if end is None else _time(end, "to")
    )
    if span.end < span.begin:
        raise invalid_parameter("to", "to is before from.")
    return span


def _moment(values: Mapping[str, str], name: str) -> int:
    if name not in values:
        raise invalid_parameter(name, f"{name} is required: a period has both ends.")
    return _time(values[name], name)


def _time(value: str | float, name: str) -> int:
    try:
        return to_ms(value, name)
    except MalformedRecord as error:
        raise invalid_parameter(
            name, f"{name} is a time such as 2026-11-23T09:00:00Z (a + is written %2B): {error.problem}."
        ) from error


def parse_partitions(value: str | None, count: int) -> tuple[int, ...]:
    """Read ``0,3``: partition numbers below `count`, each once."""
    given = (value or "").split(",")
    numbers = tuple(int(item) for item in given if _is_number(item))
    if len(numbers) != len(given) or len(set(numbers)) != len(given) or max(numbers) >= count:
        raise invalid_parameter("partitions", f"partitions are numbers below {count}, each once: 0,3")
    return numbers


def join(partitions: Iterable[int]) -> str:
    """Write partitions as `parse_partitions` reads them."""
    return ",".join(map(str, sorted(partitions)))


def cursor(position: bytes) -> str:
    """Wrap a place in the index for the outside; it holds no partition, so any worker can go on from it."""
    return wrapped(CURSOR_VERSION + position)


def wrapped(raw: bytes) -> str:
    """Write bytes so that they can stand in a URL."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unwrapped(value: str) -> bytes | None:
    """Read what `wrapped` wrote; None if it did not."""
    try:
        padded = value.encode("ascii") + b"=" * (-len(value) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None


def _status(value: str | None) -> Status:
    for name in NAMES:
        if name == value:
            return name
    said = "is required" if value is None else f"cannot be {value!r}"
    raise invalid_parameter("status", f"status {said}; it is one of {', '.join(NAMES)}.")


def _limit(value: str) -> int:
    if not _is_number(value) or not 1 <= int(value) <= MAX_LIMIT:
        raise invalid_parameter("limit", f"limit is a whole number from 1 to {MAX_LIMIT}.")
    return int(value)


def _is_number(value: str) -> bool:
    """int() would also take signs, blanks, underscores and the digits of other scripts."""
    return value.isascii() and value.isdigit() and len(value) <= 9


def _placed(value: str, entry_bytes: int) -> bytes:
    raw = unwrapped(value) or b""
    position = raw[len(CURSOR_VERSION) :]
    if not raw.startswith(CURSOR_VERSION) or len(position) <= entry_bytes:
        raise invalid_parameter("cursor", "cursor is not one that this service gave as nextCursor.")
    return position


def _position(value: str, status: Status) -> bytes:
    position = _placed(value, ENTRY_BYTES)
    if not position.startswith(status_prefix(status)):
        raise invalid_parameter("cursor", f"cursor belongs to a list of another status than {status}.")
    return position
