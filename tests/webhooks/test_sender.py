"""Rules of the sender's process: it makes the attempts that it is given, and tells what came of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from streams.domain.endpoints import Endpoint, Secret
from streams.sender import Sending
from streams.webhooks.guard import networks_of
from streams.webhooks.jobs import DONE, JOBS, Done, Job
from streams.webhooks.posting import Poster
from streams.webhooks.sealing import Sealer
from streams.webhooks.sending import Sender

from .test_guard import URLS, Names, connections, receiving

SEALER = Sealer({"k": bytes(32)})
NOW = 1_700_000_000_000


class Output:
    """The pipe back to the worker."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()

    def write(self, frame: bytes) -> None:
        self.reader.feed_data(frame)


def job(number: int, url: str, secret: bytes | None = None, **said: Any) -> Job:
    secrets = [] if secret is None else [Secret(secret, 0)]
    endpoint = Endpoint(url=url, secrets=secrets, timeout_ms=2_000, **said)
    return Job(number, "ep", endpoint, f"id-{number}", "status.updated", b"{}")


async def done(jobs: Sequence[Job], poster: Poster, sealer: Sealer | None = SEALER) -> dict[int, Done]:
    """What the sender tells of jobs that it is given at once."""
    output = Output()
    sending = Sending(Sender(poster, sealer, lambda: NOW), cast(asyncio.WriteTransport, output))
    pipe = asyncio.StreamReader()
    serving = asyncio.create_task(sending.serve(pipe))
    pipe.feed_data(JOBS.frame(jobs))
    told: dict[int, Done] = {}
    async with asyncio.timeout(20):
        while len(told) < len(jobs):
            told |= {one.number: one for one in await DONE.read(output.reader)}
    pipe.feed_eof()
    await serving
    poster.close()
    return told


async def test_nothing_is_sent_to_an_address_of_our_own() -> None:
    """The whole corpus, and names that come to mean another address, watched at the socket."""
    names = Names(inside=["10.0.0.7", "127.0.0.1", "::1", "169.254.169.254"])
    jobs = [job(number, url) for number, url in enumerate(URLS)]
    with connections() as tried:
        told = await done(jobs, Poster())
    assert tried == []
    assert {one.trouble for one in told.values()} <= {"forbidden", "invalid-url", "dns"}

    with connections() as tried:
        told = await done([job(n, "https://inside.example/hook") for n in range(4)], Poster(look=names))
    assert tried == []
    assert {one.trouble for one in told.values()} == {"forbidden"}


async def test_each_job_has_its_end() -> None:
    """One whose secret cannot be opened, one that fails inside, and those beside them."""
    async with receiving() as port:
        url = f"http://127.0.0.2:{port}/hook"
        sealed = SEALER.seal(b"any text", "ep")
        jobs = [
            job(1, url, sealed),
            job(2, url, SEALER.seal(b"any text", "another")),
            job(3, url, SEALER.seal(b"whsec_no", "ep")),
            job(4, url, sealed, headers=SEALER.seal(b"no JSON", "ep")),
            job(5, url),
            job(6, url, sealed, headers=SEALER.seal(b'{"Host":"other","X-Key":"1"}', "ep")),
        ]
        told = await done(jobs, Poster(networks_of("127.0.0.2")))

    assert {number: (one.status, one.trouble) for number, one in told.items()} == {
        1: (204, None),
        2: (None, "unsealable"),
        3: (None, "unsealable"),
        4: (None, "protocol"),
        5: (204, None),
        6: (204, None),
    }


@pytest.mark.parametrize(("secret", "trouble"), [(None, None), (SEALER.seal(b"text", "ep"), "unsealable")])
async def test_without_keys_only_what_is_not_signed_is_sent(
    secret: bytes | None, trouble: str | None
) -> None:
    """What has no secret is sent as it is."""
    async with receiving() as port:
        told = await done(
            [job(1, f"http://127.0.0.2:{port}/hook", secret)], Poster(networks_of("127.0.0.2")), None
        )

    assert told[1].trouble == trouble
