"""Rules of the sender's process: it makes the attempts that it is given, and tells what came of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from agents.dispatching import Dispatcher
from agents.sender import Attempts, Sending
from streams.domain.endpoints import Endpoint, Secret
from streams.domain.webhooks import Attempted, Queue, Told, event_place, group_of, queue_key
from streams.messages import read_said
from streams.webhooks.guard import networks_of
from streams.webhooks.jobs import Done, Job
from streams.webhooks.pipe import (
    QUESTIONS,
    TIDINGS,
    Counted,
    Groups,
    Held,
    Known,
    Noted,
    Produce,
    Said,
    Stands,
    Tidings,
    Waits,
)
from streams.webhooks.posting import Poster
from streams.webhooks.sealing import Sealer
from streams.webhooks.sending import Sender

from .test_guard import URLS, Names, connections, receiving

SEALER = Sealer({"k": bytes(32)})
NOW = 1_700_000_000_000


def job(number: int, url: str, secret: bytes | None = None, **said: Any) -> Job:
    secrets = [] if secret is None else [Secret(secret, 0)]
    endpoint = Endpoint(url=url, secrets=secrets, timeout_ms=2_000, **said)
    return Job(number, "ep", endpoint, f"id-{number}", "status.updated", b"{}")


async def done(jobs: Sequence[Job], poster: Poster, sealer: Sealer | None = SEALER) -> dict[int, Done]:
    """What comes of jobs that are made at once."""
    ended = asyncio.Queue[list[Done]]()
    Attempts(Sender(poster, sealer, lambda: NOW), ended.put_nowait).post([*jobs])
    told: dict[int, Done] = {}
    async with asyncio.timeout(20):
        while len(told) < len(jobs):
            told |= {one.number: one for one in await ended.get()}
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


@pytest.mark.parametrize(
    ("secret", "trouble"),
    [(None, None), (SEALER.seal(b"text", "ep"), "unsealable")],
    ids=["without a secret", "with a secret"],
)
async def test_without_keys_only_what_is_not_signed_is_sent(
    secret: bytes | None, trouble: str | None
) -> None:
    """What has no secret is sent as it is."""
    async with receiving() as port:
        told = await done(
            [job(1, f"http://127.0.0.2:{port}/hook", secret)], Poster(networks_of("127.0.0.2")), None
        )

    assert told[1].trouble == trouble


class Pipe:
    """Both ways between a sender and its worker, which is played by the test."""

    def __init__(self) -> None:
        self.to_sender, self._to_worker = asyncio.StreamReader(), asyncio.StreamReader()

    def write(self, frame: bytes) -> None:
        self._to_worker.feed_data(frame)

    def tell(self, *tidings: Tidings) -> None:
        self.to_sender.feed_data(TIDINGS.frame(tidings))

    async def hear(self, kind: type[Said]) -> Any:
        """Wait for what the sender says of a kind; what else it says meanwhile is let go."""
        async with asyncio.timeout(20):
            while True:
                for said in await QUESTIONS.read(self._to_worker):
                    if isinstance(said, kind):
                        return said


def noted() -> Noted:
    """That an event waits in the fourth partition."""
    queue = Queue(1, group_of("ep"), [event_place("statuses", 7, 0)], NOW)
    told = Told(1, "m", "status.updated", NOW, ["ep"], b"{}")
    return Noted(3, [((queue.group, queue_key("ep", "m")), (queue, told))])


async def test_what_a_worker_tells_is_sent_and_what_came_of_it_is_said() -> None:
    """A partition, an endpoint and an event make an attempt; and that it was made is counted."""
    pipe = Pipe()
    poster = Poster(networks_of("127.0.0.2"))
    sending = Sending(Sender(poster, SEALER, lambda: NOW), cast(asyncio.WriteTransport, pipe))
    async with receiving() as port:
        serving = asyncio.create_task(sending.serve(pipe.to_sender))
        endpoint = Endpoint(url=f"http://127.0.0.2:{port}/")
        pipe.tell(Known("ep", endpoint), Held(1, [3], 4), Stands({3: 0}, False))
        asked = await pipe.hear(Groups)
        assert asked.partition == 3
        pipe.tell(Waits(asked.number, []), noted())
        said = await pipe.hear(Produce)
        counted = await pipe.hear(Counted)
        pipe.to_sender.feed_eof()
        await serving
    poster.close()

    assert said.partition == 3
    ((of, value),) = said.records
    attempt = read_said(value)
    assert of == b"m"
    assert isinstance(attempt, Attempted)
    assert (attempt.event_id, attempt.endpoint_id, attempt.number) == ("statuses-3-7-0", "ep", 1)
    assert attempt.status == 204
    assert counted == Counted({"2xx": 1}, 0)


@pytest.mark.parametrize("what", ["done", "note"])
async def test_a_sender_that_fails_inside_ends(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is started then; it must not go on as if nothing was due."""

    def fail(*said: Any) -> None:
        raise ArithmeticError("inside")

    monkeypatch.setattr(Dispatcher, what, fail)
    pipe, poster = Pipe(), Poster(networks_of("127.0.0.2"))
    sending = Sending(Sender(poster, SEALER, lambda: NOW), cast(asyncio.WriteTransport, pipe))
    async with receiving() as port:
        serving = asyncio.create_task(sending.serve(pipe.to_sender))
        pipe.tell(Known("ep", Endpoint(url=f"http://127.0.0.2:{port}/")), Held(1, [3], 4))
        asked = await pipe.hear(Groups)
        pipe.tell(Waits(asked.number, []), noted())
        async with asyncio.timeout(20):
            await asyncio.wait([serving])
    poster.close()
