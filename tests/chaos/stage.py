"""What a fault acts on: brokers, three workers behind proxies, a load, and the group's progress."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from streams.kafka import probe
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.cluster import EmbeddedCluster
from streams.kafka.properties import Listener
from tests.faults.cluster import Cluster, FaultRunError, Worker
from tests.faults.load import Load
from tests.faults.logs import STREAMS, Names

from .proxy import Network, Proxy

WORKERS = ("w0", "w1", "w2")
PARTITIONS = 4
#: A group that has not committed on all partitions after this is stalled.
STALL_S = 90.0
#: What a supervisor waits before it starts a worker again: the first time, and at most.
RESTART_S, LONGEST_RESTART_S = 1.0, 8.0
#: A worker that ended sooner after its start will soon end again.
YOUNG_S = 10.0
BROKER_STOP_S = 30.0
ASK_S = 5.0
LOOK_S = 0.1

Say = Callable[[str], None]
Positions = dict[tuple[str, int], int]  # by stream and partition


class Stalled(Exception):
    """The group does not commit; the text says on which partitions, and what the workers say about it."""


class Brokers:
    """Embedded brokers with a proxied listener for each worker; they last over several rounds."""

    def __init__(self, nodes: int, say: Say = lambda _line: None) -> None:
        ports = iter(probe.lasting_ports(nodes + 2 * nodes * len(WORKERS)))
        own = [next(ports) for _ in range(nodes)]
        self.network = Network()
        self._planned = [{name: Listener(next(ports), next(ports)) for name in WORKERS} for _ in range(nodes)]
        named = [{name.upper(): at for name, at in node.items()} for node in self._planned]
        self.cluster = EmbeddedCluster(nodes=nodes, ports=own, listeners=named, say=say)
        self.proxies: dict[str, list[Proxy]] = {name: [] for name in WORKERS}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.network)
            for node in self._planned:
                for name, at in node.items():
                    self.proxies[name].append(self.network.proxy(at.port, at.advertised))
            stack.enter_context(self.cluster)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resume()
        self._stack.close()

    @property
    def nodes(self) -> list[EmbeddedKafka]:
        return self.cluster.brokers

    def signal(self, node: EmbeddedKafka, number: signal.Signals) -> None:
        status = node.status()
        if status is not None:
            os.kill(status.pid, number)

    def resume(self) -> None:
        for node in self.nodes:
            self.signal(node, signal.SIGCONT)

    def kill(self, *nodes: EmbeddedKafka) -> None:
        for node in nodes:
            self.signal(node, signal.SIGKILL)
        for node in nodes:
            node.stop()  # collects what is left of the process

    def heal(self) -> None:
        """Have all brokers run and all links pass."""
        self.resume()
        for proxies in self.proxies.values():
            for proxy in proxies:
                proxy.heal()
        if not all(self.cluster.statuses()):
            self.cluster.start()


class Progress:
    """The group's committed positions and its inputs' ends, asked of brokers that may not answer.

    Clients that got no answer are thrown away: some of librdkafka's take long to find brokers that were away.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.last: Positions = {}
        self._quiet: dict[str, Any] = {
            "bootstrap.servers": names.bootstrap,
            "log_level": 0,
            "reconnect.backoff.max.ms": 500,
        }
        self._open()

    def _open(self) -> None:
        group = {"group.id": self.names.app_id, "enable.auto.commit": False}
        self._reader = Consumer({**self._quiet, **group})
        self.admin = AdminClient(self._quiet)

    def close(self) -> None:
        self._reader.close()

    def committed(self) -> Positions | None:
        """Return what is committed; None when no broker says so in time."""
        asked = [
            TopicPartition(self.names.input(s), p) for s in STREAMS for p in range(self.names.partitions)
        ]
        try:
            answers = self._reader.committed(asked, timeout=ASK_S)
        except KafkaException:
            return self._without_answer()
        if any(answer.error for answer in answers):
            return self._without_answer()
        self.last = {self._place(answer): max(0, answer.offset) for answer in answers}
        return self.last

    def ends(self) -> Positions | None:
        """Return where the inputs end; None when no broker says so in time."""
        asked = {
            TopicPartition(self.names.input(s), p): OffsetSpec.latest()
            for s in STREAMS
            for p in range(self.names.partitions)
        }
        level = IsolationLevel.READ_UNCOMMITTED
        try:
            answers: Any = self.admin.list_offsets(asked, isolation_level=level, request_timeout=ASK_S)
            return {self._place(tp): answer.result(2 * ASK_S).offset for tp, answer in answers.items()}
        except (KafkaException, TimeoutError):
            return self._without_answer()

    def _without_answer(self) -> None:
        self._reader.close()
        self._open()

    def _place(self, tp: TopicPartition) -> tuple[str, int]:
        return tp.topic.removeprefix(self.names.prefix), tp.partition


#: What the last line of a traceback begins with.
EXCEPTION = re.compile(r"^([\w.]*(Error|Exception|Failed|Fenced|Stopped)\w*\b.*|Error: .*)", re.MULTILINE)


def reason(worker: Worker) -> str:
    """Return why a worker ended: its exit code, and the first exception in its log since it started."""
    code = worker.process.returncode if worker.process else None
    said = worker.last_words(1_000).rpartition("--- start ")[2]
    found = EXCEPTION.search(said)
    return f"exit code {code}, {(found[0] if found else said.strip().rpartition(chr(10))[2])[:200]}"


@dataclass
class Unsure:
    """Stores of which less can be asked: those that were damaged, or all, once changelogs were compacted."""

    paths: set[Path] = field(default_factory=set)
    all: bool = False

    def __contains__(self, path: object) -> bool:
        return self.all or path in self.paths


@dataclass
class Restart:
    """When a worker is to be started again, and when it last was; of time.monotonic."""

    due: float | None = None
    last: float = 0.0
    pause_s: float = RESTART_S


@dataclass
class Stage:
    """One application under load, and what the faults have done to it so far.

    Attributes:
        patience_s: after which a group that does not commit is stalled.
        recovered_after_s: by the present fault; None until it is known.
        own_exits: workers that ended by themselves, by the present fault, and why.
        huge: how many records of HUGE_BYTES faults have produced.
        unsure: what faults have done to stores.
    """

    brokers: Brokers
    cluster: Cluster
    load: Load
    rng: random.Random
    progress: Progress
    patience_s: float = STALL_S
    recovered_after_s: float | None = None
    own_exits: list[str] = field(default_factory=list)
    huge: int = 0
    unsure: Unsure = field(default_factory=Unsure)
    mounts: list[Path] = field(default_factory=list)
    now: Callable[[], float] = time.monotonic
    _away: set[str] = field(default_factory=set)
    _restarts: dict[str, Restart] = field(default_factory=dict)

    @property
    def names(self) -> Names:
        return self.cluster.names

    @property
    def nodes(self) -> list[EmbeddedKafka]:
        return self.brokers.nodes

    def worker(self, name: str) -> Worker:
        """Return a worker that reaches the brokers by its proxies, if it has some."""
        worker = self.cluster.worker(name)
        if proxies := self.brokers.proxies.get(name):
            addresses = ";".join(f"kafka://127.0.0.1:{proxy.port}" for proxy in proxies)
            worker.environment = worker.environment | {"TRACKER_BROKER_URL": addresses}
        return worker

    def any_worker(self) -> Worker:
        return self.cluster.workers[self.rng.choice(WORKERS)]

    def any_node(self) -> EmbeddedKafka:
        return self.rng.choice(self.nodes)

    @contextlib.contextmanager
    def away(self, *workers: Worker) -> Iterator[None]:
        """Let nobody start these workers again within the block, and start them at its end."""
        self._away |= {worker.name for worker in workers}
        try:
            yield
        finally:
            self._away -= {worker.name for worker in workers}
            for worker in workers:
                if not worker.alive:
                    worker.start()

    def supervise(self) -> None:
        """Start workers again that ended by themselves: later each time that they did so soon."""
        now = self.now()
        for worker in self.cluster.workers.values():
            if worker.alive or worker.name in self._away:
                continue
            restart = self._restarts.setdefault(worker.name, Restart())
            if restart.due is None:
                self.own_exits.append(f"{worker.name}: {reason(worker)}")
                was_young = now - restart.last < YOUNG_S
                restart.pause_s = min(2 * restart.pause_s, LONGEST_RESTART_S) if was_young else RESTART_S
                restart.due = now + restart.pause_s
            elif restart.due <= now:
                worker.start()
                restart.last, restart.due = now, None

    def pause(self, seconds: float) -> None:
        """Let time go by, in which workers may end and are started again."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.supervise()
            time.sleep(min(left, LOOK_S))

    def until(self, met: Callable[[], bool], within_s: float, what: str) -> None:
        deadline = time.monotonic() + within_s
        while not met():
            if time.monotonic() > deadline:
                raise Stalled(f"waited {within_s:g} s in vain: {what}")
            self.pause(LOOK_S)

    def recover(self, since: float | None = None) -> float:
        """Wait until the group commits on all partitions that have something to commit.

        Args:
            since: the moment, of time.monotonic, from which the recovery counts; now when not given.
        Returns: how long it took, which is noted for the present fault if nothing was before.
        """
        began = time.monotonic() if since is None else since
        start = dict(self.progress.committed() or self.progress.last)
        deadline = time.monotonic() + self.patience_s
        while stuck := self._stuck(start):
            if time.monotonic() > deadline:
                raise Stalled(
                    f"nothing committed for {self.patience_s:g} s on {', '.join(stuck)}; {self.diagnosis()}"
                )
            self.pause(LOOK_S)
        took = time.monotonic() - began
        if self.recovered_after_s is None:
            self.recovered_after_s = took
        return took

    def await_workers(self) -> None:
        """Wait until every worker runs and is ready."""

        def are_ready() -> bool:
            return all(worker.alive and worker.ready() for worker in self.cluster.workers.values())

        deadline = time.monotonic() + self.patience_s
        while not are_ready():
            if time.monotonic() > deadline:
                raise Stalled(f"not every worker is ready after {self.patience_s:g} s; {self.diagnosis()}")
            self.pause(LOOK_S)

    def _stuck(self, start: Positions) -> list[str]:
        committed, ends = self.progress.committed(), self.progress.ends()
        if committed is None or ends is None:
            return ["all, as no broker answers"]
        return [
            f"{stream}/{p}"
            for (stream, p), end in ends.items()
            if committed[stream, p] < end and committed[stream, p] <= start.get((stream, p), 0)
        ]

    def diagnosis(self) -> str:
        """Tell what each worker says of itself."""
        said = []
        for worker in self.cluster.workers.values():
            state = worker.get("/ready") if worker.alive else "ended"
            said.append(f"{worker.name}: {state}")
        return "; ".join(said)

    def terminate(self, worker: Worker) -> None:
        """End a worker by SIGTERM; one that does not go in time is stalled, and killed."""
        try:
            worker.terminate()
        except FaultRunError as error:
            if worker.alive:
                worker.kill()
                raise Stalled(str(error).partition("\n")[0]) from error

    @contextlib.contextmanager
    def topic_settings(self, topics: Sequence[str], **settings: object) -> Iterator[None]:
        """Alter settings of topics within the block (max_message_bytes=100), and put back what was."""
        values = {name.replace("_", "."): str(value) for name, value in settings.items()}
        before = {topic: self._settings(topic, values) for topic in topics}
        self._alter({topic: values for topic in topics})
        try:
            yield
        finally:
            self._alter(before)

    def _settings(self, topic: str, names: Container[str]) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        (answer,) = self.progress.admin.describe_configs([resource], request_timeout=30).values()
        return {name: str(entry.value) for name, entry in answer.result().items() if name in names}

    def _alter(self, wanted: dict[str, dict[str, str]]) -> None:
        put = AlterConfigOpType.SET
        resources = [
            ConfigResource(
                ResourceType.TOPIC,
                topic,
                incremental_configs=[ConfigEntry(n, v, incremental_operation=put) for n, v in values.items()],
            )
            for topic, values in wanted.items()
        ]
        for answer in self.progress.admin.incremental_alter_configs(resources, request_timeout=30).values():
            answer.result()

    def topics(self) -> dict[str, Any]:
        """Return the metadata of the application's topics."""
        known = self.progress.admin.list_topics(timeout=30).topics
        return {name: known[name] for name in self.names.all}

    def produce(self, records: Sequence[tuple[str, int, bytes | None, bytes | None, Any]]) -> None:
        """Produce records (stream, partition, key, value, headers) beside the load."""
        failures: list[KafkaError] = []
        producer = Producer(
            {
                "bootstrap.servers": self.names.bootstrap,
                "enable.idempotence": True,
                "message.max.bytes": 17 * 2**20,
                "log_level": 0,
            }
        )
        for stream, partition, key, value, headers in records:
            producer.produce(
                self.names.input(stream),
                value=value,
                key=key,
                partition=partition,
                headers=headers,
                on_delivery=lambda error, _message: failures.append(error) if error else None,
            )
            producer.poll(0)
        if producer.flush(30) or failures:
            raise FaultRunError(f"could not produce: {failures[:3]}")

    def mount_small_disk(self, directory: Path, mib: int) -> None:
        """Give a directory a file system of its own, in memory."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(directory)]
        subprocess.run(command, check=True, capture_output=True)
        self.mounts.append(directory)

    def unmount(self) -> None:
        for directory in self.mounts:
            subprocess.run(["umount", "-l", str(directory)], check=False, capture_output=True)
        self.mounts.clear()
