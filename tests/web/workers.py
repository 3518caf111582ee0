"""Workers that keep their tables in memory and serve the real views over HTTP on loopback."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from agents.flows import Tables
from streams.domain.placement import partition_of
from streams.domain.statuses import Status
from streams.engine.calls import Calls
from streams.engine.formats import Format
from streams.engine.reading import Listings, Rows, TableSnapshot
from streams.engine.units import Headers
from streams.messages import Stream
from streams.web.answers import CleanedPart
from streams.web.commands import Doing, Placed
from streams.web.counting import StatsTables
from streams.web.endpoints import Kept
from streams.web.views import mount
from streams.webhooks.guard import networks_of
from streams.webhooks.posting import Poster
from streams.webhooks.sealing import Sealer
from tests.agents.flowing import COUNTING, TABLES, Partition, Record, Table, listings, record, status

Step = Callable[[int], None]

PARTITIONS = 6
NOBODY = "http://127.0.0.1:1"
#: What the workers' clocks say, and how long they keep records.
NOW = 1_700_000_000_000 + 3_600_000
RETENTION_MS = 30 * 86_400_000
STATS_TABLES = StatsTables(TABLES.deliveries, COUNTING.period_stats, COUNTING.pending_stats)


class Data:
    """What the tables of all partitions hold: stored bytes, as in RocksDB, made by the real handlers."""

    def __init__(self, partitions: int = PARTITIONS, tables: Tables = TABLES) -> None:
        self.partitions = partitions
        self.tables = tables
        self.parts = [Partition(number, partitions, tables=tables) for number in range(partitions)]

    def table(self, table: Table, partition: int) -> dict[bytes, bytes]:
        return self.parts[partition].stored.setdefault(table.name, {})

    def partition_of(self, message_id: str) -> int:
        return partition_of(message_id.encode(), self.partitions)

    def say(self, message_id: str, name: Status, at: int, provider: str = "kt", **said: Any) -> None:
        """Have one status applied that came when it happened."""
        part = self.parts[self.partition_of(message_id)]
        part.say(status(name, message_id, receipt=at, timestamp=at, provider=provider, **said))

    def mark(self, message_id: str, *, stopped: bool) -> None:
        """Stop or erase a message, known or not."""
        part = self.parts[self.partition_of(message_id)]
        part.ask(record(message_id, type="stop" if stopped else "erase", receipt=1_700_000_000_000))

    def name_in(self, partition: int, prefix: str = "m") -> str:
        """Return a message id that Kafka's partitioner lays in this partition."""
        names = (f"{prefix}-{number}" for number in itertools.count())
        return next(name for name in names if self.partition_of(name) == partition)

    def one_per_partition(self, prefix: str = "m") -> list[str]:
        return [self.name_in(partition, prefix) for partition in range(self.partitions)]


class SteppedRows(Rows[Any]):
    """Rows, and a call for each step."""

    def __init__(self, rows: Iterator[tuple[bytes, bytes]], format_: Format[Any], step: Step) -> None:
        super().__init__(rows, format_)
        self.step = step

    def take(self, limit: int) -> list[tuple[bytes, Any]]:
        self.step(limit)
        return super().take(limit)


class SteppedListings(Listings):
    """Entries of an index, and a call for each step."""

    def __init__(self, entries: Iterator[bytes], format_: Format[Any], step: Step) -> None:
        super().__init__(entries, format_)
        self.step = step

    def take(self, limit: int) -> list[tuple[bytes, bytes]]:
        self.step(limit)
        return super().take(limit)


class MemoryReader:
    """A reader over `Data` that holds what it is told to, and refuses to read anything else.

    Attributes:
        believed: who holds what, as far as this worker knows.
        after_read: called after each step of reading, to let something happen in between.
        steps: rows asked for, by step.
    """

    def __init__(self, data: Data, own: Sequence[int] = ()) -> None:
        self.data = data
        self.own = set(own)
        self.believed: dict[int, str | None] = {}
        self.state: tuple[bool, str] = (True, "")
        self.after_read: Callable[[], None] = lambda: None
        self.steps: list[int] = []

    @property
    def partitions(self) -> int:
        return self.data.partitions

    def held(self) -> frozenset[int]:
        return frozenset(self.own)

    def holder(self, partition: int) -> str | None:
        return self.believed.get(partition)

    def ready(self) -> tuple[bool, str]:
        return self.state

    def clock(self, partition: int, now: int) -> int:
        return now

    def get(self, table: Any, partition: int, key: bytes) -> Any:
        stored = self._read(table, partition).get(key)
        self.after_read()
        return None if stored is None else table.format.decode(stored)

    def get_many(self, table: Any, partition: int, keys: Sequence[bytes]) -> list[Any]:
        return [self.get(table, partition, key) for key in keys]

    def snapshot(self, table: Any, partition: int) -> TableSnapshot[Any]:
        return TableSnapshot(dict(self._read(table, partition)), table.format)

    def rows(self, table: Any, partition: int, first: bytes, end: bytes) -> Rows[Any]:
        rows = [row for row in sorted(self._read(table, partition).items()) if first <= row[0] < end]
        return SteppedRows(iter(rows), table.format, self._step)

    def listings(self, table: Any, partition: int, first: bytes, end: bytes) -> Listings:
        found = listings(self._read(table, partition), table.format, b"", None, end)
        listed = [entry + key for entry, key in found]
        some = [listing for listing in listed if listing >= first]
        return SteppedListings(iter(some), table.format, self._step)

    def scan_index(
        self,
        table: Any,
        partition: int,
        prefix: bytes,
        limit: int,
        after: bytes | None = None,
        before: bytes | None = None,
    ) -> list[tuple[bytes, bytes]]:
        found = listings(self._read(table, partition), table.format, prefix, after, before)
        self._step(limit)
        return found[:limit]

    def _read(self, table: Any, partition: int) -> dict[bytes, bytes]:
        assert partition in self.own, f"partition {partition} is read but not held"
        return self.data.table(table, partition)

    def _step(self, limit: int) -> None:
        self.steps.append(limit)
        self.after_read()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Produced:
    """The input topics, in memory.

    Attributes:
        down: makes them refuse.
        outcome: what the lane says at once of each record that is waited for; None: nothing.
        applied: whose lanes apply the requests at once; None: nobody's.
        cleaned: what a cleanup comes to: removed, expired, whether that was all.
        own: the partitions that are held here.
    """

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, Any, int]] = []
        self.down = False
        self.outcome: str | None = None
        self.applied: Data | None = None
        self.cleaned = (0, 0, True)
        self.calls = Calls()

        self.own: set[int] = set()

    async def clean_up(self, partitions: Sequence[int], within_s: float) -> CleanedPart:
        return CleanedPart(tuple(sorted(self.own & set(partitions))), *self.cleaned)

    async def take(
        self, stream: Stream, key: bytes, value: bytes, partition: int, headers: Headers
    ) -> Placed:
        if self.down:
            raise ConnectionError("the secret address of the broker")
        self.records.append((stream, key, json.loads(value), partition))
        if self.applied is not None:
            part, applied = self.applied.parts[partition], Record(value, key, NOW, headers)
            part.hear(applied) if stream == "webhooks" else part.ask(applied)
            self.calls.tell(part.told)
        if self.outcome is not None:
            self.calls.tell([(token, self.outcome) for _, token in headers])
        return Placed(f"delivery.{stream}", partition, len(self.records) - 1)


@dataclass
class Worker:
    """One worker: what it reads, where it serves, what it was asked, and what it produced."""

    reader: MemoryReader
    produced: Produced = field(default_factory=Produced)
    url: str = ""
    asked: list[tuple[str, bool]] = field(default_factory=list)


class Group:
    """Workers that share the partitions of one data set."""

    def __init__(self, stack: AsyncExitStack, client: aiohttp.ClientSession, data: Data) -> None:
        self._stack = stack
        self._client = client
        self.data = data
        self.workers: list[Worker] = []
        self.sealer: Sealer | None = Sealer({"k1": b"\x01" * 32})

    async def start(self, shares: Sequence[Sequence[int]]) -> list[Worker]:
        """Start one worker for each share; all of them know who holds what."""
        for share in shares:
            worker = Worker(MemoryReader(self.data, share))
            worker.url = await self.serve(self._application(worker))
            self.workers.append(worker)
        self.tell()
        return self.workers

    def tell(self) -> None:
        """Tell every worker who holds what now."""
        for worker in self.workers:
            worker.reader.believed = {p: other.url for other in self.workers for p in other.reader.own}

    def assign(self, shares: Sequence[Sequence[int]]) -> None:
        """Share the partitions out anew."""
        for worker, share in zip(self.workers, shares, strict=True):
            worker.reader.own = set(share)
        self.tell()

    def holder_of(self, message_id: str) -> Worker:
        partition = self.data.partition_of(message_id)
        return next(worker for worker in self.workers if partition in worker.reader.own)

    async def serve(self, application: web.Application) -> str:
        """Serve an application on a free port of loopback until the test ends."""
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return "http://{}:{}".format(*runner.addresses[0])

    async def get(self, worker: Worker | str, path: str, **options: Any) -> Reply:
        base = worker if isinstance(worker, str) else worker.url
        method = options.pop("method", "GET")
        url = URL(base + path, encoded=True)
        async with self._client.request(method, url, allow_redirects=False, **options) as response:
            return Reply(response.status, dict(response.headers), await response.read())

    async def walk(self, path: str, askers: Iterator[Worker], cursor: str | None = None) -> list[list[Any]]:
        """Follow nextCursor to the end, asking a worker after the other; returns the items of each page."""
        pages = []
        while True:
            page = (await self.get(next(askers), path + (f"&cursor={cursor}" if cursor else ""))).json
            pages.append(page["items"])
            cursor = page["nextCursor"]
            if cursor is None:
                return pages

    def _application(self, worker: Worker) -> web.Application:
        worker.produced.own = worker.reader.own

        @web.middleware
        async def note(request: web.Request, handler: Any) -> web.StreamResponse:
            worker.asked.append((request.raw_path, "X-Tracker-Hop" in request.headers))
            response: web.StreamResponse = await handler(request)
            return response

        application = web.Application(middlewares=[note])
        doing = Doing(worker.produced.take, worker.produced.clean_up, worker.produced.calls)
        allowed = networks_of("10.1.0.0/16,127.0.0.2")
        kept = Kept(TABLES.endpoints, self.sealer, allowed, Poster(allowed))
        telling = self.data.tables.telling
        mount(
            application,
            worker.reader,
            STATS_TABLES,
            doing,
            RETENTION_MS,
            lambda: NOW,
            kept,
            telling.tables,
            telling.routing.endpoints,
        )
        return application


def ids(items: Iterable[Any]) -> list[str]:
    return [item["messageId"] for item in items]
