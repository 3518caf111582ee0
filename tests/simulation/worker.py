"""A simulated worker: the engine's own lanes, transactions and recovery, without Faust around them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from faust.exceptions import ConsistencyError
from faust.types import TP
from yarl import URL

from streams.engine import transactions
from streams.engine.batches import Batch
from streams.engine.changelogs import LogId
from streams.engine.hosting import LEAVE_S, StreamApp
from streams.engine.lanes import Lanes
from streams.engine.producing import Producer
from streams.engine.recovery import BatchRecovery
from streams.engine.transactions import PartitionTransactions
from streams.engine.transport import BatchConsumer, _checked
from streams.engine.units import Output
from tests.simulation.cluster import GROUP, Cluster
from tests.simulation.groups import Group
from tests.simulation.handlers import COMMANDS, FORMATS, ORDERS, Handler, bury
from tests.simulation.loop import Process
from tests.simulation.stores import Directory, Table
from tests.simulation.webhooks import OUTCOMES, WEBHOOK_FORMATS, Receivers, Webhooks

__all__ = ["Worker"]

UNIT_RECORDS: Final = 20
#: How long a lane waits for an input whose records are not there yet, seconds.
IDLE_S: Final = 0.3
POLL_RECORDS: Final = 15
POLL_S: Final = 0.15
RETRY_S: Final = 0.1
LOOK_AGAIN_S: Final = 1.0


class _Tables(dict[str, Table]):
    """What Faust's table manager is to recovery."""

    standbys_ready = True
    recovery: Any = None


class _App:
    """What the Faust app is to the engine."""

    in_recovery = False

    def __init__(self, worker: Worker, urls: list[URL]) -> None:
        self._worker = worker
        self.conf = SimpleNamespace(id=GROUP, broker_client_id="worker", stream_recovery_delay=0.0)
        self.transport = SimpleNamespace(url=urls, app=self)
        self.assignor = SimpleNamespace(is_standby=lambda tp: False)
        self.codecs: dict[str, str] = {}
        self.delete_retention_ms = 86_400_000
        self.consumer_generation_id = 0
        self.tables = _Tables(
            {name: Table(name, format, worker.directory) for name, format in worker.formats.items()}
        )
        self.lanes: Any = None
        self.consumer: Any = None
        self._outside: Any = None

    def now_ms(self) -> int:
        """Return the timestamp of records that have none."""
        return int(time.time() * 1000)

    async def crash(self, error: BaseException) -> None:
        """End the worker."""
        self._worker.crash(error)


class _Changelogs:
    """What recovery asks the broker about changelogs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def _answered(self) -> None:
        await asyncio.sleep(self._cluster.schedule.latency_s())

    async def ids(self, partitions: Iterable[TP]) -> dict[TP, LogId]:
        """Return the identities of logs; none is ever made anew."""
        await self._answered()
        return {tp: LogId("cluster", tp.topic, tp.partition, "id") for tp in partitions}

    async def ends(self, partitions: Iterable[TP]) -> dict[TP, int]:
        """Return the ends of logs."""
        await self._answered()
        return {tp: self._cluster.logs[tp.topic, tp.partition].end for tp in partitions}

    async def newer_than(self, timestamps_ms: Mapping[TP, int]) -> frozenset[TP]:
        """Return the partitions with a record that is later than a timestamp."""
        await self._answered()
        return frozenset(
            tp
            for tp, timestamp_ms in timestamps_ms.items()
            if any(
                record.timestamp > timestamp_ms
                for record in self._cluster.logs[tp.topic, tp.partition].committed()
            )
        )


class Consumer:
    """A simulated consumer: real batches of the simulated logs, with the faults that polls and seeks have.

    Positions are `read_committed`, as aiokafka's are: they pass what is never delivered.
    """

    def __init__(self, worker: Worker) -> None:
        self.app = worker.app
        self._worker = worker
        self._cluster = worker.cluster
        self._schedule = worker.cluster.schedule
        self._assigned: dict[TP, None] = {}
        self._paused: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self._lagging: frozenset[TP] = frozenset()
        self._stable_ends: dict[TP, int | None] = {}
        # what `BatchConsumer.seek_to_committed` asks
        self._thread = self
        self.transactions = PartitionTransactions(self.app.transport, consumer=self, producer=None)

    def assign(self, tps: Iterable[TP]) -> None:
        """Begin with other partitions, which are not polled yet."""
        self._assigned = dict.fromkeys(tps)
        self._paused = set(self._assigned)
        self._positions = {}
        self._lagging = frozenset(self._assigned)
        self._stable_ends = {}

    def resume(self, tps: Iterable[TP]) -> None:
        """Poll these partitions."""
        self._paused -= set(tps)

    def pause(self, tps: Iterable[TP]) -> None:
        """Do not poll these partitions."""
        self._paused |= set(tps)

    def lagging(self) -> frozenset[TP]:
        """Return the partitions that had more than the last poll has brought."""
        return self._lagging

    def stable_ends(self) -> Mapping[TP, int | None]:
        """Return up to where each partition can be read, as the last poll said."""
        return self._stable_ends

    async def _ask(self, api: str) -> None:
        """Wait as long as a request takes that aiokafka repeats until it succeeds."""
        await asyncio.sleep(self._schedule.latency_s())
        while self._schedule.error(api):
            await asyncio.sleep(RETRY_S)

    async def seek_noted(self, offsets: Mapping[TP, int]) -> None:
        """Seek the partitions that are still assigned."""
        await asyncio.sleep(self._schedule.latency_s() / 4)
        for tp, offset in offsets.items():
            if tp in self._assigned:
                self._positions[tp] = offset

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to where the lanes stand, and open them."""
        return await BatchConsumer.seek_to_committed(self)  # type: ignore[arg-type]

    async def stands(self, partitions: Iterable[TP]) -> Mapping[TP, int]:
        """Return where the lanes begin."""
        tps = list(partitions)
        await self._ask("OffsetFetch")
        committed = {tp: self._cluster.offsets.committed.get((tp.topic, tp.partition)) for tp in tps}
        await self._ask("ListOffsets")
        return {
            tp: _checked(
                TopicPartition(*tp), committed[tp], 0, self._cluster.logs[tp.topic, tp.partition].end
            )
            for tp in tps
        }

    async def highwaters(self, *tps: TP) -> Mapping[TP, int]:
        """Return the logs' ends."""
        await self._ask("ListOffsets")
        return {tp: self._cluster.logs[tp.topic, tp.partition].end for tp in tps}

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        """Return the logs' starts."""
        await self._ask("ListOffsets")
        return dict.fromkeys(tps, 0)

    async def poll_forever(self) -> None:
        """Hand on what is polled until the worker ends."""
        pause = 0.0
        while True:
            generation = self.app.consumer_generation_id
            active = self.app.lanes.with_room(tp for tp in self._assigned if tp not in self._paused)
            batches = await self._poll(sorted(active), pause)
            for batch in batches:
                if generation != self.app.consumer_generation_id:
                    break
                await self._deliver(batch, generation)
            else:
                self.app.lanes.polls += 1
            pause = 0.0 if batches else POLL_S

    async def _poll(self, active: list[TP], pause: float) -> list[Batch]:
        assigned = self._assigned
        await asyncio.sleep(pause + self._schedule.latency_s())
        if self._assigned is not assigned:
            return []
        batches, lagging = [], set()
        for tp in active:
            start = self._positions.get(tp)
            if start is None or self._schedule.error("Fetch"):
                lagging.add(tp)
                continue
            log = self._cluster.logs[tp.topic, tp.partition]
            records, end = log.read(start, POLL_RECORDS)
            self._stable_ends[tp] = log.stable_end
            if log.end > end:
                lagging.add(tp)
            if end > start:
                batches.append(Batch(tp.topic, tp.partition, start, end, records))
                self._positions[tp] = end
        self._lagging = frozenset(lagging)
        return batches

    async def _deliver(self, batch: Batch, generation: int) -> None:
        """Hand a batch on: in most cases once, and now."""
        schedule, process = self._schedule, self._worker.process
        if batch.topic in (ORDERS, COMMANDS) and schedule.happens("dropped batch"):
            return  # recovery loses batches to rebalances only, which seek again
        if schedule.happens("repeated batch"):
            process.spawn(self._deliver_late(batch, generation))
        if schedule.happens("late batch"):
            process.spawn(self._deliver_late(batch, generation))
            return
        await self._hand_on(batch, generation)

    async def _deliver_late(self, batch: Batch, generation: int) -> None:
        await asyncio.sleep(self._schedule.random.uniform(0.0, 2.0))
        await self._hand_on(batch, generation)

    async def _hand_on(self, batch: Batch, generation: int) -> None:
        app = self.app
        if batch.topic in app.lanes.topics:
            event = SimpleNamespace(value=batch, message=SimpleNamespace(generation_id=generation))
            await app.lanes.submit(event, self._worker.handler)
            return
        try:
            await self._worker.recovery._apply(batch, generation)
        except Exception as error:
            await app.crash(error)


class Worker:
    """One process of the application, from its start to its end."""

    def __init__(
        self,
        process: Process,
        directory: Directory,
        cluster: Cluster,
        group: Group,
        receivers: Receivers | None,
    ) -> None:
        self.process = process
        self.name = process.name
        self.directory = directory
        self.cluster = cluster
        self.group = group
        self.receivers = receivers
        self.formats = FORMATS | (WEBHOOK_FORMATS if receivers else {})
        self.webhooks: Webhooks | None = None
        #: whether the group's coordinator cannot be reached
        self.is_cut_off = False
        self.is_leaving = False
        self.error: BaseException | None = None
        self.numbers: frozenset[int] = frozenset()
        self.app: Any = None
        self.handler: Any = None
        self.recovery: Any = None
        self.consumer: Any = None
        self._urls = [URL(f"kafka://{host}:9092") for host in cluster.nodes]
        self._changing = asyncio.Lock()
        self._recovering: asyncio.Task[None] | None = None

    @property
    def is_heard(self) -> bool:
        """Whether its heartbeats come to the coordinator."""
        return self.is_running and not self.process.is_stopped and not self.is_cut_off

    @property
    def is_running(self) -> bool:
        """Whether it is neither ended nor ending."""
        return self.process.alive and not self.is_leaving

    async def run(self) -> None:
        """Start, join the group and poll."""
        app = self.app = _App(self, self._urls)
        inputs = (ORDERS, COMMANDS, OUTCOMES) if self.receivers else (ORDERS, COMMANDS)
        app.lanes = Lanes(app, inputs, self.cluster.topics[ORDERS], UNIT_RECORDS, IDLE_S)
        app.lanes.dead_letters = dict.fromkeys(inputs, bury)
        app.lanes.collector = SimpleNamespace(
            take_over=lambda: None, between_units=lambda: None, when_idle=lambda: None
        )
        self.consumer = app.consumer = Consumer(self)
        if self.receivers is not None:
            self.webhooks = Webhooks(self, self.receivers)
        self.handler = Handler(app.tables, self.webhooks)
        self.recovery = app.tables.recovery = BatchRecovery(app, app.tables)
        self.recovery._changelogs = lambda: nullcontext(_Changelogs(self.cluster))
        self.recovery._start_offsets_logtable = lambda *args, **kwargs: ""
        try:
            app._outside = Producer(self._make_producer, app.now_ms)
            self.process.spawn(self._look_again())
            self.group.join(self)
            if self.webhooks is not None:
                self.process.spawn(self.webhooks.run())
            await self.consumer.poll_forever()
        except Exception as error:
            self.crash(error)

    def _make_producer(self) -> AIOKafkaProducer:
        producer = StreamApp._make_producer(self.app)
        # so that a few records need several batches
        producer._message_accumulator._batch_size = transactions.BATCH_BYTES
        return producer

    async def produce(self, topic: str, partition: int, records: list[Output]) -> int:
        """Produce outside of transactions."""
        return await StreamApp.produce(self.app, topic, partition, records)

    # what the group's coordinator asks

    async def revoke(self) -> None:
        """Give up the partitions, as Faust does on a revoke."""
        async with self._changing:
            try:
                await self.consumer.transactions.on_partitions_revoked(set())
            except Exception as error:
                self.crash(error)

    async def assign(self, generation: int, numbers: frozenset[int]) -> None:
        """Take partitions, as Faust does on an assignment."""
        await asyncio.sleep(self.cluster.schedule.latency_s())
        async with self._changing:
            if self.is_running and generation > self.app.consumer_generation_id:
                try:
                    await self._assign(generation, numbers)
                except Exception as error:
                    self.crash(error)

    async def _assign(self, generation: int, numbers: frozenset[int]) -> None:
        app, tables = self.app, self.app.tables.values()
        topics = [*app.lanes.topics, *(table.changelog_topic_name for table in tables)]
        assigned = [TP(topic, number) for topic in topics for number in sorted(numbers)]
        app.consumer_generation_id = generation
        self.consumer.assign(assigned)
        await self.consumer.transactions.on_rebalance(set(assigned), set(), set())
        for table in tables:
            table.store.close(keep=lambda number: number in numbers)
        self._track(numbers)
        self.numbers = numbers
        # Faust ends a recovery when the next one begins (`Recovery._wait`)
        if self._recovering is not None:
            self._recovering.cancel()
        self._recovering = self.process.spawn(self._recover(generation))

    def _track(self, numbers: frozenset[int]) -> None:
        """Say which changelogs recovery reads, as Faust does."""
        recovery = self.recovery
        for tp in [tp for tp in recovery.active_tps if tp.partition not in numbers]:
            recovery.revoke(tp)
        recovery.active_tps.clear()
        for table in self.app.tables.values():
            for number in sorted(numbers):
                recovery.add_active(table, TP(table.changelog_topic_name, number))

    async def _look_again(self) -> None:
        """Do what recovery does when no batch has come for a while."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            try:
                await self.recovery.look_again()
            except Exception as error:
                self.crash(error)

    async def _recover(self, generation: int) -> None:
        try:
            if await self._recovered(generation):
                await self._begin(generation)
        except Exception as error:
            self.crash(error)

    async def _recovered(self, generation: int) -> bool:
        """Read the changelogs, as Faust's recovery does; False: there is another generation."""
        recovery, consumer = self.recovery, self.consumer
        changelogs = sorted(recovery.active_tps)
        recovery._set_recovery_started()
        highwaters = await consumer.highwaters(*changelogs)
        if generation != self.app.consumer_generation_id:
            return False
        recovery.active_highwaters = type(recovery.active_highwaters)(
            {tp: end - 1 for tp, end in highwaters.items()}
        )
        await recovery._build_offsets(consumer, set(changelogs), recovery.active_offsets, "active")
        if generation != self.app.consumer_generation_id:
            return False
        for tp in changelogs:
            if recovery.active_offsets[tp] > recovery.active_highwaters[tp]:
                raise ConsistencyError(f"the store is ahead of its changelog: {tp}")
        await consumer.seek_noted({tp: recovery.active_offsets[tp] + 1 for tp in changelogs})
        if generation != self.app.consumer_generation_id:
            return False
        if recovery.need_recovery():
            # again, as Faust does: a look in between may have found nothing to recover
            recovery._set_recovery_started()
            consumer.resume(changelogs)
            await recovery.signal_recovery_end.wait()
        else:
            recovery._set_recovery_ended()
        return True

    async def _begin(self, generation: int) -> None:
        """Open the lanes, as `BatchRecovery.on_recovery_completed` does."""
        recovery, consumer, app = self.recovery, self.consumer, self.app
        recovery.completing = generation
        if generation != app.consumer_generation_id:
            return
        consumer.pause(tp for tp in recovery.active_tps)
        consumer.resume(TP(topic, number) for topic in app.lanes.topics for number in self.numbers)
        await consumer.seek_to_committed()
        if generation == app.consumer_generation_id:
            await consumer.seek_noted(app.lanes.stands())

    # its end

    def crash(self, error: BaseException) -> None:
        """End in order, but not wait for long: the supervisor starts another process."""
        if self.is_running:
            self.cluster.trace("crash", self.name, repr(error))
            self.error = error
            self.is_leaving = True
            self.process.spawn(self._leave())

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.app.lanes.stop()
                await self.consumer.transactions.on_stop()
                for table in self.app.tables.values():
                    table.store.close()
                await self.app._outside.stop()
        except Exception as error:
            self.cluster.trace("left", self.name, repr(error))
        finally:
            self.group.leave(self)
            self.end()

    def end(self) -> None:
        """End at once; the operating system releases the locks of the stores."""
        self.process.end()
        if self.webhooks is not None:
            self.webhooks.close()
        for table in self.app.tables.values() if self.app is not None else ():
            table.store.close()
