"""Statistics as cells that add up: of a window of time and a group of messages.

A cell has three families of counters. Two are cohorts, the messages *created* and those *sent* in its window,
and say where these stand now: a delivery that moves on takes one away from where it was, however late. The
third, *activity*, says what happened in the window by event time. All change in the transaction that changes
the delivery, so they are exact however often and in whatever order callbacks come.

Handlers gather what is to be added by minute and group (`Tally`); `rolled_up` makes of it what is to be added
to the cells of longer windows and wider groups.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Final, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from streams.domain.attempts import REQUESTED, Entry, speaker
from streams.domain.delivery import UNKNOWN, Callback, Delivery
from streams.domain.histogram import CURVE_MS, LONGEST_MS, Durations, bucket
from streams.domain.lifetimes import DAY_MS, EXPIRY
from streams.domain.statuses import CONTRADICTED, DELIVERED, EXPIRED, FAILED, NAMES, NOTHING, SENT

__all__ = [
    "ALL",
    "ALL_HELD",
    "CALLBACK_OUTCOMES",
    "CREATED_THEN",
    "DAY",
    "FULL",
    "HOUR",
    "MINUTE",
    "MINUTE_MS",
    "PROVIDER",
    "SENT_THEN",
    "WHOLE",
    "WINDOW_MINUTES",
    "Activity",
    "Cell",
    "Changes",
    "Cohort",
    "Group",
    "Held",
    "Key",
    "Pending",
    "Standing",
    "Tally",
    "Windows",
    "activity",
    "add",
    "add_bounded",
    "cohort",
    "count_created",
    "expired_spans",
    "final_before",
    "in_order",
    "minute_of",
    "name_provider",
    "rolled_up",
    "standing",
    "sum_up",
    "window_key",
    "window_start",
]

K = TypeVar("K")

MINUTE: Final = b"m"
HOUR: Final = b"h"
DAY: Final = b"d"
ALL: Final = b"a"

WINDOW_MINUTES: Final[Mapping[bytes, int]] = {MINUTE: 1, HOUR: 60, DAY: 1440, ALL: 2**32}
"""How long the windows of a granularity are; all time is one window."""

WHOLE: Final = b"w"
PROVIDER: Final = b"p"
FULL: Final = b"f"

MINUTE_MS: Final = 60_000
_LAST_MINUTE: Final = 2**32 - 1
_KEY: Final = Struct(">ccI")

MOST_NAMES: Final = 50
"""Error codes, and providers, that a cell counts apart; the rest counts as `OTHER`."""

OTHER: Final = "other"

CALLBACK_OUTCOMES: Final = ("applied", "repeated", "refused", "contradictory", "deadLettered")
"""What can become of a callback; one that is contradictory was applied."""

_APPLIED, REPEATED, REFUSED, CONTRADICTORY, DEAD_LETTERED = range(len(CALLBACK_OUTCOMES))

# Numbers of counters. Most messages are sent in the minute in which they are created, and count once for
# both: a cohort is what counts for both, and what counts for itself alone. Each of the three has the
# precedences of statuses, then these, all from its own number on.
_BOTH: Final = 0
CREATED_THEN: Final = 4096
SENT_THEN: Final = 8192
_FAMILY: Final = ~4095
_ARRIVED: Final = 9
"""Of those whose status does not tell that they have arrived."""
_DURATION_SUM: Final = 10
_DURATIONS: Final = 16
# Activity has the statuses of new history entries, then these.
_ACTIVITY: Final = 12288
_OUTCOMES: Final = _ACTIVITY + 16
_UNCALLED: Final = _OUTCOMES
"""New history entries that no callback made; those of a place in `CALLBACK_OUTCOMES` follow, from 1 on."""
_LATENESS_SUM: Final = _ACTIVITY + 32
_LATENESS: Final = _ACTIVITY + 33
"""Of callbacks that did not come within the first of `CURVE_MS`; from 1 on."""

# What names begin with that are counted in a cohort.
_FAILURES: Final = {_BOTH: "bf:", CREATED_THEN: "cf:", SENT_THEN: "sf:"}
_PROVIDERS: Final = {_BOTH: "bp:", CREATED_THEN: "cp:", SENT_THEN: "sp:"}
_PREFIX: Final = 3


class Cell(msgspec.Struct, array_like=True, gc=False):
    """What is counted of one window and group, or is to be added to it, and how that is stored.

    Attributes:
        updated_at: when a message of it last changed, ms; of several the latest.
        counts: by number of the counter; what is zero may be left out.
        names: by kind and name: error codes of what stands as FAILED and, if the group is all messages,
            providers.
    """

    version: Literal[2] = 2
    updated_at: int = 0
    counts: dict[int, int] = {}
    names: dict[str, int] = {}


class Cohort(NamedTuple):
    """Messages, and where they stand now.

    Attributes:
        by_status: by precedence.
        arrived: how many have ever arrived, whatever was said of them later.
        duration_sum: of the times from sent to delivered, ms.
        durations: how often such a time lies in each bucket of the histogram.
        failures: of those that stand as FAILED, by error code.
        providers: messages by provider; empty unless the group is all messages.
    """

    by_status: list[int]
    arrived: int
    duration_sum: int
    durations: Durations
    failures: dict[str, int]
    providers: dict[str, int]


class Activity(NamedTuple):
    """What happened.

    Attributes:
        by_status: new history entries, by precedence.
        outcomes: callbacks by what became of them, in the order of `CALLBACK_OUTCOMES`.
        lateness_sum: of the times from the event to the arrival of a callback that was applied, ms.
        lateness: how many of these are within each of `CURVE_MS`, not within the one before; then the rest.
    """

    by_status: list[int]
    outcomes: list[int]
    lateness_sum: int
    lateness: list[int]


def cohort(cell: Cell, family: int) -> Cohort:
    """Return one of a cell's cohorts: CREATED_THEN or SENT_THEN."""
    counts: dict[int, int] = {}
    for number, n in cell.counts.items():
        if number & _FAMILY in (_BOTH, family):
            number &= ~_FAMILY
            counts[number] = counts.get(number, 0) + n
    by_status = [counts.get(precedence, 0) for precedence in range(len(NAMES))]
    return Cohort(
        by_status,
        counts.get(_ARRIVED, 0) + sum(by_status[DELIVERED:]),
        counts.get(_DURATION_SUM, 0),
        {number - _DURATIONS: n for number, n in counts.items() if number >= _DURATIONS and n},
        _named(cell, (_FAILURES[_BOTH], _FAILURES[family])),
        _named(cell, (_PROVIDERS[_BOTH], _PROVIDERS[family])),
    )


def _named(cell: Cell, prefixes: tuple[str, ...]) -> dict[str, int]:
    named: dict[str, int] = {}
    for name, n in cell.names.items():
        if name.startswith(prefixes):
            named[name[_PREFIX:]] = named.get(name[_PREFIX:], 0) + n
    # what is pending may take away a name that had no room of its own
    if (gone := sum(n for n in named.values() if n < 0)) and OTHER in named:
        named = {name: n for name, n in named.items() if n > 0}
        named[OTHER] += gone
    return {name: n for name, n in sorted(named.items()) if n}


def activity(cell: Cell) -> Activity:
    """Return what happened."""
    count = cell.counts.get
    by_status = [count(_ACTIVITY + precedence, 0) for precedence in range(len(NAMES))]
    applied = sum(by_status) - count(_UNCALLED, 0)
    late = [count(_LATENESS + place, 0) for place in range(1, len(CURVE_MS) + 1)]
    return Activity(
        by_status,
        [applied, *(count(_OUTCOMES + outcome, 0) for outcome in range(1, len(CALLBACK_OUTCOMES)))],
        count(_LATENESS_SUM, 0),
        [applied - sum(late), *late],
    )


def add(cell: Cell, more: Cell) -> None:
    """Add a cell to another; what comes to zero is let go."""
    _add_counts(cell.counts, more.counts)
    if more.names:
        _add_counts(cell.names, more.names)
    if more.updated_at > cell.updated_at:
        cell.updated_at = more.updated_at


def _add_counts(counts: dict[K, int], more: dict[K, int]) -> None:
    for key, n in more.items():
        total = counts.get(key, 0) + n
        if total:
            counts[key] = total
        else:
            counts.pop(key, None)


def sum_up(cell: Cell, more: Cell) -> None:
    """Add a cell to a sum, fast: what comes to zero stays as that, so it is not to be stored."""
    counts = cell.counts
    count_of = counts.get
    for number, n in more.counts.items():
        counts[number] = count_of(number, 0) + n
    for name, n in more.names.items():
        cell.names[name] = cell.names.get(name, 0) + n
    if more.updated_at > cell.updated_at:
        cell.updated_at = more.updated_at


def add_bounded(cell: Cell, more: Cell) -> None:
    """Add what changed to a cell as it is stored: of each kind so many names are counted apart."""
    if more.names:
        names, more = more.names, Cell(updated_at=more.updated_at, counts=more.counts)
        # what goes before what comes, so that there is room
        for name, n in sorted(names.items(), key=_by_count):
            _count_name(cell.names, name, n)
    add(cell, more)


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return item[1], item[0]


def _count_name(names: dict[str, int], name: str, n: int) -> None:
    """Count a name, or as `OTHER` if there is no room.

    A name that is not there counts as other both when it comes and when it goes. So the sum is right, and
    none is less than zero, whichever names have found room.
    """
    total = names.get(name, 0) + n
    other = name[:_PREFIX] + OTHER
    if name != other and (total < 0 or (name not in names and not _has_room(names, name[:_PREFIX]))):
        names.pop(name, None)
        name, total = other, names.get(other, 0) + total
    if total:
        names[name] = total
    else:
        names.pop(name, None)


def _has_room(names: dict[str, int], prefix: str) -> bool:
    return sum(name.startswith(prefix) for name in names) < MOST_NAMES


def in_order(cell: Cell) -> Cell:
    """Let counters stand in order: equal cells are stored as equal bytes."""
    counts, names = cell.counts, cell.names
    numbers = sorted(counts)
    if numbers != list(counts):
        cell.counts = {number: counts[number] for number in numbers}
    if len(names) > 1:
        cell.names = dict(sorted(names.items()))
    return cell


Standing: TypeAlias = tuple[
    int, str | None, str | None, str, str | None, int, int | None, bool, int | None, str | None
]
"""Where a delivery counts: precedence; tenant, channel, provider, template; minute of its creation and, if it
was sent, of that; whether it has arrived though its status does not tell so; ms from sent to delivered; its
error's code if it failed."""


def standing(delivery: Delivery) -> Standing:
    """Return where a delivery counts now."""
    times, precedence, attempts = delivery.times, delivery.precedence, delivery.attempts
    tenant, channel, provider, template, created = _origin(delivery)
    sent, delivered = times[SENT], times[DELIVERED]
    duration = None
    if sent is not None:
        if delivered is not None:
            # clocks of different machines may tell that it arrived before it was sent
            duration = min(delivered - sent, LONGEST_MS) if delivered > sent else 0
        sent = minute_of(sent)
    code = None
    if precedence == FAILED:
        failure = (attempts[0] if len(attempts) == 1 else speaker(attempts, channel)).failure
        code = UNKNOWN if failure is None else failure.code
    # what contradicts that it failed is that it arrived; most often the status tells that itself
    arrived = precedence < DELIVERED and delivery.seen & CONTRADICTED != 0
    minute = minute_of(created)
    return precedence, tenant, channel, provider, template, minute, sent, arrived, duration, code


def _origin(delivery: Delivery) -> tuple[str | None, str | None, str, str | None, int]:
    """Return tenant, channel, provider, template and time of creation, as `Delivery` has them, at once."""
    request, provider = delivery.request, delivery.named
    tenant, channel = delivery.tenant_hint, delivery.channel_hint
    if request is None:
        if provider is None:
            provider = UNKNOWN
        return tenant, channel, provider, delivery.template_id_hint, delivery.created_at
    if request.tenant is not None:
        tenant = request.tenant
    if request.channel is not None:
        channel = request.channel
    if provider is None:
        provider = request.provider
    return tenant, channel, provider, request.template_id, request.created_at


def minute_of(ms: int) -> int:
    """Return the minute since the epoch; what does not fit as the nearest: records carry any time."""
    minute = ms // MINUTE_MS
    return minute if 0 <= minute <= _LAST_MINUTE else min(max(minute, 0), _LAST_MINUTE)


Place: TypeAlias = tuple[int, str | None, str | None, str, str | None]
"""A minute since the epoch; tenant, channel, provider and template."""

Changes: TypeAlias = dict[Place, Cell]
"""What is to be added to the cells of minutes."""

Group: TypeAlias = tuple[str | None, ...]


class Key(NamedTuple):
    """What a cell is of: its window, by first minute since the epoch, and its group.

    Attributes:
        level: what of the group is told apart: nothing, the provider, or all.
        group: accordingly (), (provider,) or (tenant, channel, provider, template).
    """

    granularity: bytes
    level: bytes
    start: int
    group: Group = ()

    def pack(self) -> bytes:
        """Return the key as it is stored: cells of a granularity and level lie by window."""
        return window_key(self.granularity, self.level, self.start) + _encode(self.group)

    @classmethod
    def unpack(cls, key: bytes) -> Key:
        """Read a stored key."""
        granularity, level, start = _KEY.unpack_from(key)
        return cls(granularity, level, start, _decode_group(key[_KEY.size :]))


def window_key(granularity: bytes, level: bytes, start: int) -> bytes:
    """Return what the keys of all cells of a window begin with."""
    return _KEY.pack(granularity, level, start)


def window_start(minute: int, granularity: bytes) -> int:
    """Return the first minute of the window that a minute lies in."""
    return minute - minute % WINDOW_MINUTES[granularity]


def final_before(time: int, grace_ms: int, granularity: bytes) -> int:
    """Return the minute before which all windows began that ended longer ago than a time of grace."""
    return window_start(minute_of(time - grace_ms), granularity)


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_group: Final = msgspec.msgpack.Decoder(Group).decode


class Held(NamedTuple):
    """By the length of windows, the minute from which on all are still kept.

    Of minutes it is the first of an hour, of hours the first of a day.
    """

    minutes: int = 0
    hours: int = 0
    days: int = 0

    def later(self, other: Held) -> Held:
        """Return what is kept by both."""
        return Held(*map(max, self, other))

    def by_granularity(self) -> dict[bytes, int]:
        """Return the same by granularity, the shortest windows first."""
        return dict(zip((MINUTE, HOUR, DAY), self, strict=True))


def expired_spans(held: Held) -> Iterator[tuple[bytes, bytes]]:
    """Yield where the keys of windows lie that are kept no longer: from one on, before another."""
    for granularity, oldest in held.by_granularity().items():
        for level in (WHOLE, PROVIDER, FULL):
            if oldest:
                yield window_key(granularity, level, 0), window_key(granularity, level, oldest)


ALL_HELD: Final = Held()


class Windows(NamedTuple):
    """How long windows are kept, after they began; ms. None is kept longer than a wider one."""

    minutes_ms: int = 2 * DAY_MS
    hours_ms: int = 90 * DAY_MS
    days_ms: int = 730 * DAY_MS

    def held(self, time: int) -> Held:
        """Return what is kept when time has come so far."""
        minutes, hours, days = (minute_of(time - kept) for kept in self)
        return Held(window_start(minutes, HOUR), window_start(hours, DAY), window_start(days, DAY))


class Pending(msgspec.Struct, array_like=True, gc=False):
    """What units of work have added and is not in the cells yet, and how it is stored.

    Every unit would change hundreds of cells, so its changes wait in a row of their own, in sequence, until
    there are enough of them.

    Attributes:
        first, end: which of the sequence it is: from one row until before another.
        entries: how many changes these are.
        changes: the changes themselves; none in the row that says which rows there are.
        time: how far the time of the events has come; only in that row; ms.
        held: which windows are still kept; only there.
    """

    version: Literal[1] = 1
    first: int = 0
    end: int = 0
    entries: int = 0
    changes: list[tuple[int, str | None, str | None, str, str | None, Cell]] = []
    time: int = 0
    held: Held = ALL_HELD

    def add_to(self, changes: Changes) -> None:
        """Add these to others; their cells are theirs from then on."""
        for minute, tenant, channel, provider, template, cell in self.changes:
            place = minute, tenant, channel, provider, template
            known = changes.get(place)
            if known is None:
                changes[place] = cell
            else:
                add(known, cell)


class Touched:
    """A delivery that changes.

    Attributes:
        before: where it stood before, None if it did not.
        entries: those that are new in its history.
    """

    __slots__ = ("before", "delivery", "entries")

    def __init__(self, before: Standing | None, delivery: Delivery) -> None:
        self.before = before
        self.delivery = delivery
        self.entries: list[Entry] = []


class Tally:
    """What a unit of work adds to the statistics, by minute and group.

    A delivery may change several times before it is counted: only where it stood at first and stands at last
    matters.

    Attributes:
        time: how far time has come, if a timer said so; ms.
    """

    __slots__ = ("_touched", "changes", "time")

    def __init__(self) -> None:
        self.changes: Changes = {}
        self.time = 0
        self._touched: dict[bytes, Touched] = {}

    def before(self, key: bytes, delivery: Delivery) -> Touched:
        """Return what is to be kept of a delivery before it changes; counts nothing yet."""
        touched = self._touched.get(key)
        if touched is None:
            touched = Touched(None if delivery.precedence == NOTHING else standing(delivery), delivery)
        return touched

    def changed(self, key: bytes, touched: Touched, entry: Entry | None = None) -> None:
        """Note that a delivery has changed, and its new history entry if there is one."""
        self._touched[key] = touched
        if entry is not None:
            touched.entries.append(entry)

    def settle(self) -> None:
        """Count what has changed; to be called while the deliveries are as they will be stored."""
        for touched in self._touched.values():
            self._settle(touched)
        self._touched.clear()

    def settle_one(self, key: bytes) -> None:
        """Count what has changed of one delivery, which is about to be replaced."""
        touched = self._touched.pop(key, None)
        if touched is not None:
            self._settle(touched)

    def left(self, before: Standing) -> None:
        """Count a delivery no longer."""
        self._stand(before, -1, self._cell((before[5], before[1], before[2], before[3], before[4])))

    def ended(self, outcome: int, at: int, callback: Callback | None = None) -> None:
        """Count a callback that was not plainly applied, under what it says itself of its group.

        Args:
            outcome: place in `CALLBACK_OUTCOMES`.
            at: event time, ms; of one that could not be read, the time of its arrival.
            callback: None if it could not be read.
        """
        place: Place = (minute_of(at), None, None, UNKNOWN, None)
        if callback is not None:
            provider = callback.provider or UNKNOWN
            place = (place[0], callback.tenant, callback.channel, provider, callback.template_id)
        counts = self._cell(place).counts
        counts[_OUTCOMES + outcome] = counts.get(_OUTCOMES + outcome, 0) + 1

    def _settle(self, touched: Touched) -> None:
        before, delivery, entries = touched.before, touched.delivery, touched.entries
        now = standing(delivery)
        cell = self._cell((now[5], now[1], now[2], now[3], now[4]))
        if before != now:
            if before is None:
                self._stand(now, 1, cell)
            elif before[1:7] == now[1:7]:
                self._move(before, now, cell)
            else:
                self.left(before)
                self._stand(now, 1, cell)
                if before[1:3] != now[1:3] or before[4] != now[4]:
                    self._regroup(delivery.history, entries, before, now)
        for entry in entries:
            self._happened(entry, now, 1, cell)
        if delivery.updated_at > cell.updated_at:
            cell.updated_at = delivery.updated_at

    def _stand(self, at: Standing, sign: int, cell: Cell) -> None:
        """Count a delivery that stands so, once more or once less.

        Args:
            cell: of the minute of its creation and its group.
        """
        _, tenant, channel, provider, template, minute, sent, _, _, _ = at
        if sent == minute:
            _count(cell, _BOTH, at, sign)
            return
        _count(cell, CREATED_THEN, at, sign)
        if sent is not None:
            _count(self._cell((sent, tenant, channel, provider, template)), SENT_THEN, at, sign)

    def _move(self, before: Standing, now: Standing, cell: Cell) -> None:
        """Count a delivery otherwise, in the same cells."""
        _, tenant, channel, provider, template, minute, sent, _, _, _ = now
        if sent == minute:
            _differ(cell, _BOTH, before, now)
            return
        _differ(cell, CREATED_THEN, before, now)
        if sent is not None:
            _differ(self._cell((sent, tenant, channel, provider, template)), SENT_THEN, before, now)

    def _regroup(self, history: list[Entry], new: list[Entry], before: Standing, now: Standing) -> None:
        """Count what has happened under the group that the message turned out to belong to.

        What the history has no longer stays where it was counted.
        """
        for entry in history:
            if not any(entry is one for one in new):
                self._happened(entry, before, -1, None)
                self._happened(entry, now, 1, None)

    def _happened(self, entry: Entry, now: Standing, sign: int, cell: Cell | None) -> None:
        """Count a history entry of a delivery that stands so, once more or once less.

        Args:
            cell: where the delivery itself counts, which mostly is the entry's too.
        """
        provider, at = entry.provider, entry.at
        if provider is None:
            provider = UNKNOWN
        minute = minute_of(at)
        if cell is None or minute != now[5] or provider != now[3]:
            cell = self._cell((minute, now[1], now[2], provider, now[4]))
        counts = cell.counts
        number = _ACTIVITY + entry.precedence
        counts[number] = counts.get(number, 0) + sign
        if entry.attempt == REQUESTED or (entry.id == EXPIRY and entry.precedence == EXPIRED):
            counts[_UNCALLED] = counts.get(_UNCALLED, 0) + sign
            return
        lateness = entry.receipt - at
        if lateness > 0:
            # a record may carry any timestamp, and a sum must not grow beyond what can be stored
            counts[_LATENESS_SUM] = counts.get(_LATENESS_SUM, 0) + sign * min(lateness, LONGEST_MS)
            if lateness > CURVE_MS[0]:
                number = _LATENESS + bisect_left(CURVE_MS, lateness)
                counts[number] = counts.get(number, 0) + sign

    def _cell(self, place: Place) -> Cell:
        cell = self.changes.get(place)
        if cell is None:
            cell = self.changes[place] = Cell()
        return cell


def count_created(cell: Cell, at: Standing) -> None:
    """Count a delivery that stands so among those created in a cell's window."""
    _count(cell, CREATED_THEN, at, 1)


def _count(cell: Cell, family: int, at: Standing, sign: int) -> None:
    """Count a delivery that stands so in a cohort."""
    precedence, _, _, _, _, _, _, arrived, duration, code = at
    counts = cell.counts
    counts[family + precedence] = counts.get(family + precedence, 0) + sign
    if arrived:
        counts[family + _ARRIVED] = counts.get(family + _ARRIVED, 0) + sign
    if duration is not None:
        _count_duration(counts, family, duration, sign)
    if code is not None:
        _count_failure(cell.names, family, code, sign)


def _differ(cell: Cell, family: int, before: Standing, now: Standing) -> None:
    """Count a delivery otherwise in the same cohort."""
    counts = cell.counts
    if before[0] != now[0]:
        counts[family + before[0]] = counts.get(family + before[0], 0) - 1
        counts[family + now[0]] = counts.get(family + now[0], 0) + 1
    if before[7] != now[7]:
        counts[family + _ARRIVED] = counts.get(family + _ARRIVED, 0) + (1 if now[7] else -1)
    if before[8:] != now[8:]:
        for (duration, code), sign in ((before[8:], -1), (now[8:], 1)):
            if duration is not None:
                _count_duration(counts, family, duration, sign)
            if code is not None:
                _count_failure(cell.names, family, code, sign)


def _count_failure(names: dict[str, int], family: int, code: str, sign: int) -> None:
    name = _FAILURES[family] + code
    names[name] = names.get(name, 0) + sign


def _count_duration(counts: dict[int, int], family: int, duration: int, sign: int) -> None:
    counts[family + _DURATION_SUM] = counts.get(family + _DURATION_SUM, 0) + sign * duration
    number = family + _DURATIONS + bucket(duration)
    counts[number] = counts.get(number, 0) + sign


def rolled_up(changes: Changes, held: Held = ALL_HELD) -> Iterator[tuple[bytes, Cell]]:
    """Yield what is to be added to which cell, by its key: of every granularity and level.

    What came too late for its minute, hour or day counts in the windows that are still kept.
    """
    oldest = {**held.by_granularity(), ALL: 0}
    cells: _Cells = {(place[0], place[1:]): cell for place, cell in changes.items()}
    packed: dict[Group, bytes] = {}
    for granularity, minutes in WINDOW_MINUTES.items():
        if granularity != MINUTE:
            cells = _lengthened(cells, minutes)
        by_provider = _widened(cells)
        whole = _in_all(by_provider)
        for level, some in ((FULL, cells), (PROVIDER, by_provider), (WHOLE, whole)):
            for (start, group), cell in some.items():
                if start < oldest[granularity]:
                    continue
                end = packed.get(group)
                if end is None:
                    end = packed[group] = _encode(group)
                yield window_key(granularity, level, start) + end, cell


_Cells: TypeAlias = dict[tuple[int, Group], Cell]


def _lengthened(cells: _Cells, minutes: int) -> _Cells:
    longer: _Cells = {}
    for (start, group), cell in cells.items():
        _add_at(longer, (start - start % minutes, group), cell)
    return longer


def _widened(cells: _Cells) -> _Cells:
    wider: _Cells = {}
    for (start, group), cell in cells.items():
        _add_at(wider, (start, (group[2],)), cell)
    return wider


def _in_all(by_provider: _Cells) -> _Cells:
    """Add the cells of all providers up, which then are counted by name."""
    whole: _Cells = {}
    for (start, (provider,)), cell in by_provider.items():
        into = _add_at(whole, (start, ()), cell)
        name_provider(into, cell, provider)
    return whole


def name_provider(into: Cell, cell: Cell, provider: str | None) -> None:
    """Count the messages of a cell under their provider's name in another, to which it was added."""
    messages: dict[int, int] = {}
    for number, n in cell.counts.items():
        family = number & _FAMILY
        if number - family < len(NAMES) and family != _ACTIVITY:
            messages[family] = messages.get(family, 0) + n
    for family, n in messages.items():
        if n:
            prefix = _PROVIDERS[family]
            name = prefix + (provider or UNKNOWN)
            into.names[name] = into.names.get(name, 0) + n


def _add_at(cells: _Cells, where: tuple[int, Group], cell: Cell) -> Cell:
    into = cells.get(where)
    if into is None:
        into = cells[where] = Cell(
            updated_at=cell.updated_at, counts=cell.counts.copy(), names=cell.names.copy()
        )
    else:
        add(into, cell)
    return into
