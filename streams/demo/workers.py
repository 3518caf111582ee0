"""One worker as a process of its own: started, watched, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from streams.kafka import watchdog

STOP_S = 4.5
"""A worker that has not gone by then is killed: with the broker after it, everything must end within 10 s."""


@dataclass
class WorkerProcess:
    """`python -m streams worker` with an environment of its own; its output goes to a log file."""

    environment: Mapping[str, str]
    log_path: Path
    process: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = field(default=None, repr=False)
    _watchdog: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where its web view answers."""
        return f"http://127.0.0.1:{self.environment['TRACKER_WEB_PORT']}"

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it in a session of its own, so that a Ctrl-C of the terminal reaches it through us only."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streams", "worker"],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # So that it does not outlive us, however we go.
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, str(self.process.pid), str(STOP_S)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def stop(self) -> int | None:
        """SIGTERM, then SIGKILL if it does not go; returns its exit code (None: never started)."""
        if self.process is None:
            return None
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._watchdog is not None:
            self._watchdog.communicate(b".")  # all is seen to
        if self._log is not None:
            self._log.close()
        return self.process.returncode

    def peak_bytes(self) -> int | None:
        """The most memory it ever held, where the system says so (Linux)."""
        return self._status_bytes("VmHWM")

    def memory_bytes(self) -> int | None:
        """The memory it holds now, where the system says so (Linux)."""
        return self._status_bytes("VmRSS")

    def cpu_s(self) -> float | None:
        """The processor time it has used, where the system says so (Linux)."""
        if self.process is None:
            return None
        try:
            # after the name, which may hold anything but ends with the last ")"
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status_bytes(self, name: str) -> int | None:
        if self.process is None:
            return None
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        for line in text.splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        return None

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
    }


def web_port(wished: int) -> int:
    """The wished port if nobody has it, else one that is free now."""
    for port in (wished, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")
