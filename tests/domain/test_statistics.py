"""Statistics as cells that add up."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.delivery import Callback, Delivery
from streams.domain.histogram import bucket
from streams.domain.statistics import (
    CREATED_THEN,
    SENT_THEN,
    SKEWED,
    Cell,
    Key,
    Tally,
    activity,
    add,
    add_stored,
    cohort,
    minute_of,
    rolled_up,
    standing,
    window_key,
)
from streams.domain.summaries import activity_summary, summary
from tests.domain.sayings import NOON, callback, delivery_of, request

MINUTE = NOON // 60_000


def test_a_delivery_stands_where_it_was_created_and_sent() -> None:
    """Status, group, minutes, whether it arrived, how long that took, and why it failed."""
    sent = callback("SENT", 10, provider="a", channel="sms", tenant="t", template_id="x")

    group = "t", "sms", "a", "x"
    assert standing(delivery_of(sent)) == (group, MINUTE, 2, MINUTE, False, None, None)
    assert standing(delivery_of(sent, callback("DELIVERED", 60_025, provider="a"))) == (
        *(group, MINUTE, 6, MINUTE, False, 60_015, None),
    )
    nobody = None, None, "unknown", None
    assert standing(delivery_of(callback("DELIVERED"))) == (nobody, MINUTE, 6, None, False, None, None)
    assert standing(delivery_of(request(), callback("READ", 3)))[0][2:] == ("solapi", "tpl")
    assert standing(delivery_of(callback("FAILED")))[6] == "unknown"


@pytest.mark.parametrize(
    ("said", "duration"),
    [
        ([callback("SENT", 10), callback("DELIVERED", 10)], 0),
        ([callback("SENT", 10), callback("DELIVERED", 9)], SKEWED),
        ([callback("SENT", 10, delivered_at=20)], SKEWED),
        ([callback("SENT", 10), callback("FAILED", 30, delivered_at=20)], SKEWED),
        ([callback("SENT", 10), callback("READ", 30, delivered_at=20)], 10),
        ([callback("SENT", 10), callback("READ", 30)], None),
    ],
)
def test_a_duration_that_cannot_be_is_not_counted_as_one(said: list[Callback], duration: int | None) -> None:
    """Clocks of two machines disagree, or a message that never arrived has a time of delivery."""
    assert standing(delivery_of(*said))[5] == duration


def test_an_average_leaves_out_what_was_delivered_before_it_was_sent() -> None:
    """A provider whose clock is behind would look like the fastest."""
    late = delivery_of(callback("SENT", 0), callback("DELIVERED", 4_000))
    early = delivery_of(callback("SENT", 45_000), callback("DELIVERED", 2))

    stats = summary(moved(late, early), CREATED_THEN)
    assert (stats.average_delivery_time, stats.clock_skew, stats.delivery_curve["5s"]) == (0, 1, 0)
    stats = summary(moved(early, late), CREATED_THEN)
    assert (stats.average_delivery_time, stats.clock_skew, stats.delivery_curve["5s"]) == (4_000, 0, 100)


def test_a_rate_of_final_messages_has_one_population() -> None:
    """A message that arrived, then failed, and is sent by another provider is not final."""
    open_one = delivery_of(
        callback("DELIVERED", 1_000, provider="ses", channel="email"),
        callback("FAILED", 9_000, provider="ses"),
        callback("SENT", 20_000, provider="sendgrid"),
    )
    assert open_one.status == "SENT"

    stats = summary(moved(open_one), CREATED_THEN)
    assert (stats.delivery_rate, stats.delivery_rate_of_final) == (100, 0)


def moved(*stages: Delivery) -> Cell:
    """What all time counts of a delivery that was so, then so, each stage in a unit of its own."""
    cell, stored = Cell(), Delivery()
    for stage in stages:
        tally = Tally()
        touched = tally.before(b"m", stored)
        touched.delivery = stage
        tally.changed(b"m", touched)
        tally.settle()
        stored = stage
        for key, more in rolled_up(tally.changes):
            if key.startswith(window_key(b"a", b"w", 0)):
                add(cell, more)
    return cell


def test_a_delivery_that_moves_leaves_where_it_stood() -> None:
    """Whatever it was before: in the end it counts once, as it is."""
    first = delivery_of(callback("SENT", 0, provider="a"))
    failed = delivery_of(callback("SENT", 0, provider="a"), callback("FAILED", 9, provider="a"))
    other = delivery_of(
        callback("FAILED", 9, provider="a", attempt=1),
        callback("SENT", 70_000, provider="b", attempt=2),
        callback("DELIVERED", 70_500, provider="b", attempt=2),
    )

    assert moved(first, failed, other).counts == moved(other).counts
    found = cohort(moved(first, failed, other), CREATED_THEN)
    assert found == ([0, 0, 0, 0, 0, 0, 1, 0, 0], 1, 1, 0, 500, {bucket(500): 1}, {}, {"b": 1})


def test_a_cell_is_known_by_its_key() -> None:
    """Golden values: they stand in tables and changelogs; cells of a granularity and level lie by window."""
    key = Key(b"m", b"f", 29_923_920, (None, "sms", "é", "x"))

    assert key.pack() == b"mf\x01\xc8\x9a\x50\x94\xc0\xa3sms\xa2\xc3\xa9\xa1x"
    assert Key.unpack(key.pack()) == key
    assert key.pack().startswith(window_key(b"m", b"f", 29_923_920))
    assert Key(b"a", b"w", 0).pack() == b"aw\0\0\0\0\x90"


@pytest.mark.parametrize(("ms", "minute"), [(-1, 0), (59_999, 0), (60_000, 1), (2**62, 2**32 - 1)])
def test_a_minute_that_does_not_fit_counts_as_the_nearest(ms: int, minute: int) -> None:
    """A record may carry any timestamp; it must not stop its lane."""
    assert minute_of(ms) == minute


cells = st.builds(
    Cell,
    updated_at=st.integers(0, 5),
    counts=st.dictionaries(st.integers(0, 40), st.integers(-5, 5)),
    names=st.dictionaries(st.sampled_from(["cf:a", "cf:b", "sp:x"]), st.integers(-5, 5)),
)


@given(st.lists(cells, min_size=1), st.data())
def test_cells_add_up_in_any_order(some: list[Cell], data: st.DataObject) -> None:
    """The same sum, however they are ordered, and after storage."""
    one, other = Cell(), Cell()
    for added in some:
        add(one, added)
    for added in data.draw(st.permutations(some)):
        add(other, msgspec.msgpack.decode(msgspec.msgpack.encode(added), type=Cell))

    assert one == other
    assert 0 not in one.counts.values()


@given(st.lists(cells, min_size=1), st.data())
def test_cells_that_were_added_up_in_any_order_are_stored_as_the_same_bytes(
    some: list[Cell], data: st.DataObject
) -> None:
    """Counters that have come to zero and come again stand where they stood."""
    for added in some:
        added.names = {name: abs(n) for name, n in added.names.items()}
    one, other, plain = Cell(), Cell(), Cell()
    for added in some:
        add_stored(one, added)
        add(plain, added)
    for added in data.draw(st.permutations(some)):
        add_stored(other, added)

    assert msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)
    assert one == plain


@given(cells, cells)
def test_what_was_added_can_be_taken_back(one: Cell, other: Cell) -> None:
    """A sum less one of its parts is the other."""
    whole = Cell()
    for part, sign in ((one, 1), (other, 1), (other, -1)):
        add(whole, Cell(counts={k: sign * n for k, n in part.counts.items()}))

    assert whole.counts == {k: n for k, n in one.counts.items() if n}


@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(-3, 5)), max_size=200),
)
def test_names_beyond_so_many_count_as_other(changes: list[tuple[int, int]]) -> None:
    """The sum of all is right, no name is less than zero, and a cell stays small."""
    there = dict.fromkeys(range(60), 0)
    cell = Cell()
    for code, n in changes:
        change = max(n, -there[code])
        there[code] += change
        if change:
            add_stored(cell, Cell(names={f"cf:{code}": change}))

    failures = cohort(cell, CREATED_THEN).failures
    assert sum(failures.values()) == sum(there.values())
    assert all(n > 0 for name, n in failures.items())
    assert len(failures) <= 51
    if sum(map(bool, there.values())) <= 50 and "other" not in failures:
        assert failures == {str(code): n for code, n in there.items() if n}


def test_what_is_counted_belongs_to_a_window_of_each_length_and_a_group_of_each_width() -> None:
    """A change of a minute and group is one of its hour, day, and all time; of its provider, and of all."""
    tally = Tally()
    stored = Delivery()
    touched = tally.before(b"m", stored)
    touched.delivery = delivery_of(callback("SENT", 3_700_000, provider="a"))
    tally.changed(b"m", touched)
    tally.settle()

    found = {Key.unpack(key) for key, _ in rolled_up(tally.changes)}

    minute = MINUTE + 61
    assert found == {
        Key(granularity, level, start, group)
        for granularity, start in (
            (b"m", minute),
            (b"h", minute - minute % 60),
            (b"d", minute - minute % 1440),
            (b"a", 0),
        )
        for level, group in ((b"w", ()), (b"p", ("a",)), (b"f", (None, None, "a", None)))
    }


def test_an_answer_is_made_of_counts() -> None:
    """Rates are percent; what was read or clicked has arrived, whatever the status says now."""
    durations = {3 * 1024 + bucket(ms): n for ms, n in ((1_000, 2), (40_000, 1), (7_200_000, 1))}
    counts = {2: 2, 4: 1, 5: 1, 6: 2, 7: 1, 8: 1} | {9: 1, 11: 1, 12: 2}
    cell = Cell(
        3,
        NOON,
        {32 + number: n for number, n in counts.items()} | durations | {32 + 10: 7_242_000},
        {"sf:E1": 1, "sp:a": 5, "sp:b": 3},
    )

    stats = msgspec.to_builtins(summary(cell, SENT_THEN))

    assert stats == {
        "totalMessages": 8,
        "byStatus": {
            "QUEUED": 0,
            "SENDING": 0,
            "SENT": 2,
            "CANCELLED": 0,
            "EXPIRED": 1,
            "FAILED": 1,
            "DELIVERED": 2,
            "READ": 1,
            "CLICKED": 1,
        },
        "byProvider": {"a": 5, "b": 3},
        "byErrorCode": {"E1": 1},
        "averageDeliveryTime": 1_810_500.0,
        "deliveryRate": 75.0,
        "deliveryRateOfFinal": pytest.approx(500 / 6),
        "failureRate": 12.5,
        "deliveryTime": {
            "p50": pytest.approx(1_000, rel=0.01),
            "p90": pytest.approx(7_200_000, rel=0.01),
            "p95": pytest.approx(7_200_000, rel=0.01),
            "p99": pytest.approx(7_200_000, rel=0.01),
        },
        "deliveryCurve": {"5s": 25.0, "30s": 25.0, "1m": 37.5, "5m": 37.5, "1h": 37.5, "24h": 50.0},
        "clockSkew": 2,
        "lastUpdated": "2026-11-23T12:00:00.000Z",
    }
    assert summary(cell, CREATED_THEN).total_messages == 0


def test_an_answer_of_nothing_is_zero() -> None:
    """No message, no rate, no time."""
    stats = summary(Cell(), CREATED_THEN)

    assert (stats.total_messages, stats.average_delivery_time, stats.delivery_rate) == (0, 0, 0)
    assert (stats.delivery_time.p50, stats.last_updated) == (None, None)


def test_what_happened_is_told_with_how_late_it_was_heard() -> None:
    """Callbacks by what became of them; of those that were applied, how long they took to come."""
    tally = Tally()
    delivery = delivery_of(callback("SENT", 0, provider="a"), callback("DELIVERED", 9, provider="a"))
    for entry, late in zip(delivery.history, (0, 90_000), strict=True):
        entry.receipt = entry.at + late
    touched = tally.before(b"m", Delivery())
    touched.delivery = delivery
    for entry in delivery.history:
        tally.changed(b"m", touched, entry)
    tally.settle()
    tally.ended(2, NOON, None)

    whole = next(cell for key, cell in rolled_up(tally.changes) if key.startswith(window_key(b"a", b"w", 0)))

    assert activity(whole).lateness == [1, 0, 0, 1, 0, 0, 0]
    assert msgspec.to_builtins(activity_summary(whole)) == {
        "transitions": {
            "QUEUED": 0,
            "SENDING": 0,
            "SENT": 1,
            "CANCELLED": 0,
            "EXPIRED": 0,
            "FAILED": 0,
            "DELIVERED": 1,
            "READ": 0,
            "CLICKED": 0,
        },
        "callbacks": {"applied": 2, "repeated": 0, "refused": 1, "contradictory": 0, "deadLettered": 0},
        "averageLateness": 45_000.0,
        "latenessCurve": {"5s": 50.0, "30s": 50.0, "1m": 50.0, "5m": 100.0, "1h": 100.0, "24h": 100.0},
    }


def test_a_record_of_any_timestamp_cannot_make_a_sum_too_large() -> None:
    """Nanoseconds for milliseconds, again and again: a cell can always be stored."""
    cell = Cell()
    for n in range(20):
        tally = Tally()
        delivery = delivery_of(callback("SENT", 0), callback("DELIVERED", 9))
        delivery.times[6] = 2**62
        delivery.history[0].receipt = 2**62
        touched = tally.before(b"%d" % n, Delivery())
        touched.delivery = delivery
        tally.changed(b"%d" % n, touched, delivery.history[0])
        tally.settle()
        for key, more in rolled_up(tally.changes):
            if key.startswith(window_key(b"a", b"w", 0)):
                add(cell, more)

    month = 30 * 86_400_000
    assert cohort(cell, CREATED_THEN).duration_sum == activity(cell).lateness_sum == 20 * month
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(cell), type=Cell) == cell


def test_what_is_pending_may_take_away_a_name_that_had_no_room() -> None:
    """It was counted as other, so it is taken from there."""
    cell = Cell(names={"cf:other": 5, "cf:a": 1, "cf:late": -1})

    assert cohort(cell, CREATED_THEN).failures == {"a": 1, "other": 4}
