"""Rules of webhooks over HTTP: what became of each, what waits or failed, and sending it again."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest

from streams.domain.endpoints import Endpoint
from streams.domain.routing import Routing
from streams.domain.webhooks import queue_key
from tests.agents.flowing import TABLES, telling
from tests.agents.test_telling import attempted

from .conftest import start_group
from .workers import NOW, Data, Group, Reply, Worker

MINUTE_MS = 60_000


class Sent:
    """Three workers, two endpoints, and a message in each partition of which SENT was told."""

    def __init__(self, group: Group, workers: list[Worker]) -> None:
        self.group = group
        self.askers = cycle(workers)
        self.messages = group.data.one_per_partition()
        for number, message in enumerate(self.messages):
            group.data.say(message, "SENT", NOW + number * MINUTE_MS)
        self.events = [f"statuses-{partition}-0-0" for partition in range(group.data.partitions)]

    async def call(self, path: str, method: str = "GET", body: Any = None) -> Reply:
        options = {} if body is None else {"json": body}
        return await self.group.get(next(self.askers), f"/v1{path}", method=method, **options)

    def tried(self, number: int, answer: int | None = 204, attempt: int = 1, endpoint: str = "ep_a") -> None:
        """Have the lane take what came of an attempt to tell of the message of a partition."""
        self.group.data.parts[number].hear(
            attempted(
                self.events[number],
                attempt,
                endpoint=endpoint,
                message=self.messages[number],
                at=NOW,
                made_at=NOW + number * MINUTE_MS,
                answer=answer,
                body="no",
            )
        )

    def waits(self, number: int, endpoint: str = "ep_a") -> bool:
        queues = self.group.data.tables.telling.tables.queues
        stored = self.group.data.parts[number].stored.get(queues.name, {})
        return queue_key(endpoint, self.messages[number]) in stored


@pytest.fixture
async def sent() -> Any:
    routing = Routing()
    routing.put("ep_a", Endpoint(retries=1))
    routing.put("ep_b", Endpoint(events=["message.read"]))
    data = Data(tables=TABLES._replace(telling=telling(routing)))
    async with start_group(data) as group:
        workers = await group.start([[0, 1], [2, 3], [4, 5]])
        for worker in workers:
            worker.produced.applied = group.data
        yield Sent(group, workers)


async def test_any_worker_shows_what_became_of_a_webhook(sent: Sent) -> None:
    """Its body as it was sent, to whom, and each attempt with what came of it."""
    sent.tried(3, 500)
    for _ in range(3):
        reply = await sent.call("/webhooks/statuses-3-0-0")
        assert reply.status == 200
        shown = reply.json
        body = shown.pop("body")
        assert (body["type"], body["data"]["messageId"]) == ("status.updated", sent.messages[3])
        assert shown == {
            "eventId": "statuses-3-0-0",
            "type": "status.updated",
            "messageId": sent.messages[3],
            "createdAt": "2023-11-14T23:16:20.000Z",
            "endpoints": [
                {
                    "endpointId": "ep_a",
                    "status": "pending",
                    "attempts": 1,
                    "nextAttemptAt": "2023-11-14T23:13:21.000Z",
                    "behind": 0,
                    "log": [
                        {
                            "number": 1,
                            "startedAt": "2023-11-14T23:13:19.990Z",
                            "duration": 10,
                            "status": 500,
                            "trouble": None,
                            "body": "no",
                        }
                    ],
                }
            ],
        }


@pytest.mark.parametrize(
    "name",
    [
        "statuses-3-9-0",
        "statuses-99-0-0",
        "nonsense",
        "statuses-3-0",
        "webhooks-3-0-0",
        f"statuses-0-{'9' * 5_000}-0",
    ],
)
async def test_of_what_was_never_told_nothing_is_known(sent: Sent, name: str) -> None:
    """An id of no event, of no partition, or of an event that nobody wanted."""
    for method, path in (("GET", f"/webhooks/{name}"), ("POST", f"/webhooks/{name}/resend")):
        reply = await sent.call(path, method)
        assert (reply.status, reply.json["type"]) == (404, "urn:delivery-tracker:unknown-webhook")


async def test_webhooks_of_an_endpoint_are_listed_by_how_they_stand(sent: Sent) -> None:
    """By the time of their events, page by page, over all workers."""
    for number in (0, 1, 2):
        sent.tried(number)
    sent.tried(4, 500)
    sent.tried(5, None)
    sent.tried(5, None, 2)

    async def listed(query: str) -> list[tuple[str, str]]:
        pages = await sent.group.walk(f"/v1/webhooks?endpoint=ep_a&limit=2&{query}", sent.askers)
        assert all(len(page) <= 2 for page in pages)
        return [(item["eventId"], item["status"]) for page in pages for item in page]

    assert await listed("status=delivered") == [(f"statuses-{n}-0-0", "delivered") for n in range(3)]
    assert await listed("status=failed") == [("statuses-5-0-0", "failed")]
    assert await listed("status=pending") == [("statuses-3-0-0", "pending"), ("statuses-4-0-0", "pending")]
    begin, end = "2023-11-14T23:14:20Z", "2023-11-14T23:15:20Z"
    assert await listed(f"status=delivered&from={begin}&to={end}") == [("statuses-1-0-0", "delivered")]

    reply = await sent.call("/webhooks?endpoint=ep_a&status=failed")
    assert reply.json["items"][0]["last"]["number"] == 2
    assert (await sent.call("/webhooks?endpoint=ep_b&status=failed")).json == {
        "items": [],
        "nextCursor": None,
    }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=failed", "endpoint"),
        ("endpoint=ep_a", "status"),
        ("endpoint=ep_a&status=lost", "status"),
        ("endpoint=ep_a&status=pending,failed", "status"),
        ("endpoint=ep_a&status=failed&from=yesterday", "from"),
        ("endpoint=ep_a&status=failed&cursor=AQID", "cursor"),
        ("endpoint=ep_a&status=failed&limit=0", "limit"),
        ("endpoint=ep_a&status=failed&page=2", "page"),
    ],
)
async def test_what_cannot_be_listed_is_refused_by_name(sent: Sent, query: str, field: str) -> None:
    """Which parameter, and what is wrong."""
    reply = await sent.call(f"/webhooks?{query}")
    assert (reply.status, reply.json["field"]) == (400, field)


async def test_a_webhook_is_sent_again_on_request(sent: Sent) -> None:
    """To those that it was told to, or to one that had not wanted it; what waits already waits on."""
    sent.tried(2)
    assert not sent.waits(2)

    reply = await sent.call("/webhooks/statuses-2-0-0/resend", "POST")
    assert (reply.status, reply.json) == (200, {"resent": 1})
    assert sent.waits(2)
    assert (await sent.call("/webhooks/statuses-2-0-0/resend", "POST")).json == {"resent": 0}
    assert (await sent.call("/webhooks/statuses-2-0-0/resend?endpoint=ep_b", "POST")).json == {"resent": 1}
    assert sent.waits(2, "ep_b")
    reply = await sent.call("/webhooks/statuses-2-0-0/resend?endpoint=ep_c", "POST")
    assert (reply.status, reply.json["type"]) == (404, "urn:delivery-tracker:unknown-endpoint")


async def test_what_failed_in_a_time_is_replayed(sent: Sent) -> None:
    """By all workers; what arrived is only sent again if that is asked for."""
    for number in range(6):
        sent.tried(number, 500 if number % 2 else 204)
        if number % 2:
            sent.tried(number, 500, 2)

    begin = "2023-11-14T23:14:20Z"
    reply = await sent.call("/endpoints/ep_a/replay", "POST", {"from": begin, "to": "2023-11-14T23:18:20Z"})
    assert (reply.status, reply.json) == (200, {"resent": 2, "complete": True})
    assert [sent.waits(number) for number in range(6)] == [False, True, False, True, False, False]

    reply = await sent.call("/endpoints/ep_a/replay", "POST", {"from": begin, "status": "all"})
    assert reply.json == {"resent": 3, "complete": True}
    assert [sent.waits(number) for number in range(6)] == [False, True, True, True, True, True]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "from"),
        ({"from": "x"}, "from"),
        ({"from": 1, "until": 2}, ""),
        ({"from": 1, "status": "lost"}, "status"),
        ({"from": 9, "to": 5}, "to"),
    ],
)
async def test_a_replay_says_which_time(sent: Sent, body: dict[str, Any], field: str) -> None:
    """Nothing is sent again by a slip."""
    reply = await sent.call("/endpoints/ep_a/replay", "POST", body)
    assert (reply.status, reply.json["field"]) == (400, field)


async def test_nothing_is_replayed_to_an_endpoint_that_nobody_knows(sent: Sent) -> None:
    """404, with its name."""
    reply = await sent.call("/endpoints/ep_x/replay", "POST", {"from": 0})
    assert (reply.status, reply.json["endpointId"]) == (404, "ep_x")


async def test_what_nobody_answers_for_is_a_problem_that_names_it(sent: Sent) -> None:
    """Never an answer in part."""
    sent.group.assign([[0, 1], [2, 3], []])
    for path in ("/webhooks/statuses-5-0-0", "/webhooks?endpoint=ep_a&status=failed"):
        reply = await sent.call(path)
        assert (reply.status, reply.json["type"]) == (503, "urn:delivery-tracker:partitions-unavailable")
