"""One attempt to deliver a webhook: a POST that goes nowhere it may not, and reads no more than it must."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import string
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from streams.domain.webhooks import Trouble
from streams.webhooks.connections import Answer, Connection, NoAnswer, Pool, connected
from streams.webhooks.guard import SCHEMES, ForbiddenAddress, Network, guarded_sockets, url_of
from streams.webhooks.names import Look, Names, look_up

__all__ = ["Attempt", "Poster"]

CONNECT_S: Final = 5.0
BODY_S: Final = 1.0

MOST_TARGETS: Final = 10_000

STANDING: Final = "User-Agent: delivery-tracker\r\nContent-Type: application/json\r\n"
"""Headers of every request."""

_TARGET: Final = re.compile(r"[^/?#]*//[^/?#]*([^#]*)")
"""Matches a URL up to its fragment; the group is its path and query (RFC 3986, appendix B)."""

_BREAKS_LINES: Final = re.compile(r"[\r\n\0]")


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """What came of an attempt.

    Attributes:
        started_at: ms since the epoch.
        duration_ms: until the status, or until it failed.
        status: of HTTP; None if none came.
        body: the first bytes of the answer.
        retry_after: the header, as it came.
        trouble: why no status came.
    """

    started_at: int
    duration_ms: int
    status: int | None = None
    body: bytes = b""
    retry_after: str | None = None
    trouble: Trouble | None = None


class Server(NamedTuple):
    """Who answers at the other end of a connection."""

    scheme: str
    host: str
    port: int


class Target(NamedTuple):
    """Where webhooks of a URL go, and how their requests begin."""

    server: Server
    begin: str


class Poster:
    """Posts webhooks over connections that are kept; to be opened and closed within an event loop.

    Over https it reaches public addresses and those that are allowed, over plain http only the latter.
    HTTP/1.1 as RFC 9112 has it; it knows no proxies, no cookies, and unpacks nothing.

    Args:
        allowed: networks of our own that webhooks may reach.
        tls: what certificates are trusted; None: as the system has it.
        look: what finds the addresses of names.
        body_s: how long is waited for a body when the status is known already, seconds.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        tls: ssl.SSLContext | None = None,
        look: Look = look_up,
        body_s: float = BODY_S,
    ) -> None:
        self._body_s = body_s
        self._sockets = {scheme: guarded_sockets(allowed, public=scheme == "https") for scheme in SCHEMES}
        self._tls = tls
        self._names = Names(look)
        self._pool: Pool[Server] = Pool()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Attempt:
        """Send a body once; whatever goes wrong is an outcome."""
        started_at, began = time.time_ns() // 1_000_000, time.monotonic()

        def ended(until: float, **what: Any) -> Attempt:
            return Attempt(started_at, round((until - began) * 1000), **what)

        try:
            target = _target_of(url)
        except ValueError:
            return ended(time.monotonic(), trouble="invalid-url")
        try:
            request = _request(target, headers, body)
            connection, answer = await self._answered(target.server, request, began + timeout_s)
        except (NoAnswer, OSError, RuntimeError, ValueError) as error:
            return ended(time.monotonic(), trouble=_trouble(error))
        self._pool.keep(target.server, connection)
        return ended(answer.at, status=answer.status, body=answer.body, retry_after=answer.retry_after)

    def close(self) -> None:
        """Close all connections that wait for their next webhook."""
        self._pool.close()

    async def _answered(self, server: Server, request: bytes, deadline: float) -> tuple[Connection, Answer]:
        """Send a request over a kept connection, or a new one, and return its answer with the connection.

        A receiver may close a kept connection while the request is on its way to it. So if that ends before
        any byte of an answer, the request is sent once more, over a new connection (RFC 9110, section 9.2.2:
        the receiver knows repetitions by the webhook's id).

        Args:
            deadline: of time.monotonic.

        Raises:
            NoAnswer: the response is not HTTP.
            TimeoutError: there was no response in time.
            OSError: the connection failed, or ended before the response.
        """
        kept = self._pool.take(server)
        if kept is not None:
            try:
                return kept, await kept.post(request, deadline - time.monotonic())
            except OSError as error:
                if isinstance(error, TimeoutError) or kept.has_received:
                    raise
        async with asyncio.timeout(deadline - time.monotonic()):
            connection = await self._connected(server)
        return connection, await connection.post(request, deadline - time.monotonic())

    async def _connected(self, server: Server) -> Connection:
        """Return a new connection.

        Raises:
            OSError: there is none, or none that is allowed.
        """
        addresses = await self._names.addresses(server.host, server.port)
        async with asyncio.timeout(CONNECT_S):
            made = await connected(addresses, self._sockets[server.scheme])
        tls = self._context() if server.scheme == "https" else None
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._body_s),
                sock=made,
                ssl=tls,
                server_hostname=server.host.rstrip(".") if tls else None,
            )
        except BaseException:
            # who has its descriptor closes it, and sees by this that it is time to
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
            raise
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


@lru_cache(MOST_TARGETS)
def _target_of(url: str) -> Target:
    """Read a URL.

    Raises:
        ValueError: webhooks cannot go there.
    """
    parts = url_of(url)
    if "@" in parts.raw_authority:
        raise ValueError("webhooks are signed; who sends a password as well sends it as a header")
    return Target(
        Server(parts.scheme, parts.raw_host or "", parts.port or 0),
        f"POST {_request_target(url)} HTTP/1.1\r\nHost: {parts.host_port_subcomponent}\r\n{STANDING}",
    )


def _request_target(url: str) -> str:
    """Return the path and the query as they are written, for a signature may cover every character of them.

    Only characters beyond ASCII are percent-encoded (UTF-8): a request cannot have them.
    """
    match = _TARGET.match(url)
    written = match[1] if match else ""
    return quote(written if written.startswith("/") else f"/{written}", safe=string.punctuation)


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a request.

    Raises:
        ValueError: a header would become several lines.
    """
    if _BREAKS_LINES.search("".join((*headers, *headers.values()))):
        raise ValueError("a header is one line")
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"{target.begin}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _trouble(error: Exception) -> Trouble:
    """Say in a word what went wrong."""
    for kinds, trouble in _TROUBLES:
        if isinstance(error, kinds):
            return trouble
    return "protocol"


_TROUBLES: Final[tuple[tuple[Any, Trouble], ...]] = (
    (ForbiddenAddress, "forbidden"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "dns"),
    (TimeoutError, "timeout"),
    (ConnectionRefusedError, "refused"),
    (ConnectionError, "disconnected"),
    (OSError, "refused"),
)
