"""A receiver for development: it verifies what arrives, and shows it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import click
from aiohttp import web

from streams.domain.secrets import InvalidSecret
from streams.webhooks.signatures import InvalidSignature, Verifier, verify, verifying_key_of

__all__ = ["Arrival", "receiver", "receiving"]

MOST_BODY_BYTES: Final = 1 << 20
REMEMBERED: Final = 100_000
"""Ids that are known again; a sender tries for days, but a developer does not look for so long."""

DEFAULT_PORT: Final = 6070


@dataclass(frozen=True)
class Arrival:
    """A webhook that came.

    Attributes:
        problem: why it was refused; None if it is signed.
        again: whether its id has come before.
    """

    webhook_id: str
    type: str
    body: bytes
    problem: str | None
    again: bool


def receiving(
    keys: Sequence[Verifier],
    arrived: Callable[[Arrival], None],
    now: Callable[[], float] = time.time,
    status: int = 204,
) -> web.Application:
    """Return an application that takes webhooks at any path.

    Args:
        keys: none: what comes is not verified.
        arrived: is told of each.
        status: what those are answered that are signed; others get 401.
    """
    known: OrderedDict[str, None] = OrderedDict()

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        webhook_id, problem = headers.get("webhook-id", ""), None
        if keys:
            try:
                verify(keys, headers, body, now())
            except InvalidSignature as error:
                problem = str(error)
        again = webhook_id in known
        arrived(Arrival(webhook_id, _type_of(body), body, problem, again))
        if problem is not None:
            return web.json_response({"problem": problem}, status=401)
        known[webhook_id] = None
        while len(known) > REMEMBERED:
            known.popitem(last=False)
        return web.Response(status=status)

    application = web.Application(client_max_size=MOST_BODY_BYTES)
    application.router.add_post("/{path:.*}", take)
    return application


def _type_of(body: bytes) -> str:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "?"
    return str(said.get("type", "?")) if isinstance(said, dict) else "?"


def _plain(text: str) -> str:
    """Return a text that can stand on a terminal, in its line: anybody may have sent it."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


@click.command("receiver")
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=DEFAULT_PORT, show_default=True)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    envvar="RECEIVER_SECRET",
    help="whsec_…, whpk_… or any text; several may be given. Without one nothing is verified.",
)
@click.option("--status", type=click.IntRange(200, 599), default=204, show_default=True, help="Answer so.")
@click.option("--bodies", is_flag=True, help="Show the bodies, too.")
def receiver(bind: str, port: int, secrets: tuple[str, ...], status: int, bodies: bool) -> None:
    """Take webhooks, verify their signatures, and show what arrives; Ctrl-C ends it."""
    try:
        keys = [verifying_key_of(secret) for secret in secrets]
    except InvalidSecret as error:
        raise click.BadParameter(str(error), param_hint="--secret") from error

    def show(arrival: Arrival) -> None:
        state = arrival.problem or ("signed" if keys else "not verified")
        again = ", again" if arrival.again else ""
        print(
            f"{_plain(arrival.webhook_id) or '(no id)'}  {_plain(arrival.type)}  {state}{again}", flush=True
        )
        if bodies:
            print(f"  {_plain(arrival.body.decode(errors='replace'))}", flush=True)

    try:
        asyncio.run(_serve(receiving(keys, show, status=status), bind, port))
    except KeyboardInterrupt:
        sys.exit(0)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {bind}:{port}: {error}") from error


async def _serve(application: web.Application, bind: str, port: int) -> None:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, bind, port)
        await site.start()
        print(f"webhooks are taken at http://{bind}:{runner.addresses[0][1]}/", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
