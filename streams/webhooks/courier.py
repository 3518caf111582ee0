"""A worker's side of its sender: started when there is something to send, again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

from streams.webhooks.jobs import DONE, JOBS, Done, Job

__all__ = ["Courier"]

log = logging.getLogger(__name__)

#: Between the end of a sender and the start of the next one, seconds.
RESTART_S = 1.0
#: Names that are looked up at a time, half of them in fact.
LOOKUPS = 512
#: How long a sender may take to end that is not asked or does not answer any more, seconds.
END_S = 1.0


class Courier:
    """Hands jobs to the sender, and what came of them to who asked.

    Args:
        told: gets what came of jobs.
        lost: is called when a sender has ended: nobody will tell of the jobs that it had.
    """

    def __init__(self, told: Callable[[list[Done]], None], lost: Callable[[], None]) -> None:
        self._told = told
        self._lost = lost
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()
        #: Whether a sender takes jobs.
        self.there = asyncio.Event()

    @property
    def is_there(self) -> bool:
        """Whether jobs can be handed over; if not, they are wanted, and it soon is."""
        if not self.there.is_set():
            self._wanted.set()
        return self.there.is_set()

    def post(self, jobs: Sequence[Job]) -> None:
        """Hand jobs over; only while it is there."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(JOBS.frame(jobs))

    def end(self) -> None:
        """End the sender, which does not answer; another is started."""
        if self._process is not None:
            _kill(self._process)

    async def run(self) -> None:
        """Keep a sender, once it is wanted, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "streams.sender",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 24,
                # names are looked up in uvloop's threads, four by default: a few names whose servers
                # do not answer would hold up all others
                env={**os.environ, "UV_THREADPOOL_SIZE": str(LOOKUPS)},
                # a Ctrl-C of the terminal is for the worker, which may still want to send
                start_new_session=True,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            self._process = process
            self.there.set()
            try:
                await self._listen(process.stdout)
            finally:
                self.there.clear()
                self._process = None
                process.stdin.close()
                self._lost()
                # also when cancelled: nobody else would wait for it
                code = await _ended(process)
            log.error("the sender of webhooks ended with %s; another is started", code)
            await asyncio.sleep(RESTART_S)

    async def _listen(self, output: asyncio.StreamReader) -> None:
        while True:
            try:
                self._told(await DONE.read(output))
            except (asyncio.IncompleteReadError, ConnectionError):
                return


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Return the exit code of a process that should end, and see that it does."""
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await process.wait()
    finally:
        _kill(process)
    return await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    """End a process at once, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
