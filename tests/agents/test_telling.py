"""Rules of what is told to endpoints, and of what comes of it; tables as bytes, time as records have it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.telling import Telling
from streams.domain.endpoints import Endpoint, Filters
from streams.domain.lifetimes import LAST_MS
from streams.domain.reports import record_view
from streams.domain.retries import SCHEDULE_MS
from streams.domain.routing import MOST_REMEMBERED, Routing
from streams.domain.webhooks import Queue, Sending, Told, event_id, event_key
from tables.formats import listed_at, queue_listing

from .flowing import NOON, TABLES, Output, Partition, Record, record, request, status, telling

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def partition(**endpoints: Endpoint) -> Partition:
    """A partition whose worker knows these endpoints."""
    routing = Routing()
    for name, endpoint in endpoints.items():
        routing.put(name, endpoint)
    return Partition(tables=TABLES._replace(telling=telling(routing)))


def tables(where: Partition) -> Telling:
    return where.tables.telling


def events(where: Partition) -> dict[str, Told]:
    rows = where.rows(tables(where).tables.events)
    return {event_id(where.number, key): told for key, told in rows.items()}


def queues(where: Partition) -> dict[str, Queue]:
    return {key.decode(): queue for key, queue in where.rows(tables(where).tables.queues).items()}


def waiting(where: Partition, endpoint: str, message: str = "m-1") -> list[str]:
    queue = queues(where).get(f"{endpoint}\0{message}")
    return [] if queue is None else [event_id(where.number, key) for key in queue.waiting]


def sendings(where: Partition) -> dict[tuple[str, str], Sending]:
    rows = where.rows(tables(where).tables.sendings)
    return {(event_id(where.number, key[:10]), key[10:].decode()): sending for key, sending in rows.items()}


def attempted(
    event: str,
    number: int = 1,
    *,
    endpoint: str = "a",
    message: str = "m-1",
    at: int = NOON,
    answer: int | None = 204,
    made_at: int = NOON,
    **said: Any,
) -> Record:
    """What a sender says of an attempt that took 10 ms."""
    given = {"madeAt": made_at, "startedAt": at - 10, "duration": 10, "random": 0.5, "status": answer}
    return record(
        message,
        receipt=at,
        type="webhook.attempted",
        eventId=event,
        endpointId=endpoint,
        number=number,
        **(given | said),
    )


def told_of(where: Partition, prefix: str = "webhook.") -> list[Output]:
    return [event for event in where.events if event.json["type"].startswith(prefix)]


def test_an_event_is_told_to_those_who_want_it_and_its_body_is_what_was_emitted() -> None:
    """Kept in the unit of work that emits it, once for all endpoints."""
    where = partition(
        a=Endpoint(), b=Endpoint(events=["message.delivered"]), c=Endpoint(filters=Filters(tenant="other"))
    )
    where.say(status("SENT"), status("DELIVERED"))

    assert {id_: told.endpoints for id_, told in events(where).items()} == {
        "statuses-0-0-0": ["a"],
        "statuses-0-1-0": ["a", "b"],
        "statuses-0-1-1": ["a"],
    }
    assert waiting(where, "a") == ["statuses-0-0-0", "statuses-0-1-0", "statuses-0-1-1"]
    assert waiting(where, "b") == ["statuses-0-1-0"]
    body = json.loads(events(where)["statuses-0-1-0"].body)
    assert body == {
        "type": "status.updated",
        "timestamp": where.events[1].json["occurredAt"],
        "data": where.events[1].json,
    }


def test_without_endpoints_nothing_is_kept() -> None:
    """Nor is anything, where nobody wants what happened."""
    assert set(partition().say(status("SENT")).stored) == {"deliveries", "pending_stats"}
    where = partition(a=Endpoint(events=["message.failed"])).say(status("SENT"))
    assert set(where.stored) == {"deliveries", "pending_stats"}


@pytest.mark.parametrize(
    ("filters", "is_told"),
    [
        (Filters(tenant="shop"), True),
        (Filters(channels=["sms", "rcs"], providers=["solapi"]), True),
        (Filters(channels=["email"]), False),
        (Filters(tenant="bank", channels=["sms"]), False),
    ],
)
def test_filters_are_of_the_message_as_it_stands_then(filters: Filters, is_told: bool) -> None:
    """Tenant, channel and provider that the message has after the event."""
    where = partition(a=Endpoint(filters=filters))
    where.ask(request(tenant="shop", channel="sms"))

    assert bool(waiting(where, "a")) is is_told


def test_an_endpoint_is_told_from_then_on_when_it_is_known_changed_or_gone() -> None:
    """What was found for events of the same kind before does not count any more."""
    where = partition()
    routing = tables(where).routing
    for number, endpoint in enumerate([None, Endpoint(), Endpoint(events=["message.read"]), None]):
        routing.put("a", endpoint)
        where.say(status("SENT", f"m-{number}"))

    routing.put("b", Endpoint())
    where.say(status("SENT", "m-4"))

    told = [(told.message_id, told.endpoints) for told in events(where).values()]
    assert told == [("m-1", ["a"]), ("m-4", ["b"])]


def test_what_is_remembered_of_kinds_of_events_is_bounded() -> None:
    """Anybody may name a provider."""
    routing = Routing()
    for number in range(MOST_REMEMBERED + 10):
        assert routing.routes["status.updated", None, None, None, f"p-{number}"] == ()

    assert len(routing.routes) <= MOST_REMEMBERED


def test_a_message_s_own_endpoints_are_told_of_its_end() -> None:
    """Though no other endpoint wants to know of anything."""
    where = partition()
    where.ask(request("m-1", webhooks=[{"url": "https://a.example", "events": ["tracking.stopped"]}]))
    where.ask(record("m-1", type="stop", receipt=NOON))

    assert [told.type for told in events(where).values()] == ["tracking.stopped"]


def test_what_ends_a_message_is_told_of_it_as_it_was() -> None:
    """A stop request and an erase request, too."""
    where = partition(a=Endpoint(events=["tracking.stopped"], filters=Filters(tenant="shop")))
    where.ask(request(tenant="shop"), request("m-1", type="stop"))

    assert waiting(where, "a") == ["requests-0-1-0"]


def test_a_body_is_never_larger_than_receivers_can_be_asked_to_take() -> None:
    """What would be goes without the report."""
    where = partition(a=Endpoint())
    where.say(status("SENT", metadata={f"k{n}": "x" * 4_000 for n in range(10)}))

    body = events(where)["statuses-0-0-0"].body
    assert len(where.events[0].value or b"") > 20_000 > len(body)
    data = json.loads(body)["data"]
    assert data["deliveryReport"] is None
    assert data["currentStatus"] == "SENT"


def test_what_arrived_is_let_go_and_the_next_one_comes() -> None:
    """In order, and told under the message's key."""
    where = partition(a=Endpoint()).say(status("SENT"), status("READ", receipt=NOON + 1))
    where.hear(attempted("statuses-0-0-0", at=NOON + 50))

    assert waiting(where, "a") == ["statuses-0-1-0", "statuses-0-1-1"]
    assert queues(where)["a\0m-1"].is_fresh
    (event,) = told_of(where)
    assert event.key == b"m-1"
    assert event.json == {
        "id": "webhooks-0-0-0",
        "type": "webhook.delivered",
        "messageId": "m-1",
        "occurredAt": "2026-11-23T12:00:00.050Z",
        "eventId": "statuses-0-0-0",
        "endpointId": "a",
        "attempts": 1,
        "status": 204,
        "trouble": None,
    }
    where.hear(attempted("statuses-0-1-0"), attempted("statuses-0-1-1"))
    assert queues(where) == {}
    assert {sending.state for sending in sendings(where).values()} == {"delivered"}


def test_what_attempts_change_is_read_together() -> None:
    """However many they are, and whatever waits behind them: one by one, reads cost ten times as much."""
    where, messages = partition(a=Endpoint(events=["status.updated"])), [f"m-{n}" for n in range(20)]
    where.say(*(status(name, message) for message in messages for name in ("SENT", "DELIVERED")))

    where.hear(*(attempted(f"statuses-0-{2 * n}-0", message=message) for n, message in enumerate(messages)))

    assert where.counts["webhook-delivered"] == 20
    assert [waiting(where, "a", message) for message in messages[:2]] == [
        ["statuses-0-1-0"],
        ["statuses-0-3-0"],
    ]
    assert where.reads == {"webhook_queues": 1, "webhook_sendings": 1}


def test_each_attempt_counts_once() -> None:
    """Said twice, said late, said of what nobody waits for, it changes nothing."""
    where = partition(a=Endpoint()).say(status("SENT"), status("READ"))
    first = attempted("statuses-0-0-0", answer=500)
    where.hear(first)
    before = {name: dict(rows) for name, rows in where.stored.items()}

    where.hear(
        attempted("statuses-0-0-0", answer=502),
        attempted("statuses-0-0-0", 3, answer=204),
        attempted("statuses-0-1-0"),
        attempted("statuses-0-0-0", 2, endpoint="b"),
        attempted("statuses-0-0-0", 2, message="m-2"),
        attempted("nonsense", 2),
    )

    assert where.stored == before
    assert where.counts["webhook-repeated"] == 6
    assert not told_of(where)


def test_a_delivery_counts_although_another_attempt_of_its_number_failed() -> None:
    """After a change of the holder two senders may make the same attempt; what arrived is not sent again."""
    where = partition(a=Endpoint()).say(status("SENT"))
    where.hear(attempted("statuses-0-0-0", 1, answer=500), attempted("statuses-0-0-0", 2, answer=500))

    where.hear(attempted("statuses-0-0-0", 1, answer=204))

    assert not queues(where)
    (event,) = told_of(where)
    assert event.json["type"] == "webhook.delivered"
    (sending,) = sendings(where).values()
    assert (sending.state, sending.attempts, len(sending.tries)) == ("delivered", 2, 3)


def test_a_delivery_of_before_a_resend_does_not_count_for_it() -> None:
    """An outcome that is read twice must not end what was asked for meanwhile."""
    where = partition(a=Endpoint()).say(status("SENT"))
    delivered = attempted("statuses-0-0-0", 1, answer=204)
    where.hear(delivered)
    where.hear(resend("statuses-0-0-0"))

    where.hear(Record(delivered.value, delivered.key, delivered.timestamp))

    assert queues(where)


@pytest.mark.parametrize("at", [-(2**62), -1, 0, 2**62])
def test_whatever_a_sender_s_clock_says_is_stored_and_listed(at: int) -> None:
    """No time that can be said stops a lane, or is listed where nobody looks for it."""
    where = partition(a=Endpoint()).say(status("SENT"))
    where.hear(attempted("statuses-0-0-0", answer=500, startedAt=at, duration=2**40, retryAfter=2**40))
    [(key, queue)] = queues(where).items()

    assert queue.due_at > at
    assert listed_at(queue_listing(key.encode(), queue)) == max(0, queue.due_at) <= LAST_MS
    where.hear(attempted("statuses-0-0-0", 2, startedAt=at))
    assert not queues(where)


@pytest.mark.parametrize(
    "said",
    [
        {"startedAt": 2**63},
        {"startedAt": -(2**70)},
        {"madeAt": 2**63},
        {"duration": 2**50},
        {"retryAfter": 10**30},
    ],
)
def test_times_that_cannot_be_stored_are_no_outcome(said: dict[str, int]) -> None:
    """They are dead letters, and what waits does so as before."""
    where = partition(a=Endpoint()).say(status("SENT"))
    where.hear(attempted("statuses-0-0-0", **said))

    assert waiting(where, "a") == ["statuses-0-0-0"]
    assert len(where.dead_letters) == 1


@pytest.mark.parametrize("receipt", [-1, 2**63 - 1])
def test_what_came_of_a_record_of_any_timestamp_can_be_said(receipt: int) -> None:
    """Brokers may accept any; what was told of it is let go as other webhooks are."""
    where = partition(a=Endpoint()).say(status("SENT", receipt=receipt))
    where.hear(attempted("statuses-0-0-0", made_at=receipt))

    assert not queues(where)
    assert sendings(where)["statuses-0-0-0", "a"].state == "delivered"


def test_what_failed_is_tried_again_by_the_schedule_until_that_is_used_up() -> None:
    """Ten attempts; the one behind it waits for all of them, and then has its own."""
    where = partition(a=Endpoint()).say(status("SENT"), status("READ"))
    at = NOON
    for number, pause in enumerate(SCHEDULE_MS, 1):
        where.hear(attempted("statuses-0-0-0", number, at=at, answer=500))
        queue = queues(where)["a\0m-1"]
        assert (queue.attempts, queue.due_at, queue.is_fresh) == (number, at + pause, False)
        at = queue.due_at
    assert waiting(where, "a") == ["statuses-0-0-0", "statuses-0-1-0", "statuses-0-1-1"]

    where.hear(attempted("statuses-0-0-0", 10, at=at, answer=None, trouble="timeout"))

    assert waiting(where, "a") == ["statuses-0-1-0", "statuses-0-1-1"]
    assert queues(where)["a\0m-1"].is_fresh
    (event,) = told_of(where)
    assert event.json["type"] == "webhook.failed"
    assert (event.json["attempts"], event.json["status"], event.json["trouble"]) == (10, None, "timeout")
    assert [t.number for t in sendings(where)["statuses-0-0-0", "a"].tries] == list(range(1, 11))


@pytest.mark.parametrize(
    ("random", "asked", "expected"), [(0.0, None, 4_000), (1.0, None, 6_000), (0.5, 60_000, 60_000)]
)
def test_the_next_attempt_comes_by_chance_and_by_what_was_asked_for(
    random: float, asked: int | None, expected: int
) -> None:
    """A fifth more or less; a receiver that wants more time gets it."""
    where = partition(a=Endpoint()).say(status("SENT"))
    where.hear(attempted("statuses-0-0-0", answer=503, random=random, retryAfter=asked))

    assert queues(where)["a\0m-1"].due_at == NOON + expected


def test_an_endpoint_may_be_tried_as_often_as_k_msg_does() -> None:
    """So many retries, a second after, doubling."""
    where = partition(a=Endpoint(retries=1)).say(status("SENT"))
    where.hear(attempted("statuses-0-0-0", 1, answer=500))
    assert queues(where)["a\0m-1"].due_at == NOON + 1_000
    where.hear(attempted("statuses-0-0-0", 2, answer=500))
    assert queues(where) == {}


def _requests(where: Partition) -> list[Record]:
    """What the partition asks of the lanes of endpoints, as it comes to them."""
    found = [o for o in where.outputs.pop("delivery.requests", [])]
    return [Record(output.value, output.key, NOON) for output in found]


def test_a_receiver_that_is_gone_is_sent_nothing_more_until_someone_mends_it() -> None:
    """410: the endpoint is disabled, which is told; what waits for it stays."""
    where = partition(a=Endpoint()).say(status("SENT"))
    where.ask(record("a", type="endpoint.register", endpoint=stored(Endpoint())))
    where.hear(attempted("statuses-0-0-0", answer=410))
    where.ask(*_requests(where))

    endpoint = where.rows(where.tables.endpoints)[b"a"]
    assert (endpoint.state, endpoint.reason) == ("disabled", "the receiver answered 410 Gone")
    assert waiting(where, "a") == ["statuses-0-0-0"]
    (event,) = told_of(where, "endpoint.")
    assert event.key == b"a"
    assert event.json == {
        "id": "requests-0-1-0",
        "type": "endpoint.disabled",
        "endpointId": "a",
        "occurredAt": "2026-11-23T12:00:00.000Z",
        "reason": "the receiver answered 410 Gone",
    }


def test_410_ends_a_webhook_of_a_message_s_own() -> None:
    """Waiting events fail without an attempt, later ones are not sent; the message's other webhooks go on."""
    where = partition()
    where.ask(
        request("m-1", createdAt=NOON, webhooks=[{"url": "https://a.example"}, {"url": "https://b.example"}])
    )
    where.say(status("SENT"))
    assert waiting(where, "@0") == waiting(where, "@1") == ["requests-0-0-0", "statuses-0-0-0"]

    where.hear(attempted("requests-0-0-0", endpoint="@0", answer=410))
    where.say(status("DELIVERED"), status("READ"))

    assert waiting(where, "@0") == []
    assert [(event.json["eventId"], event.json["trouble"]) for event in told_of(where)] == [
        ("requests-0-0-0", None),
        ("statuses-0-0-0", "gone"),
    ]
    assert sendings(where)["statuses-0-0-0", "@0"].state == "failed"
    assert len(waiting(where, "@1")) == 5
    shown = record_view("m-1", where.delivery()).webhooks or []
    assert [(webhook.url, webhook.gone) for webhook in shown] == [
        ("https://a.example", True),
        ("https://b.example", False),
    ]
    assert {endpoint for _, endpoint in sendings(where)} == {"@0"}


def test_a_receiver_that_is_gone_stays_so_when_another_request_counts() -> None:
    """The mark follows the URL to any place in the other request."""
    where = partition()
    gone, other = {"url": "https://a.example"}, {"url": "https://b.example"}
    where.ask(request("m-1", createdAt=NOON, webhooks=[gone]))
    where.hear(attempted("requests-0-0-0", endpoint="@0", answer=410))
    where.ask(request("m-1", createdAt=NOON - 1, webhooks=[other, gone]))
    where.say(status("SENT"))

    assert waiting(where, "@0") == ["requests-0-1-0", "statuses-0-0-0"]
    assert waiting(where, "@1") == []


def test_410_to_a_webhook_of_a_request_that_counts_no_longer_ends_nothing() -> None:
    """Another request has put another webhook in its place."""
    where = partition()
    where.ask(request("m-1", createdAt=NOON, webhooks=[{"url": "https://a.example"}]))
    where.ask(request("m-1", createdAt=NOON - 1, webhooks=[{"url": "https://b.example"}]))
    where.hear(attempted("requests-0-0-0", endpoint="@0", answer=410))
    where.say(status("SENT"))

    assert waiting(where, "@0") == ["statuses-0-0-0"]


def stored(endpoint: Endpoint) -> Any:
    """An endpoint as it stands in a request."""
    return msgspec.to_builtins(endpoint)


def hear(where: Partition, verdict: str, at: int) -> Endpoint:
    where.ask(record("a", receipt=at, type="endpoint.heard", verdict=verdict))
    found: Endpoint = where.rows(where.tables.endpoints)[b"a"]
    return found


def test_an_endpoint_that_nothing_gets_through_to_for_120_hours_is_disabled() -> None:
    """Counted from the first failure after the last success; once, and not if anything got through."""
    where = Partition().ask(record("a", type="endpoint.register", endpoint=stored(Endpoint())))
    assert hear(where, "failed", NOON).failing_since == NOON
    assert hear(where, "throttled", NOON + 119 * HOUR_MS).state == "active"
    assert hear(where, "delivered", NOON + 119 * HOUR_MS).failing_since is None
    hear(where, "failed", NOON + 121 * HOUR_MS)
    assert hear(where, "failed", NOON + 240 * HOUR_MS).state == "active"

    disabled = hear(where, "failed", NOON + 241 * HOUR_MS)
    assert (disabled.state, disabled.reason) == ("disabled", "no webhook got through for too long")
    hear(where, "failed", NOON + 300 * HOUR_MS)
    assert len(told_of(where, "endpoint.")) == 1

    where.ask(record("a", receipt=NOON + 301 * HOUR_MS, type="endpoint.change", state="active"))
    assert hear(where, "failed", NOON + 302 * HOUR_MS).state == "active"


def test_what_changes_how_an_endpoint_stands_is_told_to_its_lane_and_nothing_else() -> None:
    """Not each of a thousand failures."""
    where = partition(a=Endpoint(), b=Endpoint(failing_since=NOON - HOUR_MS))
    where.say(*(status("SENT", f"m-{n}") for n in range(4)))
    where.hear(*(attempted(f"statuses-0-{n}-0", message=f"m-{n}", answer=500) for n in range(3)))
    where.hear(attempted("statuses-0-3-0", message="m-3"))
    where.hear(*(attempted(f"statuses-0-{n}-0", message=f"m-{n}", endpoint="b") for n in range(3)))

    asked = [json.loads(request.value or b"") for request in _requests(where)]
    assert asked == [
        {"type": "endpoint.heard", "messageId": "a", "verdict": "failed"},
        {"type": "endpoint.heard", "messageId": "b", "verdict": "delivered"},
    ]


def resend(event: str, endpoint: str = "a") -> Record:
    return record("m-1", type="webhook.resend", eventId=event, endpointId=endpoint)


def test_what_was_told_can_be_told_again_from_the_first_attempt_on() -> None:
    """With its id and body; attempts are numbered on, so that none of before is taken for one of now."""
    where = partition(a=Endpoint()).say(status("SENT"))
    where.hear(attempted("statuses-0-0-0", 1, answer=500), attempted("statuses-0-0-0", 2))
    where.hear(resend("statuses-0-0-0"))

    assert waiting(where, "a") == ["statuses-0-0-0"]
    queue = queues(where)["a\0m-1"]
    assert (queue.attempts, queue.is_fresh) == (2, True)
    where.hear(attempted("statuses-0-0-0", 2, answer=500))
    assert queues(where)["a\0m-1"].is_fresh
    where.hear(attempted("statuses-0-0-0", 3, answer=500))
    assert queues(where)["a\0m-1"].due_at == NOON + SCHEDULE_MS[0]
    where.hear(attempted("statuses-0-0-0", 4))
    assert queues(where) == {}
    assert sendings(where)["statuses-0-0-0", "a"].attempts == 4


def test_what_is_told_again_behind_others_goes_on_counting_its_attempts() -> None:
    """Or its first attempts would be taken for those of now, and their log be lost."""
    where = partition(a=Endpoint())
    where.say(status("SENT"), status("READ"))
    where.hear(attempted("statuses-0-0-0"))
    where.hear(resend("statuses-0-0-0"))
    where.hear(attempted("statuses-0-1-0"), attempted("statuses-0-1-1"))
    where.hear(attempted("statuses-0-0-0"))
    assert waiting(where, "a") == ["statuses-0-0-0"]
    where.hear(attempted("statuses-0-0-0", 2))

    assert waiting(where, "a") == []
    assert [tried.number for tried in sendings(where)["statuses-0-0-0", "a"].tries] == [1, 2]


def test_what_waits_already_or_is_not_known_is_not_told_again() -> None:
    """Nor is it told to an endpoint that there is none of."""
    where = partition(a=Endpoint()).say(status("SENT"))
    where.hear(resend("statuses-0-0-0"), resend("statuses-0-7-0"), resend("x"), resend("statuses-0-0-0", "b"))

    assert waiting(where, "a") == ["statuses-0-0-0"]
    assert where.counts["webhook-repeated"] == 4


@pytest.mark.parametrize(
    ("filters", "is_resent"),
    [
        (Filters(tenant="shop"), True),
        (Filters(tenant="bank"), False),
        (Filters(channels=["email"]), False),
        (Filters(providers=["solapi"]), True),
    ],
)
def test_a_resend_applies_the_filters_of_the_endpoint(filters: Filters, is_resent: bool) -> None:
    """Whoever resends names the endpoint; it must not receive the events of another tenant."""
    where = partition(a=Endpoint(), b=Endpoint(events=["message.read"], filters=filters))
    where.ask(request("m-1", tenant="shop", channel="sms"))
    where.hear(resend("requests-0-0-0", "b"))

    assert waiting(where, "b") == (["requests-0-0-0"] if is_resent else [])


def test_a_replay_after_a_change_of_the_tenant_resends_nothing() -> None:
    """The endpoint received the event when it was of every tenant."""
    where = partition(a=Endpoint())
    where.ask(request("m-1", tenant="shop", channel="sms"))
    where.hear(attempted("requests-0-0-0"))
    tables(where).routing.put("a", Endpoint(filters=Filters(tenant="bank")))
    where.hear(resend("requests-0-0-0"))

    assert waiting(where, "a") == []


def overflowing(count: int) -> Partition:
    """A message of which so many events wait for an endpoint."""
    where = partition(a=Endpoint())
    for at in range(0, count, 500):
        numbers = range(at, min(count, at + 500))
        where.say(*(status("SENT", id=f"c-{number}", timestamp=NOON + number) for number in numbers))
    return where


def test_no_more_than_a_thousand_events_of_a_message_wait_for_an_endpoint() -> None:
    """The oldest behind the first is given up, for the first may be under way; and that is reported once."""
    where = overflowing(1_003)
    kept = [f"statuses-0-{n}-0" for n in (0, *range(4, 1_003))]
    assert waiting(where, "a") == kept
    failed = [event.json for event in told_of(where)]
    assert failed == [
        {
            "id": f"statuses-0-{number}-0-a",
            "type": "webhook.failed",
            "messageId": "m-1",
            "occurredAt": "2026-11-23T12:00:00.000Z",
            "eventId": f"statuses-0-{number}-0",
            "endpointId": "a",
            "attempts": 0,
            "status": None,
            "trouble": "overflow",
        }
        for number in (1, 2, 3)
    ]
    where.hear(attempted("statuses-0-0-0"))
    assert waiting(where, "a") == kept[1:]


def test_what_was_given_up_can_be_sent_again() -> None:
    """It is listed as failed, and its first attempt is the first one."""
    where = overflowing(1_001)
    given_up = "statuses-0-1-0"
    assert sendings(where)[given_up, "a"].state == "failed"
    where.hear(
        attempted("statuses-0-0-0"),
        record("m-1", type="webhook.resend", eventId=given_up, endpointId="a"),
    )
    assert waiting(where, "a")[-1] == given_up
    assert sendings(where)[given_up, "a"].state == "pending"
    for event in waiting(where, "a"):
        where.hear(attempted(event))

    assert queues(where) == {}
    assert sendings(where)[given_up, "a"].state == "delivered"
    assert len(told_of(where, "webhook.delivered")) == 1_001


def test_what_waits_for_an_endpoint_that_was_removed_is_forgotten() -> None:
    """But never what waits for one that is there."""
    where = partition(a=Endpoint(), b=Endpoint()).say(status("SENT"))
    where.tables.telling.routing.put("a", None)
    where.hear(*(record(type="webhook.abandon", endpointId=name) for name in "ab"))

    assert list(queues(where)) == ["b\0m-1"]


def test_what_was_told_is_let_go_after_its_time() -> None:
    """With what came of it, and with what still waits; what is younger stays, whatever stands before it."""
    where = partition(a=Endpoint(), b=Endpoint())
    where.say(status("SENT"), status("SENT", "m-2", receipt=NOON + 9 * DAY_MS), status("READ"))
    where.say(status("READ", "m-3", receipt=NOON + DAY_MS))
    where.hear(attempted("statuses-0-0-0"))
    where.ask(record("tick", receipt=NOON + 8 * DAY_MS - 1, type="tick"))

    assert list(events(where)) == ["statuses-0-1-0", "statuses-0-3-0", "statuses-0-3-1"]
    assert sorted(queues(where)) == ["a\0m-2", "a\0m-3", "b\0m-2", "b\0m-3"]
    assert sendings(where) == {}


def test_events_of_providers_are_told_too() -> None:
    """Under the provider's name; filters by provider hold for them."""
    routing = Routing()
    routing.put("a", Endpoint(events=["provider.*"], filters=Filters(providers=["solapi"])))
    assert [r.endpoint_id for r in routing.routes["provider.degraded", None, None, None, "solapi"]] == ["a"]
    assert not routing.routes["provider.degraded", None, None, None, "nhn"]


ANSWERS = st.sampled_from([204, 204, 500, 429, None])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("say"), st.sampled_from(["m-1", "m-2"]), st.integers(0, 10**6)),
            st.tuples(st.just("send"), st.sampled_from(["a\0m-1", "a\0m-2", "b\0m-1", "b\0m-2"]), ANSWERS),
            st.tuples(st.just("again"), st.just(""), st.integers(0, 50)),
        ),
        max_size=60,
    )
)
def test_whatever_comes_when_each_is_told_in_order_until_it_arrived_or_failed(
    steps: Sequence[tuple[str, str, Any]],
) -> None:
    """No event is left out or told twice as arrived, and none before the one that came before it."""
    where = partition(a=Endpoint(retries=1), b=Endpoint(retries=2))
    said: list[Record] = []
    for what, name, value in steps:
        if what == "say":
            where.say(status("SENT", name, timestamp=NOON + value))
        elif what == "send" and name in queues(where):
            said.append(try_first(where, name, value))
        elif what == "again" and said:
            old = said[value % len(said)]
            where.hear(Record(old.value, old.key, old.timestamp))
    while left := queues(where):
        for name in left:
            try_first(where, name, 204)

    for endpoint, key in product("ab", (b"m-1", b"m-2")):
        mine = [event.json for event in where.events if event.key == key]
        told = [event["eventId"] for event in mine if event.get("endpointId") == endpoint]
        assert told == [event["id"] for event in mine if "endpointId" not in event]


def try_first(where: Partition, name: str, answer: int | None) -> Record:
    """Say of the first of a queue that an attempt was made."""
    queue, (endpoint, message) = queues(where)[name], name.split("\0")
    first = event_id(where.number, queue.waiting[0])
    tried = attempted(first, queue.attempts + 1, endpoint=endpoint, message=message, answer=answer)
    where.hear(tried)
    return tried


@pytest.mark.parametrize(
    "text", ["", "statuses", "statuses-1", "events-0-1-0", "statuses-0-x-0", "requests-0-1-999"]
)
def test_what_is_no_event_id_of_a_message_has_no_place(text: str) -> None:
    """Anybody may ask for one."""
    assert event_key(text) is None


def test_a_place_tells_the_id_again() -> None:
    """Places are in order of arrival."""
    ids = [
        f"{stream}-7-{offset}-{n}"
        for stream in ("requests", "statuses")
        for offset in (0, 300)
        for n in (0, 2)
    ]
    keys = [event_key(id_) or b"" for id_ in ids]
    assert keys == sorted(keys)
    assert [event_id(7, key) for key in keys] == ids


OWN = [{"url": "https://own.example", "events": ["message.delivered", "tracking.completed"]}]


def notices(where: Partition, endpoint: str) -> list[tuple[str, str]]:
    """Type and status of each event that waits for an endpoint."""
    kept = events(where)
    data = [json.loads(kept[id_].body)["data"] for id_ in waiting(where, endpoint)]
    return [(each["type"], each["status"]) for each in data]


@pytest.mark.parametrize("late", range(4))
@pytest.mark.parametrize("statuses", [("SENT", "DELIVERED"), ("SENT", "DELIVERED", "READ")])
def test_a_subscriber_is_notified_once_wherever_the_request_comes(
    statuses: tuple[str, ...], late: int
) -> None:
    """Before, among or behind the statuses: of the delivery once, of the completion once."""
    records = [status(name, timestamp=NOON + n) for n, name in enumerate(statuses)]
    where = partition(
        delivered=Endpoint(events=["message.delivered"], filters=Filters(tenant="shop")),
        completed=Endpoint(events=["tracking.completed"], filters=Filters(tenant="shop")),
    )
    for n, one in enumerate(records):
        if n == late:
            where.ask(request(tenant="shop", webhooks=OWN))
        where.say(one)
    if late >= len(records):
        where.ask(request(tenant="shop", webhooks=OWN))

    assert notices(where, "delivered") == [("status.updated", "DELIVERED")]
    assert [type_ for type_, _ in notices(where, "completed")] == ["tracking.completed"]
    assert sorted(type_ for type_, _ in notices(where, "@0")) == ["status.updated", "tracking.completed"]


def test_a_late_request_reports_the_current_status_only() -> None:
    """To an endpoint that wants every status; the endpoints that matched before get no repetition."""
    where = partition(
        all=Endpoint(events=["message.*"]),
        shop=Endpoint(events=["message.*"], filters=Filters(tenant="shop")),
    )
    where.say(status("SENT"), status("DELIVERED"), status("READ"))
    before = notices(where, "all")
    where.ask(request(tenant="shop"))

    assert notices(where, "shop") == [("status.updated", "READ")]
    assert notices(where, "all") == before
    assert where.types().count("status.updated") == 3


def test_a_second_request_reports_nothing_again() -> None:
    """Only the first one makes a message match."""
    where = partition(shop=Endpoint(events=["message.*"], filters=Filters(tenant="shop")))
    where.say(status("DELIVERED"))
    where.ask(request(tenant="shop"), request(tenant="shop"))

    assert notices(where, "shop") == [("status.updated", "DELIVERED")]
