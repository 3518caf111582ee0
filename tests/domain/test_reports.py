"""What is shown of a delivery."""

from __future__ import annotations

import json
from hashlib import blake2b

import msgspec

from streams.domain.delivery import Callback, Failure
from streams.domain.reports import record_view, report
from tests.domain.sayings import NOON, callback, delivery_of, request


def test_a_tracking_record_shows_all_that_is_known() -> None:
    """The whole record of a tracked message, as the contract has it."""
    delivery = delivery_of(
        (request(0, channel="sms", tenant="t", metadata={"campaign": '"spring"'}), 5),
        (callback("SENT", 10, provider="solapi", attempt=1, id="cb-1"), 15),
        (
            callback(
                "FAILED", None, provider="solapi", attempt=1, error=Failure("3018", "blocked", '{"n":[1]}')
            ),
            30,
        ),
    )

    record = json.loads(msgspec.json.encode(record_view("m-1", delivery)))

    failed_id = record["statusHistory"][2].pop("id")
    error = {"code": "3018", "message": "blocked", "details": {"n": [1]}}
    expected_report = {
        "messageId": "m-1",
        "phoneNumber": "+82100000001",
        "status": "FAILED",
        "sentAt": "2026-11-23T12:00:00.010Z",
        "failedAt": "2026-11-23T12:00:00.030Z",
        "error": error,
        "attempts": [
            {
                "attemptNumber": 1,
                "provider": "solapi",
                "attemptedAt": "2026-11-23T12:00:00.010Z",
                "status": "FAILED",
                "error": error,
            },
        ],
        "metadata": {"campaign": "spring"},
    }
    assert record == {
        "messageId": "m-1",
        "phoneNumber": "+82100000001",
        "templateId": "tpl",
        "provider": "solapi",
        "channel": "sms",
        "tenant": "t",
        "tracked": True,
        "currentStatus": "FAILED",
        "statusHistory": [
            {
                "id": "track",
                "status": "QUEUED",
                "timestamp": "2026-11-23T12:00:00.000Z",
                "timeSource": "given",
                "receivedAt": "2026-11-23T12:00:00.005Z",
                "source": "system",
                "provider": "solapi",
            },
            {
                "id": "cb-1",
                "status": "SENT",
                "timestamp": "2026-11-23T12:00:00.010Z",
                "timeSource": "given",
                "receivedAt": "2026-11-23T12:00:00.015Z",
                "source": "provider",
                "provider": "solapi",
                "attempt": 1,
            },
            {
                "status": "FAILED",
                "timestamp": "2026-11-23T12:00:00.030Z",
                "timeSource": "record",
                "receivedAt": "2026-11-23T12:00:00.030Z",
                "source": "provider",
                "provider": "solapi",
                "attempt": 1,
                "details": {"error": error},
            },
        ],
        "deliveryReport": expected_report,
        "createdAt": "2026-11-23T12:00:00.000Z",
        "updatedAt": "2026-11-23T12:00:00.030Z",
        "expiresAt": "2026-11-26T12:00:00.000Z",
        "metadata": {"campaign": "spring"},
    }
    said = '["m-1","FAILED","solapi",1,null,"3018","provider"]'
    assert failed_id == blake2b(said.encode(), digest_size=8).hexdigest()
    assert json.loads(msgspec.json.encode(report("m-1", delivery))) == expected_report


def test_the_shown_id_of_a_callback_never_changes() -> None:
    """A golden value: consumers may have stored it."""
    said = Callback("m-é", "SENT", NOON, "solapi", 1)

    history = record_view("m-é", delivery_of(said)).status_history

    assert [entry.id for entry in history] == ["4eb27ebb5e38553c"]


def test_history_is_ordered_by_event_time_then_status_then_id() -> None:
    """Not by arrival."""
    delivery = delivery_of(
        callback("READ", 5),
        callback("SENT", 5, id="b"),
        callback("SENT", 5, id="a"),
        callback("DELIVERED", 4),
    )

    history = record_view("m-1", delivery).status_history

    assert [(entry.status, entry.id) for entry in history if entry.status == "SENT"] == [
        ("SENT", "a"),
        ("SENT", "b"),
    ]
    assert [entry.status for entry in history] == ["DELIVERED", "SENT", "SENT", "READ"]


def test_a_clamped_time_says_so() -> None:
    """A reader can tell that the shown time is not the given one."""
    delivery = delivery_of((callback("SENT", -NOON), 7))

    assert [(e.timestamp, e.time_source) for e in record_view("m-1", delivery).status_history] == [
        ("2026-11-23T12:00:00.007Z", "clamped")
    ]


def test_a_contradiction_stands_in_the_report() -> None:
    """True or absent, never false."""
    assert report("m-1", delivery_of(callback("FAILED"), callback("READ"))).contradiction
    assert b"contradiction" not in msgspec.json.encode(report("m-1", delivery_of(callback("READ"))))


def test_attempts_are_told_apart_by_number_else_by_provider() -> None:
    """Attempts come in the order in which they began; what names none is said of the last."""
    delivery = delivery_of(
        callback("SENT", 9, attempt=2, provider="b"),
        callback("FAILED", 5, attempt=1, provider="a"),
        callback("SENT", 7, provider="c"),
        callback("SENDING", 1),
        callback("DELIVERED", 11, attempt=2, provider="a"),
        callback("READ", 99),
    )

    attempts = report("m-1", delivery).attempts or []

    assert [(a.attempt_number, a.provider, a.status) for a in attempts] == [
        (1, "a", "FAILED"),
        (2, "c", "SENT"),
        (3, "b", "READ"),
    ]
