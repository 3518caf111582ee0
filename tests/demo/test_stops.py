"""Rules of stopping: at once, whatever is waited for."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from streams.demo.stops import Stopped, Stopper, in_thread
from streams.demo.workers import WorkerProcess, web_port


async def test_work_returns_what_it_returns() -> None:
    """In the loop or in a thread, value or exception."""
    stopper = Stopper()
    assert await stopper.wait(asyncio.sleep(0, "done")) == "done"
    assert await stopper.wait(in_thread(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        await stopper.wait(in_thread(lambda: 1 // 0))


async def test_a_stop_ends_every_wait() -> None:
    """Also one for a thread that goes on: it is left behind."""
    stopper, released = Stopper(), threading.Event()
    asyncio.get_running_loop().call_later(0.05, stopper.ask)
    started_at = time.monotonic()
    with pytest.raises(Stopped):
        await stopper.wait(in_thread(lambda: released.wait(10)))
    with pytest.raises(Stopped):
        await stopper.sleep(10)
    released.set()
    assert time.monotonic() - started_at < 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_ask_for_a_stop(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM alike."""
    stopper = Stopper()
    with stopper.on_signals():
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped):
            await stopper.sleep(10)


def test_a_worker_that_was_never_started_stops_quietly(tmp_path: Path) -> None:
    """Stopping is always safe."""
    worker = WorkerProcess({"TRACKER_WEB_PORT": "1"}, tmp_path / "log")
    assert worker.stop() is None
    assert worker.peak_bytes() is None
    assert worker.last_words() == ""


def test_a_taken_port_is_passed_over() -> None:
    """The usual web port if it is free, another one if not."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert web_port(port) != port
    assert web_port(port) == port
