"""Processes that end when their owner does, and the supervisor of a worker's processes.

One Python process computes on one core at a time. So a worker may be several: each is a member of the group
like any other, with its share of the partitions, its own tables and its own web port. A supervisor starts
them and restarts those that end; it imports neither Faust nor RocksDB.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from streams.kafka import watchdog
from streams.settings import REFUSED, Settings, refuse

__all__ = [
    "SUPERVISED",
    "Backoff",
    "OwnedProcess",
    "end_all",
    "environments",
    "has_option",
    "run_worker",
    "supervise",
]

#: Set for a process that has a supervisor, to "1": it runs a worker itself and supervises none.
SUPERVISED = "STREAMS_SUPERVISED"
#: How long a process of a worker may take to stop before it is killed; a kill loses nothing.
GRACE_S = 8.0
#: Between the end of a process and its next start: at first, and at most.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
#: A process that ran that long begins again with the first pause.
STEADY_S = 60.0
LOOK_S = 0.1

#: Options of Faust's that all processes would share and cannot.
OWN_OPTIONS = ("-p", "--web-port", "-D", "--datadir")
#: Exit code of click for arguments that cannot be used.
USAGE = 2


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

    @property
    def pids(self) -> set[int]:
        """The ids of the process and its watchdog, as long as they are not waited for."""
        return {process.pid for process in (self.process, self._watchdog) if process is not None}

    def start(self) -> None:
        """Start it, again if it has ended; it ends when its owner does, however the owner goes.

        Raises:
            OSError: the system refused; nothing runs.
        """
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
        try:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog.__file__, str(self.process.pid), str(self.grace_s)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError:
            self.process.kill()
            raise

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
    _signal(members, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(member.alive for member in members) and time.monotonic() < deadline:
        if hurry():
            break
        time.sleep(LOOK_S / 2)
    _signal(members, signal.SIGKILL)
    return [member.ended() for member in members]


@dataclass
class Backoff:
    """The pauses before a process is restarted: doubled each time, short again after a steady run."""

    pause_s: float = 0.0

    def after(self, ran_s: float) -> float:
        """Return the pause after a run of `ran_s` seconds; seconds."""
        doubled_s = min(2 * self.pause_s, LONGEST_PAUSE_S)
        self.pause_s = doubled_s if self.pause_s and ran_s < STEADY_S else FIRST_PAUSE_S
        return self.pause_s


@dataclass
class _Supervised:
    """A member, and when it is started again."""

    number: int
    process: OwnedProcess
    backoff: Backoff = field(default_factory=Backoff)
    restart_at: float | None = None
    starts: int = 0

    def start(self, report: Callable[[str], None]) -> None:
        self.restart_at = None
        self.starts += 1
        try:
            self.process.start()
        except OSError as error:
            self._restart_later(0.0, f"was not started ({error.strerror})", report)

    def look(self, now: float, report: Callable[[str], None]) -> int | None:
        """Restart the process if that is due; return the exit code of one that refused to start.

        A configuration that it refuses later was accepted before, so the cause has changed outside: a topic,
        the directory. That is tried again.
        """
        if self.restart_at is not None:
            if now >= self.restart_at:
                self.start(report)
        elif not self.process.alive:
            code, ran_s = self.process.ended(), now - self.process.started_at
            if code == USAGE or (code == REFUSED and self.starts == 1):
                return code
            self._restart_later(ran_s, f"{_ending(code)} after {ran_s:.0f} s", report)
        return None

    def _restart_later(self, ran_s: float, reason: str, report: Callable[[str], None]) -> None:
        pause_s = self.backoff.after(ran_s)
        self.restart_at = time.monotonic() + pause_s
        report(f"process {self.number} {reason}; it is restarted in {pause_s:g} s")


def supervise(
    members: Sequence[OwnedProcess], stop: Callable[[], bool], report: Callable[[str], None]
) -> int | None:
    """Keep all members running until `stop` is true: restart each that ends, with growing pauses.

    Returns: None after a stop; the exit code of a process that refused to start at all.
    """
    supervised = [_Supervised(number, member) for number, member in enumerate(members)]
    for one in supervised:
        one.start(report)
    while not stop():
        for one in supervised:
            code = one.look(time.monotonic(), report)
            if code is not None:
                return code
        _reap_orphans({pid for member in members for pid in member.pids})
        time.sleep(LOOK_S)
    return None


def _ending(code: int | None) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with {code}"


def _reap_orphans(own: Container[int]) -> None:
    """Wait for ended processes that a member has left behind; a container's first process inherits them."""
    try:
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)) is not None:
            if ended.si_pid in own:
                return
            os.waitpid(ended.si_pid, 0)
    except ChildProcessError:
        pass


def environments(settings: Settings) -> list[dict[str, str]]:
    """Return what each process of a worker has in its environment for itself."""
    if settings.processes == 1:
        return [{SUPERVISED: "1"}]
    return [
        {
            SUPERVISED: "1",
            "TRACKER_PROCESSES": "1",
            "TRACKER_WEB_PORT": str(settings.web_port + number),
            "TRACKER_DATA_DIR": str(settings.data_dir / f"process-{number}"),
        }
        for number in range(settings.processes)
    ]


def run_worker(command: Sequence[str], settings: Settings) -> int:
    """Supervise a worker's processes until SIGTERM or SIGINT; a second one kills. Returns an exit code.

    Args:
        command: the program and arguments of each process.
    """
    shared = [option for option in OWN_OPTIONS if has_option(command, option)]
    if settings.processes > 1 and shared:
        refuse(
            f"{shared[0]} would be the same for all {settings.processes} processes: leave it out, and set "
            "TRACKER_WEB_PORT and TRACKER_DATA_DIR, from which each takes its own"
        )
    members = [OwnedProcess(command, environment, GRACE_S) for environment in environments(settings)]
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # nothing with a lock: a handler runs in the midst of whatever waits
        signal.signal(number, lambda got, _frame: asked.append(got))
    # Faust answers this one with the stacks of its tasks in the log
    signal.signal(signal.SIGUSR1, lambda *_: _signal(members, signal.SIGUSR1))
    refusal: int | None = 1
    try:
        refusal = supervise(members, lambda: bool(asked), _report)
    finally:
        running = [member.alive for member in members]
        codes = end_all(members, GRACE_S, lambda: len(asked) > 1)
    # a process that waited for its restart has nothing to stop
    return _exit_code(refusal, [code for code, ran in zip(codes, running, strict=True) if ran])


def _signal(members: Iterable[OwnedProcess], number: signal.Signals) -> None:
    for member in members:
        member.signal(number)


def _exit_code(refusal: int | None, codes: Iterable[int | None]) -> int:
    if refusal is not None:
        return refusal
    # one that was still starting knows no better end
    return 0 if set(codes) <= {0, -signal.SIGTERM} else 1


def has_option(command: Sequence[str], option: str) -> bool:
    """Return whether an option is among arguments, with its value attached or not."""
    attached = option + "=" if option.startswith("--") else option
    return any(argument == option or argument.startswith(attached) for argument in command)


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
