"""One run: a cluster, workers with their supervisor, producers of input, and the faults of a schedule."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiokafka.errors import KafkaError

from streams.engine import transactions
from streams.engine.batches import SEEK_AGAIN_S
from streams.engine.transactions import PartitionTaken
from tests.simulation.cluster import GROUP, Cluster
from tests.simulation.connections import Network
from tests.simulation.groups import Group
from tests.simulation.handlers import COMMANDS, EVENTS, FORMATS, FORWARDS, LETTERS, ORDERS, POISON, REPEATED
from tests.simulation.logs import Batch, Record
from tests.simulation.loop import BEGIN_S, Process, SimulatedLoop, virtual_time
from tests.simulation.reference import Wrong, judge, judge_store, judge_webhooks, undelivered
from tests.simulation.schedule import Schedule
from tests.simulation.stores import Directory
from tests.simulation.webhooks import OUTCOMES, TOPICS, WEBHOOK_FORMATS, Receivers
from tests.simulation.worker import Worker

__all__ = ["Result", "run"]

#: Seconds in which there are faults and input, and after which all of it must have been applied.
FAULTS_S: Final = 6.0
SETTLING_S: Final = 150.0
#: How often the schedule is asked for faults that no request has, seconds.
TICK_S: Final = 0.2
#: Small batches, so that one unit makes several of them.
BATCH_BYTES: Final = 450
#: One run of so many keeps its tables in RocksDB.
ON_DISK: Final = 32
#: The share of runs with webhooks.
WITH_WEBHOOKS: Final = 0.2
#: The errors with which a worker may end.
EXPECTED: Final = (KafkaError, TimeoutError, OSError)
#: Garbage is collected after one run of so many.
COLLECT_EVERY: Final = 32
#: How long a producer of commands waits for one answer, seconds.
ANSWER_S: Final = 15.0


@dataclass
class Result:
    """The outcome of a run.

    Args:
        problem: the broken promise; None: all were kept.
        trace: a hash over all that happened, if it was asked for.
        seconds: virtual time.
    """

    seed: int
    problem: str | None
    trace: str
    seconds: float
    steps: int
    records: int
    restarts: int
    faults: Counter[str]
    #: the errors with which workers ended
    ends: list[str]


class Trace:
    """What happened, as lines and as a hash."""

    def __init__(self, loop: SimulatedLoop, is_kept: bool, is_shown: bool) -> None:
        self._loop = loop
        self._is_kept = is_kept or is_shown
        self._is_shown = is_shown
        self._hash = hashlib.blake2b(digest_size=8)

    def __call__(self, what: str, *details: Any) -> None:
        """Add a line."""
        if self._is_kept:
            line = f"{self._loop.now:.6f} {what} {' '.join(map(_described, details))}"
            self._hash.update(line.encode())
            if self._is_shown:
                print(line)

    def digest(self) -> str:
        """Return the hash."""
        return self._hash.hexdigest()


def _described(detail: Any) -> str:
    # compressed batches hold the builder's own clock
    if hasattr(detail, "required_acks"):
        sizes = {
            (topic, number): len(data) for topic, partitions in detail.topics for number, data in partitions
        }
        return f"{detail.transactional_id} {sorted(sizes)}"
    return f"{len(detail)} bytes" if isinstance(detail, bytes) and len(detail) > 100 else repr(detail)


class Machine:
    """A machine with a data directory, on which a supervisor keeps one worker running."""

    def __init__(self, simulation: Simulation, name: str, path: Path | None) -> None:
        self.name = name
        self.directory = Directory(path)
        self.worker: Any = None
        self._simulation = simulation
        self._starts = 0

    def start(self) -> None:
        """Start a worker."""
        simulation = self._simulation
        self._starts += 1
        process = Process(simulation.loop, f"{self.name}.{self._starts}")
        simulation.trace("start", process.name)
        self.worker = Worker(
            process, self.directory, simulation.cluster, simulation.group, simulation.receivers
        )
        simulation.workers.append(self.worker)
        process.spawn(self.worker.run())

    async def supervise(self) -> None:
        """Start another worker whenever one has ended, for ever."""
        while True:
            self.start()
            while self.worker.process.alive:
                await asyncio.sleep(0.3)
            await asyncio.sleep(self._simulation.schedule.random.uniform(0.5, 3.0))

    def kill(self, process: Process) -> None:
        """End the worker as SIGKILL does."""
        worker = self.worker
        if worker is None or worker.process is not process or not process.alive:
            return
        self._simulation.trace("kill", process.name)
        self.directory.crash(self._simulation.schedule.random)
        worker.end()


class Simulation:
    """One run, from a seed."""

    def __init__(self, seed: int, loop: SimulatedLoop, trace: Trace, path: Path | None) -> None:
        self.seed = seed
        self.loop = loop
        self.trace = trace
        self.schedule = Schedule(seed)
        chance = self.schedule.random
        self.partitions = chance.randint(1, 3)
        has_webhooks = chance.random() < WITH_WEBHOOKS
        self.receivers = Receivers(loop, self.schedule) if has_webhooks else None
        tables = [*FORMATS, *(WEBHOOK_FORMATS if has_webhooks else ())]
        names = [
            ORDERS,
            COMMANDS,
            EVENTS,
            FORWARDS,
            REPEATED,
            LETTERS,
            *(TOPICS if has_webhooks else ()),
            *(f"{table}-changelog" for table in tables),
        ]
        self.cluster = Cluster(loop, self.schedule, dict.fromkeys(names, self.partitions), trace)
        self.network = Network(loop, self.schedule, self.cluster.nodes, trace)
        self.group = Group(loop, self.schedule, self.partitions, trace)
        self.machines = [
            Machine(self, f"worker{number}", None if path is None else path / str(number))
            for number in range(chance.randint(1, 3))
        ]
        self.workers: list[Worker] = []
        self.acknowledged: list[tuple[int, bytes]] = []
        self._posts: list[asyncio.Task[None]] = []
        self._commands = 0
        trace("schedule", seed, self.schedule, self.partitions, len(self.machines))

    async def run(self) -> None:
        """Run it all.

        Raises:
            Wrong: a promise was broken.
        """
        self._background(self.group.coordinate(), self.group.watch())
        self._background(*(machine.supervise() for machine in self.machines))
        feeding = self._background(self._feed(), self._post_now_and_then())
        self._background(self._disturb())
        await asyncio.sleep(FAULTS_S)
        await asyncio.gather(*feeding)
        self._end_faults()
        await self._settle()
        self._judge()

    def _background(self, *works: Any) -> list[asyncio.Task[None]]:
        return [self.loop.create_task(work) for work in works]

    # input

    async def _feed(self) -> None:
        """Append records to the input logs, some of them in transactions that end, or are aborted, later."""
        chance = self.schedule.random
        # each webhook takes several steps, so a run with them has fewer orders
        times = chance.randint(2, 8) if self.receivers else chance.randint(4, 16)
        for serial in range(times):
            await asyncio.sleep(chance.uniform(0.0, 2 * 0.8 * FAULTS_S / (5 if self.receivers else 10)))
            number = chance.randrange(self.partitions)
            values = [self._order(serial, index) for index in range(chance.randint(1, 12))]
            if chance.random() < 0.8:
                self._append(ORDERS, number, values)
                continue
            producer_id = self.cluster.new_producer_id()
            self._append(ORDERS, number, values, producer_id, 0, 0, is_transactional=True)
            outcome = "commit" if chance.random() < 0.5 else "abort"
            log = self.cluster.logs[ORDERS, number]
            self.cluster.later(chance.uniform(0.0, 1.0), log.mark, producer_id, 0, outcome)

    def _order(self, serial: int, index: int) -> bytes:
        return POISON if self.schedule.happens("poison") else b"order %d %d" % (serial, index)

    def _append(self, topic: str, number: int, values: list[bytes], *of: Any, **producer: Any) -> None:
        now_ms = self.cluster.now_ms()
        records = [Record(0, now_ms, self._key(number), value) for value in values]
        self.cluster.logs[topic, number].append(Batch(records, *of, **producer))

    def _key(self, number: int) -> bytes:
        return b"key %d %d" % (number, self.schedule.random.randrange(4))

    async def _post_now_and_then(self) -> None:
        """Have workers asked for commands, which they produce outside of transactions."""
        chance = self.schedule.random
        for _ in range(chance.randint(2, 8)):
            await asyncio.sleep(chance.uniform(0.0, 2 * 0.8 * FAULTS_S / 8))
            number = chance.randrange(self.partitions)
            self._posts += self._background(self._post(number, chance.randint(1, 12)))

    def _commands_of(self, number: int, count: int) -> list[Any]:
        first, self._commands = self._commands, self._commands + count
        return [
            (self._key(number), b"command %d, as long as others" % command, [], None)
            for command in range(first, first + count)
        ]

    async def _post(self, number: int, count: int) -> None:
        """Have commands produced by whichever worker runs, until one acknowledges them."""
        records = self._commands_of(number, count)
        while True:
            running = [worker for worker in self.workers if worker.is_running and worker.app is not None]
            if running and await self._is_produced(self.schedule.random.choice(running), number, records):
                return
            await asyncio.sleep(0.5)

    async def _is_produced(self, worker: Worker, number: int, records: list[Any]) -> bool:
        if worker.app is None or worker.app._outside is None:
            return False
        task = worker.process.spawn(worker.produce(COMMANDS, number, records))
        await asyncio.wait([task], timeout=ANSWER_S)
        is_produced = task.done() and not task.cancelled() and task.exception() is None
        self.trace("produced" if is_produced else "not produced", worker.name, number, len(records))
        if is_produced:
            self.acknowledged += [(number, record[1]) for record in records]
        return is_produced

    # faults

    async def _disturb(self) -> None:
        """Ask the schedule for faults, for ever."""
        faults = {
            "kill": self._kill,
            "sender kill": self._kill_sender,
            "stop": self._stop,
            "partition": self._cut_off,
            "wrong clock": self._set_clock,
            "rebalance": self.group.rebalance,
            "election": self._elect,
            "coordinator move": self._move,
            "outage": self._take_down,
        }
        while True:
            await asyncio.sleep(TICK_S)
            for kind, fault in faults.items():
                if self.schedule.happens(kind, TICK_S * 5):
                    self.trace("fault", kind)
                    fault()

    def _machine(self) -> Machine:
        return self.schedule.random.choice(self.machines)

    def _kill(self) -> None:
        machine = self._machine()
        if machine.worker is not None:
            machine.worker.process.kill_after(self.schedule.random.randint(1, 300), machine.kill)

    def _kill_sender(self) -> None:
        worker = self._machine().worker
        if worker is not None and worker.webhooks is not None:
            worker.webhooks.kill_sender(self.schedule.random.randint(1, 100))

    def _stop(self) -> None:
        worker = self._machine().worker
        if worker is not None and worker.process.alive:
            worker.process.stop()
            self.cluster.later(self.schedule.random.uniform(0.2, 15.0), worker.process.resume)

    def _cut_off(self) -> None:
        worker = self._machine().worker
        if worker is not None:
            worker.is_cut_off = True
            self.cluster.later(self.schedule.random.uniform(3.0, 15.0), setattr, worker, "is_cut_off", False)

    def _set_clock(self) -> None:
        worker = self._machine().worker
        if worker is not None:
            worker.process.clock_ahead_s = 7_200.0
            lasts = self.schedule.random.uniform(0.1, 3.0)
            self.cluster.later(lasts, setattr, worker.process, "clock_ahead_s", 0.0)

    def _elect(self) -> None:
        chance = self.schedule.random
        place = chance.choice(list(self.cluster.logs))
        if self.cluster.leaders[place] is not None:
            self.cluster.elect(place, chance.choice((0.05, 1.0, 15.0)) * chance.random())

    def _move(self) -> None:
        chance = self.schedule.random
        self.cluster.move_coordinator(chance.choice([GROUP, *self.cluster.transactions]), chance.random())

    def _take_down(self) -> None:
        chance = self.schedule.random
        if all(node.is_up for node in self.cluster.nodes.values()):
            self.cluster.take_down(chance.choice(list(self.cluster.nodes.values())), chance.uniform(0.2, 6.0))

    def _end_faults(self) -> None:
        self.trace("faults end")
        self.schedule.active = False
        for worker in self.workers:
            worker.is_cut_off = False
            worker.process.clock_ahead_s = 0.0
            if worker.process.is_stopped:
                worker.process.resume()
        if {"dropped batch", "late batch"} & self.schedule.rates.keys():
            # a gap is found when the next batch comes, and sought again when one comes a while later
            for delay_s in (0.0, SEEK_AGAIN_S + 1.0):
                self.cluster.later(delay_s, self._append_to_all)

    def _append_to_all(self) -> None:
        for number in range(self.partitions):
            self._append(ORDERS, number, [b"order after the faults"])
            self._append(COMMANDS, number, [b"command after the faults"])

    # the end

    async def _settle(self) -> None:
        """Wait until all is applied, and every worker can produce to every partition.

        Raises:
            Wrong: that takes too long.
        """
        began = self.loop.now
        unproved: dict[Any, set[int]] = {}
        while True:
            await asyncio.sleep(0.5)
            if (waits := self._waits_for()) is None and await self._all_produce(unproved):
                break
            if self.loop.now > began + SETTLING_S:
                raise Wrong(f"after {SETTLING_S:g} s without faults: {waits or 'a worker cannot produce'}")
        while self._waits_for() is not None:
            await asyncio.sleep(0.5)
            if self.loop.now > began + 2 * SETTLING_S:
                raise Wrong(f"after {SETTLING_S:g} s without faults: {self._waits_for()}")

    def _waits_for(self) -> str | None:
        """Say what is not applied yet."""
        if not all(task.done() for task in self._posts):
            return "commands are not acknowledged"
        for (topic, number), log in self.cluster.logs.items():
            committed = self.cluster.offsets.committed.get((topic, number), 0)
            if topic in (ORDERS, COMMANDS, OUTCOMES) and committed != log.end:
                return f"{topic}/{number} ends at {log.end}, the group's offset is {committed}"
        if not self.cluster.is_settled():
            return "a transaction is open"
        if not all(machine.worker is not None and machine.worker.is_running for machine in self.machines):
            return "a worker is down"
        if self.receivers is not None and (late := undelivered(self.cluster)):
            return f"{len(late)} webhooks are not delivered: {late[:3]}"
        return None

    async def _all_produce(self, unproved: dict[Any, set[int]]) -> bool:
        """Say whether every worker that runs could produce to every partition."""
        for worker in [machine.worker for machine in self.machines]:
            left = unproved.setdefault(worker, set(range(self.partitions)))
            for number in sorted(left):
                if await self._is_produced(worker, number, self._commands_of(number, 1)):
                    left.discard(number)
        return all(unproved.get(machine.worker) == set() for machine in self.machines)

    def _judge(self) -> None:
        for worker in self.workers:
            is_taken = isinstance(worker.error, PartitionTaken) and worker in self.group.ever_evicted
            if worker.error is not None and not isinstance(worker.error, EXPECTED) and not is_taken:
                raise Wrong(f"{worker.name} ended with {worker.error!r}")
        judge(self.cluster, self.acknowledged)
        if self.receivers is not None:
            judge_webhooks(self.cluster, self.receivers.arrivals)
            if self.receivers.repeated:
                raise Wrong(f"sent again by one sender: {self.receivers.repeated[:5]}")
        for machine in self.machines:
            for name, table in machine.worker.app.tables.items():
                for number, store in table.store.all_open():
                    keys = store.keys(b"", b"\xfe", 10_000)
                    rows = dict(zip(keys, store.read_many(keys), strict=True))
                    judge_store(self.cluster, name, number, rows, store.offset)


def run(seed: int, *, traced: bool = False, shown: bool = False) -> Result:
    """Run one schedule.

    Args:
        traced: whether to hash all that happens.
        shown: whether to print it, too.
    """
    loop = SimulatedLoop()
    trace = Trace(loop, traced, shown)
    problem = None
    with _setting(loop, seed) as path:
        simulation = Simulation(seed, loop, trace, path)
        try:
            loop.run_until_complete(simulation.run())
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        finally:
            _abandon(simulation)
            loop.close()
        result = _result(seed, problem, trace, simulation)
        del simulation
        if seed % COLLECT_EVERY == 0:
            gc.collect()
    return result


def _result(seed: int, problem: str | None, trace: Trace, simulation: Simulation) -> Result:
    loop = simulation.loop
    records = sum(
        log.end for (topic, _), log in simulation.cluster.logs.items() if topic in (ORDERS, COMMANDS)
    )
    ends = [repr(worker.error) for worker in simulation.workers if worker.error is not None]
    restarts = len(simulation.workers) - len(simulation.machines)
    faults, seconds = simulation.schedule.faults, loop.now - BEGIN_S
    return Result(seed, problem, trace.digest(), seconds, loop.steps, records, restarts, faults, ends)


def _memory() -> Path | None:
    """Return a directory without a disk, where there is one: RocksDB waits for the disk when it opens."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


@contextmanager
def _setting(loop: SimulatedLoop, seed: int) -> Iterator[Path | None]:
    """Set the clock, small batches, and silence, for one run."""
    path = Path(tempfile.mkdtemp(prefix="simulation-", dir=_memory())) if seed % ON_DISK == 0 else None
    batch_bytes, transactions.BATCH_BYTES = transactions.BATCH_BYTES, BATCH_BYTES
    was_collecting = gc.isenabled()
    # what is finalized when would depend on the collector
    gc.disable()
    try:
        with virtual_time(loop, seed), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            logging.disable(logging.CRITICAL)
            yield path
    finally:
        logging.disable(logging.NOTSET)
        transactions.BATCH_BYTES = batch_bytes
        if was_collecting:
            gc.enable()
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)


def _abandon(simulation: Simulation) -> None:
    """End the workers that are left."""
    for worker in simulation.workers:
        worker.end()
