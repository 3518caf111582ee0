"""A worker's side of its sender: started when there is something to send, again when it ends or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

import msgspec

from streams.webhooks.pipe import QUESTIONS, TIDINGS, Said, Tidings

__all__ = ["Courier"]

log = logging.getLogger(__name__)

#: How a sender is started.
COMMAND = (sys.executable, "-m", "agents.sender")
#: Between the end of a sender and the start of the next one, seconds; while none comes to say anything, each
#: pause is twice the one before, up to the longest.
RESTART_S = 1.0
LONGEST_RESTART_S = 30.0
#: Names that are looked up at a time, half of them in fact.
LOOKUPS = 512
#: How long a sender may take to end that is not asked or does not answer any more, seconds.
END_S = 1.0
#: How long a sender may say nothing that says something every second.
SILENT_S = 30.0
#: What may wait for a sender to hear it, bytes.
MOST_UNHEARD = 256 << 20


class Courier:
    """Keeps the sender, and the pipe both ways.

    Args:
        began: is called when there is a sender that knows nothing yet.
        heard: gets what it says.
        lost: is called when a sender has ended.
        silent_s: how long a sender may say nothing.
        command: how one is started.
    """

    def __init__(
        self,
        began: Callable[[], None],
        heard: Callable[[list[Said]], None],
        lost: Callable[[], None],
        silent_s: float = SILENT_S,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._began = began
        self._heard = heard
        self._lost = lost
        self._silent_s = silent_s
        self._command = command
        # senders in a row that did not come to say anything
        self._failures = 0
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()

    @property
    def is_there(self) -> bool:
        """Whether a sender hears what it is told."""
        return self._process is not None

    def want(self) -> None:
        """Have a sender started, if none is there."""
        if self._process is None:
            self._wanted.set()

    def tell(self, tidings: Sequence[Tidings]) -> None:
        """Tell the sender, if it is there."""
        pipe = self._pipe
        if pipe is None:
            return
        pipe.write(TIDINGS.frame(tidings))
        if self.unheard_bytes > MOST_UNHEARD:
            log.error("the sender of webhooks does not listen and is ended")
            assert self._process is not None
            _kill(self._process)

    @property
    def unheard_bytes(self) -> int:
        """How much waits for the sender to hear it."""
        pipe = self._pipe
        return 0 if pipe is None else pipe.transport.get_write_buffer_size()

    @property
    def _pipe(self) -> asyncio.StreamWriter | None:
        pipe = None if self._process is None else self._process.stdin
        # one that has ended is there until all is read that it has said; uvloop's pipe raises by then
        return None if pipe is None or pipe.transport.is_closing() else pipe

    async def run(self) -> None:
        """Keep a sender, once it is wanted, until cancelled.

        Nothing that is wrong with a sender ends the worker: its lanes have nothing to do with it.
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            pause = min(RESTART_S * 2**self._failures, LONGEST_RESTART_S)
            self._failures = min(self._failures + 1, 10)
            try:
                process = await self._started()
            except OSError as error:
                # no process, memory or file is left: there may be one later
                log.error("no sender of webhooks can be started: %r", error)
                self._wanted.set()
            else:
                code = await self._serve(process)
                log.error("the sender of webhooks ended with %s; another is started", code)
            await asyncio.sleep(pause)

    async def _started(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
            # names are looked up in uvloop's threads, four by default: a few names whose servers
            # do not answer would hold up all others
            env={**os.environ, "UV_THREADPOOL_SIZE": str(LOOKUPS)},
            # a Ctrl-C of the terminal is for the worker, which may still want to send
            start_new_session=True,
        )

    async def _serve(self, process: asyncio.subprocess.Process) -> int:
        """Listen to a sender until it ends; return its exit code."""
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        try:
            self._began()
            await self._listen(process.stdout)
        finally:
            self._process = None
            process.stdin.close()
            self._lost()
            # also when cancelled: nobody else would wait for it
            code = await _ended(process)
        return code

    async def _listen(self, output: asyncio.StreamReader) -> None:
        """Hear what the sender says until it ends, says nothing any more, or says what nobody understands."""
        while True:
            try:
                async with asyncio.timeout(self._silent_s):
                    said = await QUESTIONS.read(output)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            except TimeoutError:
                log.error("the sender of webhooks has said nothing for %g s and is ended", self._silent_s)
                return
            except (msgspec.DecodeError, ValueError) as error:
                log.error("what the sender of webhooks says cannot be read, and it is ended: %r", error)
                return
            self._failures = 0
            self._heard(said)
            # what it has said already may be much, and others want their turn
            await asyncio.sleep(0)


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
