"""One attempt to deliver a webhook: a POST that goes nowhere it may not, and reads no more than it must."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from streams.domain.webhooks import Trouble
from streams.webhooks.guard import ForbiddenAddress, Network, guarded_sockets

__all__ = ["MOST_READ_BYTES", "Attempt", "Poster"]

MOST_READ_BYTES: Final = 16 * 1024
"""Of an answer's body; what is longer is cut off, with its connection."""

SHOWN_BYTES: Final = 1024
"""Of an answer's body, for people who look for what is wrong."""

CONNECT_S: Final = 5.0
BODY_S: Final = 1.0

KEEP_ALIVE_S: Final = 30.0
LONGEST_HEADER_BYTES: Final = 8_190
USER_AGENT: Final = "delivery-tracker"


@dataclass(frozen=True)
class Attempt:
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


class Poster:
    """Posts webhooks over connections that are kept; to be opened and closed within an event loop.

    Over https it reaches public addresses and those that are allowed, over plain http only the latter.

    Args:
        allowed: networks of our own that webhooks may reach.
        tls: what certificates are trusted; None: as the system has it.
        resolver: what finds the addresses of names; None: the system.
        body_s: how long is waited for a body when the status is known already, seconds.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        body_s: float = BODY_S,
    ) -> None:
        self._resolver = resolver
        self._body_s = body_s
        self._allowed = allowed
        self._tls = tls
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Attempt:
        """Send a body once; whatever goes wrong is an outcome."""
        started_at, began = time.time_ns() // 1_000_000, time.monotonic()

        def ended(**what: Any) -> Attempt:
            return Attempt(started_at, round((time.monotonic() - began) * 1000), **what)

        try:
            parsed = URL(url)
            session = self._session(parsed.scheme)
        except ValueError:
            return ended(trouble="invalid-url")
        try:
            async with session.post(
                parsed,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(timeout_s, sock_connect=min(CONNECT_S, timeout_s)),
            ) as response:
                answered = ended(status=response.status, retry_after=response.headers.get("Retry-After"))
                return replace(answered, body=await self._first_bytes(response))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return ended(trouble=_trouble(error))

    async def _first_bytes(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the first bytes; read to the end if that is near: the connection can be used again."""
        read = bytearray()
        try:
            async with asyncio.timeout(self._body_s):
                while len(read) < MOST_READ_BYTES:
                    some = await response.content.read(MOST_READ_BYTES - len(read))
                    if not some:
                        return bytes(read[:SHOWN_BYTES])
                    read += some
        except (TimeoutError, aiohttp.ClientError, OSError):
            # what the status says is said
            pass
        response.close()
        return bytes(read[:SHOWN_BYTES])

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        session = self._sessions.get(scheme)
        if session is None:
            session = self._sessions[scheme] = self._opened(scheme)
        return session

    def _opened(self, scheme: str) -> aiohttp.ClientSession:
        if scheme not in ("http", "https"):
            raise ValueError(f"webhooks go over https, not {scheme!r}")
        connector = aiohttp.TCPConnector(
            socket_factory=guarded_sockets(self._allowed, public=scheme == "https"),
            resolver=self._resolver,
            # who sends says how many side by side
            limit=0,
            keepalive_timeout=KEEP_ALIVE_S,
            ssl=True if self._tls is None else self._tls,
        )
        return aiohttp.ClientSession(
            connector=connector,
            # what the environment says of proxies is not meant for us, and would be a way around the guard
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            # a few bytes may unfold to gigabytes
            auto_decompress=False,
            read_bufsize=MOST_READ_BYTES,
            max_line_size=LONGEST_HEADER_BYTES,
            max_field_size=LONGEST_HEADER_BYTES,
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/json"},
        )


def _trouble(error: BaseException) -> Trouble:
    """Say in a word what went wrong."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ForbiddenAddress):
        return "forbidden"
    for kinds, trouble in _TROUBLES:
        if isinstance(error, kinds) or isinstance(cause, kinds):
            return trouble
    return "protocol"


_TROUBLES: Final[tuple[tuple[Any, Trouble], ...]] = (
    (aiohttp.InvalidURL, "invalid-url"),
    ((aiohttp.ClientSSLError, ssl.SSLError, ssl.CertificateError), "tls"),
    (aiohttp.ClientConnectorDNSError, "dns"),
    ((TimeoutError, asyncio.TimeoutError), "timeout"),
    (ConnectionRefusedError, "refused"),
    ((aiohttp.ServerDisconnectedError, ConnectionError), "disconnected"),
    (aiohttp.ClientConnectorError, "refused"),
    (aiohttp.ClientOSError, "disconnected"),
)
