"""One attempt to deliver a webhook: a POST that goes nowhere it may not, and reads no more than it must.

libcurl does it, driven by the event loop: its transfers cost a third of the time of aiohttp's, names are
looked up in threads of their own, and every socket is asked for, with the address that it is for.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import pycurl
from yarl import URL

from streams.domain.webhooks import Trouble
from streams.webhooks.guard import ForbiddenAddress, Network, guarded_socket

__all__ = ["MOST_READ_BYTES", "Attempt", "Poster"]

MOST_READ_BYTES: Final = 16 * 1024
"""Of an answer's body; what is longer is cut off, with its connection."""

SHOWN_BYTES: Final = 1024
"""Of an answer's body, for people who look for what is wrong."""

CONNECT_S: Final = 5.0
BODY_S: Final = 1.0

KEEP_ALIVE_S: Final = 30
PARTS: Final = 64
MOST_KEPT: Final = 1_000
"""Connections that wait for another webhook, and handles that wait for another transfer."""

BASE_HEADERS: Final = {
    "User-Agent": "delivery-tracker",
    "Content-Type": "application/json",
    # nobody is asked whether he wants it
    "Expect": None,
}
RETRY_AFTER: Final = b"retry-after:"


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
    """Posts webhooks over connections that are kept; to be used and closed within one event loop.

    Over https it reaches public addresses and those that are allowed, over plain http only the latter.

    Args:
        allowed: networks of our own that webhooks may reach.
        authorities: a file of the authorities whose certificates are trusted; None: as the system has it.
        names: finds the addresses of a name; None: the system.
        body_s: how long is waited for a body when the status is known already, seconds.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        authorities: str | None = None,
        names: Callable[[str], Sequence[str]] | None = None,
        body_s: float = BODY_S,
    ) -> None:
        self._allowed = allowed
        self._authorities = authorities
        self._names = names
        self._body_s = body_s
        self._transfers: dict[int, _Transfers] = {}
        self._idle: list[_Exchange] = []

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Attempt:
        """Send a body once; whatever goes wrong is an outcome."""
        try:
            target = _target(url)
        except ForbiddenAddress:
            return Attempt(time.time_ns() // 1_000_000, 0, trouble="forbidden")
        except ValueError:
            return Attempt(time.time_ns() // 1_000_000, 0, trouble="invalid-url")
        exchange = self._idle.pop() if self._idle else _Exchange(self._allowed, self._authorities)
        exchange.prepare(target, headers, body, timeout_s)
        if self._names is not None:
            exchange.resolve(target, self._names(target.host))
        try:
            code = await self._transfers_to(target.host).perform(exchange)
        finally:
            exchange.release()
        attempt = exchange.attempt(code)
        if len(self._idle) < MOST_KEPT:
            self._idle.append(exchange)
        return attempt

    async def close(self) -> None:
        """Close all connections."""
        for transfers in self._transfers.values():
            transfers.close()
        self._transfers.clear()
        self._idle.clear()

    def _transfers_to(self, host: str) -> _Transfers:
        """Return what makes the transfers to a host.

        Each looks up some twenty names at a time: dead name servers must not hold up all others.
        """
        part = hash(host) % PARTS
        transfers = self._transfers.get(part)
        if transfers is None:
            transfers = self._transfers[part] = _Transfers(asyncio.get_running_loop(), self._body_s)
        return transfers


class Target(NamedTuple):
    """Where a webhook goes, as it is written in ASCII."""

    url: str
    is_public: bool
    host: str
    port: int


@lru_cache(4096)
def _target(url: str) -> Target:
    """Read a URL.

    Raises:
        ForbiddenAddress: it names one of our own links.
        ValueError: it is none of http.
    """
    parsed = URL(url)
    host, port = parsed.raw_host, parsed.port
    if parsed.scheme not in ("http", "https") or not host or port is None:
        raise ValueError("webhooks go over https")
    if "%" in host:
        raise ForbiddenAddress(host)
    return Target(str(parsed), parsed.scheme == "https", host, port)


class _Exchange:
    """A handle of libcurl, which is used again and again, and what came of the request that it has now."""

    def __init__(self, allowed: Sequence[Network], authorities: str | None) -> None:
        self._allowed = allowed
        self.body_until: float | None = None
        """Until when the rest of an answer is waited for whose status is known, by the loop's clock."""
        self._read = bytearray()
        self._given: list[socket.socket] = []
        self._is_public = False
        self._retry_after: str | None = None
        self._was_forbidden = False
        self._answered_at: float | None = None
        self._started_at, self._began, self._status = 0, 0.0, 0
        self.curl = curl = pycurl.Curl()
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open)
        curl.setopt(pycurl.HEADERFUNCTION, self._take_header)
        curl.setopt(pycurl.WRITEFUNCTION, self._take)
        # what the environment says of proxies is not meant for us, and would be a way around the guard
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.NOPROXY, "*")
        curl.setopt(pycurl.FOLLOWLOCATION, False)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        curl.setopt(pycurl.NOSIGNAL, True)
        curl.setopt(pycurl.MAXAGE_CONN, KEEP_ALIVE_S)
        for option, path in _authorities(authorities):
            curl.setopt(option, path)

    def prepare(self, target: Target, headers: Mapping[str, str], body: bytes, timeout_s: float) -> None:
        """Take a request."""
        self._is_public = target.is_public
        self._read.clear()
        self._status, self._retry_after, self._was_forbidden = 0, None, False
        self._answered_at = self.body_until = None
        self._started_at, self._began = time.time_ns() // 1_000_000, time.monotonic()
        curl = self.curl
        curl.setopt(pycurl.URL, target.url)
        lines = [f"{name}: {value}".encode() for name, value in headers.items()]
        curl.setopt(pycurl.HTTPHEADER, _BASE_LINES + lines)
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.TIMEOUT_MS, max(1, round(timeout_s * 1000)))
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, round(min(CONNECT_S, timeout_s) * 1000)))

    def resolve(self, target: Target, addresses: Sequence[str]) -> None:
        """Take the addresses of a name, instead of those that the system would find."""
        self.curl.setopt(pycurl.RESOLVE, [f"{target.host}:{target.port}:{','.join(addresses)}"])

    def attempt(self, code: int) -> Attempt:
        """Return what came of the request.

        Args:
            code: how the transfer ended, as libcurl says.
        """
        until = self._answered_at or time.monotonic()
        duration = round((until - self._began) * 1000)
        if self._answered_at is None:
            return Attempt(self._started_at, duration, trouble=self._trouble(code))
        # what the status says is said, whatever became of the body
        body = bytes(self._read[:SHOWN_BYTES])
        return Attempt(self._started_at, duration, self._status, body, self._retry_after)

    def _trouble(self, code: int) -> Trouble:
        if code == pycurl.E_COULDNT_CONNECT and self._was_forbidden:
            return "forbidden"
        return _TROUBLES.get(code, "protocol")

    def _open(self, purpose: int, address: Any) -> socket.socket | int:
        """Give libcurl the socket of a connection; it makes none that is not given here."""
        try:
            given = guarded_socket(address, self._allowed, public=self._is_public)
        except ForbiddenAddress:
            self._was_forbidden = True
        except OSError:
            # no more of them, or a family that there is not
            pass
        else:
            # pycurl takes a duplicate
            self._given.append(given)
            return given
        return int(pycurl.SOCKET_BAD)

    def release(self) -> None:
        """Let go of what was needed only while the transfer was under way."""
        for given in self._given:
            given.close()
        self._given.clear()

    def _take_header(self, line: bytes) -> None:
        if line.startswith(b"HTTP/"):
            # of an answer that comes before the answer nothing is kept
            status, self._retry_after = line.split(None, 2)[1:2], None
            self._status = int(status[0]) if status and _STATUS.fullmatch(status[0]) else 0
        elif line[: len(RETRY_AFTER)].lower() == RETRY_AFTER:
            self._retry_after = line[len(RETRY_AFTER) :].decode("latin-1").strip()
        elif self._answered_at is None and self._status >= OK and not line.strip():
            self._answered_at = time.monotonic()

    def _take(self, data: bytes) -> int | None:
        """Take some of the body; it is cut off where there is enough of it."""
        self._read += data
        return None if len(self._read) < MOST_READ_BYTES else ENOUGH

    @property
    def is_answered(self) -> bool:
        """Whether the status is known, and so what came of it."""
        return self._answered_at is not None


OK: Final = 200
_STATUS: Final = re.compile(rb"[1-9][0-9]{2}")
ENOUGH: Final = -1
_BASE_LINES: Final = [
    (f"{name}:" if value is None else f"{name}: {value}").encode() for name, value in BASE_HEADERS.items()
]


def _authorities(path: str | None) -> Iterator[tuple[int, str]]:
    """Yield where the authorities are found that are trusted: where Python's own TLS finds them."""
    if path is not None:
        yield pycurl.CAINFO, path
        return
    system = ssl.get_default_verify_paths()
    if system.cafile is not None:
        yield pycurl.CAINFO, system.cafile
    if system.capath is not None:
        yield pycurl.CAPATH, system.capath


class _Transfers:
    """Transfers side by side: libcurl says what it waits for, the loop when that comes.

    Args:
        body_s: how long is waited for a body when the status is known already, seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, body_s: float) -> None:
        self._loop = loop
        self._body_s = body_s
        self._under_way: dict[pycurl.Curl, tuple[_Exchange, asyncio.Future[int]]] = {}
        self._events: dict[int, int] = {}
        self._timer: asyncio.Handle | None = None
        self._look: asyncio.Handle | None = None
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._wake)
        self._multi.setopt(pycurl.M_MAXCONNECTS, MOST_KEPT // PARTS * 4)

    async def perform(self, exchange: _Exchange) -> int:
        """Make a transfer; return how it ended, as libcurl says."""
        future = self._loop.create_future()
        self._under_way[exchange.curl] = exchange, future
        self._multi.add_handle(exchange.curl)
        if self._look is None:
            self._look = self._loop.call_later(self._body_s / 2, self._cut_off)
        try:
            code: int = await future
        except asyncio.CancelledError:
            if exchange.curl in self._under_way:
                self._remove(exchange.curl)
            raise
        return code

    def close(self) -> None:
        """Close all connections; nothing is told of what is under way."""
        for curl in list(self._under_way):
            self._remove(curl).cancel()
        for handle in (self._timer, self._look):
            if handle is not None:
                handle.cancel()
        self._multi.close()
        for descriptor in list(self._events):
            self._watch(pycurl.POLL_REMOVE, descriptor)

    def _remove(self, curl: pycurl.Curl) -> asyncio.Future[int]:
        self._multi.remove_handle(curl)
        return self._under_way.pop(curl)[1]

    def _end(self, curl: pycurl.Curl, code: int) -> None:
        future = self._remove(curl)
        if not future.done():
            future.set_result(code)

    def _act(self, descriptor: int, events: int) -> None:
        """Let libcurl go on, and take what has ended."""
        self._multi.socket_action(descriptor, events)
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            for curl in good:
                self._end(curl, pycurl.E_OK)
            for curl, code, _ in bad:
                self._end(curl, code)

    def _watch(self, events: int, descriptor: int, *_: Any) -> None:
        """Take what libcurl waits for at a socket."""
        loop, before = self._loop, self._events.pop(descriptor, 0)
        now = 0 if events == pycurl.POLL_REMOVE else events
        if now:
            self._events[descriptor] = now
        for event, add, remove, ready in (
            (pycurl.POLL_IN, loop.add_reader, loop.remove_reader, pycurl.CSELECT_IN),
            (pycurl.POLL_OUT, loop.add_writer, loop.remove_writer, pycurl.CSELECT_OUT),
        ):
            if now & event and not before & event:
                add(descriptor, self._act, descriptor, ready)
            elif before & event and not now & event:
                remove(descriptor)

    def _wake(self, after_ms: int) -> None:
        """Take when libcurl wants to go on, whatever comes; below 0: never."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if after_ms >= 0:
            self._timer = self._loop.call_later(after_ms / 1000, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _cut_off(self) -> None:
        """End the transfers whose status has been known for long enough."""
        self._look = None
        now = self._loop.time()
        for curl, (exchange, _) in list(self._under_way.items()):
            if exchange.body_until is not None and now >= exchange.body_until:
                self._end(curl, pycurl.E_OPERATION_TIMEDOUT)
            elif exchange.body_until is None and exchange.is_answered:
                exchange.body_until = now + self._body_s / 2
        if self._under_way:
            self._look = self._loop.call_later(self._body_s / 2, self._cut_off)


_TROUBLES: Final[Mapping[int, Trouble]] = {
    pycurl.E_URL_MALFORMAT: "invalid-url",
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_COULDNT_CONNECT: "refused",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CIPHER: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_SSL_ISSUER_ERROR: "tls",
    pycurl.E_SSL_INVALIDCERTSTATUS: "tls",
    pycurl.E_GOT_NOTHING: "disconnected",
    pycurl.E_SEND_ERROR: "disconnected",
    pycurl.E_RECV_ERROR: "disconnected",
    pycurl.E_PARTIAL_FILE: "disconnected",
}
