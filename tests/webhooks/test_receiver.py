"""Rules of the receiver for development."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from streams.webhooks.guard import networks_of
from streams.webhooks.posting import Attempt, Poster
from streams.webhooks.receiver import Arrival, receiving
from streams.webhooks.signatures import Verifier, key_of, new_secret, standard_headers, verifying_key_of

SECRET = new_secret(b"\x03" * 32)
BODY = b'{"type":"message.delivered","data":{}}'


@asynccontextmanager
async def posting(keys: list[Verifier], arrivals: list[Arrival]) -> AsyncIterator[tuple[Poster, str]]:
    runner = web.AppRunner(receiving(keys, arrivals.append, now=lambda: 1_000.0))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    poster = Poster(networks_of("127.0.0.1"))
    try:
        yield poster, "http://{}:{}/any/path".format(*runner.addresses[0])
    finally:
        poster.close()
        await runner.cleanup()


async def test_what_is_signed_is_taken_and_told_from_what_comes_again() -> None:
    """A sender tries until it hears that it arrived; who receives twice knows it by the id."""
    arrivals: list[Arrival] = []
    async with posting([verifying_key_of(SECRET)], arrivals) as (poster, url):
        for webhook_id in ("a", "b", "a"):
            headers = standard_headers([key_of(SECRET)], webhook_id, 1_000, BODY)
            assert (await poster.post(url, headers, BODY, 5.0)).status == 204

    assert [(one.webhook_id, one.type, one.problem, one.again) for one in arrivals] == [
        ("a", "message.delivered", None, False),
        ("b", "message.delivered", None, False),
        ("a", "message.delivered", None, True),
    ]


async def test_what_is_not_signed_is_refused_and_does_not_count_as_come() -> None:
    """By another secret, long ago, or not at all; the answer says why."""
    arrivals: list[Arrival] = []
    other = key_of(new_secret(b"\x04" * 32))
    answers: list[Attempt] = []
    async with posting([verifying_key_of(SECRET)], arrivals) as (poster, url):
        for headers in (
            standard_headers([other], "a", 1_000, BODY),
            standard_headers([key_of(SECRET)], "a", 1, BODY),
            {},
            standard_headers([other, key_of(SECRET)], "a", 1_000, BODY),
        ):
            answers.append(await poster.post(url, headers, BODY, 5.0))

    assert [answer.status for answer in answers] == [401, 401, 401, 204]
    assert [arrival.again for arrival in arrivals] == [False] * 4
    for answer, arrival in zip(answers[:3], arrivals, strict=False):
        assert arrival.problem
        assert arrival.problem.encode() in answer.body


async def test_without_a_key_anything_is_taken() -> None:
    """Whatever it is."""
    arrivals: list[Arrival] = []
    async with posting([], arrivals) as (poster, url):
        for body, type_ in ((b"\xff", "?"), (b"[" * 100_000, "?"), (b"[1]", "?"), (b'{"type":5}', "5")):
            assert (await poster.post(url, {}, body, 5.0)).status == 204
            assert arrivals[-1].type == type_
