"""Processes that do not outlive who started them, and a worker that is several of them.

One Python process computes on one core at a time. So a worker may be several: each is a member of the group
like any other, with its share of the partitions, its own tables and its own web port.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from streams.kafka import watchdog
from streams.settings import Settings

__all__ = ["OwnedProcess", "end_all", "environments", "run_worker", "supervise"]

#: How long a process of a worker may take to stop before it is killed; a kill loses nothing.
GRACE_S = 8.0
#: Between the end of a process and its next start.
RESTART_S = 1.0
#: Ends within this of their starts mean that another start will not help either …
YOUNG_S = 10.0
#: … once there were so many in a row.
MOST_FAILURES = 3
LOOK_S = 0.1

#: Options of Faust's that all processes would share and cannot.
OWN_OPTIONS = ("-p", "--web-port", "-D", "--datadir")


@dataclass
class OwnedProcess:
    """A process in a session of its own: a Ctrl-C of the terminal reaches it through its owner only.

    Args:
        command: what it runs.
        environment: what its environment has besides ours.
        grace_s: between SIGTERM and SIGKILL when its owner has died.
        output: where its output goes; to ours when not given.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    grace_s: float
    output: IO[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    _watchdog: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, again if it has ended; it ends when its owner does, however the owner goes."""
        self._dismiss()
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=None if self.output is None else subprocess.STDOUT,
            start_new_session=True,
        )
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, str(self.process.pid), str(self.grace_s)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it is there to get it."""
        if self.process is not None and self.alive:
            self.process.send_signal(number)

    def ended(self) -> int | None:
        """Wait for its end and return its exit code; None when it was never started."""
        code = None if self.process is None else self.process.wait()
        self._dismiss()
        return code

    def _dismiss(self) -> None:
        guard, self._watchdog = self._watchdog, None
        if guard is not None:
            guard.communicate(b".")  # all is seen to


def end_all(members: Sequence[OwnedProcess], grace_s: float, hurry: Callable[[], bool]) -> list[int | None]:
    """Send SIGTERM to all, SIGKILL to those still there after `grace_s` or at a `hurry`; give exit codes."""
    for member in members:
        member.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(member.alive for member in members) and time.monotonic() < deadline:
        if hurry():
            break
        time.sleep(LOOK_S / 2)
    for member in members:
        member.signal(signal.SIGKILL)
    return [member.ended() for member in members]


def supervise(members: Sequence[OwnedProcess], stop: Callable[[], bool], say: Callable[[str], None]) -> bool:
    """Keep all members running until `stop` says so; one that ends is started again.

    Returns: whether that was possible; False when one ended too often too soon after its start.
    """
    failures = [0] * len(members)
    for member in members:
        member.start()
    while not _within(LOOK_S, stop):
        for number, member in enumerate(members):
            if member.alive:
                continue
            code = member.ended()
            young = time.monotonic() - member.started_at < YOUNG_S
            failures[number] = failures[number] + 1 if young else 1
            if failures[number] >= MOST_FAILURES:
                say(f"process {number} ended with {code}, {MOST_FAILURES} times in a row; the worker stops")
                return False
            say(f"process {number} ended with {code}; it is started again in {RESTART_S:g} s")
            if _within(RESTART_S, stop):
                return True
            member.start()
    return True


def _within(seconds: float, stop: Callable[[], bool]) -> bool:
    """Wait, but no longer than until a stop; say whether it came."""
    deadline = time.monotonic() + seconds
    while not stop() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_S))
    return stop()


def environments(settings: Settings) -> list[dict[str, str]]:
    """Return what each process of a worker has in its environment for itself."""
    return [
        {
            "TRACKER_PROCESSES": "1",
            "TRACKER_WEB_PORT": str(settings.web_port + number),
            "TRACKER_DATA_DIR": str(settings.data_dir / f"process-{number}"),
        }
        for number in range(settings.processes)
    ]


def run_worker(arguments: Sequence[str], settings: Settings) -> int:
    """Run a worker as several processes until SIGTERM or SIGINT; a second one kills. Returns an exit code."""
    if shared := [option for option in OWN_OPTIONS if _has(arguments, option)]:
        sys.exit(
            f"{shared[0]} would be the same for all {settings.processes} processes: leave it out, and set "
            "TRACKER_WEB_PORT and TRACKER_DATA_DIR, from which each takes its own"
        )
    command = [sys.executable, "-m", "streams", *arguments]
    members = [OwnedProcess(command, environment, GRACE_S) for environment in environments(settings)]
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # nothing with a lock: a handler runs in the midst of whatever waits
        signal.signal(number, lambda got, _frame: asked.append(got))
    kept = False
    try:
        kept = supervise(members, lambda: bool(asked), _say)
    finally:
        codes = end_all(members, GRACE_S, lambda: len(asked) > 1)
    # one that was still starting knows no better end
    return 0 if kept and set(codes) <= {0, -signal.SIGTERM} else 1


def _has(arguments: Sequence[str], option: str) -> bool:
    attached = option + "=" if option.startswith("--") else option
    return any(argument == option or argument.startswith(attached) for argument in arguments)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
