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
from streams.domain.statuses import (
    CONTRADICTED,
    DELIVERED,
    EXPIRED,
    FAILED,
    FIRST_FINAL,
    NAMES,
    NOTHING,
    SENT,
)

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
    "MOST_GROUPS",
    "OTHER",
    "PROVIDER",
    "SENT_THEN",
    "SKEWED",
    "WHOLE",
    "WINDOW_MINUTES",
    "Activity",
    "Cell",
    "Changes",
    "Cohort",
    "FullGroup",
    "Group",
    "Held",
    "Key",
    "Pending",
    "Standing",
    "Tally",
    "Windows",
    "activity",
    "add",
    "add_stored",
    "cohort",
    "count_created",
    "expired_spans",
    "final_before",
    "group_key",
    "is_full",
    "minute_of",
    "name_provider",
    "other_group",
    "other_key",
    "rolled_up",
    "standing",
    "sum_up",
    "window_key",
    "window_of",
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

MOST_GROUPS: Final = 10_000
"""Groups of a level that a partition counts apart in a window; the rest counts as one, named `OTHER`."""

CALLBACK_OUTCOMES: Final = ("applied", "repeated", "refused", "contradictory", "deadLettered")
"""What can become of a callback; one that is contradictory was applied."""

_APPLIED, REPEATED, REFUSED, CONTRADICTORY, DEAD_LETTERED = range(len(CALLBACK_OUTCOMES))

# Numbers of counters. Most messages are sent in the minute in which they are created, and count once for
# both: a cohort is what counts for both, and what counts for itself alone. Each of the three has the
# precedences of statuses, then these, all from its own number on. Durations lie by themselves, so that what
# is counted most has numbers that are stored as one byte, and that Python has but once.
_BOTH: Final = 0
CREATED_THEN: Final = 16
SENT_THEN: Final = 32
_PLACES: Final = 15
_ARRIVED_FINAL: Final = 9
"""Of those that have arrived although their status, which is final, does not say so."""
_DURATION_SUM: Final = 10
_ARRIVED_OPEN: Final = 11
"""Likewise of those whose status is not final."""
_SKEWED: Final = 12
"""Of those whose times of sending and delivery contradict each other, or the status."""
_DURATIONS: Final = 1024
"""From here on of what counts for both, then so many further on of the others."""
# Activity has the statuses of new history entries, then these.
_ACTIVITY: Final = 48
_OUTCOMES: Final = _ACTIVITY + 16
_UNCALLED: Final = _OUTCOMES
"""New history entries that no callback made; those of a place in `CALLBACK_OUTCOMES` follow, from 1 on."""
_LATENESS_SUM: Final = _ACTIVITY + 32
_LATENESS: Final = _ACTIVITY + 33
"""Of callbacks that did not come within the first of `CURVE_MS`; from 1 on."""

_FAMILIES: Final = (_ACTIVITY, _BOTH, CREATED_THEN, SENT_THEN)
_DURATIONS_OF: Final = {family: of * _DURATIONS for of, family in enumerate(_FAMILIES) if of}

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

    version: Literal[3] = 3
    updated_at: int = 0
    counts: dict[int, int] = {}
    names: dict[str, int] = {}


class Cohort(NamedTuple):
    """Messages, and where they stand now.

    Attributes:
        by_status: by precedence.
        arrived: how many have ever arrived, whatever was said of them later.
        arrived_final: how many of those stand in a final status.
        clock_skew: how many were said to be delivered before they were sent, or without having arrived.
        duration_sum: of the times from sent to delivered, ms.
        durations: how often such a time lies in each bucket of the histogram.
        failures: of those that stand as FAILED, by error code.
        providers: messages by provider; empty unless the group is all messages.
    """

    by_status: list[int]
    arrived: int
    arrived_final: int
    clock_skew: int
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
    count = cell.counts.get
    both, own = ([count(of + place, 0) for place in range(_PLACES)] for of in (_BOTH, family))
    counts = [n + m for n, m in zip(both, own, strict=True)]
    by_status = counts[: len(NAMES)]
    durations: Durations = {}
    for number, n in cell.counts.items():
        of, at = divmod(number, _DURATIONS)
        if of and n and _FAMILIES[of] in (_BOTH, family):
            durations[at] = durations.get(at, 0) + n
    arrived_final = counts[_ARRIVED_FINAL] + sum(by_status[DELIVERED:])
    return Cohort(
        by_status,
        counts[_ARRIVED_OPEN] + arrived_final,
        arrived_final,
        counts[_SKEWED],
        counts[_DURATION_SUM],
        {at: n for at, n in durations.items() if n},
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
    """Add a cell to a sum, fast: what comes to zero stays as that, so it is not to be stored as it is."""
    counts = cell.counts
    count_of = counts.get
    for number, n in more.counts.items():
        counts[number] = count_of(number, 0) + n
    for name, n in more.names.items():
        cell.names[name] = cell.names.get(name, 0) + n
    if more.updated_at > cell.updated_at:
        cell.updated_at = more.updated_at


def add_stored(cell: Cell, more: Cell) -> None:
    """Add what changed to a cell as it is stored.

    Of each kind so many names are counted apart; and counters stand in order, so that equal cells are stored
    as equal bytes.
    """
    counts, added = cell.counts, more.counts
    if not counts:
        cell.counts = {number: n for number in sorted(added) if (n := added[number])}
    else:
        is_known = counts.keys() >= added.keys()
        _add_counts(counts, added)
        if not is_known:
            cell.counts = dict(sorted(counts.items()))
    if more.names:
        # what goes before what comes, so that there is room
        for name, n in sorted(more.names.items(), key=_by_count):
            _count_name(cell.names, name, n)
        cell.names = dict(sorted(cell.names.items()))
    if more.updated_at > cell.updated_at:
        cell.updated_at = more.updated_at


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


FullGroup: TypeAlias = tuple[str | None, str | None, str, str | None]
"""Tenant, channel, provider and template."""

Standing: TypeAlias = tuple[FullGroup, int, int, int | None, int, int | None, str | None]
"""Where a delivery counts: its group; the minute of its creation; precedence; the minute in which it was
sent, if it was; the counter of those that have arrived though their status does not say so, or 0; ms from
sent to delivered, or SKEWED; the code of its error, if it failed. A bare tuple: two are made of each
callback."""

SKEWED: Final = -1
"""Replaces a duration that is negative, or that belongs to a message that has not arrived."""


def standing(delivery: Delivery) -> Standing:
    """Return where a delivery counts now."""
    times, precedence = delivery.times, delivery.precedence
    sent, delivered = times[SENT], times[DELIVERED]
    duration, has_arrived = None, delivery.seen & CONTRADICTED
    if sent is not None:
        if delivered is not None:
            duration = min(delivered - sent, LONGEST_MS) if delivered >= sent and has_arrived else SKEWED
        # as `minute_of`, but two calls less for each of the two that are made of a callback
        sent //= MINUTE_MS
        if not 0 <= sent <= _LAST_MINUTE:
            sent = _nearest(sent)
    code = None
    if precedence == FAILED:
        attempts = delivery.attempts
        failure = (attempts[0] if len(attempts) == 1 else speaker(attempts, delivery.channel)).failure
        code = UNKNOWN if failure is None else failure.code
    # what contradicts that it failed is that it arrived; most often the status says that itself
    arrived = 0
    if has_arrived and precedence < DELIVERED:
        arrived = _ARRIVED_FINAL if precedence >= FIRST_FINAL else _ARRIVED_OPEN
    group, created = _origin(delivery)
    minute = created // MINUTE_MS
    if not 0 <= minute <= _LAST_MINUTE:
        minute = _nearest(minute)
    return group, minute, precedence, sent, arrived, duration, code


def _origin(delivery: Delivery) -> tuple[FullGroup, int]:
    """Return the group and the time of creation, ms, as `Delivery` has them, at once."""
    request, provider = delivery.request, delivery.named
    if request is None:
        if provider is None:
            provider = UNKNOWN
        attempts = delivery.attempts
        created = attempts[0].at if len(attempts) == 1 else delivery.created_at
        return (delivery.tenant_hint, delivery.channel_hint, provider, delivery.template_id_hint), created
    tenant = delivery.tenant_hint if request.tenant is None else request.tenant
    channel = delivery.channel_hint if request.channel is None else request.channel
    if provider is None:
        provider = request.provider
    return (tenant, channel, provider, request.template_id), request.created_at


def minute_of(ms: int) -> int:
    """Return the minute since the epoch; what does not fit as the nearest: records carry any time."""
    minute = ms // MINUTE_MS
    return minute if 0 <= minute <= _LAST_MINUTE else _nearest(minute)


def _nearest(minute: int) -> int:
    return min(max(minute, 0), _LAST_MINUTE)


Changes: TypeAlias = dict[FullGroup, dict[int, Cell]]
"""What is to be added to the cells of minutes, by group and minute since the epoch."""

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


def window_of(key: bytes) -> bytes:
    """Return what the keys of all cells of the window and level of a stored key begin with."""
    return key[: _KEY.size]


def other_group(level: bytes) -> Group:
    """Return the group of a level that stands for those that have no cell of their own."""
    return (OTHER,) * _GROUP_LENGTHS[level]


def other_key(window: bytes) -> bytes:
    """Return the key of the cell of a window that counts the groups that have none of their own."""
    return window + _encode(other_group(window[1:2]))


def group_key(window: bytes, group: Group) -> bytes:
    """Return the key of the cell of a group in a window."""
    return window + _encode(group)


def is_full(groups: Pending | None) -> bool:
    """Say whether a window counts no more groups apart, by the row that says how many it does."""
    return groups is not None and groups.entries >= MOST_GROUPS


_GROUP_LENGTHS: Final[Mapping[bytes, int]] = {WHOLE: 0, PROVIDER: 1, FULL: 4}


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


def expired_spans(gone: Held, held: Held) -> Iterator[tuple[bytes, bytes]]:
    """Yield where the keys of windows lie that are kept no longer: from one on, before another.

    Args:
        gone: what has been let go before.
        held: what is still kept.
    """
    since = gone.by_granularity()
    for granularity, oldest in held.by_granularity().items():
        for level in (WHOLE, PROVIDER, FULL):
            if since[granularity] < oldest:
                first = window_key(granularity, level, since[granularity])
                yield first, window_key(granularity, level, oldest)


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
    there are enough of them. In a sequence of their own are rows of cells that changed and were not told of.
    One row, the head, says which rows there are. And a window has a row that says how many groups it counts
    apart, as its `entries`.

    Attributes:
        first, end: which of the sequence it is: from one row until before another.
        entries: how many changes these are.
        changes: the changes themselves; none in the head.
        cells: keys of cells that have changed; none in the head.
        time: how far the time of the events has come; only in the head, as all that follows; ms.
        held: which windows are still kept.
        gone: as far as the cells of others have been let go.
        untold, untold_end: which rows there are of cells that have changed.
    """

    version: Literal[2] = 2
    first: int = 0
    end: int = 0
    entries: int = 0
    changes: list[tuple[FullGroup, dict[int, Cell]]] = []
    cells: list[bytes] = []
    time: int = 0
    held: Held = ALL_HELD
    gone: Held = ALL_HELD
    untold: int = 0
    untold_end: int = 0

    def add_to(self, changes: Changes) -> None:
        """Add these to others; their cells are theirs from then on."""
        for group, cells in self.changes:
            minutes = changes.get(group)
            if minutes is None:
                changes[group] = cells
                continue
            for minute, cell in cells.items():
                known = minutes.get(minute)
                if known is None:
                    minutes[minute] = cell
                else:
                    sum_up(known, cell)


class Touched(msgspec.Struct, gc=False):
    """A delivery that changes.

    Attributes:
        before: where it stood before, None if it did not.
        entries: those that are new in its history.
    """

    before: Standing | None
    delivery: Delivery
    entries: list[Entry] = []


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
        self._stand(before, -1, self._cell(before[0], before[1]))

    def ended(self, outcome: int, at: int, callback: Callback | None = None) -> None:
        """Count a callback that was not plainly applied, under what it says itself of its group.

        Args:
            outcome: place in `CALLBACK_OUTCOMES`.
            at: event time, ms; of one that could not be read, the time of its arrival.
            callback: None if it could not be read.
        """
        group: FullGroup = None, None, UNKNOWN, None
        if callback is not None:
            provider = callback.provider or UNKNOWN
            group = callback.tenant, callback.channel, provider, callback.template_id
        counts = self._cell(group, minute_of(at)).counts
        counts[_OUTCOMES + outcome] = counts.get(_OUTCOMES + outcome, 0) + 1

    def _settle(self, touched: Touched) -> None:
        before, delivery, entries = touched.before, touched.delivery, touched.entries
        now = standing(delivery)
        group, minute = now[0], now[1]
        cell = self._cell(group, minute)
        if before is None:
            self._stand(now, 1, cell)
        elif before != now:
            was = before[0]
            if was == group and minute == before[1] and before[3] == now[3]:
                self._move(before, now, cell)
            else:
                self.left(before)
                self._stand(now, 1, cell)
                if was[:2] != group[:2] or was[3] != group[3]:
                    self._regroup(delivery.history, entries, was, group)
        self._happened(entries, group, 1, cell, minute)
        if delivery.updated_at > cell.updated_at:
            cell.updated_at = delivery.updated_at

    def _stand(self, at: Standing, sign: int, cell: Cell) -> None:
        """Count a delivery that stands so, once more or once less.

        Args:
            cell: of the minute of its creation and its group.
        """
        group, minute, _, sent, _, _, _ = at
        if sent == minute:
            _count(cell, _BOTH, at, sign)
            return
        _count(cell, CREATED_THEN, at, sign)
        if sent is not None:
            _count(self._cell(group, sent), SENT_THEN, at, sign)

    def _move(self, before: Standing, now: Standing, cell: Cell) -> None:
        """Count a delivery otherwise, in the same cells."""
        group, minute, _, sent, _, _, _ = now
        if sent == minute:
            _differ(cell, _BOTH, before, now)
            return
        _differ(cell, CREATED_THEN, before, now)
        if sent is not None:
            _differ(self._cell(group, sent), SENT_THEN, before, now)

    def _regroup(self, history: list[Entry], new: list[Entry], before: FullGroup, now: FullGroup) -> None:
        """Count what has happened under the group that the message turned out to belong to.

        What the history has no longer stays where it was counted.
        """
        known = [entry for entry in history if not any(entry is one for one in new)]
        self._happened(known, before, -1)
        self._happened(known, now, 1)

    def _happened(
        self, entries: list[Entry], group: FullGroup, sign: int, near: Cell | None = None, minute: int = -1
    ) -> None:
        """Count history entries of a delivery of a group, once more or once less.

        Args:
            near: the cell of this group and a minute, where most of them count.
        """
        for entry in entries:
            provider, at, precedence = entry.provider, entry.at, entry.precedence
            if provider is None:
                provider = UNKNOWN
            if provider != group[2]:
                counts = self._cell((group[0], group[1], provider, group[3]), minute_of(at)).counts
            elif near is None or at // MINUTE_MS != minute:
                counts = self._cell(group, minute_of(at)).counts
            else:
                counts = near.counts
            number = _ACTIVITY + precedence
            counts[number] = counts.get(number, 0) + sign
            if entry.attempt == REQUESTED or (precedence == EXPIRED and entry.id == EXPIRY):
                counts[_UNCALLED] = counts.get(_UNCALLED, 0) + sign
                continue
            lateness = entry.receipt - at
            if lateness > 0:
                if lateness > CURVE_MS[0]:
                    number = _LATENESS + bisect_left(CURVE_MS, lateness)
                    counts[number] = counts.get(number, 0) + sign
                    # a record may carry any timestamp, and a sum must not grow beyond what can be stored
                    lateness = min(lateness, LONGEST_MS)
                counts[_LATENESS_SUM] = counts.get(_LATENESS_SUM, 0) + sign * lateness

    def _cell(self, group: FullGroup, minute: int) -> Cell:
        minutes = self.changes.get(group)
        if minutes is None:
            minutes = self.changes[group] = {}
        cell = minutes.get(minute)
        if cell is None:
            cell = minutes[minute] = Cell()
        return cell


def count_created(cell: Cell, at: Standing) -> None:
    """Count a delivery that stands so among those created in a cell's window."""
    _count(cell, CREATED_THEN, at, 1)


def _count(cell: Cell, family: int, at: Standing, sign: int) -> None:
    """Count a delivery that stands so in a cohort."""
    _, _, precedence, _, arrived, duration, code = at
    counts = cell.counts
    counts[family + precedence] = counts.get(family + precedence, 0) + sign
    if arrived:
        counts[family + arrived] = counts.get(family + arrived, 0) + sign
    if duration is not None:
        _count_duration(counts, family, duration, sign)
    if code is not None:
        _count_failure(cell.names, family, code, sign)


def _count_arrivals(counts: dict[int, int], family: int, before: int, now: int) -> None:
    for arrived, sign in ((before, -1), (now, 1)):
        if arrived:
            counts[family + arrived] = counts.get(family + arrived, 0) + sign


def _count_durations(counts: dict[int, int], family: int, took: int | None, takes: int | None) -> None:
    for duration, sign in ((took, -1), (takes, 1)):
        if duration is not None:
            _count_duration(counts, family, duration, sign)


def _count_failures(names: dict[str, int], family: int, failed_by: str | None, fails_by: str | None) -> None:
    for code, sign in ((failed_by, -1), (fails_by, 1)):
        if code is not None:
            _count_failure(names, family, code, sign)


def _differ(cell: Cell, family: int, before: Standing, now: Standing) -> None:
    """Count a delivery otherwise in the same cohort."""
    counts = cell.counts
    _, _, was_at, _, had_arrived, took, failed_by = before
    _, _, is_at, _, has_arrived, takes, fails_by = now
    if was_at != is_at:
        counts[family + was_at] = counts.get(family + was_at, 0) - 1
        counts[family + is_at] = counts.get(family + is_at, 0) + 1
    if had_arrived != has_arrived:
        _count_arrivals(counts, family, had_arrived, has_arrived)
    if took != takes:
        _count_durations(counts, family, took, takes)
    if failed_by != fails_by:
        _count_failures(cell.names, family, failed_by, fails_by)


def _count_failure(names: dict[str, int], family: int, code: str, sign: int) -> None:
    name = _FAILURES[family] + code
    names[name] = names.get(name, 0) + sign


def _count_duration(counts: dict[int, int], family: int, duration: int, sign: int) -> None:
    if duration == SKEWED:
        counts[family + _SKEWED] = counts.get(family + _SKEWED, 0) + sign
        return
    counts[family + _DURATION_SUM] = counts.get(family + _DURATION_SUM, 0) + sign * duration
    number = _DURATIONS_OF[family] + bucket(duration)
    counts[number] = counts.get(number, 0) + sign


def rolled_up(changes: Changes, held: Held = ALL_HELD) -> Iterator[tuple[bytes, Cell]]:
    """Yield what is to be added to which cell, by its key: of every granularity and level.

    What came too late for its minute, hour or day counts in the windows that are still kept. The work is done
    window by window, so that who asks for the next few does not wait for all.
    """
    oldest = {**held.by_granularity(), ALL: 0}
    windows: dict[int, _Groups] = {}
    for full, cells in changes.items():
        for minute, cell in cells.items():
            windows.setdefault(minute, {})[full] = cell
    packed: dict[Group, bytes] = {}
    for granularity, minutes in _LONGER.items():
        longer: dict[int, _Groups] = {}
        for start, groups in windows.items():
            if start >= oldest[granularity]:
                yield from _of_window(granularity, start, groups, packed)
            if minutes:
                into = longer.setdefault(start - start % minutes, {})
                for group, cell in groups.items():
                    _add_at(into, group, cell)
        windows = longer


_LONGER: Final = dict(zip(WINDOW_MINUTES, (*WINDOW_MINUTES.values(), 0)[1:], strict=True))
"""How long the windows are that those of a granularity are added up to."""

_Groups: TypeAlias = dict[Group, Cell]


def _of_window(
    granularity: bytes, start: int, groups: _Groups, packed: dict[Group, bytes]
) -> Iterator[tuple[bytes, Cell]]:
    """Yield the cells of one window, of every level.

    Args:
        packed: groups as they are stored, to be done but once.
    """
    by_provider: _Groups = {}
    for group, cell in groups.items():
        _add_at(by_provider, (group[2],), cell)
    whole: _Groups = {}
    for (provider,), cell in by_provider.items():
        name_provider(_add_at(whole, (), cell), cell, provider)
    for level, some in ((FULL, groups), (PROVIDER, by_provider), (WHOLE, whole)):
        begin = window_key(granularity, level, start)
        for group, cell in some.items():
            end = packed.get(group)
            if end is None:
                end = packed[group] = _encode(group)
            yield begin + end, cell


def name_provider(into: Cell, cell: Cell, provider: str | None) -> None:
    """Count the messages of a cell under their provider's name in another, to which it was added."""
    messages: dict[int, int] = {}
    for number, n in cell.counts.items():
        if number < _ACTIVITY and number & _PLACES < len(NAMES):
            family = number & ~_PLACES
            messages[family] = messages.get(family, 0) + n
    for family, n in messages.items():
        if n:
            prefix = _PROVIDERS[family]
            name = prefix + (provider or UNKNOWN)
            into.names[name] = into.names.get(name, 0) + n


def _add_at(groups: _Groups, group: Group, cell: Cell) -> Cell:
    into = groups.get(group)
    if into is None:
        into = groups[group] = Cell(
            updated_at=cell.updated_at, counts=cell.counts.copy(), names=cell.names.copy()
        )
        return into
    sum_up(into, cell)
    return into
