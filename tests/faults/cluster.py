"""Workers as processes of their own, on one broker: started, killed, stopped, and never left behind."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.kafka.probe import free_port
from streams.processes import SUPERVISED

from . import logs
from .inputs import Ages, Json
from .logs import Names

CHECKOUT = Path(__file__).parents[2]
#: Ten years: nothing is ever due.
FOR_EVER = Ages(tracking_ms=315_360_000_000, retention_ms=315_360_000_000)
READY_S = 60.0
CAUGHT_UP_S = 120.0
EXIT_S = 20.0


class FaultRunError(Exception):
    """The run could not go on: a worker ended or a deadline passed without a fault of ours."""


def until(met: Callable[[], bool], within_s: float, what: str, every_s: float = 0.1) -> None:
    """Poll a condition; the deadline turns into an error that says what was awaited."""
    deadline = time.monotonic() + within_s
    while not met():
        if time.monotonic() > deadline:
            raise FaultRunError(f"waited {within_s:g} s in vain: {what}")
        time.sleep(every_s)


def _dies_with_its_parent() -> None:
    """PR_SET_PDEATHSIG, prctl(2): a killed test run leaves no worker behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@dataclass
class Worker:
    """A worker's process; its data directory and port stay the same over restarts.

    Attributes:
        suspended: whether it was, and so may find itself fenced and end of its own.
    """

    name: str
    environment: dict[str, str]
    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    program: Sequence[str] = ("-m", "tests.faults.worker")
    suspended: bool = False

    @property
    def data_dir(self) -> Path:
        return self.directory / self.name

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def clock(self) -> Path:
        return self.directory / f"{self.name}.clock"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, failpoint: str | None = None) -> None:
        """Start it; with `failpoint` ("commit.after:3") it kills itself there."""
        # what is killed is the worker's process itself, and what restarts it is the run
        own = {
            SUPERVISED: "1",
            "TRACKER_DATA_DIR": str(self.data_dir),
            "TRACKER_WEB_PORT": str(self.port),
            "FAULTS_CLOCK": str(self.clock),
        }
        if failpoint:
            own["STREAMS_FAILPOINT"] = failpoint
        self.starts += 1
        self.suspended = False
        with self.log.open("ab") as log:
            log.write(f"--- start {self.starts} {failpoint or ''}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                [sys.executable, *self.program],
                cwd=CHECKOUT,
                env={**os.environ, **self.environment, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_dies_with_its_parent,
            )

    def send(self, number: signal.Signals) -> None:
        """Signal the whole process group, if it still lives."""
        if self.process is not None and self.alive:
            os.killpg(self.process.pid, number)

    def wait(self, within_s: float) -> int:
        """Return the exit code; negative: the signal that ended it."""
        assert self.process is not None
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise FaultRunError(
                f"{self.name} did not end within {within_s:g} s\n{self.last_words()}"
            ) from None

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait(EXIT_S)

    def kill_sender(self) -> bool:
        """Kill the process that sends its webhooks; False if there is none."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        return bool(children)

    def terminate(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """End it as a supervisor does; it must go by itself, once it is so far as to listen."""
        listens = self.get("/live")[0] == 200
        self.send(signal.SIGTERM)
        meanwhile()
        code = self.wait(EXIT_S)
        if code and not self.suspended and (listens or code != -signal.SIGTERM):
            raise FaultRunError(f"{self.name} exited {code} on SIGTERM\n{self.last_words()}")

    def set_clock(self, ahead_s: float) -> None:
        """Put its clock that many seconds ahead (negative: behind), now and at its next starts."""
        staged = self.clock.with_suffix(".staged")
        staged.write_text(f"{ahead_s:g}")
        staged.replace(self.clock)

    def empty(self) -> None:
        """Remove its tables, as after the loss of a disk."""
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def ready(self) -> bool:
        return self.get("/ready")[0] == 200

    def get(self, path: str, method: str = "GET", within_s: float = 5) -> tuple[int, Json]:
        """Return status and JSON body; status 0 when nobody answers."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            asked = urllib.request.Request(url, method=method)
            with urllib.request.urlopen(asked, timeout=within_s) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json(error.read())
        except OSError:
            return 0, {}

    def last_words(self, lines: int = 40) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


@dataclass
class Cluster:
    """The workers of one application; leaving the block kills them all."""

    names: Names
    directory: Path
    session_timeout_s: float = 6.0
    unit_records: int = 200  # many transactions, so that faults find one in flight
    standbys: int = 0
    replication: int = 1
    ages: Ages = FOR_EVER
    extra: Mapping[str, str] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            worker.send(signal.SIGKILL)
        for worker in self.workers.values():
            if worker.process is not None:
                worker.process.wait(EXIT_S)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "TRACKER_BROKER_URL": broker_url(self.names.bootstrap),
            "TRACKER_APP_ID": self.names.app_id,
            "TRACKER_TOPIC_PREFIX": self.names.prefix,
            "TRACKER_PARTITIONS": str(self.names.partitions),
            "TRACKER_REPLICATION": str(self.replication),
            "TRACKER_SESSION_TIMEOUT": f"{self.session_timeout_s:g}s",
            "TRACKER_UNIT_RECORDS": str(self.unit_records),
            "TRACKER_STANDBYS": str(self.standbys),
            "TRACKER_MAX_TRACKING": f"{self.ages.tracking_ms}ms",
            "TRACKER_RETENTION": f"{self.ages.retention_ms}ms",
            "TRACKER_SWEEP_INTERVAL": "500ms",
            "PYTHONUNBUFFERED": "1",
            **self.extra,
        }

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.alive]

    def create_topics(self) -> None:
        """As a newcomer does."""
        command = [sys.executable, "-m", "streams", "topics", "--create"]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            command, cwd=CHECKOUT, env=environment, capture_output=True, timeout=60, check=False
        )
        if done.returncode:
            raise FaultRunError(f"topics --create: {done.stdout.decode()}{done.stderr.decode()}")

    def worker(self, name: str) -> Worker:
        if name not in self.workers:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.workers[name] = Worker(name, self.environment, self.directory, free_port())
        return self.workers[name]

    def await_ready(self, worker: Worker, within_s: float = READY_S) -> None:
        """Wait until the worker serves its partitions; a worker that ended by itself is an error."""

        def is_ready() -> bool:
            if not worker.alive:
                raise FaultRunError(f"{worker.name} ended by itself\n{worker.last_words()}")
            return worker.ready()

        until(is_ready, within_s, f"{worker.name} ready\n{worker.last_words()}")

    def position(self) -> int:
        """How many input offsets the group has committed, over all partitions."""
        return sum(logs.committed(self.names).values())

    def await_progress(self, records: int = 1, within_s: float = READY_S) -> None:
        """Wait until the group has committed that much more."""
        start = self.position()
        until(lambda: self.position() >= start + records, within_s, f"{records} more inputs committed")

    def await_caught_up(self, within_s: float = CAUGHT_UP_S) -> None:
        until(lambda: logs.caught_up(self.names), within_s, "the group at the end of its inputs", 0.3)


def broker_url(bootstrap: str) -> str:
    """Return the addresses `host:port,…` as TRACKER_BROKER_URL wants them."""
    return ";".join(f"kafka://{address}" for address in bootstrap.split(","))


def _json(body: bytes) -> Json:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
