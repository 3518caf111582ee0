"""The statuses of a message and the order in which one wins over another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

__all__ = [
    "CLICKED",
    "CONTRADICTED",
    "DELIVERED",
    "EXPIRED",
    "FAILED",
    "FAILED_WINS",
    "FIRST_FINAL",
    "NAMES",
    "NOTHING",
    "PRECEDENCE",
    "RANK",
    "READ",
    "SENT",
    "Source",
    "Status",
    "is_contradiction",
    "winner",
]

Status: TypeAlias = Literal[
    "QUEUED", "SENDING", "SENT", "CANCELLED", "EXPIRED", "FAILED", "DELIVERED", "READ", "CLICKED"
]
Source: TypeAlias = Literal["manual", "provider", "webhook", "system"]

NAMES: Final[tuple[Status, ...]] = (
    "QUEUED",
    "SENDING",
    "SENT",
    "CANCELLED",
    "EXPIRED",
    "FAILED",
    "DELIVERED",
    "READ",
    "CLICKED",
)
"""Every status, each winning over all before it; its place here is its precedence, and what is stored."""

PRECEDENCE: Final[Mapping[Status, int]] = {name: place for place, name in enumerate(NAMES)}

RANK: Final[Mapping[Status, int]] = {
    "QUEUED": 0,
    "SENDING": 1,
    "SENT": 2,
    "CANCELLED": 3,
    "EXPIRED": 3,
    "FAILED": 4,
    "DELIVERED": 4,
    "READ": 5,
    "CLICKED": 6,
}
"""How far a message has come; precedence breaks the ties of a rank, always the same way."""

NOTHING: Final = -1
"""The precedence of a delivery of which nothing was said yet."""

SENT: Final = PRECEDENCE["SENT"]
EXPIRED: Final = PRECEDENCE["EXPIRED"]
FAILED: Final = PRECEDENCE["FAILED"]
DELIVERED: Final = PRECEDENCE["DELIVERED"]
READ: Final = PRECEDENCE["READ"]
CLICKED: Final = PRECEDENCE["CLICKED"]

FIRST_FINAL: Final = PRECEDENCE["CANCELLED"]
"""This status and all that win over it are final: nothing more is expected."""

_FAILED: Final = 1 << FAILED

CONTRADICTED: Final = 1 << DELIVERED | 1 << READ | 1 << CLICKED
"""The statuses, as bits, that cannot be true together with FAILED."""


FAILED_WINS: Final[frozenset[str]] = frozenset({"email"})
"""Channels on which a failure after the arrival is true: a bounce follows a delivery. On all others what
was delivered is delivered: a failure that follows comes of a second device, or of another hop's receipt."""


def winner(seen: int, channel: str | None) -> int:
    """Return the precedence that wins among these statuses (bit n for precedence n) of one attempt.

    Source: the tie of FAILED and DELIVERED, which have one rank, is broken by the channel alone, never by
    the order of arrival; what follows a delivery (READ, CLICKED) tells that it did arrive.
    """
    greatest = seen.bit_length() - 1
    if greatest == DELIVERED and seen & _FAILED and channel in FAILED_WINS:
        return FAILED
    return greatest


def is_contradiction(seen: int) -> bool:
    """Say whether these statuses (bit n for precedence n) tell both of failure and of arrival."""
    return bool(seen & _FAILED and seen & CONTRADICTED)
