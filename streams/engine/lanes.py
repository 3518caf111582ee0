"""Lanes: one bounded queue and one task per partition number, shared by all co-partitioned input topics.

The coverage rule. For each input topic a lane *stands* at one offset: first where the group stood when the
producer had fenced its predecessor, then at the end of its own last commit. It applies a batch only if
``start <= stand < end``, without the records below its stand. A batch that ends earlier is a redelivery and
is dropped. One that starts later is a hole: it is dropped, and the consumer is sought back to the stand.
This one rule covers what polls, seeks, cancellations and rebalances can do to a batch on its way
(trap 2, trap 4, trap 13, trap 15).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from statistics import median_low
from typing import Any

from faust.types import TP

from streams.engine import metrics
from streams.engine.batches import HOLE, Batch, Seeks, uncovered
from streams.engine.calls import Calls
from streams.engine.collector import Collector
from streams.engine.failpoints import passed
from streams.engine.transactions import Packer, commit
from streams.engine.units import Unit

__all__ = ["Handler", "Lane", "Lanes"]

log = logging.getLogger(__name__)

#: Applies the records of a batch to a unit of work; synchronous, pure but for the unit.
Handler = Callable[[Batch, Unit], None]

#: Takes a partition, and what a unit of it has noted, each with what more there is to know.
Listener = Callable[[int, Mapping[Hashable, Any]], None]

#: Records that may wait in one lane before its partitions are left out of the polls. Trap 20: a lane that
#: makes the one fetch loop wait holds up all partitions as soon as it is slow.
QUEUE_RECORDS = 20_000
#: Records that a handler gets at a time: what it decodes, changes and emits of so many stays in the
#: processor's cache. Thousands at a time cost half as much again for each.
PART_RECORDS = 250
#: Seconds between the end of a transaction and the next one of the same lane, unless a unit is full.
GATHER_S = 0.003
#: How long a revoke or a stop waits for commits in flight, seconds.
CLOSING_S = 6.0

#: A queued batch: what it is, the generation it was polled in, who applies it.
Item = tuple[Batch, int, Handler]


class Lane:
    """The queue and the task of one partition number."""

    def __init__(self, number: int, lanes: Lanes) -> None:
        self.number = number
        self.lanes = lanes
        self.stands: dict[str, int] = {}
        #: by topic, the timestamp of the last record that was applied; ms
        self.applied: dict[str, int] = {}
        self.busy = False
        self._ended = 0.0
        self._seeks = Seeks()
        self._queue: deque[Item] = deque()
        self.queued = 0
        self._filled = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"lane-{number}")

    def put(self, item: Item) -> None:
        """Queue a batch; never waits, for a full lane's partitions are not polled."""
        self._queue.append(item)
        self.queued += len(item[0])
        self._filled.set()

    @property
    def is_full(self) -> bool:
        """Whether enough is waiting, two units at least."""
        return self.queued >= max(QUEUE_RECORDS, 2 * self.lanes.unit_records)

    def clock(self, now: int, lagging: Iterable[str]) -> int:
        """Return the time that this lane has come to; ms.

        It is now, or as long as records wait, the timestamp of the oldest one of them: of what lies between
        nobody knows yet whether it was said in time.

        Args:
            lagging: topics that have more to be fetched.
        """
        waiting: dict[str, int] = {}
        for batch, _, _ in self._queue:
            if batch.records and batch.topic not in waiting:
                waiting[batch.topic] = batch.records[0].timestamp
        for topic in lagging:
            waiting.setdefault(topic, self.applied.get(topic, 0))
        return max(0, min((now, *waiting.values())))

    def drop_queue(self) -> None:
        """Forget what waits; it was not applied and will be polled again."""
        self._queue.clear()
        self.queued = 0

    def open(self, stands: Mapping[str, int]) -> None:
        """Stand at these offsets."""
        self.stands = dict(stands)
        self.applied = {}
        self._seeks.forget()

    async def _run(self) -> None:
        try:
            while True:
                await self._filled.wait()
                await self._gather()
                generation = self.lanes.generation()
                work = await self._take(generation)
                if work:
                    await self._apply(work, generation)
                elif not self._queue:
                    self._filled.clear()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Never continue past a batch that was not applied, never recompute one whose commit
            # outcome is unknown: the worker ends, and recovers what is true from Kafka.
            log.exception("lane %d: unit of work failed, the worker stops", self.number)
            self.busy = False
            await self.lanes.crash(error)

    async def _gather(self) -> None:
        """Let more records come in when the last transaction has just ended and few wait.

        The broker is still writing its markers, so the next one would only be told to try again; and many
        small transactions cost more time than they save.
        """
        pause = self._ended + GATHER_S - time.monotonic()
        if pause > 0 and self.queued < self.lanes.unit_records:
            await asyncio.sleep(pause)

    async def _take(self, current: int) -> list[tuple[Batch, Handler]]:
        """Take what waits as one unit of work, up to the limit of records."""
        work: list[tuple[Batch, Handler]] = []
        ends = dict(self.stands)
        room = self.lanes.unit_records
        while self._queue and room > 0:
            batch, generation, handler = self._queue.popleft()
            self.queued -= len(batch)
            if generation != current or not self.lanes.is_open:
                continue
            covered = await self._uncovered(batch, ends.get(batch.topic))
            if covered is None:
                continue
            first, rest = covered.split(room)
            if rest is not None:
                self._queue.appendleft((rest, generation, handler))
                self.queued += len(rest)
            work.append((first, handler))
            ends[batch.topic] = first.end
            room -= max(1, len(first))
        return work

    async def _uncovered(self, batch: Batch, stand: int | None) -> Batch | None:
        """Return what of the batch is to be applied; seek back when there is a hole before it."""
        if stand is None:
            return None
        rest = uncovered(batch, stand)
        if isinstance(rest, Batch):
            return rest
        if rest == HOLE:
            await self._heal(batch, stand)
        return None

    async def _heal(self, batch: Batch, stand: int) -> None:
        if not self._seeks.is_due(batch.topic, stand, time.monotonic()):
            return
        metrics.HOLES.inc()
        log.info("hole before %r: the lane stands at %d, seeking back", batch, stand)
        await self.lanes.seek(TP(batch.topic, self.number), stand)

    async def _apply(self, work: list[tuple[Batch, Handler]], generation: int) -> None:
        async with self.lanes.turn:
            if generation != self.lanes.generation() or not self.lanes.is_open:
                return  # a rebalance came while this lane waited for its turn
            self.busy = True
            unit = self.lanes.unit(self.number)
            packer = self.lanes.packer(self.number)
            for batch, handler in work:
                for part in batch.cut(PART_RECORDS):
                    handler(part, unit)
                    unit.settle()
                    packer.pack(unit.take_outputs())
                    # so that a large unit does not hold up the web views and the consumer
                    await asyncio.sleep(0)
        for _ in unit.finish():
            packer.pack(unit.take_outputs())
            await asyncio.sleep(0)
        packer.pack(unit.take_outputs())
        ends = {batch.topic: batch.end for batch, _ in work}
        await self.lanes.commit(unit, packer, {TP(topic, self.number): end for topic, end in ends.items()})
        passed("ack.before")
        self.stands.update(ends)
        self.applied.update({batch.topic: batch.records[-1].timestamp for batch, _ in work if batch.records})
        self.busy = False
        self._ended = time.monotonic()
        self.lanes.committed(unit)
        passed("ack.after")


class Lanes:
    """All lanes of a worker.

    Lanes are closed from a revoke until the tables are recovered in the next generation: nothing is queued,
    nothing is begun.
    """

    def __init__(self, app: Any, topics: frozenset[str], partitions: int, unit_records: int) -> None:
        self.app = app
        self.topics = topics
        self.partitions = partitions
        self.unit_records = unit_records
        self.is_open = False
        # one lane computes at a time, or all would come to their commits, and to waiting, together
        self.turn = asyncio.Lock()
        self.collector = Collector()
        self.calls = Calls()
        #: What must have come before lanes begin.
        self.gates: list[asyncio.Event] = []
        self._listeners: dict[str, Listener] = {}
        self._began = False
        self._stopped = False
        self._opened_in: int | None = None
        self._lanes: dict[int, Lane] = {}
        self._counters: dict[tuple[int, str], Any] = {}
        metrics.QUEUED.set_function(lambda: sum(lane.queued for lane in self._lanes.values()))

    def listen(self, name: str, listener: Listener) -> None:
        """Let someone know what units note for `name`, once they are committed."""
        self._listeners[name] = listener

    async def submit(self, event: Any, handler: Handler) -> None:
        """Hand an event's batch to the lane of its partition."""
        batch: Batch = event.value
        lane = self._lanes.get(batch.partition)
        # trap 12: closed from the revoke until the new stands are known, or this slips in behind the drain
        if lane is not None and self.is_open:
            lane.put((batch, event.message.generation_id, handler))

    def has_work(self) -> bool:
        """Whether any lane has a unit under way or a batch to begin the next with."""
        return any(lane.busy or lane.queued for lane in self._lanes.values())

    def lag(self) -> bool:
        """Whether in any lane more waits than its next unit can take."""
        return any(lane.queued > self.unit_records for lane in self._lanes.values())

    def with_room(self, partitions: Iterable[TP]) -> set[TP]:
        """Return those of the partitions that may be polled: all but the inputs of full lanes."""
        full = {number for number, lane in self._lanes.items() if lane.is_full}
        return {tp for tp in partitions if tp.partition not in full or tp.topic not in self.topics}

    def open(self, stands: Mapping[TP, int]) -> None:
        """Let each input partition's lane stand at its offset; they begin when recovery is complete."""
        if self._stopped:
            return
        by_number: dict[int, dict[str, int]] = {}
        for tp, offset in stands.items():
            by_number.setdefault(tp.partition, {})[tp.topic] = offset
        for number in set(self._lanes) - set(by_number):
            self._lanes.pop(number).task.cancel()
        for number, offsets in by_number.items():
            if number not in self._lanes:
                self._lanes[number] = Lane(number, self)
            self._lanes[number].open(offsets)
        # a worker that got nothing has nothing to recover
        self.is_open = not stands
        self._opened_in = self.generation()
        self.collector.take_over()

    def begin(self, recovered: int) -> None:
        """Take up work, if the tables were recovered in the generation that the lanes were opened in."""
        if recovered == self._opened_in == self.generation() and not self._stopped:
            self.is_open = True

    async def close(self) -> None:
        """Drop what is queued and await the commits in flight (trap 1).

        Raises:
            TimeoutError: a commit did not end; its outcome is unknown, so the worker must not go on.
        """
        self.is_open = False
        self._opened_in = None
        for lane in self._lanes.values():
            lane.drop_queue()
        deadline = time.monotonic() + CLOSING_S
        while any(lane.busy and not lane.task.done() for lane in self._lanes.values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a commit did not end within {CLOSING_S:g} s")
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        """Close, and end the lanes whatever they do: recovery finds out what became of a commit."""
        self._stopped = True
        try:
            await self.close()
        except TimeoutError as error:
            log.error("%s; the broker aborts it", error)
        for lane in self._lanes.values():
            lane.task.cancel()

    def rest(self) -> None:
        """Let the collector have the moments in which no lane has work."""
        if not any(lane.busy for lane in self._lanes.values()):
            self.collector.when_idle()

    def stands(self) -> dict[TP, int]:
        """Return where each input partition stands."""
        return {
            TP(topic, number): offset
            for number, lane in self._lanes.items()
            for topic, offset in lane.stands.items()
        }

    def stand(self, tp: TP) -> int:
        """Return where an input partition stands; 0 if it is not here."""
        lane = self._lanes.get(tp.partition)
        return 0 if lane is None else lane.stands.get(tp.topic, 0)

    def numbers(self) -> frozenset[int]:
        """Return the partition numbers that have an open lane."""
        return frozenset(self._lanes) if self.is_open else frozenset()

    def clock(self, number: int, now: int) -> int:
        """Return the time that the lane of a partition has come to; ms."""
        lagging = self.app.consumer.lagging()
        topics = [tp.topic for tp in lagging if tp.partition == number and tp.topic in self.topics]
        return self._lanes[number].clock(now, topics)

    def latest(self, topic: str) -> int | None:
        """Return the timestamp of a topic's records that most lanes have come to; ms, None: none has any."""
        applied = [lane.applied[topic] for lane in self._lanes.values() if topic in lane.applied]
        return median_low(applied) if applied else None

    def generation(self) -> int:
        """Return the consumer group's generation."""
        generation: int = self.app.consumer_generation_id
        return generation

    def unit(self, number: int) -> Unit:
        """Return a new unit of work that reads the stores of partition `number`."""
        if not self._began:
            self._began = True
            metrics.FIRST_UNIT.set_to_current_time()
        return Unit(
            number,
            self.partitions,
            lambda table, keys: table.store.partition(number).read_many(keys),  # type: ignore[attr-defined]
            lambda table, *span: table.store.partition(number).keys(*span),
        )

    def packer(self, number: int) -> Packer:
        """Return what packs the outputs of a unit of partition `number`."""
        return Packer(self.app.consumer.transactions.producers[number], self.app.codecs)

    async def commit(self, unit: Unit, packer: Packer, offsets: Mapping[TP, int]) -> None:
        """Commit a unit with the producer of its partition."""
        producer = self.app.consumer.transactions.producers[unit.partition]
        await commit(producer, self.app.conf.id, unit, packer, offsets)

    def committed(self, unit: Unit) -> None:
        """Count what became true, and let the collector have its moment between units."""
        for outcome, count in unit.counts.items():
            counter = self._counters.get((unit.partition, outcome))
            if counter is None:
                counter = metrics.RECORDS.labels(unit.partition, outcome)
                self._counters[unit.partition, outcome] = counter
            counter.inc(count)
        self.calls.tell(unit.told)
        for name, what in unit.notes.items():
            if what and name in self._listeners:
                self._listeners[name](unit.partition, what)
        metrics.UNITS.inc()
        metrics.LAST_COMMIT.set_to_current_time()
        self.collector.between_units()

    async def seek(self, tp: TP, offset: int) -> None:
        """Seek the consumer back to a lane's stand."""
        await self.app.consumer.seek_noted({tp: offset})

    async def crash(self, error: BaseException) -> None:
        """Stop the worker."""
        self.is_open = False
        await self.app.crash(error)
