"""A receiver of webhooks beside the demonstration's worker: it verifies them, and counts."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from streams.demo.readings import post_json
from streams.webhooks.receiver import Arrival, receiving
from streams.webhooks.signatures import SECRET_BYTES, new_secret, verifying_key_of

__all__ = ["EVENTS", "Receiver", "receiver", "webhook_environment"]

EVENTS: Final = ["message.read", "message.failed"]
"""What the demonstration wants to be told of."""

HOST: Final = "127.0.0.1"


@dataclass
class Receiver:
    """What came: how many webhooks, how many of them came again, how many were not signed as they should.

    Attributes:
        url: where it takes them.
    """

    url: str
    secret: str
    taken: int = 0
    again: int = 0
    refused: int = 0

    def take(self, arrival: Arrival) -> None:
        """Count a webhook."""
        self.taken += arrival.problem is None
        self.again += arrival.again
        self.refused += arrival.problem is not None

    def register(self, worker_url: str) -> str:
        """Have a worker send webhooks here; return the endpoint's id."""
        said = {"url": self.url, "events": EVENTS, "secret": self.secret}
        return str(post_json(f"{worker_url}/v1/endpoints", said)["id"])


@asynccontextmanager
async def receiver(say: Callable[[str], None]) -> AsyncIterator[Receiver]:
    """A receiver on a free port of loopback, for as long as this lasts."""
    secret = new_secret(os.urandom(SECRET_BYTES))
    found = Receiver("", secret)
    runner = web.AppRunner(receiving([verifying_key_of(secret)], found.take), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        found.url = f"http://{HOST}:{runner.addresses[0][1]}/webhooks"
        say(f"webhooks of {', '.join(EVENTS)} go to {found.url}")
        yield found
    finally:
        await runner.cleanup()


def webhook_environment() -> dict[str, str]:
    """Return what a worker needs to send webhooks to loopback, unless the environment says otherwise."""
    settings = {
        "TRACKER_SECRET_KEYS": f"demo:{b64encode(os.urandom(32)).decode()}",
        "TRACKER_WEBHOOK_ALLOW": HOST,
    }
    return {name: value for name, value in settings.items() if not os.environ.get(name)}
