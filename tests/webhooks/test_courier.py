"""Rules of the worker's side of its sender, over real processes."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from typing import Any

import pytest
import uvloop

from streams.webhooks import courier as couriers
from streams.webhooks.courier import COMMAND, Courier
from streams.webhooks.pipe import Groups, Held, Said

SILENT_S = 3.0


async def test_a_sender_that_hangs_is_ended_and_another_is_started() -> None:
    """One that is stopped says nothing any more, and would end by nothing else; that it ended is said once.

    Who has a sender does not leave it behind.
    """
    began, lost = asyncio.Queue[int](), asyncio.Queue[None]()
    said: list[Said] = []

    def note_pid() -> None:
        assert courier._process is not None
        began.put_nowait(courier._process.pid)

    courier = Courier(note_pid, said.extend, lambda: lost.put_nowait(None), silent_s=SILENT_S)
    running = asyncio.create_task(courier.run())
    async with asyncio.timeout(60):
        assert not courier.is_there
        courier.want()
        first = await began.get()
        assert courier.is_there
        os.kill(first, signal.SIGSTOP)
        courier.tell([Held(1, [0], 1)])
        await lost.get()
        assert lost.empty()
        courier.want()
        second = await began.get()
        courier.tell([Held(1, [0], 1)])
        while not any(isinstance(one, Groups) for one in said):
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

        assert second != first
        with pytest.raises(ProcessLookupError):
            os.kill(second, 0)


def test_a_sender_that_ends_takes_nobody_along() -> None:
    """Whoever tells it something meanwhile, in the loop that a worker runs."""

    async def main() -> None:
        began, lost = asyncio.Queue[int](), asyncio.Event()

        def note_pid() -> None:
            assert courier._process is not None
            began.put_nowait(courier._process.pid)

        courier = Courier(note_pid, lambda said: None, lost.set)
        running = asyncio.create_task(courier.run())
        async with asyncio.timeout(60):
            courier.want()
            os.kill(await began.get(), signal.SIGKILL)
            while not lost.is_set():
                courier.tell([Held(1, [], 1)])
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
async def test_a_sender_that_cannot_be_started_is_started_later(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody asks for it again, and after pauses that grow; the worker goes on meanwhile."""
    began, pauses, started = asyncio.Event(), list[float](), asyncio.create_subprocess_exec
    sleep = asyncio.sleep

    async def start(*args: Any, **options: Any) -> Any:
        if len(pauses) < 7:
            raise OSError(code, os.strerror(code))
        return await started(*args, **options)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(couriers.asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(couriers.asyncio, "sleep", pause)
    courier = Courier(began.set, lambda said: None, lambda: None)
    running = asyncio.create_task(courier.run())
    courier.want()
    async with asyncio.timeout(60):
        await began.wait()
    assert pauses[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert courier.is_there
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("foreign", [b"warning: something\n", b"\0\0\0\2no", b"\0\0\0\1\xc1", b"\xff" * 64])
async def test_a_sender_that_writes_something_else_is_replaced(
    foreign: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters are read as the length of a frame, or as what is in it; the worker goes on."""
    monkeypatch.setattr(couriers, "RESTART_S", 0.01)
    program = f"import os, time; os.write(1, {foreign!r}); time.sleep(60)"
    lost = asyncio.Queue[None]()
    courier = Courier(
        lambda: None,
        lambda said: None,
        lambda: lost.put_nowait(None),
        command=(sys.executable, "-c", program),
    )
    running = asyncio.create_task(courier.run())
    async with asyncio.timeout(20):
        for _ in range(2):
            courier.want()
            await lost.get()
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_what_a_sender_prints_goes_to_standard_error() -> None:
    """Standard output is the pipe to the worker."""
    program = (
        "import os; from agents.sender import own_stdout; stdout = own_stdout();"
        "print('stray', flush=True); os.write(1, b'from C'); stdout.write(b'frame')"
    )
    process = await asyncio.create_subprocess_exec(
        COMMAND[0],
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()

    assert stdout == b"frame"
    assert b"stray" in stderr
    assert b"from C" in stderr
