"""Rules of the worker's side of its sender, over real processes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import uvloop

from streams.webhooks.courier import Courier
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
