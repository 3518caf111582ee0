"""Rules of the worker's side of its sender, over real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process

from streams.webhooks.courier import Courier
from streams.webhooks.jobs import Done


async def test_a_sender_that_hangs_is_ended_and_another_is_started() -> None:
    """Even one that is stopped and would end by nothing else; that it had ended is said once.

    Who has a sender does not leave it behind.
    """
    lost = asyncio.Queue[None]()

    def told(results: list[Done]) -> None:
        raise AssertionError("nothing was asked")

    courier = Courier(told, lambda: lost.put_nowait(None))
    running = asyncio.create_task(courier.run())
    async with asyncio.timeout(30):
        first = await _there(courier)
        os.kill(first.pid, signal.SIGSTOP)
        courier.end()
        courier.end()
        await lost.get()
        assert lost.empty()
        courier.end()
        second = await _there(courier)
        running.cancel()
        await asyncio.wait([running])

        assert second.pid != first.pid
        assert second.returncode is not None


async def _there(courier: Courier) -> Process:
    """Wait until a sender takes jobs."""
    assert not courier.is_there
    await courier.there.wait()
    assert courier._process is not None
    return courier._process
