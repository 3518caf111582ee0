"""One message, asked of any worker."""

import asyncio
import time
from urllib.parse import quote

import pytest
from aiohttp import web

from .workers import NOBODY, Group, Reply

SHARES = ([0, 1], [2, 3], [4, 5])
HOP = {"X-Tracker-Hop": "1"}


def names_missing(reply: Reply, partition: int, holder: str | None) -> bool:
    said = reply.json
    assert reply.status == 503
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert int(reply.headers["Retry-After"]) > 0
    missing, holders = said["missingPartitions"], said["holders"]
    return bool(missing == [partition] and holders == {str(partition): holder})


@pytest.mark.parametrize("view", ["", "/report"])
async def test_every_worker_answers_like_the_owner_byte_for_byte(group: Group, view: str) -> None:
    """Whoever is asked, the answer is the one that the holder of the partition gives."""
    workers = await group.start(SHARES)
    for message_id in group.data.one_per_partition():
        group.data.say(message_id, "SENT", 1_700_000_000_000)
        path = f"/v1/messages/{message_id}{view}"
        owners = await group.get(group.holder_of(message_id), path)

        assert owners.status == 200
        assert owners.json["messageId"] == message_id
        for worker in workers:
            reply = await group.get(worker, path)
            assert (reply.status, reply.body) == (200, owners.body)
            assert reply.headers["Content-Type"] == "application/json"


async def test_an_unknown_message_is_unknown_to_every_worker(group: Group) -> None:
    """404 is said on the word of the partition's holder, with the same document everywhere."""
    workers = await group.start(SHARES)
    message_id = group.data.name_in(3)
    owners = await group.get(group.holder_of(message_id), f"/v1/messages/{message_id}")

    assert owners.status == 404
    assert owners.json.keys() >= {"type", "title", "status", "detail"}
    for worker in workers:
        reply = await group.get(worker, f"/v1/messages/{message_id}")
        assert (reply.status, reply.body) == (404, owners.body)
        assert reply.headers["Content-Type"] == "application/problem+json"


async def test_what_is_only_marked_is_unknown(group: Group) -> None:
    """A stopped message, and one that was to be erased before anything was said of it, are not shown."""
    workers = await group.start(SHARES)
    for number, stopped in enumerate((True, False)):
        message_id = group.data.name_in(number)
        if stopped:
            group.data.say(message_id, "SENT", 1_700_000_000_000)
        group.data.mark(message_id, stopped=stopped)
        for view in ("", "/report"):
            reply = await group.get(workers[0], f"/v1/messages/{message_id}{view}")
            assert reply.status == 404


@pytest.mark.parametrize("path", ["/v1/messages/%FF", "/v1/messages/a%ED%A0%80", "/v1/stats?provider=%C3"])
async def test_a_url_that_is_not_utf_8_is_refused(group: Group, path: str) -> None:
    """Its bytes are those of no id; `%FF` as a text is another message, `%25FF`."""
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, path)

    assert (reply.status, reply.headers["Content-Type"]) == (400, "application/problem+json")
    assert "UTF-8" in reply.json["detail"]


@pytest.mark.parametrize(
    "name", ["a/b", "{x}", "100%", "%2F", "a b+c", "메시지", "?q=1&r#f", "..", "a\nb", "x" * 256]
)
async def test_any_message_id_survives_the_way_to_its_holder(group: Group, name: str) -> None:
    """An id may hold any character; its percent-encoding names one message on every worker."""
    workers = await group.start(SHARES)
    group.data.say(name, "DELIVERED", 1_700_000_000_000)

    for worker in workers:
        reply = await group.get(worker, f"/v1/messages/{quote(name, safe='')}/report")
        assert (reply.status, reply.json.get("messageId")) == (200, name)


async def test_a_partition_without_a_holder_gives_503_and_never_404(group: Group) -> None:
    """A message that cannot be looked up is not unknown."""
    (worker,) = await group.start([[0, 1, 2, 3, 4]])
    message_id = group.data.name_in(5)

    assert names_missing(await group.get(worker, f"/v1/messages/{message_id}"), 5, None)


async def test_an_unreachable_holder_is_named(group: Group) -> None:
    """The problem says who should have answered."""
    (worker,) = await group.start([[0, 1, 2, 3, 4]])
    worker.reader.believed[5] = NOBODY

    assert names_missing(await group.get(worker, f"/v1/messages/{group.data.name_in(5)}"), 5, NOBODY)


async def test_a_worker_that_was_asked_by_another_does_not_ask_on(group: Group) -> None:
    """Two workers that each take the other for the holder give 503 after one hop."""
    one, other = await group.start([[0, 1, 2], [3, 4]])
    one.reader.believed[5], other.reader.believed[5] = other.url, one.url
    message_id = group.data.name_in(5)

    assert names_missing(await group.get(one, f"/v1/messages/{message_id}"), 5, other.url)
    assert one.asked == [(f"/v1/messages/{message_id}", False)]
    assert other.asked == [(f"/v1/messages/{message_id}", True)]


async def test_the_hop_header_alone_keeps_a_worker_from_asking_on(group: Group) -> None:
    """The header decides, not who sends it."""
    one, other = await group.start([[0, 1, 2], [3, 4, 5]])
    message_id = group.data.name_in(5)

    assert names_missing(await group.get(one, f"/v1/messages/{message_id}", headers=HOP), 5, other.url)
    assert other.asked == []


async def test_a_partition_revoked_during_the_reading_gives_503(group: Group) -> None:
    """What was read from a partition that has gone meanwhile is not an answer."""
    (worker,) = await group.start([range(6)])
    message_id = group.data.name_in(5)
    group.data.say(message_id, "SENT", 1)
    worker.reader.after_read = lambda: worker.reader.own.discard(5)

    assert names_missing(await group.get(worker, f"/v1/messages/{message_id}", headers=HOP), 5, worker.url)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"404: Not Found"),
        (404, b'{"messageId": "someone-else", "type": "urn:delivery-tracker:unknown-message"}'),
        (404, b'{"messageId": "%s"}'),
        (200, b'{"messageId": "someone-else"}'),
        (200, b"<html>"),
        (200, b"\xff\xfe"),
        (200, b""),
        (302, b'{"messageId": "%s"}'),
        (500, b'{"messageId": "%s"}'),
    ],
)
async def test_only_an_answer_about_the_message_counts(group: Group, status: int, body: bytes) -> None:
    """Whatever else listens at the holder's address can neither make a message unknown nor pass for it."""
    (worker,) = await group.start([[0, 1, 2, 3, 4]])
    message_id = group.data.name_in(5)
    said = body.replace(b"%s", message_id.encode())

    async def foreign(request: web.Request) -> web.Response:
        location = {"Location": f"{worker.url}/live"} if status == 302 else {}
        return web.Response(status=status, body=said, headers=location)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", foreign)
    worker.reader.believed[5] = url = await group.serve(application)

    assert names_missing(await group.get(worker, f"/v1/messages/{message_id}"), 5, url)
    assert len(worker.asked) == 1


async def test_workers_ask_each_other_directly(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names for the outside is not used between workers."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, NOBODY)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    one, _other = await group.start([[0, 1, 2], [3, 4, 5]])
    group.data.say(message_id := group.data.name_in(5), "SENT", 1)

    assert (await group.get(one, f"/v1/messages/{message_id}")).status == 200


async def test_a_holder_that_hangs_is_given_up_after_two_seconds(group: Group) -> None:
    """A request ends, whatever the other worker does."""
    (worker,) = await group.start([[0, 1, 2, 3, 4]])

    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", hang)
    worker.reader.believed[5] = url = await group.serve(application)

    since = time.monotonic()
    assert names_missing(await group.get(worker, f"/v1/messages/{group.data.name_in(5)}"), 5, url)
    assert time.monotonic() - since < 4
