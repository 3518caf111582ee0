"""The delivery law."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.domain.attempts import Failure
from streams.domain.delivery import MAX_METADATA, Callback, Delivery, Track
from streams.domain.reports import record_view, report
from streams.domain.times import EARLIEST_MS, LEAD_MS, iso
from tests.domain.law import law
from tests.domain.sayings import NOON, add, callback, delivery_of, histories, request


def shown(delivery: Delivery) -> Any:
    return plain(record_view("m-1", delivery))


def plain(view: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(view))


def made_of(said: list[tuple[Callback | Track, int]]) -> Delivery:
    delivery = Delivery()
    for what, receipt in said:
        add(delivery, what, receipt)
    return delivery


@settings(max_examples=2_500, deadline=None)
@given(histories())
def test_a_delivery_is_what_the_law_makes_of_the_set(said: list[tuple[Callback | Track, int]]) -> None:
    """What is kept beside the history equals a recomputation from the whole set."""
    delivery = made_of(said)

    expected = law(said)
    attempts = expected.pop("attempts")
    entries = expected.pop("entries")
    error = expected.pop("error")
    texts = expected.pop("metadata")
    assert {name: getattr(delivery, name) for name in expected} == expected
    assert len(delivery.history) == entries
    assert {key: text for key, (_, text) in delivery.metadata.items()} == texts
    view = report("m-1", delivery)
    assert plain(view.error) == shown_error(error)
    assert [(a.provider, a.status, a.attempted_at, plain(a.error)) for a in view.attempts or []] == [
        (a["provider"], a["status"], iso(a["at"]), shown_error(a["error"])) for a in attempts
    ]
    assert [a.attempt_number for a in view.attempts or []] == list(range(1, len(attempts) + 1))


def shown_error(error: Failure | None) -> Any:
    if error is None:
        return None
    details = {} if error.details is None else {"details": msgspec.json.decode(error.details)}
    return {"code": error.code, "message": error.message} | details


@settings(max_examples=600, deadline=None)
@given(histories(), st.data())
def test_any_order_and_any_repetition_give_the_same_delivery(
    said: list[tuple[Callback | Track, int]], data: st.DataObject
) -> None:
    """Order and repetition of callbacks are invisible in the delivery."""
    again = data.draw(st.permutations([*said, *data.draw(st.lists(st.sampled_from(said), max_size=4))]))

    assert shown(made_of(again)) == shown(made_of(said))


@given(histories(with_tracks=False), st.data())
def test_a_repeated_callback_changes_nothing_whenever_it_arrives(
    said: list[tuple[Callback | Track, int]], data: st.DataObject
) -> None:
    """A callback of a known identity leaves every byte of the delivery as it was."""
    delivery = made_of(said)
    before = msgspec.msgpack.encode(delivery)
    what, receipt = data.draw(st.sampled_from(said))

    assert add(delivery, what, receipt + 60_000) is None
    assert msgspec.msgpack.encode(delivery) == before


@given(histories())
def test_a_stored_delivery_goes_on_as_if_it_had_stayed_in_memory(
    said: list[tuple[Callback | Track, int]],
) -> None:
    """Encoding and decoding between any two callbacks changes nothing."""
    stored = Delivery()
    for what, receipt in said:
        add(stored, what, receipt)
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(stored), type=Delivery)

    assert stored == made_of(said)


def test_a_late_sent_fills_sent_at_and_leaves_the_status() -> None:
    """A status that the delivery has passed still contributes its time."""
    delivery = delivery_of(callback("DELIVERED", 12), callback("SENT", 10))

    assert delivery.status == "DELIVERED"
    assert delivery.sent_at == NOON + 10


@pytest.mark.parametrize(
    ("said", "wins"),
    [
        (("SENT", "QUEUED"), "SENT"),
        (("EXPIRED", "CANCELLED"), "EXPIRED"),
        (("FAILED", "EXPIRED"), "FAILED"),
        (("DELIVERED", "FAILED"), "DELIVERED"),
        (("CLICKED", "READ", "DELIVERED"), "CLICKED"),
    ],
)
def test_the_later_status_wins(said: tuple[str, ...], wins: str) -> None:
    """Of all that is said the status of the greatest precedence is current, whichever came first."""
    assert delivery_of(*map(callback, said)).status == wins
    assert delivery_of(*map(callback, reversed(said))).status == wins


@pytest.mark.parametrize("arrived", ["DELIVERED", "READ", "CLICKED"])
def test_failure_and_arrival_contradict_each_other(arrived: str) -> None:
    """A message that failed and arrived is marked; cancelled and arrived it is not."""
    assert delivery_of(callback("FAILED"), callback(arrived)).contradiction
    assert not delivery_of(callback(arrived), callback("CANCELLED")).contradiction
    assert not delivery_of(callback("FAILED"), callback("SENT")).contradiction


def test_an_explicit_time_wins_over_any_event_time() -> None:
    """sentAt says more than when the SENT was said to be; of several the least counts."""
    delivery = delivery_of(
        callback("SENT", 5), callback("DELIVERED", 9, sent_at=7), callback("READ", 9, sent_at=8)
    )

    assert delivery.sent_at == NOON + 7
    assert delivery_of(callback("DELIVERED", 9, sent_at=7), callback("SENT", 5)).sent_at == NOON + 7


@pytest.mark.parametrize("implausible", [EARLIEST_MS - 1 - NOON, 1_000 + LEAD_MS + 1])
def test_an_implausible_time_is_not_believed(implausible: int) -> None:
    """Before 2000 or more than a day ahead the arrival counts instead; an explicit time not at all."""
    delivery = delivery_of(callback("SENT", implausible), callback("SENDING", 3, delivered_at=implausible))

    assert delivery.sent_at == NOON + 1_000
    assert delivery.delivered_at is None


@pytest.mark.parametrize("plausible", [EARLIEST_MS - NOON, 1_000 + LEAD_MS])
def test_a_plausible_time_is_believed(plausible: int) -> None:
    """The limits themselves are believed."""
    delivery = delivery_of(callback("SENT", plausible), callback("SENDING", 3, delivered_at=plausible))

    assert delivery.sent_at == delivery.delivered_at == NOON + plausible


@pytest.mark.parametrize(
    "other",
    [
        {"status": "SENT"},
        {"provider": "b"},
        {"attempt": 2},
        {"at": 1},
        {"at": None},
        {"error": Failure("2", "x")},
        {"source": "manual"},
        {"id": "i"},
    ],
)
def test_what_makes_two_callbacks_different(other: dict[str, Any]) -> None:
    """Callbacks differ in status, provider, attempt, time, error code, source or id; each makes an entry."""
    base: dict[str, Any] = {
        "status": "FAILED",
        "provider": "a",
        "attempt": 1,
        "at": 0,
        "error": Failure("1", "x"),
    }

    assert len(delivery_of(callback(**base), callback(**(base | other))).history) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"error": Failure("1", "another text")},
        {"metadata": {"a": "1"}},
        {"sent_at": 3},
        {"channel": "sms"},
        {"source": "provider"},
    ],
)
def test_what_does_not_make_two_callbacks_different(other: dict[str, Any]) -> None:
    """Anything else that a second callback of one identity says is not heard."""
    base: dict[str, Any] = {"status": "FAILED", "error": Failure("1", "x")}

    once, twice = (
        delivery_of(callback(**base)),
        delivery_of(callback(**base), (callback(**(base | other)), 9_000)),
    )

    assert twice == once


def test_a_given_id_is_the_identity_together_with_the_status() -> None:
    """One id may come with several statuses; with the same one it is the same callback, whatever it says."""
    once = delivery_of(callback("SENT", id="i"))

    assert delivery_of(callback("SENT", id="i"), callback("SENT", 9, id="i", provider="b")) == once
    assert len(delivery_of(callback("SENT", id="i"), callback("READ", id="i")).history) == 2


def test_the_provider_is_that_of_the_attempt_that_speaks() -> None:
    """Of several that name themselves in one attempt the first by event time."""
    delivery = delivery_of(
        callback("SENT", 1, provider="a"),
        callback("DELIVERED", 9, provider="b", attempt=2),
        callback("DELIVERED", 8, provider="c", attempt=2),
        callback("DELIVERED", 8, provider="d", attempt=2),
        callback("DELIVERED", 7, attempt=2),
    )

    assert delivery.provider == "c"


def test_what_names_no_attempt_is_said_of_the_latest() -> None:
    """A nameless DELIVERED counts for the provider that tried last, else for the one that was asked."""
    assert delivery_of(request(), callback("DELIVERED", 5)).provider == "solapi"
    assert delivery_of(callback("SENT", 4, provider="a"), callback("DELIVERED", 5)).provider == "a"
    assert delivery_of(callback("DELIVERED", 5)).provider is None
    late = delivery_of(callback("DELIVERED", 5), callback("SENT", 4, provider="a"), callback("QUEUED", 9))
    assert (late.status, late.provider) == ("DELIVERED", "a")


def test_of_several_requests_the_least_counts() -> None:
    """Created first wins; what it leaves open is taken from statuses."""
    delivery = delivery_of(
        request(5, provider="b", channel="sms"),
        request(4, initial_status="SENT", provider="c", tenant="t-1"),
        callback("SENDING", channel="rcs", tenant="t-0", phone_number="+1"),
    )

    assert (delivery.created_at, delivery.channel, delivery.tenant) == (NOON + 4, "rcs", "t-1")
    assert delivery.phone_number == "+82100000001"


def test_a_repeated_request_changes_nothing() -> None:
    """One that says the same leaves every byte as it was, whenever it arrives."""
    once = delivery_of(request(0, metadata={"a": "1"}))

    assert delivery_of(request(0, metadata={"a": "1"}), (request(0, metadata={"a": "1"}), 9_000)) == once


def test_each_request_has_its_entry_and_the_least_counts() -> None:
    """Whichever came first."""
    delivery = delivery_of(request(5), (request(2), 9_000))

    assert delivery.created_at == NOON + 2
    assert [entry.at for entry in delivery.history] == [NOON + 5, NOON + 2]
    assert delivery.updated_at == NOON + 9_000


def test_metadata_keeps_the_last_value_of_each_key() -> None:
    """Last is the greatest event time, then the greatest JSON text; a request's counts with its creation."""
    delivery = delivery_of(
        callback("READ", 9, metadata={"a": "1", "b": "1"}),
        callback("SENT", 3, metadata={"a": "2", "c": "3"}),
        request(9, metadata={"b": "2"}),
    )

    assert {key: text for key, (_, text) in delivery.metadata.items()} == {"a": "1", "b": "2", "c": "3"}


def test_of_too_many_keys_the_oldest_go() -> None:
    """In whatever order they came; one that went and is said again later is back."""
    said = [
        callback("SENT", at, id=f"{at}", metadata={f"k{at:03d}": str(at)}) for at in range(MAX_METADATA + 3)
    ]
    again = callback("SENT", 999, metadata={"k000": "0"})

    kept = delivery_of(*said).metadata

    assert sorted(kept) == [f"k{at:03d}" for at in range(3, MAX_METADATA + 3)]
    assert delivery_of(*reversed(said)).metadata == kept
    assert set(delivery_of(*said, again).metadata) == set(delivery_of(again, *said).metadata) > {"k000"}


def test_a_request_whose_metadata_has_no_room_changes_nothing_twice() -> None:
    """Keys that go at once have not changed anything."""
    full = [callback("SENT", at + 5, metadata={f"k{at}": "1"}) for at in range(MAX_METADATA)]
    delivery = delivery_of(request(0, metadata={"old": "1"}), *full)

    assert "old" not in delivery.metadata
    assert add(delivery, request(0, metadata={"old": "1"}), NOON + 9_000) is None


@given(st.lists(st.sampled_from(range(12)), min_size=1, max_size=30), st.data())
def test_which_entries_a_full_history_keeps_does_not_depend_on_the_order(
    numbers: list[int], data: st.DataObject
) -> None:
    """Each status of each attempt keeps its newest, of the others the newest stay, the rest is counted."""
    said = [
        callback(("SENT", "SENDING", "FAILED")[n % 3], n // 2, provider="ab"[n % 2], id=f"{i:03d}")
        for i, n in enumerate(numbers)
    ]
    other = data.draw(st.permutations(said))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.domain.delivery.MAX_HISTORY", 8)
        delivery, again = delivery_of(*said), delivery_of(*other)

    kept = {entry.id for entry in delivery.history}
    assert kept == {entry.id for entry in again.history}
    assert len(kept) == min(len(said), 8)
    assert delivery.folded == len(said) - len(kept)
    newest = {(one.status, one.provider): one.id for one in sorted(said, key=age)}
    assert kept >= set(newest.values())
    others = [one for one in said if one.id not in newest.values()]
    stay = [one.timestamp for one in others if one.id in kept]
    assert all(one.timestamp <= min(stay, default=one.timestamp) for one in others if one.id not in kept)


TIED = [
    Callback("m-1", "SENT", given, provider, attempt, source=source, error=error and Failure(error, ""))
    for given, provider, attempt, source, error in product(
        (None, 0, 1, NOON + 1_000), (None, "a"), (None, 1), ("manual", "system"), (None, "E1", "E2")
    )
]
"""All of one status and, arrived a second after noon, of one event time; each of an identity of its own."""


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(range(len(TIED))), min_size=9, max_size=14, unique=True), st.data())
def test_what_a_full_history_keeps_of_what_happened_at_once(numbers: list[int], data: st.DataObject) -> None:
    """Entries that have their time in common go by all else that they say, never by when they came."""
    said = [TIED[n] for n in numbers]
    other = data.draw(st.permutations(said))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.domain.delivery.MAX_HISTORY", 8)
        delivery, again = delivery_of(*said), delivery_of(*other)

    assert shown(delivery)["statusHistory"] == shown(again)["statusHistory"]
    assert len(delivery.history) == 8


def age(one: Callback) -> Any:
    return one.timestamp, one.id


def test_updated_at_never_decreases() -> None:
    """A record that came to Kafka with an older time does not make the delivery older."""
    delivery = delivery_of((callback("SENT"), 5_000), (callback("READ"), 4_000))

    assert delivery.updated_at == NOON + 5_000


def test_tracking_ends_72_hours_after_creation_unless_the_request_says_otherwise() -> None:
    """Only what is tracked expires."""
    assert delivery_of(request(0)).expires_at == NOON + 72 * 3_600_000
    assert delivery_of(request(0, max_tracking_duration=10)).expires_at == NOON + 10
    assert delivery_of(request(0, scheduled_at=NOON + 50)).expires_at == NOON + 50 + 72 * 3_600_000
    assert delivery_of(callback("SENT")).expires_at is None
