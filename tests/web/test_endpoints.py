"""Rules of endpoints over HTTP: kept by the lanes, shown without secrets, known to every worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from streams.domain.endpoints import live_secrets
from streams.webhooks.receiver import Arrival, receiving
from streams.webhooks.sealing import Sealer
from streams.webhooks.signatures import verifying_key_of
from tables.formats import ENDPOINTS

from .workers import NOW, Group, Reply, Worker

URL = "https://example.com/hook"
CREATED = "2023-11-14T23:13:20.000Z"


class Registry:
    """Three workers whose lanes apply what is produced, asked in turn."""

    def __init__(self, group: Group, workers: list[Worker]) -> None:
        self.group = group
        self.workers = workers
        self.turn = 0

    async def call(self, method: str, path: str, body: Any = None) -> Reply:
        worker = self.workers[self.turn % len(self.workers)]
        self.turn += 1
        options = {} if body is None else {"json": body}
        return await self.group.get(worker, f"/v1/endpoints{path}", method=method, **options)

    async def register(self, **said: Any) -> dict[str, Any]:
        reply = await self.call("POST", "", {"url": URL} | said)
        assert reply.status == 201, reply.json
        assert reply.headers["Location"] == f"/v1/endpoints/{reply.json['id']}"
        made: dict[str, Any] = reply.json
        return made

    def stored(self) -> bytes:
        """All that is kept of endpoints, and all that was produced."""
        tables = [
            value for part in self.group.data.parts for value in part.stored.get("endpoints", {}).values()
        ]
        return b"".join(tables) + repr([worker.produced.records for worker in self.workers]).encode()


@pytest.fixture
async def registry(group: Group) -> Registry:
    workers = await group.start([[0, 1], [2, 3], [4, 5]])
    for worker in workers:
        worker.produced.applied = group.data
    return Registry(group, workers)


async def test_an_endpoint_is_kept_and_shown_by_any_worker(registry: Registry) -> None:
    """Whichever was asked to register it, and with what is not said by default."""
    for _ in range(6):
        made = await registry.register()
        secret = made.pop("secret")

        assert secret.startswith("whsec_")
        assert made | {"id": "ep"} == {
            "id": "ep",
            "url": URL,
            "state": "active",
            "reason": None,
            "events": [],
            "tenant": None,
            "channels": [],
            "providers": [],
            "secrets": [{"since": CREATED}],
            "headers": [],
            "timeout": 15_000,
            "retries": None,
            "rate": None,
            "kmsgHeaders": False,
            "createdAt": CREATED,
            "updatedAt": CREATED,
            "failingSince": None,
        }
        for _ in registry.workers:
            reply = await registry.call("GET", f"/{made['id']}")
            assert (reply.status, reply.json) == (200, made)
    listed = [(await registry.call("GET", "")).json["items"] for _ in registry.workers]
    assert listed[0] == listed[1] == listed[2]
    assert len(listed[0]) == 6
    assert [item["id"] for item in listed[0]] == sorted(item["id"] for item in listed[0])


async def test_what_is_said_is_what_is_changed(registry: Registry) -> None:
    """What is not said stays; null takes a limit back."""
    made = await registry.register(
        events=["message.*"], tenant="t", rate=5, retries=3, headers={"X-Key": "a"}
    )
    made.pop("secret")

    for change, after in (
        ({"rate": None, "channels": ["sms"]}, {"rate": None, "channels": ["sms"]}),
        ({"channels": ["SMS"], "providers": ["Solapi"]}, {"channels": ["sms"], "providers": ["solapi"]}),
        (
            {"state": "paused", "url": "https://10.1.2.3/in"},
            {"state": "paused", "url": "https://10.1.2.3/in"},
        ),
        ({"tenant": None, "timeout": 2_000}, {"tenant": None, "timeout": 2_000}),
        ({"headers": {"X-Other": "b", "A": "c"}}, {"headers": ["A", "X-Other"]}),
        ({"headers": {}}, {"headers": []}),
        ({}, {}),
    ):
        made |= after
        for _ in registry.workers:
            reply = await registry.call("PATCH", f"/{made['id']}", change)
            assert (reply.status, reply.json) == (200, made)


async def test_a_secret_is_replaced_and_the_one_before_signs_on_for_a_while(registry: Registry) -> None:
    """Each is shown once; what is kept opens to both."""
    made = await registry.register(secret="the top secret of receivers")
    assert made["secret"] == "the top secret of receivers"

    rotated = (await registry.call("POST", f"/{made['id']}/rotate", {"overlap": 1_000})).json
    shown = (await registry.call("GET", f"/{made['id']}")).json

    assert rotated.pop("secret").startswith("whsec_")
    assert shown == rotated
    assert shown["secrets"] == [{"since": CREATED}, {"since": CREATED, "until": "2023-11-14T23:13:21.000Z"}]
    part = registry.group.data.parts[registry.group.data.partition_of(made["id"])]
    endpoint = ENDPOINTS.decode(part.stored["endpoints"][made["id"].encode()])
    sealer = Sealer({"k1": b"\x01" * 32})
    opened = [sealer.open(secret.sealed, made["id"]) for secret in live_secrets(endpoint.secrets, NOW)]
    assert opened[1] == b"the top secret of receivers"
    assert len(live_secrets(endpoint.secrets, NOW + 1_000)) == 1


async def test_nothing_secret_is_kept_in_the_clear(registry: Registry) -> None:
    """Neither in a table nor in a record; nor is it shown again."""
    made = await registry.register(
        secret="a secret of my receivers.", headers={"Authorization": "Bearer of-mine"}
    )
    given = (
        await registry.call("POST", f"/{made['id']}/rotate", {"secret": "another one of receivers"})
    ).json["secret"]
    await registry.call("PATCH", f"/{made['id']}", {"headers": {"Authorization": "Bearer other-of-mine"}})
    answers = [await registry.call("GET", path) for path in ("", f"/{made['id']}")]

    assert given == "another one of receivers"
    for kept in (registry.stored(), *(answer.body for answer in answers)):
        assert b"receivers" not in kept
        assert b"of-mine" not in kept
    assert b"example.com" in registry.stored()


async def test_an_endpoint_that_was_removed_is_not_there(registry: Registry) -> None:
    """Like one that never was: nobody can change it."""
    made = await registry.register()
    assert (await registry.call("DELETE", f"/{made['id']}")).status == 204

    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"rate": 1}),
        ("DELETE", "", None),
        ("POST", "/rotate", {}),
    ):
        for _ in registry.workers:
            reply = await registry.call(method, f"/{made['id']}{path}", body)
            assert (reply.status, reply.json["type"]) == (404, "urn:delivery-tracker:unknown-endpoint")
    assert (await registry.call("GET", "")).json == {"items": []}


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "http://10.2.0.1/"}, "url"),
        ({"url": "https://user:word@example.com/"}, "url"),
        ({"url": "https://example.com/#part"}, "url"),
        ({"url": "nonsense"}, "url"),
        ({"url": 5}, "url"),
        ({"url": None}, "url"),
        ({"events": ["message.delivered", "*.failed"]}, "events[1]"),
        ({"events": ["tracking.complete"]}, "events[0]"),
        ({"secret": "whsec_AAAA"}, "secret"),
        ({"headers": {"X-Shop": "café"}}, "headers.X-Shop"),
        ({"headers": {"Webhook-Id": "1"}}, "headers.Webhook-Id"),
        ({"headers": {"Content-Length": "1"}}, "headers.Content-Length"),
        ({"headers": {"X A": "1"}}, "headers.X A"),
        ({"headers": {"X-A": "a\r\nB: c"}}, "headers.X-A"),
        ({"headers": {f"X-{n}": "a" * 4_000 for n in range(5)}}, "headers"),
        ({"timeout": 1}, "timeout"),
        ({"retries": 21}, "retries"),
        ({"rate": 0}, "rate"),
        ({"state": "disabled"}, "state"),
        ({"colour": "red"}, ""),
    ],
)
async def test_what_cannot_be_used_is_refused_and_nothing_is_kept(
    registry: Registry, said: dict[str, Any], field: str
) -> None:
    """When it is registered as when it is changed; the answer names the field."""
    made = await registry.register()
    before = registry.stored()

    register = await registry.call("POST", "", {"url": URL} | said)
    change = await registry.call("PATCH", f"/{made['id']}", said)

    assert (register.status, register.json["field"]) == (400, field)
    if "secret" not in said:
        assert (change.status, change.json["field"]) == (400, field)
    assert registry.stored() == before


async def test_more_than_a_record_can_hold_is_refused(registry: Registry) -> None:
    """Sealed it is longer than it came: it would only become a dead letter."""
    said = {
        "url": URL,
        "channels": ["가" * 200] * 50,
        "providers": ["가" * 200] * 25,
        "headers": {f"X-{n}": "a" * 4_000 for n in range(4)},
    }
    body = json.dumps(said, ensure_ascii=False).encode()
    assert len(body) < 65_536

    reply = await registry.group.get(
        registry.workers[0],
        "/v1/endpoints",
        method="POST",
        data=body,
        headers={"Content-Type": "application/json"},
    )

    assert (reply.status, registry.workers[0].produced.records) == (413, [])


async def test_without_keys_nothing_secret_is_taken(group: Group) -> None:
    """It would be kept in the clear."""
    group.sealer = None
    (worker,) = await group.start([range(6)])
    worker.produced.applied = group.data

    reply = await group.get(worker, "/v1/endpoints", method="POST", json={"url": URL})

    assert (reply.status, reply.json["type"]) == (409, "urn:delivery-tracker:no-secret-keys")
    assert "TRACKER_SECRET_KEYS" in reply.json["detail"]
    assert worker.produced.records == []


async def test_it_is_not_said_to_be_kept_before_it_is(group: Group) -> None:
    """Neither while the broker is away, nor without a partition, nor if another holds it who is gone."""
    worker, other = await group.start([range(6), []])
    worker.produced.down = True

    replies = [
        await group.get(who, "/v1/endpoints", method="POST", json={"url": URL}) for who in (worker, other)
    ]
    worker.reader.own.clear()
    replies.append(await group.get(worker, "/v1/endpoints/ep_x"))

    assert [reply.status for reply in replies] == [503, 503, 503]
    assert "broker's" not in replies[0].json["detail"]


async def test_pages_of_other_sites_change_nothing(registry: Registry) -> None:
    """As with everything that changes something."""
    made = await registry.register()
    foreign = {"Sec-Fetch-Site": "cross-site"}
    for method, path, body in (("POST", "", {"url": URL}), ("DELETE", f"/{made['id']}", None)):
        options = {} if body is None else {"json": body}
        reply = await registry.group.get(
            registry.workers[0], f"/v1/endpoints{path}", method=method, headers=foreign, **options
        )
        assert reply.status == 403


@asynccontextmanager
async def taking(secrets: list[str], arrivals: list[Arrival], status: int = 204) -> AsyncIterator[str]:
    """A receiver at the one address of our own that is allowed; its URL."""
    keys = [verifying_key_of(secret) for secret in secrets]
    runner = web.AppRunner(receiving(keys, arrivals.append, now=lambda: NOW / 1000, status=status))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.2", 0).start()
    try:
        yield f"http://127.0.0.2:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_a_ping_is_signed_with_every_secret_that_signs(registry: Registry) -> None:
    """Whichever worker is asked, and whichever of the secrets the receiver has; paused or not."""
    made = await registry.register(headers={"X-Mine": "me"}, state="paused", kmsgHeaders=True)
    rotated = (await registry.call("POST", f"/{made['id']}/rotate", {})).json
    arrivals: list[Arrival] = []
    for secret in (made["secret"], rotated["secret"]):
        async with taking([secret], arrivals) as url:
            assert (await registry.call("PATCH", f"/{made['id']}", {"url": url})).status == 200
            for _ in registry.workers:
                reply = await registry.call("POST", f"/{made['id']}/ping")
                assert reply.status == 200
                told = reply.json
                assert (told["verdict"], told["status"], told["trouble"]) == ("delivered", 204, None)
                assert arrivals[-1] == Arrival(
                    told["webhookId"],
                    "endpoint.ping",
                    json.dumps(
                        {"type": "endpoint.ping", "timestamp": CREATED, "data": {"endpointId": made["id"]}},
                        separators=(",", ":"),
                    ).encode(),
                    None,
                    False,
                )
    assert len({arrival.webhook_id for arrival in arrivals}) == len(arrivals) == 6


async def test_what_came_of_a_ping_is_said(registry: Registry) -> None:
    """An answer that is none of success, an address that is not allowed, nobody there."""
    arrivals: list[Arrival] = []
    made = await registry.register()
    async with taking(["whsec_" + "A" * 44], arrivals) as url:
        await registry.call("PATCH", f"/{made['id']}", {"url": url})
        refused = (await registry.call("POST", f"/{made['id']}/ping")).json
    nobody = (await registry.call("POST", f"/{made['id']}/ping")).json
    await registry.call("PATCH", f"/{made['id']}", {"url": "http://localhost/"})
    forbidden = (await registry.call("POST", f"/{made['id']}/ping")).json

    assert (refused["verdict"], refused["status"]) == ("failed", 401)
    assert "no signature" in refused["body"]
    assert [(one["verdict"], one["status"], one["trouble"]) for one in (nobody, forbidden)] == [
        ("failed", None, "refused"),
        ("failed", None, "forbidden"),
    ]


async def test_a_ping_needs_the_key_that_sealed(registry: Registry) -> None:
    """Without it nothing can be signed; nothing is sent unsigned."""
    made = await registry.register()
    registry.group.sealer = Sealer({"k2": b"\x02" * 32})
    other = (await registry.group.start([range(6)]))[-1]

    reply = await registry.group.get(other, f"/v1/endpoints/{made['id']}/ping", method="POST")

    assert (reply.status, reply.json["type"]) == (409, "urn:delivery-tracker:no-secret-keys")
