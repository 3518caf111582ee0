"""How long a message is waited for, and how long what is known of it is kept.

A delivery is always due for something: to expire while it is not final, to be removed once it is, to be
forgotten altogether when only a marker is left of it. When that is stands in the delivery itself, so that it
can be listed by it; what makes it happen is a request like any other, which changes nothing if it comes too
early or too often.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from streams.domain.attempts import Entry
from streams.domain.delivery import DEFAULT_TRACKING_MS, Delivery, end, say
from streams.domain.statuses import EXPIRED, FIRST_FINAL, NOTHING

__all__ = ["DAY_MS", "LAST_MS", "Lifetimes", "due_at", "expire", "is_due", "purge"]

DAY_MS: Final = 86_400_000

LAST_MS: Final = 2**63 - 1
"""The greatest time that can be stored."""

EXPIRY: Final = "expired"
"""Id of the history entry that an expiry makes: there is one at most."""


class Lifetimes(NamedTuple):
    """What is not said by a message itself; ms.

    Attributes:
        tracking_ms: how long a message is waited for whose track request does not say.
        retention_ms: how long a record is kept that is final, after its last change.
        marker_ms: how long it is known of a message that it was stopped, erased or removed, so that late
            callbacks do not bring it back.
    """

    tracking_ms: int = DEFAULT_TRACKING_MS
    retention_ms: int = 30 * DAY_MS
    marker_ms: int = 30 * DAY_MS


def due_at(delivery: Delivery, lifetimes: Lifetimes) -> int:
    """Return when something is to be done about a delivery if nothing more is said of it; ms."""
    precedence = delivery.precedence
    if precedence >= FIRST_FINAL:
        at = delivery.updated_at + lifetimes.retention_ms
    elif precedence == NOTHING:
        at = delivery.updated_at + lifetimes.marker_ms
    elif delivery.request is not None:
        at = delivery.request.expires_at
    else:
        at = delivery.created_at + lifetimes.tracking_ms
    # a broker may accept any timestamp
    return at if 0 <= at <= LAST_MS else max(0, min(at, LAST_MS))


def is_due(delivery: Delivery, now: int) -> bool:
    """Say whether the time of a delivery has come."""
    return delivery.due_at is not None and delivery.due_at <= now


def expire(delivery: Delivery, receipt: int) -> Entry | None:
    """Say of a message that is due and not final that it has expired, at the time when it was due.

    What is said later counts as ever: a late DELIVERED or FAILED wins.

    Returns:
        Its entry in the history; None when nothing has changed.
    """
    at = delivery.due_at
    if at is None or at > receipt or not NOTHING < delivery.precedence < FIRST_FINAL:
        return None
    entry = Entry(EXPIRED, at, at, receipt, None, None, "system", EXPIRY)
    say(delivery, entry)
    return entry


def purge(delivery: Delivery, receipt: int) -> Delivery | None:
    """Return the marker that is left of a final record that is due; None when it is not."""
    if not is_due(delivery, receipt) or delivery.precedence < FIRST_FINAL:
        return None
    return end(delivery, receipt)
