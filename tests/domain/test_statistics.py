"""Statistics as cells that add up."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.delivery import Delivery
from streams.domain.statistics import Cell, Tally, merge, minute_key, standing, total_key, totals
from tests.domain.sayings import NOON, callback, delivery_of, request


def cell(updated_at: int = 0, took: int = 0, timed: int = 0, **counts: int) -> Cell:
    names = ["QUEUED", "SENDING", "SENT", "CANCELLED", "EXPIRED", "FAILED", "DELIVERED", "READ", "CLICKED"]
    return Cell(
        counts=[counts.get(name, 0) for name in names],
        duration_sum=took,
        duration_count=timed,
        updated_at=updated_at,
    )


def test_a_delivery_stands_in_the_cell_of_its_provider_and_status() -> None:
    """Without a provider it counts as unknown; the time from sent to delivered counts when both are known."""
    delivery = delivery_of(callback("SENT", 10, provider="a"), callback("DELIVERED", 25, provider="b"))

    assert standing(delivery) == (6, "b", 15)
    assert standing(delivery_of(callback("DELIVERED"))) == (6, "unknown", None)
    assert standing(delivery_of(request(), callback("DELIVERED", 3))) == (6, "solapi", None)


def test_a_delivery_never_takes_less_than_no_time() -> None:
    """Clocks of two machines may say that it arrived before it was sent."""
    assert standing(delivery_of(callback("SENT", 10), callback("DELIVERED", 4)))[2] == 0


def stands(precedence: int, provider: str, took: int | None, updated_at: int) -> Delivery:
    delivery = Delivery(precedence=precedence, named=provider, updated_at=updated_at)
    if took is not None:
        delivery.times[2], delivery.times[6] = NOON, NOON + took
    return delivery


def test_a_delivery_that_moves_leaves_where_it_stood() -> None:
    """One away from the old provider and status, one to the new; each with its time."""
    tally = Tally()
    tally.moved(None, stands(2, "a", None, 100))
    tally.moved((2, "a", None), stands(6, "b", 15, 200))
    tally.moved((6, "b", 15), stands(6, "b", 12, 150))
    tally.moved((6, "b", 12), stands(6, "b", 12, 300))
    tally.moved((6, "b", 12), stands(6, "b", 12, 250))

    assert dict(tally.cells()) == {b"ta": cell(100), b"tb": cell(300, took=12, timed=1, DELIVERED=1)}


def test_minutes_count_what_happened_by_event_time() -> None:
    """One cell for each minute and provider; an entry counts in its status."""
    tally = Tally()
    tally.happened(NOON, "a", 2)
    tally.happened(NOON + 59_999, "a", 2)
    tally.happened(NOON + 60_000, "a", 6)
    tally.happened(NOON, None, 0)

    minute = NOON // 60_000
    assert dict(tally.cells()) == {
        minute_key(minute, "a"): cell(SENT=2),
        minute_key(minute + 1, "a"): cell(DELIVERED=1),
        minute_key(minute, "unknown"): cell(QUEUED=1),
    }


def test_keys_of_cells_never_change() -> None:
    """Golden values: they stand in tables and changelogs, and sort by minute."""
    assert minute_key(29_923_920, "solapi") == b"m\x01\xc8\x9a\x50solapi"
    assert total_key("é") == b"t\xc3\xa9"


@pytest.mark.parametrize(("minute", "key"), [(-1, b"m\0\0\0\0a"), (2**40, b"m\xff\xff\xff\xffa")])
def test_a_minute_that_does_not_fit_counts_as_the_nearest(minute: int, key: bytes) -> None:
    """A record may carry any timestamp; it must not stop its lane."""
    assert minute_key(minute, "a") == key


cells = st.builds(
    Cell,
    counts=st.lists(st.integers(-5, 5), min_size=9, max_size=9),
    duration_sum=st.integers(-5, 5),
    duration_count=st.integers(-5, 5),
    updated_at=st.integers(0, 5),
)


@given(st.lists(cells, min_size=1), st.data())
def test_cells_add_up_in_any_order(some: list[Cell], data: st.DataObject) -> None:
    """The same sum, however they are ordered, and after storage."""
    one, other = Cell(), Cell()
    for added in some:
        merge(one, added)
    for added in data.draw(st.permutations(some)):
        merge(other, msgspec.msgpack.decode(msgspec.msgpack.encode(added), type=Cell))

    assert one == other


def test_totals_are_made_of_all_cells() -> None:
    """Rates are percent of all messages; what was read or clicked was delivered; partitions add up."""
    stats = totals(
        [
            (b"ta", cell(NOON, took=300, timed=2, SENT=2, DELIVERED=1, FAILED=1)),
            (b"tb", cell(NOON + 1, took=100, timed=2, READ=2, CLICKED=1)),
            (b"ta", cell(5, EXPIRED=1)),
            (b"tc", cell(7)),
        ]
    )

    assert msgspec.to_builtins(stats) == {
        "totalMessages": 8,
        "byStatus": {
            "QUEUED": 0,
            "SENDING": 0,
            "SENT": 2,
            "CANCELLED": 0,
            "EXPIRED": 1,
            "FAILED": 1,
            "DELIVERED": 1,
            "READ": 2,
            "CLICKED": 1,
        },
        "byProvider": {"a": 5, "b": 3},
        "averageDeliveryTime": 100.0,
        "deliveryRate": 50.0,
        "failureRate": 12.5,
        "lastUpdated": "2026-11-23T12:00:00.001Z",
    }


def test_totals_of_nothing_are_zero() -> None:
    """No message, no rate, no time."""
    stats = totals([])

    assert (stats.total_messages, stats.average_delivery_time, stats.delivery_rate, stats.failure_rate) == (
        0,
        0,
        0,
        0,
    )
    assert stats.last_updated is None
