"""A receiver that costs little: it answers every POST with 204, and ``GET /n`` with what came after n others.

``python -m bench.receiving PORT… [--slow PORT…]``; the slow ones take a request and never answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from datetime import datetime
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
LENGTH = b"content-length: "
TIMESTAMP = b'"timestamp":"'
TIME_BYTES = len("2026-11-23T09:00:00.123Z")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


class Receiver(asyncio.Protocol):
    """One connection, kept; requests one after the other."""

    taken = 0
    # of all connections; looked at only when somebody asks, for the lanes have other work for the processor
    arrivals: list[tuple[float, bytes]] = []  # noqa: RUF012
    delays_ms: list[float] = []  # noqa: RUF012

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is no asyncio.Transport
        self._transport = cast(asyncio.Transport, transport)
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].lower()
            found = head.find(LENGTH)
            length = 0 if found < 0 else int(head[found + len(LENGTH) :].split(b"\r\n", 1)[0])
            if len(self._read) < end + 4 + length:
                return
            body, self._read = self._read[end + 4 : end + 4 + length], self._read[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get"):
            said = json.dumps(figures(int(head.split()[1][1:] or b"0"))).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
            return
        Receiver.taken += 1
        begin = body.index(TIMESTAMP) + len(TIMESTAMP)
        Receiver.arrivals.append((time.time(), body[begin : begin + TIME_BYTES]))
        self._transport.write(ANSWER)


class Slow(asyncio.Protocol):
    """Reads, and says nothing."""


def delay_ms(arrived_s: float, happened_at: bytes) -> float:
    """How late a webhook was, by the time that stands in it."""
    return (arrived_s - datetime.fromisoformat(happened_at.decode()).timestamp()) * 1000


def figures(after: int) -> dict[str, float]:
    """How many have come, and how late those did that came after so many."""
    arrivals, Receiver.arrivals = Receiver.arrivals, []
    Receiver.delays_ms += [delay_ms(*arrival) for arrival in arrivals]
    delays = sorted(Receiver.delays_ms[after:])
    quantiles = {name: delays[int(share * (len(delays) - 1))] for name, share in QUANTILES.items() if delays}
    return {"taken": Receiver.taken, **quantiles}


async def main(ports: list[int], slow: list[int]) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Receiver, "127.0.0.1", port) for port in ports]
    servers += [await loop.create_server(Slow, "127.0.0.1", port) for port in slow]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("ports", type=int, nargs="+")
    parser.add_argument("--slow", type=int, nargs="*", default=[])
    given = parser.parse_args()
    uvloop.run(main(given.ports, given.slow))
