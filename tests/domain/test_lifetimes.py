"""When something is due for a delivery."""

from __future__ import annotations

import pytest

from streams.domain.delivery import Delivery, end
from streams.domain.lifetimes import DAY_MS, Lifetimes, due_at, expire, is_due, purge
from tests.domain.sayings import NOON, callback, delivery_of, request

AGES = Lifetimes(tracking_ms=1_000, retention_ms=20_000, marker_ms=300_000)


def test_what_is_waited_for_is_due_from_its_creation_on() -> None:
    """As long as its request says, else, and without one, as long as is usual."""
    assert due_at(delivery_of(request(5, max_tracking_duration=70)), AGES) == NOON + 75
    assert due_at(delivery_of(callback("SENT", 9), callback("SENDING", 7)), AGES) == NOON + 1_007


@pytest.mark.parametrize("status", ["CANCELLED", "EXPIRED", "FAILED", "DELIVERED", "READ", "CLICKED"])
def test_what_is_final_is_due_from_its_last_change_on(status: str) -> None:
    """The last record that changed it came a second after noon, and the one before later still."""
    delivery = delivery_of((callback("SENT"), 3_000), (callback(status), 1_000))

    assert due_at(delivery, AGES) == NOON + 23_000


def test_a_marker_is_due_from_its_making_on() -> None:
    """However it came to be."""
    assert due_at(end(delivery_of(callback("SENT")), NOON + 4_000), AGES) == NOON + 304_000


@pytest.mark.parametrize(
    ("updated_at", "due"), [(2**63 - 1, 2**63 - 1), (-(2**62), 0), (-19_999, 1), (-20_000, 0)]
)
def test_any_time_of_a_broker_gives_one_that_can_be_stored(updated_at: int, due: int) -> None:
    """None is before the epoch, none is beyond what eight bytes hold."""
    delivery = delivery_of(callback("DELIVERED"))
    delivery.updated_at = updated_at

    assert due_at(delivery, AGES) == due


def test_nothing_happens_before_its_time() -> None:
    """Neither does anything to one that has no time yet."""
    delivery = delivery_of(callback("SENT"))
    assert not is_due(delivery, 2**62)
    assert expire(delivery, 2**62) is None
    delivery.due_at = NOON + 10
    assert expire(delivery, NOON + 9) is None
    assert is_due(delivery, NOON + 10)

    entry = expire(delivery, NOON + 10)

    assert entry is not None
    assert (entry.at, entry.given, entry.receipt, entry.id) == (NOON + 10, NOON + 10, NOON + 10, "expired")
    assert (delivery.status, delivery.updated_at, delivery.completed_at) == (
        "EXPIRED",
        NOON + 1_000,
        NOON + 10,
    )
    assert expire(delivery, NOON + 11) is None


def test_a_marker_does_not_expire() -> None:
    """A message that was erased before anything was said of it has nothing to wait for."""
    assert expire(Delivery(erased=True, due_at=NOON), NOON + 1) is None


@pytest.mark.parametrize("status", ["CANCELLED", "EXPIRED", "CLICKED"])
def test_whatever_is_final_can_be_removed(status: str) -> None:
    """The least of the final ones, too."""
    delivery = delivery_of(callback(status))
    delivery.due_at = NOON

    assert purge(delivery, NOON) is not None


def test_only_what_is_final_and_due_is_removed() -> None:
    """All that is left is when that was."""
    sent, delivered = delivery_of(callback("SENT")), delivery_of(callback("DELIVERED"))
    for delivery in (sent, delivered):
        delivery.due_at = NOON + 2_000

    assert purge(sent, NOON + 2_000) is None
    assert purge(delivered, NOON + 1_999) is None
    assert purge(delivered, NOON + 2_000) == Delivery(updated_at=NOON + 2_000, ended_at=NOON + 2_000)
    assert purge(Delivery(due_at=0), NOON) is None


def test_what_is_usual() -> None:
    """Receipts come up to three days late; records and markers are kept for a month each."""
    assert (
        Lifetimes() == (3 * DAY_MS, 30 * DAY_MS, 30 * DAY_MS) == (259_200_000, 2_592_000_000, 2_592_000_000)
    )
