"""A connection to a receiver: it carries one webhook after the other, and reads little of each answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast

import httptools

__all__ = ["MOST_READ_BYTES", "Answer", "Connection", "NoAnswer", "Pool"]

S = TypeVar("S", bound=Hashable)

MOST_READ_BYTES: Final = 16 * 1024
"""Of an answer, its headers included; what is longer is cut off, with its connection."""

SHOWN_BYTES: Final = 1024
"""Of an answer's body, for people who look for what is wrong."""

SWITCHING_PROTOCOLS: Final = 101

KEEP_ALIVE_S: Final = 30.0
MOST_KEPT: Final = 500
"""Connections that wait for their next webhook; a process has only so many descriptors."""


class NoAnswer(Exception):
    """What came is no HTTP."""


@dataclass(slots=True)
class Answer:
    """What a receiver says of a webhook.

    Attributes:
        status: of HTTP.
        at: when it was known, by the monotonic clock, seconds.
        retry_after: the header, as it came.
        body: its first bytes.
    """

    status: int
    at: float
    retry_after: str | None
    body: bytes = b""


class Connection(asyncio.Protocol):
    """One webhook at a time.

    A status is an answer, whatever comes after it: a body that is slow, endless or broken costs the
    connection.

    Args:
        body_s: how long is waited for a body when the status is known already, seconds.
    """

    def __init__(self, body_s: float) -> None:
        self._body_s = body_s
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._asked: asyncio.Future[Answer] | None = None
        self._begin()

    def _begin(self) -> None:
        """Know nothing yet of the answer that is to come."""
        self._answer: Answer | None = None
        self._retry_after: str | None = None
        self._body = bytearray()
        self._room = MOST_READ_BYTES
        self._is_over = False
        self._is_kept = False

    @property
    def is_open(self) -> bool:
        """Whether another webhook can be sent."""
        return not self._transport.is_closing()

    async def post(self, request: bytes, timeout_s: float) -> Answer:
        """Send a request, and return its answer.

        Raises:
            NoAnswer: what came is no answer.
            TimeoutError: none came in time.
            OSError: the connection ended before.
        """
        self._begin()
        asked: asyncio.Future[Answer] = self._loop.create_future()
        self._asked = asked
        self._timer = self._loop.call_later(timeout_s, self._end, TimeoutError)
        self._transport.write(request)
        try:
            return await asked
        finally:
            if self._asked is not None:
                # who asked was cancelled
                self._end()

    def close(self) -> None:
        """End it; who waits for an answer is told."""
        self._transport.abort()

    def _end(self, why: Exception | type[Exception] = ConnectionResetError) -> None:
        """Tell who asked what is known by now; the connection goes with it unless the answer was whole.

        Args:
            why: there is no more to come.
        """
        asked, self._asked = self._asked, None
        if not self._is_kept:
            self._transport.abort()
        if asked is None:
            return
        self._timer.cancel()
        if asked.done():
            return
        if self._answer is None:
            asked.set_exception(why)
            return
        self._answer.body = bytes(self._body)
        asked.set_result(self._answer)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's is no asyncio.Transport
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read what came, as far as there is room for it."""
        if self._asked is None:
            # what nobody asked for could be taken for the next answer
            self._transport.abort()
            return
        was_known = self._answer is not None
        try:
            self._parser.feed_data(memoryview(data)[: self._room])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._is_kept = False
            self._end(NoAnswer)
            return
        self._room -= len(data)
        if self._is_over or self._room <= 0:
            self._is_kept = self._is_kept and self._room >= 0
            self._end(NoAnswer)
        elif self._answer is not None and not was_known:
            self._timer.cancel()
            until = min(self._timer.when(), self._loop.time() + self._body_s)
            self._timer = self._loop.call_at(until, self._end)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell who asked."""
        self._is_kept = False
        self._end(error or ConnectionResetError)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """See that what comes after an answer is no other one."""
        self._is_kept = False
        self._retry_after = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the one that matters."""
        if self._answer is None and name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take the status, unless it only says that there will be one."""
        status = self._parser.get_status_code()
        if self._answer is None and (status >= 200 or status == SWITCHING_PROTOCOLS):
            self._answer = Answer(status, time.monotonic(), self._retry_after)

    def on_body(self, body: bytes) -> None:
        """Keep the first bytes."""
        if len(self._body) < SHOWN_BYTES:
            self._body += body[: SHOWN_BYTES - len(self._body)]

    def on_message_complete(self) -> None:
        """See whether another webhook can follow."""
        if self._answer is not None:
            self._is_kept = not self._is_over and self._parser.should_keep_alive()
            self._is_over = True


class Pool(Generic[S]):
    """Connections that wait for their next webhook, by the server at their other end."""

    def __init__(self) -> None:
        self._waiting: dict[S, list[tuple[float, Connection]]] = {}
        self._count = 0
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, server: S) -> Connection | None:
        """Return a connection that is there already, the one that was used last; None: there is none."""
        waiting = self._waiting.get(server)
        while waiting:
            _, connection = waiting.pop()
            self._count -= 1
            if connection.is_open:
                return connection
        return None

    def keep(self, server: S, connection: Connection) -> None:
        """Let a connection wait for a while, if it can still be used."""
        if not connection.is_open:
            return
        if self._count >= MOST_KEPT:
            connection.close()
            return
        self._count += 1
        self._waiting.setdefault(server, []).append((time.monotonic(), connection))
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._swept)

    def close(self) -> None:
        """Close all of them."""
        for waiting in self._waiting.values():
            for _, connection in waiting:
                connection.close()
        self._waiting.clear()
        self._count = 0
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _swept(self) -> None:
        """Close what has waited for long, and forget what the other side has closed."""
        oldest = time.monotonic() - KEEP_ALIVE_S
        for server, waiting in list(self._waiting.items()):
            for since, connection in waiting:
                if since < oldest:
                    connection.close()
            waiting[:] = [(since, connection) for since, connection in waiting if connection.is_open]
            if not waiting:
                del self._waiting[server]
        self._count = sum(map(len, self._waiting.values()))
        self._sweep = None
        if self._waiting:
            self._sweep = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._swept)
