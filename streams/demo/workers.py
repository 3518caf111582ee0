"""One worker as something to start, watch and stop, be it one process or several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from streams.kafka.probe import free_port, free_ports, is_free
from streams.processes import SUPERVISED, OwnedProcess

STOP_S = 4.5
"""A worker that has not gone by then is killed: with the broker after it, everything must end within 10 s."""
KILLED_S = 0.5
"""What a worker of several processes may take to kill them."""
TRIES = 100


@dataclass
class WorkerProcess:
    """`python -m streams worker` with an environment of its own; its output goes to a log file."""

    environment: Mapping[str, str]
    log_path: Path
    _owned: OwnedProcess | None = field(default=None, repr=False)
    _log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where its web view answers; any process answers for all, and this is the first one's."""
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """Where each of its processes answers."""
        first, count = int(self.environment["TRACKER_WEB_PORT"]), int(self.environment["TRACKER_PROCESSES"])
        return [f"http://127.0.0.1:{port}" for port in range(first, first + count)]

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._owned is not None and self._owned.alive

    @property
    def pid(self) -> int | None:
        """Of its only process, or of the one that keeps several running."""
        process = None if self._owned is None else self._owned.process
        return None if process is None else process.pid

    def start(self) -> None:
        """Start it; it goes when we go, however that is."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("ab")
        command = [sys.executable, "-m", "streams", "worker"]
        # a single process needs no supervisor: its end is reported instead
        own = {SUPERVISED: "1"} if self.environment["TRACKER_PROCESSES"] == "1" else {}
        self._owned = OwnedProcess(command, {**self.environment, **own}, STOP_S, self._log)
        self._owned.start()

    def stop(self) -> int | None:
        """SIGTERM, then SIGKILL if it does not go; returns its exit code (None: never started)."""
        if self._owned is None:
            return None
        end_within(self._owned, STOP_S)
        if self._log is not None:
            self._log.close()
        return self._owned.ended()

    def peak_bytes(self) -> int | None:
        """The most memory it ever held, each process by itself, where the system says so (Linux)."""
        return self._status_bytes("VmHWM")

    def memory_bytes(self) -> int | None:
        """The memory it holds now, where the system says so (Linux)."""
        return self._status_bytes("VmRSS")

    def cpu_s(self) -> float | None:
        """The processor time that its living processes have used, where the system says so (Linux)."""
        ticks = [int(fields[11]) + int(fields[12]) for fields in map(_stat, self._pids()) if fields]
        return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None

    def _pids(self) -> list[int]:
        return [] if self.pid is None else [self.pid, *children(self.pid)]

    def _status_bytes(self, name: str) -> int | None:
        found = [size for pid in self._pids() if (size := _memory(pid, name)) is not None]
        return sum(found) if found else None

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def worker_environment(
    *,
    broker_url: str,
    app_id: str,
    topic_prefix: str,
    partitions: int,
    data_dir: Path,
    web_port: int,
    processes: int = 1,
    web_bind: str = "127.0.0.1",
) -> dict[str, str]:
    """The settings of a worker, under the names that they have in the environment."""
    return {
        "TRACKER_BROKER_URL": broker_url,
        "TRACKER_APP_ID": app_id,
        "TRACKER_TOPIC_PREFIX": topic_prefix,
        "TRACKER_PARTITIONS": str(partitions),
        "TRACKER_DATA_DIR": str(data_dir),
        "TRACKER_WEB_BIND": web_bind,  # a container publishes the port, and asks for another address
        "TRACKER_WEB_PORT": str(web_port),
        "TRACKER_PROCESSES": str(processes),
    }


def end_within(process: OwnedProcess, grace_s: float) -> None:
    """End a worker: ask it, then tell it, then kill it."""
    for number, within_s in ((signal.SIGTERM, grace_s), (signal.SIGTERM, KILLED_S), (signal.SIGKILL, None)):
        process.signal(number)
        try:
            if process.process is not None:
                process.process.wait(within_s)
            return
        except subprocess.TimeoutExpired:
            continue


def web_port(wished: int, count: int = 1) -> int:
    """The first of `count` free ports in a row: the wished one (0: any) if it can be."""
    for port in (wished or free_port(), *free_ports(TRIES)):
        if all(is_free(number) for number in range(port, port + count)):
            return port
    raise OSError(f"no {count} free ports in a row on 127.0.0.1")


def _stat(pid: int) -> list[str]:
    """What /proc tells of a process after its name, which may hold anything but ends with the last ")"."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def children(pid: int) -> Iterator[int]:
    """The processes that a process has started and that are still there (Linux)."""
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields and int(fields[1]) == pid:
            yield int(entry.name)


def _memory(pid: int, name: str) -> int | None:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return None
