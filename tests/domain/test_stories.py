"""What becomes of a message in the stories that providers tell, in whatever order they tell them."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.attempts import MAX_ATTEMPTS, Failure
from streams.domain.delivery import Callback, Delivery, Track
from streams.domain.reports import report
from tests.domain.sayings import NOON, callback, delivery_of, request

GONE = Failure("3104", "not a user")


def outcome(delivery: Delivery) -> dict[str, Any]:
    """What people look at first."""
    shown = report("m-1", delivery)
    return {
        "status": delivery.status,
        "provider": delivery.provider,
        "attempts": [f"{a.provider} {a.status}" for a in shown.attempts or []],
        "contradiction": shown.contradiction,
        "error": None if shown.error is None else shown.error.code,
    }


STORIES: dict[str, tuple[list[Callback | Track], dict[str, Any]]] = {
    "failover: the second provider has sent it": (
        [
            request(0, provider="aligo"),
            callback("FAILED", 20, provider="aligo", error=GONE),
            callback("SENT", 30, provider="solapi"),
        ],
        {"status": "SENT", "provider": "solapi", "attempts": ["aligo FAILED", "solapi SENT"]},
    ),
    "failover: the first provider's failure comes dated after the second has sent it": (
        [
            request(0, provider="aligo"),
            callback("SENT", 30, provider="solapi"),
            callback("FAILED", 90, provider="aligo", error=GONE),
        ],
        {"status": "SENT", "provider": "solapi", "attempts": ["aligo FAILED", "solapi SENT"]},
    ),
    "failover by number: the clock of the second provider is slow": (
        [
            callback("SENT", 10, attempt=1, provider="a"),
            callback("FAILED", 20, attempt=1, provider="a", error=GONE),
            callback("SENT", 5, attempt=2, provider="b"),
        ],
        {"status": "SENT", "provider": "b", "attempts": ["a FAILED", "b SENT"]},
    ),
    "failover: the first provider delivers after all": (
        [
            callback("SENT", 10, provider="a"),
            callback("FAILED", 40, provider="b", error=GONE),
            callback("DELIVERED", 50, provider="a"),
        ],
        {"status": "DELIVERED", "provider": "a", "attempts": ["a DELIVERED", "b FAILED"]},
    ),
    "both providers deliver, the first is read": (
        [
            callback("READ", 50, provider="a"),
            callback("DELIVERED", 40, provider="a"),
            callback("DELIVERED", 60, provider="b"),
        ],
        {"status": "READ", "provider": "a", "attempts": ["a READ", "b DELIVERED"]},
    ),
    "both providers deliver": (
        [callback("DELIVERED", 40, provider="a"), callback("DELIVERED", 60, provider="b")],
        {"status": "DELIVERED", "provider": "b", "attempts": ["a DELIVERED", "b DELIVERED"]},
    ),
    "all providers fail": (
        [
            callback("FAILED", 40, provider="a", error=GONE),
            callback("FAILED", 60, provider="b", error=Failure("9", "blocked")),
        ],
        {"status": "FAILED", "provider": "b", "attempts": ["a FAILED", "b FAILED"], "error": "9"},
    ),
    "a bounce after the delivery of an e-mail": (
        [
            callback("SENT", 1, provider="ses", channel="email"),
            callback("DELIVERED", 2, provider="ses"),
            callback("FAILED", 90, provider="ses", error=GONE),
        ],
        {
            "status": "FAILED",
            "provider": "ses",
            "attempts": ["ses FAILED"],
            "contradiction": True,
            "error": "3104",
        },
    ),
    "an e-mail that bounced is read": (
        [
            callback("FAILED", 2, provider="ses", channel="email", error=GONE),
            callback("READ", 90, provider="ses"),
        ],
        {
            "status": "READ",
            "provider": "ses",
            "attempts": ["ses READ"],
            "contradiction": True,
            "error": "3104",
        },
    ),
    "WhatsApp on two devices, one of which is gone": (
        [
            callback("DELIVERED", 2, provider="meta", channel="whatsapp"),
            callback("FAILED", 3, provider="meta", error=GONE),
        ],
        {
            "status": "DELIVERED",
            "provider": "meta",
            "attempts": ["meta DELIVERED"],
            "contradiction": True,
            "error": "3104",
        },
    ),
    "given up, then delivered": (
        [
            request(0, provider="twilio"),
            callback("SENT", 1, provider="twilio"),
            callback("EXPIRED", 99, source="system"),
            callback("DELIVERED", 120, provider="twilio"),
        ],
        {"status": "DELIVERED", "provider": "twilio", "attempts": ["twilio DELIVERED"]},
    ),
    "given up while the second provider has it": (
        [
            callback("FAILED", 1, provider="a", error=GONE),
            callback("SENT", 5, provider="b"),
            callback("EXPIRED", 99, source="system"),
        ],
        {"status": "EXPIRED", "provider": "b", "attempts": ["a FAILED", "b EXPIRED"]},
    ),
    "the provider's clock, in whole seconds, is behind that of the application": (
        [
            request(123, provider="a"),
            callback("SENT", 0, attempt=1, provider="a"),
            callback("FAILED", 100, attempt=1, provider="a", error=GONE),
        ],
        {"status": "FAILED", "provider": "a", "attempts": ["a FAILED"], "error": "3104"},
    ),
    "the request is dated after the failure of another provider": (
        [request(99, provider="a"), callback("FAILED", 5, provider="b", error=GONE)],
        {"status": "FAILED", "provider": "b", "attempts": ["a QUEUED", "b FAILED"], "error": "3104"},
    ),
    "a bounce that gives no number": (
        [
            callback("DELIVERED", 1, attempt=1, provider="ses", channel="email"),
            callback("FAILED", 9, provider="ses", error=GONE),
        ],
        {
            "status": "FAILED",
            "provider": "ses",
            "attempts": ["ses FAILED"],
            "contradiction": True,
            "error": "3104",
        },
    ),
    "two requests": (
        [
            request(10, provider="a"),
            request(5, provider="b"),
            callback("FAILED", 3, provider="a", error=GONE),
        ],
        {"status": "QUEUED", "provider": "b", "attempts": ["a FAILED", "b QUEUED"]},
    ),
    "an application says what its providers have said already": (
        [
            callback("SENT", 5, provider="a"),
            callback("QUEUED", 9, source="manual"),
        ],
        {"status": "SENT", "provider": "a", "attempts": ["a SENT"]},
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_story_has_one_end(name: str) -> None:
    """In every order of its sentences."""
    said, end = STORIES[name]
    expected = {"contradiction": False, "error": None} | end

    for order in permutations(said):
        assert outcome(delivery_of(*order)) == expected, [getattr(s, "status", "track") for s in order]


@pytest.mark.parametrize(
    "channel", ["sms", "lms", "mms", "alimtalk", "rcs", "whatsapp", "push", "other", None]
)
def test_on_all_channels_but_email_what_is_delivered_has_not_failed(channel: str | None) -> None:
    """One rank, and the channel breaks the tie, whenever it becomes known."""
    said = [callback("FAILED", 1), callback("DELIVERED", 0), callback("SENT", 0, channel=channel)]

    assert {delivery_of(*order).status for order in permutations(said)} == {"DELIVERED"}


def test_the_channel_that_was_asked_for_breaks_the_tie_and_not_the_one_that_a_callback_names() -> None:
    """A track request says what the message is."""
    said = [request(channel="email"), callback("FAILED", 1, channel="sms"), callback("DELIVERED", 0)]

    assert {delivery_of(*order).status for order in permutations(said)} == {"FAILED"}


@given(st.permutations(range(1, MAX_ATTEMPTS + 4)))
def test_of_too_many_attempts_those_of_the_least_numbers_are_kept_as_one(order: list[int]) -> None:
    """Which ones depends on their names alone; what was said of them still counts, above all a delivery."""
    said = {n: callback("DELIVERED" if n == 1 else "FAILED", n, attempt=n) for n in order}
    early = callback("SENT", -5, attempt=1)

    delivery = delivery_of(*(said[n] for n in order), early)

    kept = {attempt.name for attempt in delivery.attempts}
    assert kept == {None, *range(4, MAX_ATTEMPTS + 4)}
    assert (delivery.status, delivery.created_at) == ("DELIVERED", NOON - 5)


def test_what_is_said_of_no_attempt_is_none_of_the_fifty() -> None:
    """So many are kept apart beside it; one more, and what is said of the least keeps its error."""
    named = [callback("FAILED", n, attempt=n, error=Failure(f"E{n}", "")) for n in range(1, MAX_ATTEMPTS + 1)]
    nameless = callback("SENT", 0)

    delivery = delivery_of(nameless, *named)
    assert {attempt.name for attempt in delivery.attempts} == {None, *range(1, MAX_ATTEMPTS + 1)}

    more = delivery_of(*named, callback("SENT", 99, attempt=MAX_ATTEMPTS + 1))
    (folded,) = (attempt for attempt in more.attempts if attempt.name is None)
    assert folded.failure == Failure("E1", "")
    assert folded.failure_at == NOON + 1


def test_on_email_each_attempt_is_judged_as_email_is() -> None:
    """A bounce after the delivery at the first provider does not hide that the second one delivered."""
    said = [
        callback("DELIVERED", 0, provider="a", channel="email"),
        callback("FAILED", 1, provider="a"),
        callback("DELIVERED", 2, provider="b"),
        callback("SENT", 3, provider="c"),
    ]

    for order in permutations(said):
        delivery = delivery_of(*order)
        assert (delivery.status, delivery.provider) == ("DELIVERED", "b")
        assert delivery.contradiction


@pytest.mark.parametrize("used", ["READ", "CLICKED"])
def test_one_use_is_enough_to_infer_the_delivery(used: str) -> None:
    """Be it read or clicked."""
    shown = report("m-1", delivery_of(callback(used, 5)))

    assert (shown.delivered_at, shown.delivered_at_inferred) == ("2026-11-23T12:00:00.005Z", True)


def test_a_read_message_was_delivered_when_it_was_first_used() -> None:
    """Meta skips `delivered`; the report marks the time as inferred until somebody says it."""
    delivery = delivery_of(callback("CLICKED", 7), callback("READ", 5), callback("SENT", 1))

    assert (delivery.delivered_at, delivery.is_delivery_inferred) == (NOON + 5, True)
    assert report("m-1", delivery).delivered_at_inferred

    told = delivery_of(callback("CLICKED", 7), callback("READ", 5), callback("DELIVERED", 3))

    assert (told.delivered_at, told.is_delivery_inferred) == (NOON + 3, False)
    assert not report("m-1", told).delivered_at_inferred
