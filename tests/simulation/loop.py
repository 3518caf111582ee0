"""An event loop with a virtual clock, and the simulated processes that run in it.

When no callback is ready, time jumps to the next timer. There is no I/O: the simulated network makes the
connections. Every callback runs in the context of the process that scheduled it, so a process can be stopped
(SIGSTOP) or ended (SIGKILL) between any two steps.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from heapq import heappop, heappush
from typing import Any
from unittest.mock import patch

from aiokafka import client
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import DefaultRecordBatchBuilder

__all__ = ["BEGIN_S", "NOWHERE", "Process", "Runaway", "SimulatedLoop", "current_process", "virtual_time"]

#: Seconds since the epoch at which a simulation begins.
EPOCH_S = 1_800_000_000.0

#: The loop's own clock at the beginning.
BEGIN_S = 1_000.0

#: Callbacks of one run beyond which it counts as a runaway.
MOST_STEPS = 3_000_000

_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)

#: The context of what no process does: the network and the brokers.
NOWHERE = contextvars.Context()


class Runaway(RuntimeError):
    """The run would never end: too many steps, or nothing is left to wait for."""


def current_process() -> Process | None:
    """Return the process whose step is running; None in the network and the brokers."""
    return _process.get()


class Process:
    """A simulated operating system process.

    Attributes:
        alive: whether its steps still run.
        is_free: whether all of its steps run: nobody has stopped it, ended it, or is about to.
        clock_ahead_s: by how much its wall clock is wrong.
    """

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = self.is_free = True
        self.clock_ahead_s = 0.0
        self.context = contextvars.Context()
        self.context.run(_process.set, self)
        self._held: list[Callback] | None = None
        self._steps_left: int | None = None
        self._kill: Callable[[Process], None] = Process.end

    @property
    def is_stopped(self) -> bool:
        """Whether its steps are held back."""
        return self._held is not None

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task of this process."""
        return self.loop.create_task(work, context=self.context.copy())

    def stop(self) -> None:
        """Hold all steps back, as SIGSTOP does."""
        if self._held is None:
            self._held = []
        self.is_free = False

    def resume(self) -> None:
        """Run what was held back, in its order, as SIGCONT does."""
        held, self._held = self._held or [], None
        self.is_free = self.alive and self._steps_left is None
        self.loop.ready(held)

    def kill_after(self, steps: int, kill: Callable[[Process], None]) -> None:
        """Have it killed before its n-th step from now: between two awaits that suspend."""
        self._steps_left, self._kill = steps, kill
        self.is_free = False

    def end(self) -> None:
        """Run no step any more."""
        self.alive = self.is_free = False
        self._held = None

    def takes(self, callback: Callback) -> bool:
        """Say whether a step runs now; an ended process drops it, a stopped one keeps it."""
        if not self.alive:
            return False
        if self._held is not None:
            self._held.append(callback)
            return False
        if self._steps_left is not None:
            self._steps_left -= 1
            if self._steps_left <= 0:
                self._kill(self)
                return False
        return True


class Callback:
    """What asyncio calls a handle: a callback that runs in a context, now or at a time."""

    __slots__ = ("args", "call", "context", "is_cancelled", "time")

    def __init__(self, call: Any, args: Any, context: Any, time: float) -> None:
        self.call = call
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.is_cancelled = False
        self.time = time

    def cancel(self) -> None:
        """Have it not run."""
        self.is_cancelled = True
        self.call = self.args = None

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self.is_cancelled

    def when(self) -> float:
        """Return when it runs."""
        return self.time


class SimulatedLoop(asyncio.BaseEventLoop):
    """asyncio's loop over a virtual clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN_S
        self.steps = 0
        self.connect: Any = None
        self.tasks: list[asyncio.Task[Any]] = []
        #: exceptions of callbacks and of tasks that nobody awaits
        self.errors: list[dict[str, Any]] = []
        # by time, then in the order in which they were made
        self._timers: list[tuple[float, int, Callback]] = []
        self._timed = 0
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    def time(self) -> float:
        return self.now

    def ready(self, handles: list[Callback]) -> None:
        """Run callbacks in the next iteration."""
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def _make_task(self, loop: Any, work: Any, context: Any = None) -> asyncio.Task[Any]:
        # kept until the run is over: what a killed process leaves behind must not be finalized in between
        task = asyncio.Task(work, loop=loop, context=context)
        self.tasks.append(task)
        return task

    # the parts of BaseEventLoop that a loop must provide

    def _run_once(self) -> None:
        """Run what is ready; when nothing is, let time jump to the next timer."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Runaway(f"more than {MOST_STEPS} iterations")
        ready = self._ready  # type: ignore[attr-defined]
        self._take_timers(ready)
        for _ in range(len(ready)):
            callback = ready.popleft()
            if callback.is_cancelled:
                continue
            context = callback.context
            process = context.get(_process)
            if process is not None and not process.is_free and not process.takes(callback):
                continue
            try:
                context.run(callback.call, *callback.args)
            except (SystemExit, KeyboardInterrupt, Runaway):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"{callback.call} failed", "exception": error})

    def _take_timers(self, ready: Any) -> None:
        """Have the timers run that are due."""
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heappop(timers)
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise Runaway("nothing is scheduled, so nothing will ever happen")
            self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            ready.append(heappop(timers)[2])

    def close(self) -> None:
        """Close, and end what is left behind."""
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(RuntimeError):
                    task.get_coro().close()  # type: ignore[union-attr]
        self.tasks.clear()
        self._timers.clear()
        super().close()

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        if self._closed:  # type: ignore[attr-defined]
            raise RuntimeError("Event loop is closed")
        handle = Callback(callback, args, context, self.now)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        timer = Callback(callback, args, context, when)
        self._timed += 1
        heappush(self._timers, (when, self._timed, timer))
        return timer


@contextmanager
def virtual_time(loop: SimulatedLoop, seed: int) -> Iterator[None]:
    """Have the whole process see the loop's clock, and chance that follows from the seed.

    The one place at which the simulation changes what modules see of the outside.
    """

    def wall_clock() -> float:
        process = _process.get()
        return EPOCH_S + loop.now + (0.0 if process is None else process.clock_ahead_s)

    class Builder(DefaultRecordBatchBuilder):  # type: ignore[misc]
        """Reads the clock in Python, where aiokafka's own asks the operating system."""

        def append(self, offset: int, timestamp: int | None, *record: Any) -> Any:
            return super().append(
                offset, int(wall_clock() * 1000) if timestamp is None else timestamp, *record
            )

    patches = [
        patch.object(client, "create_conn", lambda *to, **how: loop.connect(*to, **how)),
        patch.object(time, "monotonic", loop.time),
        patch.object(time, "time", wall_clock),
        patch.object(message_accumulator, "DefaultRecordBatchBuilder", Builder),
    ]
    chance = random.getstate()
    random.seed(seed)
    with ExitStack() as stack:
        for patching in patches:
            stack.enter_context(patching)
        try:
            yield
        finally:
            random.setstate(chance)
