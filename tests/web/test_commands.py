"""Rules of the calls that change something: they become records of the input topics, or nothing at all."""

from __future__ import annotations

from typing import Any

import pytest

from .workers import Group, Worker

TRACK = {"messageId": "m-1", "phoneNumber": "+82100000001", "templateId": "otp", "provider": "solapi"}


@pytest.fixture
async def worker(group: Group) -> Worker:
    (worker,) = await group.start([range(6)])
    return worker


async def test_a_call_becomes_a_record_in_the_partition_of_its_message(group: Group, worker: Worker) -> None:
    """Under the message's key, with what the path says; the answer tells where it stands."""
    home = group.data.partition_of("m-1")
    calls: list[tuple[str, str, Any, str, Any]] = [
        ("POST", "/v1/messages", TRACK, "requests", TRACK | {"type": "track"}),
        ("POST", "/v1/messages/m-1/statuses", {"status": "SENT"}, "statuses", {"status": "SENT"}),
        ("DELETE", "/v1/messages/m-1?reason=asked", None, "requests", {"type": "stop", "reason": "asked"}),
        ("POST", "/v1/messages/m-1/erase", None, "requests", {"type": "erase"}),
    ]
    for number, (method, path, body, stream, said) in enumerate(calls):
        reply = await group.get(worker, path, method=method, **({} if body is None else {"json": body}))

        assert (reply.status, reply.headers["Content-Type"]) == (202, "application/json")
        assert reply.json == {"topic": f"delivery.{stream}", "partition": home, "offset": number}
        assert worker.produced.records[-1] == (stream, b"m-1", said | {"messageId": "m-1"}, home)


@pytest.mark.parametrize(
    ("path", "body", "code", "field"),
    [
        ("/v1/messages", b"{", "not-json", ""),
        ("/v1/messages", b"\xff{}", "not-json", ""),
        ("/v1/messages", b"[" * 60_000, "not-json", ""),
        ("/v1/messages", b"[]", "wrong-type", ""),
        ("/v1/messages", b'{"messageId":"m"}', "missing-field", "phoneNumber"),
        ("/v1/messages/m/statuses", b'{"status":"LOST"}', "unknown-status", "status"),
        ("/v1/messages/m/statuses", b'{"status":"SENT","timestamp":"now"}', "invalid-value", "timestamp"),
        ("/v1/messages/m/statuses", b'{"status":"SENT","messageId":"n"}', "invalid-value", "messageId"),
    ],
)
async def test_what_would_be_a_dead_letter_is_refused(
    group: Group, worker: Worker, path: str, body: bytes, code: str, field: str
) -> None:
    """400 with the code and the field; nothing is produced."""
    headers = {"Content-Type": "application/json"}
    reply = await group.get(worker, path, method="POST", data=body, headers=headers)

    assert (reply.status, reply.headers["Content-Type"]) == (400, "application/problem+json")
    assert (reply.json["code"], reply.json["field"]) == (code, field)
    assert worker.produced.records == []


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"data": b'{"status":"SENT"}', "headers": {"Content-Type": "text/plain"}}, 415),
        ({"json": {"status": "SENT", "x": "y" * 66_000}}, 413),
        ({"json": {"status": "SENT"}, "headers": {"Sec-Fetch-Site": "cross-site"}}, 403),
    ],
)
async def test_what_is_no_call_of_ours_is_refused(
    group: Group, worker: Worker, options: dict[str, Any], status: int
) -> None:
    """Another content type, a body without end, a page of another site."""
    reply = await group.get(worker, "/v1/messages/m/statuses", method="POST", **options)

    assert reply.status == status
    assert worker.produced.records == []


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/messages/m"), ("POST", "/v1/messages/m/erase")])
async def test_a_foreign_page_ends_nothing(group: Group, worker: Worker, method: str, path: str) -> None:
    """A browser says whose page asks."""
    reply = await group.get(worker, path, method=method, headers={"Sec-Fetch-Site": "cross-site"})

    assert reply.status == 403
    assert worker.produced.records == []


async def test_a_broker_that_does_not_acknowledge_gives_503(group: Group, worker: Worker) -> None:
    """What became of the record is not known, and the answer says so; it names no address."""
    worker.produced.down = True

    reply = await group.get(worker, "/v1/messages/m/statuses", method="POST", json={"status": "SENT"})

    assert (reply.status, reply.json["title"]) == (503, "Not acknowledged")
    assert "secret" not in reply.body.decode()
