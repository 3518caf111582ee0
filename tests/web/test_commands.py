"""Rules of the calls that change something: they become records of the input topics, or nothing at all."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from .workers import NOBODY, Group, Worker

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


CALLS = [
    ("POST", "/v1/messages/{}/statuses", {"status": "SENT"}),
    ("DELETE", "/v1/messages/{}", None),
    ("POST", "/v1/messages/{}/erase", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_a_call_that_waits_gets_the_outcome(
    group: Group, worker: Worker, method: str, path: str, body: Any
) -> None:
    """200 once the lane has committed the record, with what became of it."""
    worker.produced.outcome = "amended"

    options = {} if body is None else {"json": body}
    reply = await group.get(worker, path.format("m-1") + "?wait=5s", method=method, **options)

    assert (reply.status, reply.json) == (200, {"outcome": "amended"})


async def test_a_track_request_may_wait_too(group: Group, worker: Worker) -> None:
    """And a stop may wait and give a reason; the reason alone goes into the record."""
    worker.produced.outcome = "applied"
    body = {"messageId": "m-1", "phoneNumber": "1", "templateId": "t", "provider": "p"}

    tracked = await group.get(worker, "/v1/messages?wait=500ms", method="POST", json=body)
    stopped = await group.get(worker, "/v1/messages/m-1?wait=1s&reason=enough", method="DELETE")

    assert tracked.json == stopped.json == {"outcome": "applied"}
    assert worker.produced.records[-1][2] == {"type": "stop", "messageId": "m-1", "reason": "enough"}


async def test_a_wait_that_is_over_gets_the_place(group: Group, worker: Worker) -> None:
    """The record counts all the same: 202, as without waiting."""
    reply = await group.get(worker, "/v1/messages/m-1?wait=20ms", method="DELETE")

    assert (reply.status, sorted(reply.json)) == (202, ["offset", "partition", "topic"])


@pytest.mark.parametrize("wait", ["", "5", "0s", "31s", "1m", "-1s", "5s&wait=6s", "%D9%A1s"])
async def test_a_wait_that_is_none_is_refused(group: Group, worker: Worker, wait: str) -> None:
    """Before anything is produced."""
    reply = await group.get(worker, f"/v1/messages/m-1?wait={wait}", method="DELETE")

    assert (reply.status, reply.json["field"]) == (400, "wait")
    assert worker.produced.records == []


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_who_holds_the_message_is_asked_to_wait(
    group: Group, method: str, path: str, body: Any
) -> None:
    """Only its own lane tells a worker the outcome; the call is passed on once, as it is."""
    asked, holder = await group.start([[0, 1, 2], [3, 4, 5]])
    holder.produced.outcome = "repeated"
    message_id = group.data.name_in(4)

    options = {} if body is None else {"json": body}
    target = path.format(message_id) + "?wait=5s"
    reply = await group.get(asked, target, method=method, **options)

    assert (reply.status, reply.json) == (200, {"outcome": "repeated"})
    assert asked.produced.records == []
    assert len(holder.produced.records) == 1
    assert holder.asked == [(target, True)]


async def test_a_call_is_passed_on_once(group: Group) -> None:
    """Who is asked by a worker produces, whatever it believes: 202."""
    first, second = await group.start([[0, 1, 2], [3, 4, 5]])
    message_id = group.data.name_in(4)
    group.assign([[3, 4, 5], [0, 1, 2]])
    first.reader.own, second.reader.own = {0, 1, 2}, {0, 1, 2}
    first.reader.believed[4], second.reader.believed[4] = second.url, first.url

    reply = await group.get(first, f"/v1/messages/{message_id}?wait=20ms", method="DELETE")

    assert reply.status == 202
    assert [len(worker.produced.records) for worker in (first, second)] == [0, 1]


async def test_a_holder_that_is_gone_gives_503(group: Group, worker: Worker) -> None:
    """What became of the record is not known; it may be sent again."""
    worker.reader.own.discard(4)
    worker.reader.believed[4] = NOBODY

    reply = await group.get(worker, f"/v1/messages/{group.data.name_in(4)}?wait=1s", method="DELETE")

    assert (reply.status, reply.json["title"]) == (503, "Not acknowledged")


async def test_what_the_holder_refuses_is_refused(group: Group) -> None:
    """A problem comes back as the problem that it is."""
    asked, holder = await group.start([[0, 1, 2], [3, 4, 5]])
    holder.produced.down = True

    reply = await group.get(asked, f"/v1/messages/{group.data.name_in(4)}?wait=1s", method="DELETE")

    assert (reply.status, reply.headers["Content-Type"]) == (503, "application/problem+json")


async def test_a_cleanup_is_done_by_all_workers(group: Group) -> None:
    """Each works off its own partitions; the answer is their sum."""
    workers = await group.start([[0, 1], [2, 3], [4, 5]])
    for number, worker in enumerate(workers):
        worker.produced.cleaned = (10**number, 2 * 10**number, number != 1)

    reply = await group.get(workers[0], "/v1/cleanup", method="POST")

    assert (reply.status, reply.json) == (200, {"removedCount": 111, "expiredCount": 222, "complete": False})


@pytest.mark.parametrize("holder", [None, NOBODY])
async def test_a_cleanup_of_a_part_is_none(group: Group, worker: Worker, holder: str | None) -> None:
    """While nobody answers for a partition: 503, with its number."""
    worker.reader.own.discard(4)
    worker.reader.believed[4] = holder

    reply = await group.get(worker, "/v1/cleanup", method="POST")

    assert (reply.status, reply.json["missingPartitions"]) == (503, [4])


async def test_a_cleanup_covers_what_it_says(group: Group) -> None:
    """A worker that is believed to hold a partition and does not, for it recovers, is no answer for it."""
    one, other = await group.start([[0, 1, 2], [3, 4, 5]])
    other.reader.own.clear()

    reply = await group.get(one, "/v1/cleanup", method="POST")

    assert (reply.status, reply.json["missingPartitions"]) == (503, [3, 4, 5])


@pytest.mark.parametrize("path", ["/v1/cleanup", "/v1/internal/cleanup"])
async def test_a_foreign_page_cleans_nothing_up(group: Group, worker: Worker, path: str) -> None:
    """A browser says whose page asks."""
    headers = {"Sec-Fetch-Site": "cross-site"}

    assert (await group.get(worker, path, method="POST", headers=headers)).status == 403


HOOK = {
    "url": "https://a.example",
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "headers": {"X-Key": "hidden"},
}


async def test_what_is_secret_of_a_webhook_does_not_come_into_kafka(group: Group, worker: Worker) -> None:
    """It is sealed for its message by who takes the request."""
    reply = await group.get(
        worker, "/v1/messages", method="POST", json=TRACK | {"webhooks": [HOOK, {"url": "https://b.example"}]}
    )

    assert reply.status == 202
    said = worker.produced.records[-1][2]["webhooks"]
    assert [sorted(hook) for hook in said] == [["sealedHeaders", "sealedSecret", "url"], ["url"]]
    assert group.sealer is not None
    assert group.sealer.open(b64decode(said[0]["sealedSecret"]), "@m-1").decode() == HOOK["secret"]
    assert group.sealer.open(b64decode(said[0]["sealedHeaders"]), "@m-1") == b'{"X-Key":"hidden"}'


@pytest.mark.parametrize(
    ("hook", "field"),
    [
        ({"url": "ftp://a.example"}, "webhooks[1].url"),
        ({"url": "https://a.example", "secret": "whsec_no"}, "webhooks[1].secret"),
        ({"url": "https://a.example", "headers": {"Host": "b"}}, "webhooks[1].headers.Host"),
        ({"url": "https://a.example", "headers": {"X": "a\r\nY: b"}}, "webhooks[1].headers.X"),
    ],
)
async def test_a_webhook_that_could_not_be_sent_is_refused(
    group: Group, worker: Worker, hook: dict[str, Any], field: str
) -> None:
    """With the field's place; nothing is produced."""
    reply = await group.get(worker, "/v1/messages", method="POST", json=TRACK | {"webhooks": [HOOK, hook]})

    assert (reply.status, reply.json["field"]) == (400, field)
    assert worker.produced.records == []


async def test_without_keys_nothing_secret_is_taken(group: Group) -> None:
    """409; a webhook without a secret is."""
    group.sealer = None
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, "/v1/messages", method="POST", json=TRACK | {"webhooks": [HOOK]})
    assert (reply.status, reply.json["type"]) == (409, "urn:delivery-tracker:no-secret-keys")
    hook = {"url": "https://a.example"}
    reply = await group.get(worker, "/v1/messages", method="POST", json=TRACK | {"webhooks": [hook]})
    assert reply.status == 202
