"""The sender: a process of its own that makes the attempts a worker gives it.

A worker's own process has its lanes to think of. This one keeps nothing, and ends when the worker does,
however that ends: the pipe tells.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import resource
import sys
import time

import uvloop

from streams.domain.retries import retry_after_ms
from streams.settings import settings_or_exit
from streams.webhooks.jobs import DONE, JOBS, Done, Job
from streams.webhooks.posting import Poster
from streams.webhooks.sealing import Unsealable
from streams.webhooks.sending import Sender

__all__ = ["Sending"]

log = logging.getLogger(__name__)

GATHER_S = 0.015
"""How long what is done waits for more, so that it is told together."""

SHOWN_CHARS = 300

DESCRIPTORS = 4096
"""Files and sockets that the sender may have open: more than attempts are made, and connections kept."""


class Sending:
    """Makes attempts side by side, and tells what came of them."""

    def __init__(self, sender: Sender, output: asyncio.WriteTransport) -> None:
        self._sender = sender
        self._output = output
        self._done: list[Done] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, jobs: asyncio.StreamReader) -> None:
        """Take jobs until there is nobody to tell what came of them."""
        while True:
            try:
                taken = await JOBS.read(jobs)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            for job in taken:
                task = asyncio.create_task(self._attempt(job))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _attempt(self, job: Job) -> None:
        done = Done(job.number, self._sender.now(), 0, None, "protocol", "", None)
        try:
            done = await self._made(job)
        except Unsealable:
            done.trouble = "unsealable"
        except Exception:
            log.exception("an attempt of webhook %s failed inside", job.webhook_id)
        finally:
            # whoever gave the job waits for its end
            if not self._done:
                asyncio.get_running_loop().call_later(GATHER_S, self._tell)
            self._done.append(done)

    async def _made(self, job: Job) -> Done:
        made = await self._sender.send(job.owner, job.endpoint, job.webhook_id, job.type, job.body)
        return Done(
            job.number,
            made.started_at,
            made.duration_ms,
            made.status,
            made.trouble,
            made.body.decode(errors="replace")[:SHOWN_CHARS],
            retry_after_ms(made.retry_after, self._sender.now()),
        )

    def _tell(self) -> None:
        done, self._done = self._done, []
        self._output.write(DONE.frame(done))


async def main() -> None:
    """Send what comes in by standard input until that ends."""
    faulthandler.enable()
    settings = settings_or_exit()
    _allow_sockets()
    loop = asyncio.get_running_loop()
    jobs = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(jobs), sys.stdin.buffer)
    output, _ = await loop.connect_write_pipe(asyncio.Protocol, sys.stdout.buffer)
    poster = Poster(settings.webhook_allow)
    sender = Sender(poster, settings.secret_keys, lambda: time.time_ns() // 1_000_000)
    try:
        await Sending(sender, output).serve(jobs)
    finally:
        poster.close()


def _allow_sockets() -> None:
    """Raise the limit of open files that shells set, as far as the system lets."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if least < DESCRIPTORS:
        wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(DESCRIPTORS, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


if __name__ == "__main__":
    uvloop.run(main())
