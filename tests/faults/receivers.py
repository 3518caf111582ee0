"""Receivers of webhooks that misbehave, each in its own way, until they are healed."""

import asyncio
import random
import ssl
import threading
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

import trustme
from standardwebhooks import Webhook, WebhookVerificationError

MODES = ("good", "refusing", "500", "resets", "tls", "endless", "slow", "redirect")
FAULTY_SHARE = 0.7
AWAY_S, BACK_S = 3.0, 1.5
HTTPS = frozenset({"tls"})

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


@dataclass(frozen=True)
class Arrival:
    """A request whose signature was verified; `taken`: it was answered 2xx."""

    at: float
    webhook_id: str
    body: bytes
    taken: bool


@dataclass
class Receivers:
    """One receiver for each way to misbehave, in a thread of their own, on loopback."""

    seed: int
    secrets: dict[str, str]
    ports: dict[str, int]
    healed: bool = False
    trapped: int = 0
    unsigned: list[str] = field(default_factory=list)
    arrivals: dict[str, list[Arrival]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._good, self._bad = trustme.CA(), trustme.CA()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._good.issue_cert("127.0.0.1").configure_cert(self._tls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="receivers", daemon=True)
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._verifiers = {mode: Webhook(secret) for mode, secret in self.secrets.items()}

    def trust(self, path: Any) -> None:
        """Write the certificate of who signs the good ones."""
        self._good.cert_pem.write_to_path(str(path))

    def url(self, mode: str) -> str:
        scheme = "https" if mode in HTTPS else "http"
        return f"{scheme}://127.0.0.1:{self.ports[mode]}/hooks/{mode}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self) -> None:
        trap = await asyncio.start_server(self._trap, "127.0.0.1", self.ports["trap"])
        for mode in MODES:
            if mode != "refusing":
                await self._listen(mode)
        tasks = [asyncio.create_task(self._come_and_go()), asyncio.create_task(self._change_certificates())]
        self._ready.set()
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        for server in (trap, *self._servers):
            server.close()

    async def _listen(self, mode: str) -> asyncio.Server:
        async def one(reader: Reader, writer: Writer) -> None:
            try:
                await self._take(mode, reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, TimeoutError):
                pass
            finally:
                writer.close()

        tls = self._tls if mode in HTTPS else None
        server = await asyncio.start_server(one, "127.0.0.1", self.ports[mode], ssl=tls)
        self._servers.append(server)
        return server

    async def _come_and_go(self) -> None:
        """Refuse connections most of the time, by not being there."""
        while True:
            server = await self._listen("refusing")
            await asyncio.sleep(BACK_S)
            while self.healed:
                await asyncio.sleep(BACK_S)
            server.close()
            self._servers.remove(server)
            await asyncio.sleep(AWAY_S)

    async def _change_certificates(self) -> None:
        """Show a certificate of nobody most of the time."""
        good, bad = (ca.issue_cert("127.0.0.1") for ca in (self._good, self._bad))
        while True:
            bad.configure_cert(self._tls)
            await asyncio.sleep(0.0 if self.healed else AWAY_S)
            good.configure_cert(self._tls)
            await asyncio.sleep(BACK_S)
            while self.healed:
                await asyncio.sleep(BACK_S)

    async def _trap(self, reader: Reader, writer: Writer) -> None:
        self.trapped += 1
        writer.close()

    async def _take(self, mode: str, reader: Reader, writer: Writer) -> None:
        """One request a connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        lines = (line.partition(":") for line in head[1:])
        headers = {name.lower(): value.strip() for name, _, value in lines}
        body = await reader.readexactly(int(headers["content-length"]))
        try:
            self._verifiers[mode].verify(body, headers)
        except WebhookVerificationError as error:
            self.unsigned.append(f"{mode}: {error}")
            return
        faulty = not self.healed and self._rng.random() < FAULTY_SHARE
        misbehave = MISBEHAVIOURS.get(mode) if faulty else None
        taken = misbehave is None or (mode == "endless" and self._rng.random() < 0.5)
        self.arrivals[mode].append(Arrival(time.time(), headers["webhook-id"], sha256(body).digest(), taken))
        if misbehave is None:
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
        else:
            await misbehave(self, writer, taken)

    async def fail(self, writer: Writer, taken: bool) -> None:
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope")
        await writer.drain()

    async def reset(self, writer: Writer, taken: bool) -> None:
        writer.transport.abort()

    async def flood(self, writer: Writer, taken: bool) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if taken else b"HTTP/1.1 500 Oops\r\n\r\n")
        while True:
            writer.write(bytes(65_536))
            await writer.drain()

    async def trickle(self, writer: Writer, taken: bool) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1)

    async def redirect(self, writer: Writer, taken: bool) -> None:
        where = f"http://127.0.0.1:{self.ports['trap']}/"
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()


MISBEHAVIOURS: dict[str, Callable[[Receivers, Writer, bool], Awaitable[None]]] = {
    "500": Receivers.fail,
    "resets": Receivers.reset,
    "endless": Receivers.flood,
    "slow": Receivers.trickle,
    "redirect": Receivers.redirect,
}


def secret_of(rng: random.Random) -> str:
    return "whsec_" + b64encode(rng.randbytes(32)).decode()
