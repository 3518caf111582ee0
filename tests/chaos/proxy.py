"""TCP proxies between workers and brokers: connections that are cut, slow, or silent."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

CHUNK_BYTES = 1 << 16
LOOK_S = 0.02


class Proxy:
    """One proxy on 127.0.0.1; what it does to connections may change at any moment.

    Attributes:
        port: where it listens.
        delay_s: how long each piece of up to CHUNK_BYTES is kept; pieces queue, so throughput falls, too.
        silent: whether nothing gets through, while connections stay and new ones are taken.
        refusing: whether new connections are closed at once.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay_s = 0.0
        self.silent = False
        self.refusing = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def cut(self) -> int:
        """Reset all connections; return how many ends there were."""
        writers, self._writers = self._writers, set()
        for writer in writers:
            _reset(writer)
        return len(writers)

    def heal(self) -> None:
        self.delay_s, self.silent, self.refusing = 0.0, False, False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            _reset(writer)
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        ends = {writer, back}
        self._writers |= ends
        await asyncio.wait(
            [asyncio.create_task(self._pump(reader, back)), asyncio.create_task(self._pump(there, writer))]
        )
        self._writers -= ends
        for end in ends:
            end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one direction until either end closes; then the other end closes, too."""
        with contextlib.suppress(OSError):
            while piece := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while self.silent and not writer.is_closing():
                    await asyncio.sleep(LOOK_S)
                writer.write(piece)
                await writer.drain()
        writer.close()


class Network:
    """Proxies in a thread with an event loop of its own; leaving the block closes them all."""

    def __init__(self) -> None:
        self.proxies: list[Proxy] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for proxy in self.proxies:
            self._run(proxy.close())
        self._run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def proxy(self, target: int, port: int = 0) -> Proxy:
        """Open a proxy for a port of 127.0.0.1."""
        proxy = Proxy(target)
        proxy.port = port
        self._run(proxy.open())
        self.proxies.append(proxy)
        return proxy

    def cut(self, proxy: Proxy) -> int:
        return int(self._run(proxy.cut()))

    def _run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(10)

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a router does that has forgotten a connection."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it has been closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
