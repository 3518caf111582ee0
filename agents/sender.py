"""The sender: a process of its own that decides what of a worker's webhooks is sent when, and sends it.

A worker's own process has its lanes to think of. This one keeps nothing: what waits lies in the worker's
tables, and it ends when the worker does, however that ends: the pipe tells.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from io import FileIO
from typing import Final

import uvloop

from agents.dispatching import Dispatcher
from streams.domain.retries import retry_after_ms
from streams.domain.routing import Routing
from streams.domain.webhooks import group_of
from streams.settings import settings_or_exit
from streams.webhooks.jobs import Done, Job
from streams.webhooks.pipe import (
    QUESTIONS,
    TIDINGS,
    Counted,
    Held,
    Known,
    Noted,
    Produce,
    Produced,
    Question,
    Said,
    Stands,
    Tidings,
)
from streams.webhooks.posting import Poster
from streams.webhooks.sealing import Unsealable
from streams.webhooks.sending import Sender

__all__ = ["Attempts", "Sending", "Told", "hear", "own_stdout"]

log = logging.getLogger(__name__)

GATHER_S = 0.015
"""How long what is done waits for more, so that it is taken together."""

COUNT_S = 1.0
"""How often it is told what came of attempts; the worker takes one that says nothing for hung."""

SHOWN_CHARS = 300
STDOUT: Final = 1
STDERR: Final = 2

DESCRIPTORS = 4096
"""Files and sockets that the sender may have open: more than attempts are made, and connections kept."""


class Told:
    """The worker, as far as it has told of itself; see `dispatching.Worker`."""

    def __init__(self, say: Callable[[Said], None]) -> None:
        self.partitions = 1
        self.held: frozenset[int] = frozenset()
        self.generation = 0
        self.is_busy = False
        self._say = say
        self._stands: dict[int, int] = {}
        self._numbers = 0
        self._produced: dict[int, asyncio.Future[int]] = {}

    def stand(self, partition: int) -> int:
        """Return up to which offset of a partition all is applied that came of attempts."""
        return self._stands.get(partition, 0)

    def ask(self, question: Question) -> None:
        """Ask; the dispatcher is told the answer."""
        self._say(question)

    async def produce(self, partition: int, records: list[tuple[bytes, bytes]]) -> int:
        """Have records produced; return the last one's offset.

        Raises:
            ConnectionError: the worker could not produce them.
        """
        self._numbers += 1
        produced: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._produced[self._numbers] = produced
        self._say(Produce(self._numbers, partition, records))
        return await produced

    def hear(self, tidings: Held | Stands | Produced) -> None:
        """Take what the worker tells of itself."""
        if isinstance(tidings, Held):
            self.held, self.partitions = frozenset(tidings.held), tidings.partitions
            self.generation = tidings.generation
        elif isinstance(tidings, Stands):
            self._stands, self.is_busy = tidings.stands, tidings.is_busy
        elif tidings.offset is None:
            self._produced.pop(tidings.number).set_exception(ConnectionError("not produced"))
        else:
            self._produced.pop(tidings.number).set_result(tidings.offset)


def hear(tidings: Tidings, worker: Told, dispatcher: Dispatcher) -> None:
    """Take what the worker tells, in the order in which it does."""
    if isinstance(tidings, Noted):
        dispatcher.note(tidings.partition, tidings.due)
    elif isinstance(tidings, Held | Stands | Produced):
        worker.hear(tidings)
    elif isinstance(tidings, Known):
        dispatcher.routing.put(tidings.endpoint_id, tidings.endpoint)
        dispatcher.changed(tidings.endpoint_id, group_of(tidings.endpoint_id))
    else:
        dispatcher.found(tidings)


class Attempts:
    """Makes attempts side by side.

    Args:
        done: gets what came of them, some together.
    """

    def __init__(self, sender: Sender, done: Callable[[list[Done]], None]) -> None:
        self._sender = sender
        self._take = done
        self._done: list[Done] = []
        self._tasks: set[asyncio.Task[None]] = set()
        #: Set when they can go on no longer.
        self.given_up = asyncio.Event()

    def post(self, jobs: list[Job]) -> None:
        """Make attempts."""
        for job in jobs:
            task = asyncio.create_task(self._attempt(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def end(self) -> None:
        """Give up: the sender that comes next makes them anew."""
        self.given_up.set()

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
        self._take(done)


class Sending:
    """Hears what waits, has the dispatcher decide what is sent, and says what came of it."""

    def __init__(self, sender: Sender, output: asyncio.WriteTransport) -> None:
        self._output = output
        self._answers = Counter[str]()
        self._worker = Told(self._say)
        self._attempts = Attempts(sender, self._done)
        self._dispatcher = Dispatcher(self._worker, Routing(), self._attempts, sender.now, random.random)

    def _say(self, said: Said) -> None:
        self._output.write(QUESTIONS.frame([said]))

    async def serve(self, pipe: asyncio.StreamReader) -> None:
        """Send until there is nobody whose webhooks these are."""
        doing = [
            self._hear_all(pipe),
            self._dispatcher.run(),
            self._count_always(),
            self._attempts.given_up.wait(),
        ]
        tasks = [asyncio.ensure_future(one) for one in doing]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()

    async def _hear_all(self, pipe: asyncio.StreamReader) -> None:
        while True:
            try:
                tidings = await TIDINGS.read(pipe)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            for one in tidings:
                hear(one, self._worker, self._dispatcher)
            # what lies in the pipe may be much, and attempts want their turn
            await asyncio.sleep(0)

    def _done(self, done: list[Done]) -> None:
        self._answers.update(map(_answer, done))
        try:
            self._dispatcher.done(done)
            # who has room again need not wait: it was gathered already
            self._dispatcher.step()
        except Exception:
            # the loop would only log it
            log.exception("what came of attempts could not be taken")
            self._attempts.end()

    async def _count_always(self) -> None:
        while True:
            self._say(Counted(dict(self._answers), self._dispatcher.under_way))
            self._answers.clear()
            await asyncio.sleep(COUNT_S)


def _answer(done: Done) -> str:
    return str(done.trouble) if done.status is None else f"{done.status // 100}xx"


async def main() -> None:
    """Send what is told by standard input to wait there, until that ends."""
    faulthandler.enable()
    stdout = own_stdout()
    settings = settings_or_exit()
    _allow_sockets()
    loop = asyncio.get_running_loop()
    pipe = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(pipe), sys.stdin.buffer)
    output, _ = await loop.connect_write_pipe(asyncio.Protocol, stdout)
    poster = Poster(settings.webhook_allow)
    sender = Sender(poster, settings.secret_keys, lambda: time.time_ns() // 1_000_000)
    try:
        await Sending(sender, output).serve(pipe)
    finally:
        poster.close()


def own_stdout() -> FileIO:
    """Return standard output, which the worker reads; what else is written there goes to standard error."""
    stdout = FileIO(os.dup(STDOUT), "w")
    os.dup2(STDERR, STDOUT)
    return stdout


def _allow_sockets() -> None:
    """Raise the limit of open files that shells set, as far as the system lets."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if least < DESCRIPTORS:
        wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(DESCRIPTORS, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


if __name__ == "__main__":
    uvloop.run(main())
