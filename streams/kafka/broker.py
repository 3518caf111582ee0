"""One embedded Kafka broker as a thing to start, ask and stop; `cluster` has several."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.kafka import probe, properties, storage, watchdog
from streams.kafka.disk import full_disk_named, require_space
from streams.kafka.errors import BrokerFailed, BrokerRunning, DiskFull, PortTaken
from streams.kafka.jars import Say, ensure_jars, jars_dir
from streams.kafka.java import find_java

START_TIMEOUT_S = 60.0
#: SIGKILL follows SIGTERM after this; together they stay within five seconds.
STOP_GRACE_S = 4.0
#: Less than this and Kafka's indexes and segments would soon meet the end of the disk.
NEEDED_BYTES = 256 * 2**20

_JVM_OPTIONS = (
    # Measured on two cores with 1.6 million records in transactions: the collectors cost the same; with the
    # first compiler alone a start takes a quarter less CPU, and 200,000 records 0.9 s of it instead of 1.4.
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
)


@dataclass(frozen=True)
class Status:
    """A running broker, as its pid file says; `serving` when it answered just now."""

    pid: int
    port: int
    data_dir: Path
    serving: bool

    @property
    def url(self) -> str:
        """The address as Faust and TRACKER_BROKER_URL want it."""
        return f"kafka://127.0.0.1:{self.port}"


class EmbeddedKafka:
    """A broker on 127.0.0.1; used with `with`, it never outlives this process.

    Args:
        data_dir: its log, topics and pid file; not given: a temporary directory, removed at the stop.
        port: where clients connect; 0 takes a free one.
        say: told, in a line, what takes time.
        node: which node it is of which cluster; the only one when not given.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int = 0,
        say: Say = lambda _line: None,
        node: properties.Node = properties.ALONE,
    ) -> None:
        self._temporary = data_dir is None
        self.data_dir = (data_dir or Path(tempfile.mkdtemp(prefix="delivery-tracker-kafka-"))).absolute()
        self.port = port
        self.node = node
        #: Removed when the owner has died: ours, or the cluster's.
        self.orphaned_dir = self.data_dir if self._temporary else None
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """The address as Kafka clients want it: `127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address as Faust and TRACKER_BROKER_URL want it: `kafka://127.0.0.1:PORT`."""
        return f"kafka://{self.bootstrap}"

    @property
    def log_file(self) -> Path:
        """What the broker has printed since its last start."""
        return self.data_dir / "broker.log"

    @property
    def pid_file(self) -> Path:
        """There while the broker runs: its process id and port."""
        return self.data_dir / "broker.json"

    def start(self, *, detached: bool = False) -> None:
        """Start the broker and return when it serves.

        Args:
            detached: leave it running when this process ends, until some process calls `stop`.
        Raises:
            EmbeddedKafkaError: one of its kinds; nothing is left running.
        """
        try:
            self.launch(detached=detached)
            self.await_serving()
        except BaseException:
            self._clean_up()
            raise

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop the broker, whoever started it, and remove a temporary directory.

        Args:
            grace_s: seconds between SIGTERM and SIGKILL.
        """
        running = self.status() if self._process is None else None
        if running is not None:
            watchdog.end(running.pid, grace_s)
            self.pid_file.unlink(missing_ok=True)
        self._clean_up(grace_s)

    def status(self) -> Status | None:
        """Tell what runs on this data directory, started by whichever process."""
        try:
            noted = json.loads(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if not _is_broker(noted["pid"], self._properties_file):
            return None
        return Status(noted["pid"], noted["port"], self.data_dir, probe.serves(noted["port"]))

    @property
    def _properties_file(self) -> Path:
        return self.data_dir / "server.properties"

    @property
    def _topics_dir(self) -> Path:
        return self.data_dir / "topics"

    def launch(self, *, detached: bool = False) -> None:
        """Start the broker without waiting until it serves: a node of a cluster does so once others do."""
        running = self.status()
        if running is not None:
            raise BrokerRunning(self.data_dir, running.pid, running.url)
        if self.port and not probe.is_free(self.port):
            raise PortTaken(self.port)
        class_path = os.pathsep.join(map(str, ensure_jars(say=self._say)))
        heap = (f"-Xms{self.node.heap_mb}m", f"-Xmx{self.node.heap_mb}m")
        command = [str(find_java()), *heap, *_JVM_OPTIONS, "-cp", class_path]
        with full_disk_named(self.data_dir, NEEDED_BYTES):
            self._prepare(command)
            self._launch(command, detached)

    def _prepare(self, java_command: list[str]) -> None:
        """Write the configuration and, in a new directory, Kafka's format."""
        self._topics_dir.mkdir(parents=True, exist_ok=True)
        require_space(self.data_dir, NEEDED_BYTES)
        port, controller_port = probe.free_ports(2)
        self.port = self.port or port
        chosen = replace(self.node, controller_ports=self.node.controller_ports or (controller_port,))
        self._properties_file.write_text(properties.render(self._topics_dir, self.port, chosen))
        if not storage.is_formatted(self._topics_dir):
            template = jars_dir() / storage.template_name(properties.CLUSTER_ID, chosen.id)
            storage.format_once(self._topics_dir, template, lambda: self._format(java_command))

    def _format(self, java_command: list[str]) -> None:
        arguments = ["format", "-t", properties.CLUSTER_ID, "-c", str(self._properties_file)]
        with self.log_file.open("wb") as log:
            done = subprocess.run(
                [*java_command, "kafka.tools.StorageTool", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0 or not storage.is_formatted(self._topics_dir):
            raise self._failure("could not format its directory")

    def _launch(self, java_command: list[str], detached: bool) -> None:
        """Start the server in a session of its own: a Ctrl-C at the terminal must reach the workers first."""
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [*java_command, "kafka.Kafka", str(self._properties_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                start_new_session=True,
            )
        self.pid_file.write_text(json.dumps({"pid": self._process.pid, "port": self.port}))
        if not detached:
            self._watchdog = self._post_watchdog(self._process.pid)

    def _post_watchdog(self, pid: int) -> "subprocess.Popen[bytes]":
        arguments = [str(pid), str(STOP_GRACE_S), *([str(self.orphaned_dir)] if self.orphaned_dir else [])]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, *arguments],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def await_serving(self) -> None:
        """Return once it serves.

        Raises:
            EmbeddedKafkaError: it ended, or did not within START_TIMEOUT_S.
        """
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not probe.serves(self.port):
            if process.poll() is not None:
                raise self._failure(f"ended with exit code {process.returncode} before it served")
            if time.monotonic() > deadline:
                raise self._failure(f"did not serve within {START_TIMEOUT_S:.0f} s")
            time.sleep(0.05)

    def _clean_up(self, grace_s: float = STOP_GRACE_S) -> None:
        """End what this object started; leave what another process started on the same directory."""
        process, self._process = self._process, None
        if process is not None:
            _end_child(process, grace_s)
            self.pid_file.unlink(missing_ok=True)
        guard, self._watchdog = self._watchdog, None
        if guard is not None:
            guard.communicate(b"\n")
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def _failure(self, what: str) -> BrokerFailed | DiskFull | PortTaken:
        """Name the cause as the broker's log tells it."""
        tail = self._log_tail()
        if "No space left on device" in tail:
            return DiskFull(self.data_dir, NEEDED_BYTES)
        if "Address already in use" in tail:  # taken between our look and the broker's
            return PortTaken(self.port)
        return BrokerFailed(what, self.log_file, tail)

    def _log_tail(self, lines: int = 20) -> str:
        try:
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


def _end_child(process: "subprocess.Popen[bytes]", grace_s: float) -> None:
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _is_broker(pid: int, properties_file: Path) -> bool:
    """Tell whether `pid` is the broker of this configuration, not a later process with the same number."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        if Path("/proc/self").exists():
            return False
        command = subprocess.run(
            ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
        ).stdout
    return os.fsencode(properties_file) in command
