"""Asking other workers: one session, and a header that tells them not to ask on."""

from __future__ import annotations

import logging
from typing import Protocol

import aiohttp
from aiohttp import web
from yarl import URL

__all__ = ["ASK_TIMEOUT_S", "HOP_HEADER", "Ask", "Asking", "Unreachable"]

log = logging.getLogger(__name__)

HOP_HEADER = "X-Tracker-Hop"
ASK_TIMEOUT_S = 2.0


class Unreachable(Exception):
    """A worker did not answer: no connection, or none in time."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class Ask(Protocol):
    """Asks another worker, in a way that tells it not to ask on."""

    async def __call__(
        self,
        url: str,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        within_s: float = ASK_TIMEOUT_S,
    ) -> tuple[int, bytes]:
        """Return status and body; raise Unreachable."""


class Asking:
    """Asks other workers over one session, opened at the first question."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self,
        url: str,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        within_s: float = ASK_TIMEOUT_S,
    ) -> tuple[int, bytes]:
        """Return status and body; raise Unreachable."""
        target = URL(url.rstrip("/") + path, encoded=True)
        try:
            async with self._open().request(
                method,
                target,
                data=body,
                headers={} if body is None else {"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=within_s),
                allow_redirects=False,
            ) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # the path may hold a message's id, which is nobody's business but the caller's
            log.info("worker %s did not answer: %r", url, error)
            raise Unreachable(url) from error

    async def close(self, _application: web.Application) -> None:
        """Close the session with the server."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={HOP_HEADER: "1"},
                trust_env=False,  # a proxy for the outside must not see what workers tell each other
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session
