"""What becomes of an input record."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.flows import event_types
from streams.domain.delivery import Track
from streams.domain.histogram import bucket
from streams.domain.reports import record_view
from streams.domain.statistics import CREATED_THEN, SENT_THEN, Key
from streams.engine.batches import Batch
from streams.engine.units import Unit
from streams.messages import encode, request_reader
from streams.webhooks.sealing import Sealer
from tests.agents.flowing import EVERYTHING, NOON, Partition, Record, record, request, status


@pytest.fixture
def partition() -> Partition:
    return Partition()


def headers(output: Any) -> dict[str, bytes]:
    return dict(output.headers)


# Outcomes and events


def test_a_first_status_makes_a_delivery(partition: Partition) -> None:
    """A message that nobody asked to track is tracked from its first callback on."""
    partition.say(status("SENT", timestamp=NOON / 1000, provider="a"))

    assert partition.delivery().status == "SENT"
    assert not partition.delivery().tracked
    assert partition.types() == ["status.updated"]
    assert partition.counts == {"applied": 1}


def test_a_final_status_completes_tracking_once(partition: Partition) -> None:
    """The second final status updates, but completes nothing."""
    partition.say(status("SENT"), status("FAILED"), status("DELIVERED"), status("READ"))

    assert partition.types() == [
        "status.updated",
        "status.updated",
        "tracking.completed",
        "status.updated",
        "status.updated",
    ]
    assert [event.json.get("trackingCompleted") for event in partition.events] == [
        None,
        None,
        True,
        None,
        None,
    ]


def test_a_late_status_amends(partition: Partition) -> None:
    """What a passed status adds is told as an amendment."""
    partition.say(status("DELIVERED", timestamp=NOON + 12)).say(status("SENT", timestamp=NOON + 10))

    assert partition.types()[2:] == ["status.amended"]
    event = partition.events[2].json
    assert (event["status"], event["currentStatus"], event["previousStatus"]) == (
        "SENT",
        "DELIVERED",
        "DELIVERED",
    )
    assert event["deliveryReport"]["sentAt"] == "2026-11-23T12:00:00.010Z"
    assert partition.counts == {"applied": 1, "amended": 1}


@pytest.mark.parametrize("again", [status("SENT", provider="a"), request()], ids=["status", "request"])
def test_a_repeated_record_writes_and_tells_nothing(partition: Partition, again: Record) -> None:
    """No record, no event; the statistics count that a callback came again, and where the message stands."""
    apply = partition.ask if b"track" in (again.value or b"") else partition.say
    apply(again)
    told, stands = len(partition.events), partition.cohorts(CREATED_THEN)

    apply(again, again)

    assert "deliveries" not in partition.changed
    assert (len(partition.events), partition.cohorts(CREATED_THEN)) == (told, stands)
    (happened,) = partition.activities().values()
    assert happened.outcomes[1] == (2 if apply == partition.say else 0)
    assert partition.counts == {"applied": 1, "repeated": 2}


def test_a_repetition_within_one_batch_is_one(partition: Partition) -> None:
    """A unit of work sees its own writes."""
    partition.say(status("SENT"), status("SENT"))

    assert partition.counts == {"applied": 1, "repeated": 1}
    assert sum(sum(found.by_status) for found in partition.activities().values()) == 1


def test_a_track_request_starts_tracking(partition: Partition) -> None:
    """A new message by request gives tracking.started alone."""
    partition.ask(request(createdAt="2026-11-23T12:00:00Z"))

    assert partition.types() == ["tracking.started"]
    event = partition.events[0].json
    assert "previousStatus" not in event
    assert (event["currentStatus"], event["source"], event["provider"]) == ("QUEUED", "system", "solapi")
    assert partition.delivery().tracked


def test_a_track_request_may_come_after_the_callbacks(partition: Partition) -> None:
    """It starts tracking, changes no status, and names the recipient."""
    partition.say(status("DELIVERED")).ask(request())

    assert partition.types()[2:] == ["tracking.started"]
    assert partition.delivery().phone_number == "+82100000001"
    assert partition.counts == {"applied": 1, "amended": 1}


def test_a_track_request_that_moves_the_status_says_both(partition: Partition) -> None:
    """tracking.started first, then what changed, then that it is complete."""
    partition.say(status("QUEUED")).ask(request(initialStatus="CANCELLED"))

    assert partition.types()[1:] == ["tracking.started", "status.updated", "tracking.completed"]
    assert partition.counts == {"applied": 2}


def test_a_new_message_in_a_final_status_is_complete_at_once(partition: Partition) -> None:
    """Without a previous status nothing was final."""
    partition.ask(request(initialStatus="FAILED"))

    assert partition.types() == ["tracking.started", "tracking.completed"]


def test_a_further_request_amends(partition: Partition) -> None:
    """tracking.started was told already; one that repeats another tells nothing."""
    partition.ask(request(createdAt=NOON + 5), request(createdAt=NOON + 2), request(createdAt=NOON + 5))

    assert partition.types() == ["tracking.started", "status.amended"]
    assert partition.events[1].json["occurredAt"] == "2026-11-23T12:00:00.002Z"
    assert partition.counts == {"applied": 1, "amended": 1, "repeated": 1}


def test_a_further_request_adds_its_entry_and_metadata(partition: Partition) -> None:
    """Each initial status makes one entry; metadata is merged."""
    partition.ask(request(), request(initialStatus="SENDING", metadata={"a": 1}), request(metadata={"b": 1}))

    assert [entry.precedence for entry in partition.delivery().history] == [0, 1]
    assert set(partition.delivery().metadata) == {"a", "b"}
    assert partition.types() == ["tracking.started", "status.updated", "status.amended"]


@pytest.mark.parametrize(
    ("started", "completes", "before", "now", "types"),
    [
        (False, False, -1, 2, ["status.updated"]),
        (False, True, -1, 6, ["status.updated", "tracking.completed"]),
        (False, False, 2, 2, ["status.amended"]),
        (False, True, 2, 5, ["status.updated", "tracking.completed"]),
        (False, False, 5, 6, ["status.updated"]),
        (False, False, 5, 2, ["status.updated"]),
        (False, False, 6, 6, ["status.amended"]),
        (True, False, -1, 0, ["tracking.started"]),
        (True, True, -1, 3, ["tracking.started", "tracking.completed"]),
        (True, False, 2, 2, ["tracking.started"]),
        (True, True, 2, 3, ["tracking.started", "status.updated", "tracking.completed"]),
        (True, False, 5, 6, ["tracking.started", "status.updated"]),
    ],
)
def test_which_events_tell_what_happened(
    started: bool, completes: bool, before: int, now: int, types: list[str]
) -> None:
    """All cases: tracking starts, final for the first time, the precedences before (-1: new) and now."""
    assert list(event_types(started, completes, False, before, now)) == types


def test_large_texts_are_left_out_and_the_status_counts(partition: Partition) -> None:
    """A provider that sends its whole world along must not make records that no broker takes."""
    world = {"x": "y" * 5_000}
    error = {"code": "1", "message": "m" * 2_000, "details": world}
    partition.say(status("FAILED", provider="a", error=error, metadata={"raw": world, "small": [1, 2]}))

    report = partition.events[-1].json["deliveryReport"]
    left_out = {"leftOutBytes": len('{"x":""}') + 5_000}
    assert report["metadata"] == {"raw": left_out, "small": [1, 2]}
    assert report["error"] == {"code": "1", "message": "m" * 999 + "…", "details": left_out}
    assert report["status"] == "FAILED"


def test_a_message_completes_once_however_often_its_status_becomes_final(partition: Partition) -> None:
    """A failover takes a final status back; the next one is an update."""
    partition.say(
        status("FAILED", provider="a", timestamp=NOON),
        status("SENT", provider="b", timestamp=NOON + 5),
        status("DELIVERED", provider="b", timestamp=NOON + 9),
    )

    assert partition.types() == ["status.updated", "tracking.completed", "status.updated", "status.updated"]
    statuses = [event.json["currentStatus"] for event in partition.events]
    assert statuses == ["FAILED", "FAILED", "SENT", "DELIVERED"]


def test_an_event_in_full(partition: Partition) -> None:
    """A golden value: what consumers of delivery.events read."""
    partition.say(status("SENT", timestamp="2026-11-23T21:00:00.010+09:00", provider="solapi", attempt=1))
    partition.say(
        status(
            "DELIVERED",
            timestamp="2026-11-23T12:00:00.123Z",
            provider="solapi",
            attempt=1,
            source="webhook",
            metadata={"region": "kr"},
        )
    )

    updated, completed = partition.events[1:]

    assert completed.json == {
        "id": "statuses-0-1-1",
        "type": "tracking.completed",
        "messageId": "m-1",
        "occurredAt": "2026-11-23T12:00:00.123Z",
        "previousStatus": "SENT",
        "currentStatus": "DELIVERED",
        "status": "DELIVERED",
        "provider": "solapi",
        "source": "webhook",
        "deliveryReport": {
            "messageId": "m-1",
            "status": "DELIVERED",
            "sentAt": "2026-11-23T12:00:00.010Z",
            "deliveredAt": "2026-11-23T12:00:00.123Z",
            "attempts": [
                {
                    "attemptNumber": 1,
                    "provider": "solapi",
                    "attemptedAt": "2026-11-23T12:00:00.010Z",
                    "status": "DELIVERED",
                }
            ],
            "metadata": {"region": "kr"},
        },
        "trackingCompleted": True,
        "reason": "final",
    }
    assert completed.headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"statuses-0-1-1"),
        ("ce_source", b"/delivery-tracker"),
        ("ce_type", b"tracking.completed"),
        ("ce_time", b"2026-11-23T12:00:00.123Z"),
        ("ce_subject", b"m-1"),
        ("content-type", b"application/json"),
    ]
    changed = {"id": "statuses-0-1-0", "type": "status.updated", "reason": "progress"}
    assert updated.json == {k: v for k, v in (completed.json | changed).items() if k != "trackingCompleted"}
    assert (completed.key, completed.partition, completed.timestamp) == (b"m-1", 0, None)


# Statistics


def test_statistics_move_with_the_delivery(partition: Partition) -> None:
    """The message counts once, where it stands; what happened counts in its minute, under who said it."""
    partition.ask(request(createdAt=NOON, receipt=NOON + 1))
    partition.say(status("SENT", provider="solapi", timestamp=NOON + 10, receipt=NOON + 11))
    partition.say(status("DELIVERED", provider="other", timestamp=NOON + 60_010, receipt=NOON + 60_020))

    minute = NOON // 60_000
    created = partition.cohorts(CREATED_THEN)
    assert created.keys() == {
        Key(granularity, level, start, group)
        for granularity, start in ((b"m", minute), (b"h", minute), (b"d", minute - 720), (b"a", 0))
        for level, group in ((b"w", ()), (b"p", ("other",)), (b"f", (None, None, "other", "tpl")))
    }
    assert created == partition.cohorts(SENT_THEN)
    for key, found in created.items():
        providers = {"other": 1} if key.level == b"w" else {}
        assert found == ([0, 0, 0, 0, 0, 0, 1, 0, 0], 1, 1, 0, 60_000, {bucket(60_000): 1}, {}, providers)
    happened = {(key.start - minute, key.group[2]): found for key, found in partition.activities().items()}
    assert happened == {
        (0, "solapi"): ([1, 0, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0], 1, [1, 0, 0, 0, 0, 0, 0]),
        (1, "other"): ([0, 0, 0, 0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0], 10, [1, 0, 0, 0, 0, 0, 0]),
    }
    assert partition.cells()[EVERYTHING].updated_at == NOON + 60_020


def test_callbacks_count_by_what_became_of_them(partition: Partition) -> None:
    """Repeated, refused, contradictory, dead: in the minute and under the group that they name."""
    said = {"provider": "a", "timestamp": NOON, "tenant": "t", "channel": "sms", "templateId": "x"}
    partition.say(status("FAILED", **said), status("FAILED", **said), status("DELIVERED", **said))
    partition.ask(record(type="stop")).say(status("READ", timestamp=NOON + 60_000), Record(b"{", b"m-1"))

    minute = NOON // 60_000
    assert {key[2:]: found.outcomes for key, found in partition.activities().items()} == {
        (minute, ("t", "sms", "a", "x")): [2, 1, 0, 1, 0],
        (minute, (None, None, "unknown", None)): [0, 0, 0, 0, 1],
        (minute + 1, (None, None, "unknown", None)): [0, 0, 1, 0, 0],
    }
    assert partition.cohorts(CREATED_THEN) == {}


def test_a_click_takes_nothing_from_the_delivery_rate(partition: Partition) -> None:
    """A message that was delivered stays so, read or clicked or whatever comes later."""
    rates = []
    for name in ("SENT", "DELIVERED", "READ", "CLICKED", "FAILED"):
        rates.append(partition.say(status(name, provider="a")).totals().delivery_rate)

    assert rates == [0, 100, 100, 100, 100]


def test_a_failover_that_arrives_counts_once_as_delivered(partition: Partition) -> None:
    """FAILED at one provider and DELIVERED at the next: one message, of the one that delivered it."""
    partition.say(
        status("FAILED", provider="a", attempt=1, error={"code": "E1", "message": "no"}),
        status("DELIVERED", provider="b", attempt=2),
    )

    stand = partition.totals()
    assert (stand.total_messages, stand.by_provider, stand.by_error_code) == (1, {"b": 1}, {})
    assert (stand.delivery_rate, stand.failure_rate, stand.by_status["FAILED"]) == (100, 0, 0)


def test_what_is_known_later_of_a_message_moves_what_happened(partition: Partition) -> None:
    """Callbacks that came before the request count under the template and tenant that it names."""
    partition.say(status("SENT", provider="solapi", timestamp=NOON))
    partition.ask(request(createdAt=NOON, tenant="t", channel="sms"))

    assert {key.group: found.by_status for key, found in partition.activities().items()} == {
        ("t", "sms", "solapi", "tpl"): [1, 0, 1, 0, 0, 0, 0, 0, 0]
    }


def test_a_request_that_adds_no_entry_counts_in_no_minute(partition: Partition) -> None:
    """Minutes count history entries, not records."""
    partition.ask(request(createdAt=NOON), request(createdAt=NOON, metadata={"a": 1}))

    assert partition.types() == ["tracking.started", "status.amended"]
    assert sum(sum(found.by_status) for found in partition.activities().values()) == 1


# Dead letters

LONG = "x" * 257
MALFORMED: list[tuple[str, bytes | None, str, str]] = [
    ("statuses", None, "empty", ""),
    ("statuses", b"", "empty", ""),
    ("statuses", b'{"messageId":"m","status":"SENT","x":"' + b"x" * 65_536 + b'"}', "too-large", ""),
    ("statuses", b'{"messageId":', "not-json", ""),
    ("statuses", b"\xef\xbb\xbf{}", "not-json", ""),
    ("statuses", b'{"messageId":"m\xff","status":"SENT"}', "not-json", ""),
    ("statuses", b'{"messageId":"m","status":"SENT","unknown":"\xff"}', "not-json", ""),
    ("statuses", b'{"messageId":"\\ud800","status":"SENT"}', "not-json", ""),
    ("statuses", b'{"messageId":"m","status":"SENT"} x', "not-json", ""),
    ("statuses", b'{"messageId":"m","status":"SENT","attempt":NaN}', "not-json", ""),
    ("statuses", b'{"messageId":"m"}', "missing-field", "status"),
    ("statuses", b'{"status":"SENT"}', "missing-field", "messageId"),
    (
        "statuses",
        b'{"messageId":"m","status":"FAILED","error":{"message":"x"}}',
        "missing-field",
        "error.code",
    ),
    ("statuses", b"[]", "wrong-type", ""),
    ("statuses", b'{"messageId":null,"status":"SENT"}', "wrong-type", "messageId"),
    ("statuses", b'{"messageId":1,"status":"SENT"}', "wrong-type", "messageId"),
    ("statuses", b'{"messageId":"m","status":7}', "wrong-type", "status"),
    ("statuses", b'{"messageId":"m","status":"SENT","attempt":1.0}', "wrong-type", "attempt"),
    ("statuses", b'{"messageId":"m","status":"SENT","timestamp":true}', "wrong-type", "timestamp"),
    ("statuses", b'{"messageId":"m","status":"SENT","metadata":[]}', "wrong-type", "metadata"),
    ("statuses", b'{"messageId":"m","status":"LOST"}', "unknown-status", "status"),
    ("statuses", b'{"messageId":"m","status":"sent"}', "unknown-status", "status"),
    ("statuses", b'{"messageId":"","status":"SENT"}', "invalid-value", "messageId"),
    ("statuses", f'{{"messageId":"{LONG}","status":"SENT"}}'.encode(), "invalid-value", "messageId"),
    (
        "statuses",
        f'{{"messageId":"m","status":"SENT","provider":"{LONG}"}}'.encode(),
        "invalid-value",
        "provider",
    ),
    ("statuses", b'{"messageId":"m","status":"SENT","source":"nobody"}', "invalid-value", "source"),
    ("statuses", b'{"messageId":"m","status":"SENT","attempt":0}', "invalid-value", "attempt"),
    (
        "statuses",
        b'{"messageId":"m","status":"SENT","attempt":99999999999999999999}',
        "invalid-value",
        "attempt",
    ),
    (
        "statuses",
        b'{"messageId":"m","status":"SENT","timestamp":"2026-11-23T12:00:00"}',
        "invalid-value",
        "timestamp",
    ),
    ("statuses", b'{"messageId":"m","status":"SENT","timestamp":"noon"}', "invalid-value", "timestamp"),
    ("statuses", b'{"messageId":"m","status":"SENT","timestamp":1e999}', "invalid-value", "timestamp"),
    ("statuses", b'{"messageId":"m","status":"SENT","timestamp":"soon"}', "invalid-value", "timestamp"),
    ("statuses", b'{"messageId":"m","status":"SENT","readAt":"soon"}', "invalid-value", "readAt"),
    ("statuses", b'{"messageId":"m","status":"SENT","deliveredAt":"x"}', "invalid-value", "deliveredAt"),
    (
        "statuses",
        b'{"messageId":"m","status":"SENT","x":' + b"[" * 9_999 + b"]" * 9_999 + b"}",
        "invalid-value",
        "",
    ),
    ("requests", b'{"messageId":"m"}', "missing-field", "type"),
    ("requests", b'{"type":"track","messageId":"m"}', "missing-field", "phoneNumber"),
    ("requests", b'{"type":3,"messageId":"m"}', "wrong-type", "type"),
    (
        "statuses",
        b'{"messageId":"m","status":"SENT","metadata":{"%s":1}}' % (b"k" * 257),
        "invalid-value",
        "metadata",
    ),
    ("requests", b'{"type":"pause","messageId":"m"}', "unsupported-type", "type"),
    ("requests", b'{"type":"stop"}', "missing-field", "messageId"),
    ("requests", b'{"type":"erase","messageId":""}', "invalid-value", "messageId"),
    (
        "requests",
        b'{"type":"track","messageId":"m","initialStatus":"LOST"}',
        "unknown-status",
        "initialStatus",
    ),
    (
        "requests",
        b'{"type":"track","messageId":"m","maxTrackingDuration":0}',
        "invalid-value",
        "maxTrackingDuration",
    ),
    (
        "requests",
        b'{"type":"track","messageId":"m","phoneNumber":"1","templateId":"t","provider":"p","createdAt":"soon"}',
        "invalid-value",
        "createdAt",
    ),
]
WEBHOOKS: list[tuple[Any, str, str]] = [
    ({}, "wrong-type", "webhooks"),
    ([{"url": "https://a.example"}] * 11, "invalid-value", "webhooks"),
    ([{"events": []}], "missing-field", "webhooks[0].url"),
    ([{"url": ""}], "invalid-value", "webhooks[0].url"),
    ([{"url": "https://example.com/" + "x" * 2_048}], "invalid-value", "webhooks[0].url"),
    ([{"url": "https://a.example"}, {"url": "ftp://a.example"}], "invalid-value", "webhooks[1].url"),
    ([{"url": "https:///path"}], "invalid-value", "webhooks[0].url"),
    ([{"url": "https://a.example:99999"}], "invalid-value", "webhooks[0].url"),
    ([{"url": "https://[::1"}], "invalid-value", "webhooks[0].url"),
    ([{"url": "https://a.example/x y"}], "invalid-value", "webhooks[0].url"),
    ([{"url": "https://user:secret@a.example"}], "invalid-value", "webhooks[0].url"),
    ([{"url": "https://a.example", "timeout": 0}], "invalid-value", "webhooks[0].timeout"),
    ([{"url": "https://a.example", "retries": 21}], "invalid-value", "webhooks[0].retries"),
    ([{"url": "https://a.example", "headers": {"X": 1}}], "wrong-type", "webhooks[0].headers[...]"),
    ([{"url": "https://a.example", "headers": {"X": "가게"}}], "invalid-value", "webhooks[0].headers.X"),
    (
        [{"url": "https://a.example", "events": ["*", "message.Sent"]}],
        "invalid-value",
        "webhooks[0].events[1]",
    ),
    ([{"url": "https://a.example", "events": ["provider.*"]}], "invalid-value", "webhooks[0].events[0]"),
    ([{"url": "https://a.example", "secret": "short"}], "invalid-value", "webhooks[0].secret"),
]
MALFORMED += [
    ("requests", request(webhooks=webhooks).value, code, field) for webhooks, code, field in WEBHOOKS
]


def test_webhooks_are_kept_without_what_is_secret(partition: Partition) -> None:
    """Of several requests those of the one that counts; no secret, header or password is stored or told."""
    hook = {"url": "https://a.example/x?y#z", "events": ["message.*"], "timeout": 120_000, "retries": 0}
    secret = {"secret": "a secret that stays hidden", "headers": {"X-Key": "hidden_too"}}
    partition.ask(request(createdAt=NOON + 1, webhooks=[{"url": "http://later.example"}]))
    partition.ask(request(createdAt=NOON, webhooks=[hook | secret, {"url": "http://[::1]:8080"}]))

    shown = json.loads(encode(record_view("m-1", partition.delivery())))

    assert shown["webhooks"] == [hook, {"url": "http://[::1]:8080"}]
    assert b"hidden" not in b"".join(value for rows in partition.stored.values() for value in rows.values())
    assert b"hidden" not in b"".join(event.value or b"" for event in partition.events)
    assert partition.ask(request(createdAt=NOON, webhooks=[hook | secret])).counts["amended"] == 2
    # what cannot be signed as it was asked for is not sent at all
    queues = partition.rows(partition.tables.telling.tables.queues)
    assert [(key, queue.endpoint.url) for key, queue in queues.items()] == [
        (b"@0\0m-1", "http://later.example"),
        (b"@1\0m-1", "http://[::1]:8080"),
    ]


def test_what_is_secret_of_a_request_is_sealed_for_its_message() -> None:
    """By the lane, if whoever produced the request has not done so."""
    sealer = Sealer({"k": bytes(32)})
    read = request_reader(sealer.seal)
    secret = {"secret": "a secret that stays hidden", "headers": {"X-Key": "hidden_too"}}
    hook = {"url": "https://a.example", **secret}

    said = read(request(webhooks=[hook]).value)

    assert isinstance(said, Track)
    (webhook,) = said.webhooks or ()
    assert sealer.open(webhook.secret or b"", "@m-1") == b"a secret that stays hidden"
    assert json.loads(sealer.open(webhook.headers or b"", "@m-1")) == {"X-Key": "hidden_too"}
    again = {"url": "https://a.example", "sealedSecret": b64encode(webhook.secret or b"").decode()}
    kept = read(request(webhooks=[again]).value)
    assert isinstance(kept, Track)
    assert kept.webhooks is not None
    assert kept.webhooks[0].secret == webhook.secret


@pytest.mark.parametrize(("stream", "value", "code", "field"), MALFORMED)
def test_what_cannot_be_read_becomes_a_dead_letter(
    partition: Partition, stream: str, value: bytes | None, code: str, field: str
) -> None:
    """The original is kept untouched, with the reason; the records behind it are applied."""
    bad = Record(value, b"any \xff", NOON + 7, (("trace", b"1"),))
    good = request("good") if stream == "requests" else status("SENT", "good")

    (partition.ask if stream == "requests" else partition.say)(bad, good)

    (letter,) = partition.dead_letters
    assert (letter.key, letter.value, letter.timestamp, letter.partition) == (b"any \xff", value, NOON + 7, 0)
    assert letter.headers[0] == ("trace", b"1")
    said = headers(letter)
    message = said.pop("__connect.errors.exception.message").decode()
    assert message.startswith(f"{field}: " if field else "") and len(message) > len(field) + 2
    assert said == {
        "trace": b"1",
        "__connect.errors.topic": f"delivery.{stream}".encode(),
        "__connect.errors.partition": b"0",
        "__connect.errors.offset": b"0",
        "__connect.errors.exception.class.name": b"streams.domain.errors.MalformedRecord",
        "tracker-error-code": code.encode(),
        "tracker-dead-letter-id": f"{stream}-0-0".encode(),
    }
    assert partition.counts == {"dead-lettered": 1, "applied": 1}
    assert list(partition.stored["deliveries"]) == [b"good"]


@pytest.mark.parametrize("number", ["+821012345678" + "9" * 1_020, 821012345678])
def test_no_reason_tells_a_phone_number(partition: Partition, number: object) -> None:
    """Reasons are read by more people than records."""
    partition.ask(request(phoneNumber=number))

    assert b"8210" not in headers(partition.dead_letters[0])["__connect.errors.exception.message"]


def test_a_record_of_the_greatest_size_is_read(partition: Partition) -> None:
    """65,536 bytes are allowed, one more is not."""
    fields = {"messageId": "m-1", "status": "SENT", "text": ""}
    room = 65_536 - len(encode(fields))
    fits, too_long = (Record(encode(fields | {"text": "x" * size}), b"m-1") for size in (room, room + 1))

    partition.say(fits, too_long)

    assert partition.counts == {"applied": 1, "dead-lettered": 1}


@pytest.mark.parametrize(
    "said",
    [
        {"unknown": [1, {"a": None}], "webhooks": 3},
        {"provider": None, "timestamp": None, "error": None, "metadata": None},
        {"metadata": {"huge": 10**40, "deep": [[[]]], "text": "\u2028é"}},
        {"timestamp": -1, "sentAt": 10**11, "attempt": 2**31 - 1, "id": "", "provider": ""},
        {"error": {"code": "", "message": "x" * 1_000, "details": {"n": 10**40}}},
    ],
)
def test_what_is_unusual_but_right_is_applied(partition: Partition, said: dict[str, Any]) -> None:
    """Unknown fields are passed over, null is absent, numbers may be of any size where they mean nothing."""
    partition.say(status("FAILED", **said))

    assert partition.counts == {"applied": 1}
    report = partition.events[0].json["deliveryReport"]
    assert report.get("metadata") == said.get("metadata")
    assert report.get("error") == said.get("error")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"code": 131049, "message": "no engagement"}, "131049", "no engagement"),
        ({"code": -5.5}, "-5.5", ""),
        ({"code": 10**30}, str(10**30), ""),
        ({"code": "30003"}, "30003", ""),
        ({"code": "E", "message": None}, "E", ""),
        ({"code": "E", "message": ""}, "E", ""),
    ],
)
def test_an_error_s_code_may_be_a_number_and_its_message_absent(
    partition: Partition, error: dict[str, Any], code: str, message: str
) -> None:
    """Providers write errors in these forms; none of them may cost the failure."""
    partition.say(status("FAILED", error=error))

    assert partition.events[0].json["deliveryReport"]["error"] == {"code": code, "message": message}


@pytest.mark.parametrize("code", [True, None, [], "x" * 257, 10**256])
def test_an_error_without_a_usable_code_is_a_dead_letter(partition: Partition, code: object) -> None:
    partition.say(status("FAILED", error={"code": code, "message": "x"}))

    assert b"error.code" in headers(partition.dead_letters[0])["__connect.errors.exception.message"]


def test_names_of_providers_and_channels_are_the_same_in_any_case(partition: Partition) -> None:
    """They are stored in lower case: one attempt stays one, and a channel keeps its rules."""
    partition.ask(request(provider="SOLAPI", channel="Email"))
    partition.say(
        status("DELIVERED", provider="Solapi"), status("FAILED", provider="solapi", channel="EMAIL")
    )

    delivery = partition.delivery()
    assert (delivery.status, delivery.provider, delivery.channel) == ("FAILED", "solapi", "email")
    assert len(delivery.attempts) == 1


@pytest.mark.parametrize("field", ["phoneNumber", "providerMessageId"])
def test_addresses_and_ids_of_providers_may_be_long(partition: Partition, field: str) -> None:
    """A push service's address has hundreds of characters."""
    partition.say(status("SENT", **{field: "x" * 1_024}), status("SENT", **{field: "x" * 1_025}))

    assert partition.counts == {"applied": 1, "dead-lettered": 1}


@pytest.mark.parametrize("time", [1e20, 10**30, -5, "99999999999999999999", "9999-12-31T23:59:59-00:01"])
def test_a_time_that_cannot_be_loses_nothing_else(partition: Partition, time: float | str) -> None:
    """The record's timestamp stands for the callback's, and an explicit time is ignored."""
    partition.say(status("DELIVERED", timestamp=time, deliveredAt=time, readAt=time, receipt=NOON))

    delivery = partition.delivery()
    assert (delivery.status, delivery.delivered_at, delivery.read_at) == ("DELIVERED", NOON, None)
    shown = json.loads(encode(record_view("m-1", delivery)))
    assert shown["statusHistory"][0]["timeSource"] == "clamped"


def test_every_explicit_time_is_read(partition: Partition) -> None:
    """As seconds, milliseconds or ISO 8601 with any zone."""
    partition.say(
        status(
            "SENDING",
            sentAt="2026-11-23T13:00:00.001+01:00",
            deliveredAt=NOON + 2,
            readAt=(NOON + 3) / 1000,
            clickedAt="2026-11-23 12:00:00.004Z",
            failedAt=NOON // 1000,
        )
    )

    delivery = partition.delivery()
    times = (
        delivery.sent_at,
        delivery.delivered_at,
        delivery.read_at,
        delivery.clicked_at,
        delivery.failed_at,
    )
    assert times == (NOON + 1, NOON + 2, NOON + 3, NOON + 4, NOON)


# Placement


def of(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize("key", [None, b"", b"m-2", b"\xff"])
@pytest.mark.parametrize("apply", ["say", "ask"])
def test_a_record_under_another_key_is_forwarded(key: bytes | None, apply: str) -> None:
    """Its message is found by the key, even when the partition happens to be right."""
    here = Partition(of(b"m-1", 4), 4)
    misplaced = status("SENT", receipt=NOON + 3) if apply == "say" else request(receipt=NOON + 3)
    misplaced.key, misplaced.headers = key, (("trace", b"1"),)

    getattr(here, apply)(misplaced)

    topic = misplaced.topic
    (output,) = here.outputs[topic]
    assert (output.partition, output.key, output.value) == (here.number, b"m-1", misplaced.value)
    assert output.timestamp == NOON + 3
    assert output.headers == [
        ("trace", b"1"),
        ("tracker-forwarded-from", f"{topic}/{here.number}/0".encode()),
    ]
    assert here.counts == {"forwarded": 1}
    assert (here.events, here.stored) == ([], {})


def test_an_unknown_message_on_a_wrong_partition_is_forwarded() -> None:
    """Another partitioner laid it here; it goes where Kafka's own would have laid it."""
    right = of(b"m-1", 4)
    wrong = Partition((right + 1) % 4, 4)

    wrong.say(status("SENT"), status("READ"))

    assert [output.partition for output in wrong.outputs["delivery.statuses"]] == [right, right]
    assert wrong.counts == {"forwarded": 2}
    assert wrong.stored == {}


def test_a_known_message_is_not_asked_for_its_place() -> None:
    """The check costs nothing for messages that are known here."""
    wrong = Partition((of(b"m-1", 4) + 1) % 4, 4)
    wrong.stored = Partition().say(status("SENT")).stored

    wrong.say(status("READ"))

    assert wrong.counts == {"applied": 1}


def test_a_malformed_record_is_not_forwarded() -> None:
    """What cannot be read has no message to go to."""
    wrong = Partition((of(b"m-1", 4) + 1) % 4, 4)

    wrong.say(record("m-1"))

    assert wrong.counts == {"dead-lettered": 1}


def test_forwarding_is_warned_about_once(partition: Partition, caplog: pytest.LogCaptureFixture) -> None:
    """A misconfigured producer must not fill the log."""
    misplaced = [status("SENT"), status("READ")]
    for one in misplaced:
        one.key = None

    with caplog.at_level(logging.WARNING):
        partition.say(*misplaced).say(misplaced[0])

    assert len(caplog.records) == 1
    assert "delivery.statuses" in caplog.text


# Anything together

STEPS = [
    ("say", "m-1", {"status": "QUEUED"}),
    ("say", "m-1", {"status": "SENT", "provider": "a", "timestamp": NOON + 10}),
    (
        "say",
        "m-1",
        {"status": "DELIVERED", "provider": "b", "timestamp": NOON + 70_000, "metadata": {"k": 2}},
    ),
    (
        "say",
        "m-1",
        {"status": "FAILED", "provider": "b", "error": {"code": "1", "message": "x"}, "attempt": 1},
    ),
    ("ask", "m-1", {"createdAt": NOON, "metadata": {"k": 1}}),
    ("say", "m-2", {"status": "SENT", "deliveredAt": NOON + 400}),
    ("say", "m-2", {"status": "READ", "provider": "a", "id": "x"}),
    ("ask", "m-2", {"initialStatus": "SENDING", "provider": "c"}),
]


def run(order: list[int], cuts: list[bool]) -> tuple[Any, Any, Any]:
    """Apply the steps in this order, a new batch after each cut; return deliveries, cells and totals."""
    partition = Partition()
    waiting: list[Record] = []
    last = ""
    for step, cut in zip(order, cuts, strict=True):
        apply, message_id, said = STEPS[step]
        if cut or apply != last:
            getattr(partition, last or apply)(*waiting)
            waiting = []
        make = record if apply == "say" else request
        waiting.append(make(message_id, receipt=NOON + 1_000 + step, **said))
        last = apply
    getattr(partition, last)(*waiting)
    views = {m: json.loads(encode(record_view(m, partition.delivery(m)))) for m in ("m-1", "m-2")}
    cohorts = [partition.cohorts(family) for family in (CREATED_THEN, SENT_THEN)]
    return views, cohorts, partition.totals()


EXPECTED = run(list(range(len(STEPS))), [True] * len(STEPS))


@settings(max_examples=200)
@given(st.data())
def test_order_repetition_and_batching_are_invisible(data: st.DataObject) -> None:
    """Any order, any repetition and any cutting into batches give the same records and statistics."""
    again = data.draw(st.lists(st.integers(0, len(STEPS) - 1), max_size=4))
    order = data.draw(st.permutations([*range(len(STEPS)), *again]))
    cuts = data.draw(st.lists(st.booleans(), min_size=len(order), max_size=len(order)))

    assert run(order, cuts) == EXPECTED


@pytest.mark.parametrize("stream", ["requests", "statuses", "webhooks"])
def test_a_record_that_could_not_be_processed_is_kept_whole(partition: Partition, stream: str) -> None:
    """Whoever waits for it learns that; the headers name the type of the fault and nothing of the record."""
    one = replace(record("m-1", x="+82100000001"), headers=[("tracker-call", b"token")], offset=7)
    unit = Unit(0, 1, partition._read_many)
    flow = partition.flows[stream]
    flow.write_dead_letter(Batch(f"delivery.{stream}", 0, 7, 8, [one]), unit, KeyError("+82100000001"))
    partition._commit(unit, 1)
    kept = partition.dead_letters[0]
    headers = dict(kept.headers)

    assert (kept.key, kept.value, kept.timestamp) == (one.key, one.value, one.timestamp)
    assert headers["tracker-error-code"] == b"unexpected"
    assert headers["__connect.errors.exception.message"] == b"the record could not be processed: KeyError"
    assert headers["__connect.errors.offset"] == b"7"
    assert partition.told == [(b"token", "dead-lettered")]
