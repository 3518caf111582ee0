"""Lanes: bounded queues and one task per partition number, shared by all co-partitioned input topics.

The coverage rule. For each input topic a lane *stands* at one offset: first where the group stood when the
producer had fenced its predecessor, then at the end of its own last commit. It applies a batch only if
``start <= stand < end``, without the records below its stand. A batch that ends earlier is a redelivery and
is dropped. One that starts later is a hole: it is dropped, and the consumer is sought back to the stand.
This one rule covers what polls, seeks, cancellations and rebalances can do to a batch on its way
(trap 2, trap 4, trap 13, trap 15).

A unit of work that fails before its commit is requested leaves nothing behind: the lane repeats it, while
the other lanes go on. A unit that cannot be computed is repeated in halves until the one record that cannot
be processed is found; after `ATTEMPTS` failures that record goes to the dead letters. A unit whose
transaction was refused is repeated, with a growing pause, until the broker stores it. After any other error,
or when the outcome of a commit is unknown, the worker ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from statistics import median_low
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP

from streams.engine import metrics
from streams.engine.batches import Batch, Seeks
from streams.engine.calls import Calls
from streams.engine.collector import Collector
from streams.engine.failpoints import passed
from streams.engine.inputs import PART_RECORDS, Handler, InputQueue, Inputs, Item, Part, Room
from streams.engine.transactions import NotCommitted, Packer, commit
from streams.engine.units import Unit

__all__ = ["DeadLetterWriter", "Handler", "Lane", "Lanes", "StoreFailed"]

log = logging.getLogger(__name__)

#: Takes a partition, and what a unit of it has noted, each with what more there is to know.
Listener = Callable[[int, Mapping[Hashable, Any]], None]

#: Writes a batch of one record, which cannot be processed because of an error, to the dead letters.
DeadLetterWriter = Callable[[Batch, Unit, Exception], None]

#: Records of one topic that may wait in a lane before it is left out of the polls. Trap 20: a lane that
#: makes the one fetch loop wait holds up all partitions as soon as it is slow.
QUEUE_RECORDS = 20_000
#: The same in bytes.
QUEUE_BYTES = 16 << 20
#: Size of the records of one transaction; one that is larger gets a transaction of its own.
UNIT_BYTES = 8 << 20
#: Seconds between the end of a transaction and the next one of the same lane, unless a unit is full.
GATHER_S = 0.003
#: How long a revoke or a stop waits for commits in flight at least, seconds. A coordinator that moves to
#: another broker takes about a session timeout to answer.
CLOSING_S = 12.0
#: Seconds between two looks at whether those commits have ended.
CLOSING_POLL_S = 0.01
#: How long a stop waits for commits in flight, seconds. Recovery determines the outcome of the others.
STOPPING_S = 4.0
#: A transaction that takes longer is reported, seconds.
SLOW_S = 5.0
#: Failures of a unit of one record after which the record goes to the dead letters.
ATTEMPTS = 3
#: The pause after a first failure, seconds; it doubles with each further one, up to the longest.
RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
#: How long a producer may take to be opened again, seconds; less than a revoke waits.
REOPEN_S = 5.0
#: How long a lane waits for the first fetch of another input, seconds; after a start it may be slow.
UNREAD_S = 10.0
#: Polls that must have brought nothing of the input as well: a busy worker polls late.
ALIGN_POLLS = 3
#: How often a lane that waits for another input looks whether that still has records, seconds; what is queued
#: wakes it at once.
ALIGN_S = 0.01


class StoreFailed(Exception):
    """A local store could not be read; its cause says why. No record is to blame."""


class Lane:
    """The queues and the task of one partition number."""

    def __init__(self, number: int, lanes: Lanes) -> None:
        self.number = number
        self.lanes = lanes
        self.stands: dict[str, int] = {}
        #: by topic, the timestamp of the last record that was applied; ms
        self.applied: dict[str, int] = {}
        self._busy_since: float | None = None
        #: Why the lane repeats a unit; None: it does not.
        self.trouble: str | None = None
        self.inputs = Inputs(number, lanes.topics)
        self._ended = 0.0
        self._seeks = Seeks()
        # records of a unit, fewer while a record that cannot be processed is looked for
        self._limit = lanes.unit_records
        # failures in a row: of transactions, and of one record at its topic and offset
        self._refusals = 0
        self._failed: tuple[str, int] | None = None
        self._failures = 0
        # topics that were waited for in vain
        self._overdue: set[str] = set()
        self._filled = asyncio.Event()
        self._queued = asyncio.Event()
        # set when a rebalance makes a pause pointless
        self._opened = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"lane-{number}")

    def put(self, item: Item) -> None:
        """Queue a batch; never waits, for a full queue's topic is not polled."""
        if item[1] != self.lanes.generation():
            return  # polled before a rebalance
        self.inputs.put(item)
        self._overdue.discard(item[0].topic)
        self._queued.set()
        self._filled.set()

    @property
    def busy(self) -> bool:
        """Whether a unit is under way, or its producer is being opened."""
        return self._busy_since is not None

    @busy.setter
    def busy(self, is_busy: bool) -> None:
        self._busy_since = time.monotonic() if is_busy else None

    def stall(self) -> str | None:
        """Return why the lane does not advance; None: it does."""
        if self.trouble is None and self._busy_since is not None:
            waited_s = time.monotonic() - self._busy_since
            if waited_s > SLOW_S:
                return f"a transaction of partition {self.number} has taken {waited_s:.0f} s"
        return self.trouble

    @property
    def queued(self) -> int:
        """Number of records that wait."""
        return self.inputs.records

    def is_full(self, topic: str) -> bool:
        """Whether enough of a topic is waiting, two units at least."""
        queue = self.inputs.queues[topic]
        most = max(QUEUE_RECORDS, 2 * self.lanes.unit_records)
        return queue.records >= most or queue.size_bytes >= QUEUE_BYTES

    def clock(self, now: int, lagging: Iterable[str]) -> int:
        """Return the time that this lane has come to; ms.

        It is now, or as long as records wait, the timestamp of the oldest one of them: of what lies between
        nobody knows yet whether it was said in time.

        Args:
            lagging: topics that have more to be fetched.
        """
        waiting = self.inputs.timestamps()
        for topic in lagging:
            waiting.setdefault(topic, self.applied.get(topic, 0))
        return max(0, min((now, *waiting.values())))

    def drop_queue(self) -> None:
        """Forget what waits; it was not applied and will be polled again."""
        self.inputs.clear()

    def open(self, stands: Mapping[str, int]) -> None:
        """Stand at these offsets."""
        self.stands = dict(stands)
        self.applied = {}
        self.trouble = None
        self._limit = self.lanes.unit_records
        self._refusals = self._failures = 0
        self._failed = None
        self._opened.set()
        self.inputs.open(stands)
        self._overdue.clear()
        self._seeks.forget()

    async def _run(self) -> None:
        try:
            while True:
                await self._filled.wait()
                await self._gather()
                await self._align()
                generation = self.lanes.generation()
                work = await self._take(generation)
                if work:
                    await self._apply(work, generation)
                elif self.inputs.is_empty:
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

    async def _align(self) -> None:
        """Wait for inputs whose next records are on the broker and not here, up to the limit.

        A topic that was waited for in vain is not waited for again until it brings something.
        """
        began, was_known, polls = time.monotonic(), False, self.lanes.polls
        while lacking := [queue.topic for queue in self.inputs.queues.values() if self._is_awaited(queue)]:
            now = time.monotonic()
            is_known = not any(self.lanes.is_unread(TP(topic, self.number)) for topic in lacking)
            if is_known and not was_known:
                began, was_known, polls = now, True, self.lanes.polls
            # before the first fetch, nobody knows whether a topic has records at all
            limit_s = self.lanes.idle_s if is_known else UNREAD_S
            if now >= began + limit_s and self.lanes.polls >= polls + ALIGN_POLLS:
                self._overdue.update(lacking)
                return
            self._queued.clear()
            await _until(self._queued, ALIGN_S)

    def _is_awaited(self, queue: InputQueue) -> bool:
        """Whether a queue is empty although its topic has records."""
        if not self.lanes.idle_s or len(queue):
            return False
        if queue.topic not in self.stands or queue.topic in self._overdue:
            return False
        return self.lanes.has_more(TP(queue.topic, self.number), queue.reach)

    async def _take(self, current: int) -> list[Part]:
        """Take what is applied next as one unit of work, up to the limits; seek back to what is missing."""
        room = Room(min(self._limit, self.lanes.unit_records), UNIT_BYTES)
        generation = current if self.lanes.is_open else None
        taken = self.inputs.take(generation, self.stands, room, self._is_awaited)
        for batch, stand in taken.gaps:
            await self._heal(batch, stand)
        return taken.parts

    async def _heal(self, batch: Batch, stand: int) -> None:
        # what lies behind the hole does not count as queued
        self.inputs.queues[batch.topic].reach = stand
        if not self._seeks.is_due(batch.topic, stand, time.monotonic()):
            return
        metrics.HOLES.inc()
        log.info("hole before %r: the lane stands at %d, seeking back", batch, stand)
        await self.lanes.seek(TP(batch.topic, self.number), stand)

    async def _apply(self, work: list[Part], generation: int) -> None:
        try:
            computed = await self._compute(work, generation)
        except (StoreFailed, MemoryError):
            raise
        except Exception as error:
            self.busy = False
            await self._isolate(work, generation, error)
            return
        if computed is None:
            return
        unit, packer = computed
        ends = {batch.topic: batch.end for batch, _ in work}
        try:
            await self.lanes.commit(
                unit, packer, {TP(topic, self.number): end for topic, end in ends.items()}
            )
        except NotCommitted as error:
            self.busy = False
            await self._repeat(work, generation, error)
            return
        passed("ack.before")
        self.stands.update(ends)
        self.applied.update({batch.topic: batch.records[-1].timestamp for batch, _ in work if batch.records})
        self.busy = False
        self.trouble = None
        self._refusals = 0
        self._limit = min(2 * self._limit, self.lanes.unit_records)
        self._ended = time.monotonic()
        self.lanes.committed(unit)
        passed("ack.after")

    async def _compute(self, work: list[Part], generation: int) -> tuple[Unit, Packer] | None:
        """Compute a unit of work and pack it; None if a rebalance came while the lane waited for its turn."""
        async with self.lanes.turn:
            if generation != self.lanes.generation() or not self.lanes.is_open:
                return None
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
        packer.pack_changes(unit)
        return unit, packer

    async def _isolate(self, work: list[Part], generation: int, error: Exception) -> None:
        """Repeat a unit that could not be computed in halves; at last, give its one record up."""
        records = sum(len(batch) for batch, _ in work)
        if records > 1:
            self._limit = max(1, records // 2)
            self.inputs.put_back(work, generation)
            return
        found = next((batch for batch, _ in work if batch.records), None)
        if found is None:
            raise error
        place = found.topic, found.records[0].offset
        self._failures = self._failures + 1 if place == self._failed else 1
        self._failed = place
        if self._failures > ATTEMPTS:
            raise error
        topic, offset = place
        self.trouble = f"the record at offset {offset} of {topic}/{self.number} cannot be processed"
        # an exception's words may quote the record, so only its type and its place in the code are logged
        log.error(
            "%s (failure %d of %d): %s\n%s",
            self.trouble,
            self._failures,
            ATTEMPTS,
            type(error).__name__,
            "".join(traceback.format_tb(error.__traceback__)).rstrip(),
        )
        if self._failures == ATTEMPTS:
            write = partial(self.lanes.write_dead_letter, error=error)
            work = [(batch, write if batch.records else handler) for batch, handler in work]
        self.inputs.put_back(work, generation)
        if self._failures < ATTEMPTS:
            await self._pause(RETRY_S * 2 ** (self._failures - 1))

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the next rebalance."""
        self._opened.clear()
        await _until(self._opened, seconds)

    async def _repeat(self, work: list[Part], generation: int, error: NotCommitted) -> None:
        """Repeat a unit whose transaction failed before its commit, with a producer that is opened anew."""
        self.inputs.put_back(work, generation)
        cause: BaseException | None = error.__cause__
        while generation == self.lanes.generation() and self.lanes.is_open:
            pause = min(RETRY_S * 2**self._refusals, LONGEST_RETRY_S)
            self._refusals += 1
            self.trouble = f"partition {self.number} waits for the broker: {str(cause) or repr(cause)}"
            log.error("a transaction was not committed and is repeated in %g s; %s", pause, self.trouble)
            await self._pause(pause)
            if generation != self.lanes.generation() or not self.lanes.is_open:
                return  # the rebalance has opened another producer
            self.busy = True
            try:
                async with asyncio.timeout(REOPEN_S):
                    await self.lanes.reopen(self.number, self.stands)
                return
            except (KafkaError, TimeoutError, OSError) as failure:
                cause = failure
            finally:
                self.busy = False


async def _until(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, for so many seconds at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Lanes:
    """All lanes of a worker.

    Lanes are closed from a revoke until the tables are recovered in the next generation: nothing is queued,
    nothing is begun.
    """

    def __init__(
        self, app: Any, topics: Sequence[str], partitions: int, unit_records: int, idle_s: float = 0.0
    ) -> None:
        self.app = app
        self.topics = topics
        self.partitions = partitions
        self.unit_records = unit_records
        self.idle_s = idle_s
        self.closing_s = CLOSING_S
        #: Polls whose batches were all submitted.
        self.polls = 0
        self.is_open = False
        # one lane computes at a time, or all would come to their commits, and to waiting, together
        self.turn = asyncio.Lock()
        self.collector = Collector()
        self.calls = Calls()
        #: What must have come before lanes begin.
        self.gates: list[asyncio.Event] = []
        #: By input topic, where its records go that cannot be processed.
        self.dead_letters: dict[str, DeadLetterWriter] = {}
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
        """Return those of the partitions that may be polled: all but the inputs whose queues are full."""
        return {tp for tp in partitions if not self._is_full(tp)}

    def _is_full(self, tp: TP) -> bool:
        lane = self._lanes.get(tp.partition)
        return lane is not None and tp.topic in self.topics and lane.is_full(tp.topic)

    def has_more(self, tp: TP, reach: int) -> bool:
        """Whether an input partition has records on the broker from an offset on, as far as is known."""
        end = self.app.consumer.stable_ends().get(tp)
        return end is None or end > reach

    def is_unread(self, tp: TP) -> bool:
        """Whether no fetch of an input partition was answered yet."""
        return self.app.consumer.stable_ends().get(tp) is None

    def troubles(self) -> list[str]:
        """Return why lanes do not advance, for each that does not."""
        stalls = (lane.stall() for lane in self._lanes.values())
        return [stall for stall in stalls if stall is not None]

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

    async def close(self, within_s: float | None = None) -> None:
        """Drop what is queued and await the commits in flight (trap 1).

        Args:
            within_s: how long that may take; `closing_s` if it is not given.

        Raises:
            TimeoutError: a commit did not end; its outcome is unknown, so the worker must not go on.
        """
        self.is_open = False
        self._opened_in = None
        for lane in self._lanes.values():
            lane.drop_queue()
        within_s = self.closing_s if within_s is None else within_s
        deadline = time.monotonic() + within_s
        while any(lane.busy and not lane.task.done() for lane in self._lanes.values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a commit did not end within {within_s:g} s")
            await asyncio.sleep(CLOSING_POLL_S)

    async def stop(self) -> None:
        """Close, and end the lanes whatever they do: recovery finds out what became of a commit."""
        self._stopped = True
        try:
            await self.close(min(STOPPING_S, self.closing_s))
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
            partial(_read_many, number),
            partial(_keys, number),
        )

    def packer(self, number: int) -> Packer:
        """Return what packs the outputs of a unit of partition `number`."""
        producer = self.app.consumer.transactions.producers[number]
        return Packer(producer, self.app.codecs, self.app.now_ms())

    async def commit(self, unit: Unit, packer: Packer, offsets: Mapping[TP, int]) -> None:
        """Commit a unit with the producer of its partition."""
        producer = self.app.consumer.transactions.producers[unit.partition]
        await commit(producer, self.app.conf.id, unit.partition, packer, offsets)

    async def reopen(self, number: int, stands: Mapping[str, int]) -> None:
        """Open the producer of a partition anew, which aborts its transaction.

        Raises:
            PartitionTaken: another worker has committed meanwhile.
        """
        await self.app.consumer.transactions.reopen(number, stands)

    def write_dead_letter(self, batch: Batch, unit: Unit, error: Exception) -> None:
        """Write a record that cannot be processed to the dead letters.

        Raises:
            Exception: the error, if there are none for its topic.
        """
        write = self.dead_letters.get(batch.topic)
        if write is None:
            raise error
        write(batch, unit, error)

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


def _read_many(number: int, table: Any, keys: Sequence[bytes]) -> Sequence[bytes | None]:
    try:
        found: Sequence[bytes | None] = table.store.partition(number).read_many(keys)
    except Exception as error:
        raise StoreFailed from error
    return found


def _keys(number: int, table: Any, first: bytes, end: bytes, limit: int) -> list[bytes]:
    try:
        found: list[bytes] = table.store.partition(number).keys(first, end, limit)
    except Exception as error:
        raise StoreFailed from error
    return found
