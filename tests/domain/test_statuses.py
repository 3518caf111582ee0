"""The statuses and their order."""

from __future__ import annotations

from typing import get_args

from streams.domain.statuses import FIRST_FINAL, NAMES, PRECEDENCE, RANK, Status


def test_precedence_refines_rank() -> None:
    """No status wins over one of a higher rank."""
    assert [RANK[name] for name in NAMES] == [0, 1, 2, 3, 3, 4, 4, 5, 6]
    assert set(get_args(Status)) == set(NAMES) == set(RANK)


def test_the_stored_numbers_never_change() -> None:
    """They stand in tables and changelogs."""
    assert {name: PRECEDENCE[name] for name in NAMES} == {
        "QUEUED": 0,
        "SENDING": 1,
        "SENT": 2,
        "CANCELLED": 3,
        "EXPIRED": 4,
        "FAILED": 5,
        "DELIVERED": 6,
        "READ": 7,
        "CLICKED": 8,
    }


def test_what_is_final() -> None:
    """Everything but QUEUED, SENDING and SENT."""
    assert {name for name in NAMES if PRECEDENCE[name] >= FIRST_FINAL} == {
        "DELIVERED",
        "READ",
        "CLICKED",
        "FAILED",
        "CANCELLED",
        "EXPIRED",
    }
