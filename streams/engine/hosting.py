"""The Faust app that hosts the engine."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import faust
from aiokafka import AIOKafkaProducer
from faust.transport.drivers.aiokafka import server_list

from streams.engine.lanes import Lanes
from streams.engine.mirror import Mirror
from streams.engine.producing import PRODUCE_S, Producer
from streams.engine.reachability import Reachability
from streams.engine.reading import Listings, Rows, TableSnapshot
from streams.engine.repetitions import limit_repetitions
from streams.engine.schema import BatchSchema
from streams.engine.table import Table
from streams.engine.transport import Transport
from streams.engine.units import Output, TableLike

__all__ = ["StreamApp", "TableReader", "Worker"]

V = TypeVar("V")

log = logging.getLogger(__name__)

#: How long a worker whose lanes have ended may take until it has stopped, seconds.
LEAVE_S = 10.0
#: Seconds between two looks whether an idle worker should collect its garbage.
COLLECT_S = 5.0


class StreamApp(faust.App):
    """A Faust app whose input topics are applied by lanes.

    Args:
        sources: full names of the co-partitioned input topics; of records with equal timestamps, those of the
            first topic are applied first.
        partitions: number of partitions of each of them, and of each table.
        unit_records: most records of one transaction.
        idle_s: how long a lane waits for records of an input that are on the broker and not here; seconds.
        delete_retention_ms: the changelogs' ``delete.retention.ms``; Kafka's default if it is not given.
        codecs: by output topic, how its batches are compressed; a name of `compression.CODECS`.
    """

    def __init__(
        self,
        id: str,
        *,
        sources: Sequence[str],
        partitions: int,
        unit_records: int,
        idle_s: float = 0.0,
        delete_retention_ms: int = 86_400_000,
        codecs: Mapping[str, str] = {},
        **options: Any,
    ) -> None:
        super().__init__(
            id,
            # with our transaction manager only: Faust's own producer path loses and doubles records
            processing_guarantee="exactly_once",
            Table="streams.engine.table.Table",
            Worker="streams.engine.hosting.Worker",
            TableManager="streams.engine.recovery.BatchTableManager",
            stream_wait_empty=False,
            # batches on their way between the consumer and the lanes, which bound what waits
            stream_buffer_maxsize=32,
            stream_recovery_delay=0.0,
            consumer_auto_offset_reset="earliest",
            # compressed bytes a partition and fetch: about 2,500 callbacks under zstd
            consumer_max_fetch_size=1 << 16,
            topic_disable_leader=True,
            # all of them are there before the app starts
            topic_allow_declare=False,
            # 20 minutes by default: so long a worker that stops would wait for a broker that has gone
            producer_request_timeout=PRODUCE_S,
            topic_partitions=partitions,
            **options,
        )
        self.codecs = codecs
        self.reachability = Reachability()
        self.transport = Transport(self.conf.broker_consumer, self)
        self.lanes = Lanes(self, sources, partitions, unit_records, idle_s)
        self.lanes.closing_s = max(self.lanes.closing_s, self.conf.broker_session_timeout)
        self.delete_retention_ms = delete_retention_ms
        self.reader = TableReader(self)
        #: Returns the timestamp of records that are produced without one; ms.
        self.now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
        self._outside = Producer(self._make_producer, lambda: self.now_ms())
        self._mirrors: list[Mirror[Any]] = []
        self._preparations: list[tuple[Callable[[], Awaitable[None]], asyncio.Event]] = []
        self.every(COLLECT_S, self._rest)

    def every(self, interval_s: float, doing: Callable[[], Awaitable[None]]) -> None:
        """Have something done again and again while the app runs, so long after it last ended.

        Faust's own timers keep a beat, and warn at each one that is late: what waits for lanes that catch up
        is always late.
        """

        async def repeat() -> None:
            while not self.should_stop:
                # comes back early when the app stops
                await self.sleep(interval_s)
                if not self.should_stop:
                    await doing()

        self.task(repeat)

    async def or_crash(self, doing: Awaitable[None]) -> None:
        """Do what goes on as long as the app runs; stop the app if it fails."""
        try:
            await doing
        except Exception as error:
            log.exception("a task of the worker failed, the worker stops")
            await self.crash(error)

    def mirror(self, table: Table[V], take: Callable[[bytes, V | None], None]) -> None:
        """Let all of a table be known here; lanes begin when it is. To be called before the app starts."""
        mirror = Mirror(self, table, take)
        self._mirrors.append(mirror)
        self.lanes.gates.append(mirror.whole)

    def before_lanes(self, doing: Callable[[], Awaitable[None]]) -> None:
        """Have something done while the app starts; lanes begin when it is. To be called before that."""
        done = asyncio.Event()
        self._preparations.append((doing, done))
        self.lanes.gates.append(done)

    async def _prepare(self, doing: Callable[[], Awaitable[None]], done: asyncio.Event) -> None:
        await doing()
        done.set()

    async def on_start(self) -> None:
        """Read the mirrors while the group is joined and tables are recovered."""
        await super().on_start()
        for doing, done in self._preparations:
            # Faust starts tasks when recovery is complete, which these hold up
            self.add_future(self.or_crash(self._prepare(doing, done)))
        for mirror in self._mirrors:
            # lanes that know too little would not tell whom they should
            self.add_future(self.or_crash(mirror.follow()))

    async def _rest(self) -> None:
        self.lanes.rest()

    def batches_of(self, topic: str) -> Any:
        """Return the Faust topic whose events are batches of the records of `topic`."""
        return self.topic(topic, schema=BatchSchema(), partitions=self.lanes.partitions)

    async def produce(self, topic: str, partition: int, records: Sequence[Output]) -> int:
        """Produce outside of any transaction, as everybody does to an input topic; see `Producer.produce`."""
        return await self._outside.produce(topic, partition, records)

    def _make_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=server_list(self.transport.url, 9092),
            client_id=f"{self.conf.broker_client_id}-outside",
            enable_idempotence=True,
            request_timeout_ms=round(PRODUCE_S * 1000),
            linger_ms=0,
        )

    async def on_stop(self) -> None:
        """Close the producer of records outside of transactions."""
        await self._outside.stop()
        await super().on_stop()

    async def _stop_consumer(self) -> None:
        # before Faust closes the stores that a commit in flight still writes to
        await self.lanes.stop()
        _leave_in_time()
        await super()._stop_consumer()


class Worker(faust.Worker):
    """Faust's worker: it leaves when all has stopped, and does not repeat lines of its log without end."""

    def _setup_logging(self) -> None:
        super()._setup_logging()
        limit_repetitions(logging.root.handlers)

    async def _sentinel_task(self) -> None:
        """Leave: nothing is under way any more."""


def _leave_in_time() -> None:
    """See that the process of a worker that stops does end.

    Its lanes have ended; what is not flushed yet is in the changelog. But aiokafka's producer and consumer
    wait for a broker that has gone until it is back.
    """

    def leave() -> None:
        log.error("not stopped within %g s; is the broker gone? leaving at once", LEAVE_S)
        os._exit(1)

    timer = threading.Timer(LEAVE_S, leave)
    timer.daemon = True
    timer.start()


class TableReader:
    """Answers what other threads of thought than the lanes ask of the tables; see `reading.Reader`."""

    def __init__(self, app: StreamApp) -> None:
        self._app = app

    @property
    def partitions(self) -> int:
        """Number of partitions of each table."""
        return self._app.lanes.partitions

    def held(self) -> frozenset[int]:
        """Return the partitions that are recovered and open here."""
        return self._app.lanes.numbers()

    def holder(self, partition: int) -> str | None:
        """Return the base URL of the worker that holds `partition`, as the group's leader told all."""
        for url, topics in self._app.assignor.changelog_distribution.items():  # type: ignore[attr-defined]
            if any(partition in numbers for numbers in topics.values()):
                return str(url)
        return None

    def ready(self) -> tuple[bool, str]:
        """Return whether this worker serves all that the group gave it, and if not, why."""
        app = self._app
        if app.should_stop:
            return False, "the worker is stopping"
        if app.consumer_generation_id <= 0:
            return False, "the worker has not joined its group yet"
        if opening := app.consumer.transactions.opening:  # type: ignore[attr-defined]
            return False, f"transactional ids are being opened: {sorted(opening)}"
        if app.rebalancing:
            return False, "the group is rebalancing"
        silence_s = app.reachability.silence_s()
        if silence_s > app.conf.broker_session_timeout:
            return False, f"the broker has not answered for {silence_s:.0f} s"
        if not app.lanes.is_open:
            return False, "tables are being recovered from their changelogs"
        if troubles := app.lanes.troubles():
            return False, "; ".join(troubles)
        return True, f"partitions {sorted(self.held())}"

    def clock(self, partition: int, now: int) -> int:
        """Return the time that a partition's lane has come to; ms."""
        return self._app.lanes.clock(partition, now)

    def latest(self, topic: str) -> int | None:
        """Return the timestamp of a topic's records that most lanes here have come to; ms."""
        return self._app.lanes.latest(topic)

    def get(self, table: TableLike[V], partition: int, key: bytes) -> V | None:
        """Return the stored value of `key`."""
        return self.get_many(table, partition, [key])[0]

    def get_many(self, table: TableLike[V], partition: int, keys: Sequence[bytes]) -> list[V | None]:
        """Return the stored values of some keys."""
        decode = table.format.decode
        found = self._store(table, partition).read_many(keys)
        return [None if stored is None else decode(stored) for stored in found]

    def scan_index(
        self,
        table: TableLike[Any],
        partition: int,
        prefix: bytes,
        limit: int,
        after: bytes | None = None,
        before: bytes | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Return listings by prefix, in order, each cut into entry and key."""
        listings = self._store(table, partition).scan_index(prefix, limit, after, before)
        width = table.format.index_bytes
        return [(listing[:width], listing[width:]) for listing in listings]

    def snapshot(self, table: TableLike[V], partition: int) -> TableSnapshot[V]:
        """Return the table as it is now."""
        return TableSnapshot(self._store(table, partition).snapshot(), table.format)

    def rows(self, table: TableLike[V], partition: int, first: bytes, end: bytes) -> Rows[V]:
        """Return rows as they are now."""
        return Rows(self._store(table, partition).rows(first, end), table.format)

    def listings(self, table: TableLike[Any], partition: int, first: bytes, end: bytes) -> Listings:
        """Return entries of the index as they are now."""
        return Listings(self._store(table, partition).listings(first, end), table.format)

    def _store(self, table: TableLike[Any], partition: int) -> Any:
        store = table.store.opened(partition)  # type: ignore[attr-defined]
        if store is None:
            raise LookupError(f"partition {partition} of table {table.name} is not open here")
        return store
