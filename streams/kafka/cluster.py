"""Several embedded brokers that are one Kafka: partitions have copies, and a broker may fail."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.kafka import probe
from streams.kafka.broker import EmbeddedKafka, Status
from streams.kafka.errors import BrokerRunning, OtherCluster
from streams.kafka.jars import Say, ensure_jars
from streams.kafka.properties import Listener, Node

MOST_NODES = 5
#: Three Java heaps beside workers: each of them half of what a broker gets that is alone.
HEAP_MB = 256

_NODE_DIR = "node-"


class EmbeddedCluster:
    """Brokers on 127.0.0.1, each also a controller; used with `with`, they never outlive this process.

    A cluster of one keeps its data where `EmbeddedKafka` does; larger ones keep those of node N in `node-N`.

    Args:
        data_dir: topics, logs and pid files; not given: a temporary directory, removed at the stop.
        nodes: how many; None: as many as the directory has, one when it has none.
        ports: where clients connect, by node; () takes free ones.
        listeners: further listeners of each node, by name.
        say: told, in a line, what takes time.
    Raises:
        OtherCluster: the directory holds a cluster of another size.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        nodes: int | None = None,
        ports: Sequence[int] = (),
        listeners: Sequence[Mapping[str, Listener]] = (),
        say: Say = lambda _line: None,
    ) -> None:
        self._temporary = data_dir is None
        self.data_dir = (data_dir or Path(tempfile.mkdtemp(prefix="delivery-tracker-kafka-"))).absolute()
        there = nodes_of(self.data_dir)
        if nodes is not None and there not in (0, nodes):
            raise OtherCluster(self.data_dir, there, nodes)
        self._ports = ports
        self._placed = False
        self._say = say
        count = nodes or there or 1
        self.brokers = [EmbeddedKafka(self._directory(n, count), say=say) for n in range(1, count + 1)]
        for n, broker in enumerate(self.brokers):
            broker.node = Node(n + 1, listeners=listeners[n] if listeners else {})
            if count > 1:
                broker.node = replace(broker.node, heap_mb=HEAP_MB)
            if self._temporary:
                broker.orphaned_dir = self.data_dir

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """The addresses as Kafka clients want them: `127.0.0.1:PORT,127.0.0.1:PORT…`."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    @property
    def url(self) -> str:
        """The addresses as TRACKER_BROKER_URL wants them: `kafka://127.0.0.1:PORT;kafka://…`."""
        return ";".join(broker.url for broker in self.brokers)

    @property
    def replication(self) -> int:
        """How many copies its topics should have, as TRACKER_REPLICATION."""
        return min(len(self.brokers), 3)

    def start(self, *, detached: bool = False) -> None:
        """Start those brokers that do not run, and return when all of them serve.

        Args:
            detached: leave them running when this process ends, until some process calls `stop`.
        Raises:
            EmbeddedKafkaError: one of its kinds; none that was started here is left running.
        """
        running = self.statuses()
        if all(running):
            raise BrokerRunning(self.data_dir, running[0].pid, self.url)  # type: ignore[union-attr]
        ensure_jars(say=self._say)  # before several look for them at once
        if not any(running) and not self._placed:
            self._place()
        missing = [broker for broker, found in zip(self.brokers, running, strict=True) if found is None]
        try:
            self._each(lambda broker: broker.launch(detached=detached), missing)
            self._each(lambda broker: broker.await_serving(), missing)
        except BaseException:
            self._each(lambda broker: broker.stop(), missing)
            self._remove_temporary()
            raise

    def stop(self) -> None:
        """Stop all brokers within five seconds, whoever started them, and remove a temporary directory."""
        self._each(lambda broker: broker.stop(), self.brokers)
        self._remove_temporary()

    def statuses(self) -> list[Status | None]:
        """Tell what runs of each node, started by whichever process."""
        found = [broker.status() for broker in self.brokers]
        if any(found) and self._layout.exists():
            self._take(json.loads(self._layout.read_text()))
        for broker, status in zip(self.brokers, found, strict=True):
            broker.port = status.port if status else broker.port
        return found

    @property
    def _layout(self) -> Path:
        return self.data_dir / "cluster.json"

    def _directory(self, number: int, count: int) -> Path:
        return self.data_dir / f"{_NODE_DIR}{number}" if count > 1 else self.data_dir

    def _place(self) -> None:
        """Choose all ports together, before any node runs: each node must know those of all."""
        if len(self.brokers) == 1:
            self.brokers[0].port = self._ports[0] if self._ports else 0
            self._placed = True
            return
        free = probe.lasting_ports(2 * len(self.brokers))
        layout = {"ports": list(self._ports) or free[::2], "controller_ports": free[1::2]}
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._layout.write_text(json.dumps(layout))
        self._take(layout)

    def _take(self, layout: Mapping[str, list[int]]) -> None:
        self._placed = True
        for broker, port in zip(self.brokers, layout["ports"], strict=True):
            broker.port = port
            broker.node = replace(broker.node, controller_ports=tuple(layout["controller_ports"]))

    def _each(self, act: Callable[[EmbeddedKafka], None], brokers: Sequence[EmbeddedKafka]) -> None:
        """Do it with several brokers at once; the first failure is raised when all are done."""
        with ThreadPoolExecutor(max(1, len(brokers))) as threads:
            done = [threads.submit(act, broker) for broker in brokers]
        for future in done:
            future.result()

    def _remove_temporary(self) -> None:
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)


def nodes_of(data_dir: Path) -> int:
    """Return how many nodes have their data in a directory; 0 when it has none."""
    several = len(list(data_dir.glob(f"{_NODE_DIR}*/server.properties")))
    return several or int((data_dir / "server.properties").exists())
