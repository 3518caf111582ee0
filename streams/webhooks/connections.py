"""A connection to a receiver: it carries one webhook after the other, and reads little of each answer."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

import aiohappyeyeballs
import httptools

from streams.webhooks.names import AddressInfo

__all__ = ["MOST_READ_BYTES", "Answer", "Connection", "NoAnswer", "Pool", "connected"]

S = TypeVar("S", bound=Hashable)

MOST_READ_BYTES: Final = 16 * 1024
"""Of an answer, its headers included; what is longer is cut off, with its connection."""

SHOWN_BYTES: Final = 1024
"""Of an answer's body, for people who look for what is wrong."""

SWITCHING_PROTOCOLS: Final = 101

HAPPY_EYEBALLS_S: Final = 0.25
"""Before the next address of a name is tried beside the first (RFC 8305)."""

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
        # what receivers have always said and been understood: lines that end with LF, or are folded
        self._parser.set_dangerous_leniencies(lenient_headers=True, lenient_optional_cr_before_lf=True)
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

    @property
    def has_received(self) -> bool:
        """Whether any byte has come since the last request was sent."""
        return self._room < MOST_READ_BYTES

    @property
    def is_quiet(self) -> bool:
        """Whether another webhook can be sent, and nothing that the loop has not seen yet speaks against it.

        What lies there already would be taken for the answer, or is the end.
        """
        if not self.is_open:
            return False
        looking = select.poll()
        looking.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not looking.poll(0)

    async def post(self, request: bytes, timeout_s: float) -> Answer:
        """Send a request, and return its answer.

        Raises:
            NoAnswer: what came is no answer.
            TimeoutError: none came in time.
            OSError: the connection ended before.
        """
        if not self.is_open:
            # it has ended already, and nobody will say so once more
            raise ConnectionResetError
        self._begin()
        asked: asyncio.Future[Answer] = self._loop.create_future()
        self._asked = asked
        self._timer = self._loop.call_later(timeout_s, self._end, TimeoutError)
        self._transport.write(request)
        try:
            return await asked
        except asyncio.CancelledError:
            # the answer may have come: there is nobody to use the connection again
            self._is_kept = False
            self._end()
            raise

    def close(self) -> None:
        """End it; who waits for an answer is told."""
        self._transport.abort()

    def _end(self, why: Exception | type[Exception] = ConnectionResetError) -> None:
        """Tell who asked what is known by now; the connection goes with it unless the answer was whole.

        Args:
            why: there is no more to come.
        """
        asked, self._asked = self._asked, None
        # who answers before all was sent may not read the rest
        if not self._is_kept or self._transport.get_write_buffer_size():
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
        if not self._is_over and len(self._body) < SHOWN_BYTES:
            self._body += body[: SHOWN_BYTES - len(self._body)]

    def on_message_complete(self) -> None:
        """See whether another webhook can follow."""
        if self._answer is not None:
            self._is_kept = not self._is_over and self._parser.should_keep_alive()
            self._is_over = True


class Pool(Generic[S]):
    """Connections that wait for their next webhook, by the server at their other end."""

    def __init__(self) -> None:
        self._waiting: dict[S, list[Connection]] = {}
        # of each whose it is and since when it waits; who has waited longest comes first
        self._since: dict[Connection, tuple[S, float]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, server: S) -> Connection | None:
        """Return a connection that is there already, the one that was used last; None: there is none."""
        waiting = self._waiting.get(server)
        while waiting:
            connection = waiting.pop()
            _, since = self._since.pop(connection)
            if connection.is_quiet and time.monotonic() - since < KEEP_ALIVE_S:
                return connection
            connection.close()
        return None

    def keep(self, server: S, connection: Connection) -> None:
        """Let a connection wait for a while, if it can still be used."""
        if not connection.is_open:
            return
        if len(self._since) >= MOST_KEPT:
            self._close(next(iter(self._since)))
        self._since[connection] = server, time.monotonic()
        self._waiting.setdefault(server, []).append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._swept)

    def close(self) -> None:
        """Close all of them."""
        for connection in list(self._since):
            self._close(connection)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _close(self, connection: Connection) -> None:
        server, _ = self._since.pop(connection)
        self._waiting[server].remove(connection)
        connection.close()

    def _swept(self) -> None:
        """Close what has waited for long."""
        before = time.monotonic() - KEEP_ALIVE_S
        for connection in [connection for connection, (_, since) in self._since.items() if since <= before]:
            self._close(connection)
        self._waiting = {server: waiting for server, waiting in self._waiting.items() if waiting}
        self._sweep = None
        if self._since:
            self._sweep = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._swept)


async def connected(
    addresses: Sequence[AddressInfo], make: Callable[[AddressInfo], socket.socket]
) -> socket.socket:
    """Return a socket that is connected to one of some addresses, the first that answers.

    Args:
        make: makes the socket of a try, if it may be made.

    Raises:
        OSError: none answers, or may be asked.
    """
    return await aiohappyeyeballs.start_connection(
        addresses,
        happy_eyeballs_delay=HAPPY_EYEBALLS_S,
        loop=cast(asyncio.AbstractEventLoop, _Connecting()),
        socket_factory=make,
    )


class _Connecting:
    """What aiohappyeyeballs needs of an event loop.

    uvloop's own has its resolver look even at addresses: where that waits for name servers that do not
    answer, all connections would.
    """

    async def sock_connect(self, made: socket.socket, address: Any) -> None:
        """Connect a socket."""
        try:
            made.connect(address)
            return
        except BlockingIOError:
            pass
        loop = asyncio.get_running_loop()
        writable = loop.create_future()

        def take() -> None:
            if not writable.done():
                writable.set_result(None)

        loop.add_writer(made, take)
        try:
            await writable
        finally:
            loop.remove_writer(made)
        error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
