"""Simulated webhooks: the tracker's own feed, dispatcher and results, and receivers that misbehave.

A worker has its sender in a process of its own, with a pipe in both directions. Of the network only the
receivers' side is simulated, so what decides when a webhook is sent, and again, is the product's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from faust.types import TP

from agents.feeding import Feed
from agents.sender import Sending
from agents.telling import DUE, Results, Telling
from streams.domain.endpoints import Endpoint
from streams.domain.routing import Route, Routing
from streams.domain.webhooks import Trouble, event_place
from streams.engine.batches import Batch
from streams.engine.formats import Format
from streams.engine.hosting import TableReader
from streams.engine.units import Output, Unit
from streams.messages import read_said
from streams.topics import names
from streams.webhooks.courier import RESTART_S
from streams.webhooks.pipe import QUESTIONS, TIDINGS, Tidings
from streams.webhooks.posting import Attempt
from tables.formats import WEBHOOK_EVENTS, WEBHOOK_QUEUES, WEBHOOK_SENDINGS
from tables.webhooks import WebhookTables
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.schedule import Schedule

__all__ = [
    "OUTCOMES",
    "TOPICS",
    "WEBHOOK_FORMATS",
    "Arrival",
    "Receivers",
    "Webhooks",
]

OUTCOMES: Final = "outcomes"
NAMES: Final = names("")._replace(events="webhook-events", requests="webhook-reports", webhooks=OUTCOMES)
#: The topics that webhooks need; lanes read the first.
TOPICS: Final = (OUTCOMES, NAMES.events, NAMES.requests)

WEBHOOK_FORMATS: Final[dict[str, Format[Any]]] = {
    "events": WEBHOOK_EVENTS,
    "queues": WEBHOOK_QUEUES,
    "sendings": WEBHOOK_SENDINGS,
}

#: Every order goes to the first endpoint, and one of so many to the second.
SECOND_OF: Final = 3
#: Retries double from a second up to half a minute.
ENDPOINTS: Final = {
    name: Endpoint(url=f"https://{name}", retries=20, timeout_ms=5_000) for name in ("first", "second")
}
LOOK_S: Final = 0.25
#: A date that some receivers send; as milliseconds from now it is more than the longest pause.
LAST_DAY: Final = "Fri, 31 Dec 9999 23:59:59 GMT"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook that reached its receiver."""

    endpoint: str
    webhook_id: str
    status: int | None


class Receivers:
    """All receivers, and what they got.

    Attributes:
        arrivals: in order.
        repeated: webhooks that a sender sent again in the same generation although they had been accepted.
    """

    def __init__(self, loop: SimulatedLoop, schedule: Schedule) -> None:
        self.arrivals: list[Arrival] = []
        self.repeated: list[str] = []
        self._loop = loop
        self._schedule = schedule
        self._accepted: set[tuple[Any, int, str, str]] = set()

    async def post(self, endpoint: Endpoint, webhook_id: str) -> Attempt:
        """Deliver a webhook; whoever is killed meanwhile does not learn the answer."""
        began = self._loop.time()
        await asyncio.sleep(self._schedule.latency_s())
        status, trouble, retry_after = self._answer()
        self.arrivals.append(Arrival(endpoint.url, webhook_id, status))
        await asyncio.sleep(
            endpoint.timeout_ms / 1000 if trouble == "timeout" else self._schedule.latency_s()
        )
        lasted_ms = round(1000 * (self._loop.time() - began))
        return Attempt(now_ms() - lasted_ms, lasted_ms, status, b"", retry_after, trouble)

    def _answer(self) -> tuple[int | None, Trouble | None, str | None]:
        schedule = self._schedule
        if schedule.happens("failing receiver"):
            return schedule.random.choice(
                ((500, None, None), (503, None, "1"), (None, "timeout", None), (None, "disconnected", None))
            )
        return 200, None, LAST_DAY if schedule.happens("odd header") else None

    def accept(self, sender: Any, generation: int, endpoint: Endpoint, webhook_id: str) -> None:
        """Record that a sender received a 2xx answer."""
        accepted = sender, generation, endpoint.url, webhook_id
        if accepted in self._accepted:
            self.repeated.append(f"{webhook_id} to {endpoint.url}")
        self._accepted.add(accepted)


def now_ms() -> int:
    """Return the time of the current process."""
    return int(time.time() * 1000)


class _Poster:
    """Posts webhooks to the simulated receivers in place of `streams.webhooks.sending.Sender`, unsigned."""

    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers
        self.sending: Any = None

    def now(self) -> int:
        """Return the time, ms."""
        return now_ms()

    async def send(self, owner: str, endpoint: Endpoint, webhook_id: str, type_: str, body: bytes) -> Attempt:
        """Send a webhook once."""
        generation = self.sending._dispatcher._generation
        attempt = await self._receivers.post(endpoint, webhook_id)
        if attempt.status == 200:
            self._receivers.accept(self, generation, endpoint, webhook_id)
        return attempt


class _Pipe:
    """One direction of a pipe; a transport that writes into a reader."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.reader = asyncio.StreamReader(limit=1 << 24, loop=loop)
        self._is_open = True

    def write(self, data: bytes) -> None:
        """Write."""
        if self._is_open:
            self.reader.feed_data(data)

    def close(self) -> None:
        """Let the reader come to the end."""
        if self._is_open:
            self._is_open = False
            self.reader.feed_eof()


class _Sender:
    """A sender: the real one but for its sockets, in a process of its own."""

    def __init__(self, loop: SimulatedLoop, name: str, receivers: Receivers) -> None:
        self.process = Process(loop, name)
        self.input, self.output = _Pipe(loop), _Pipe(loop)
        self.process.spawn(self._run(receivers))

    async def _run(self, receivers: Receivers) -> None:
        poster: Any = _Poster(receivers)
        output: Any = self.output
        poster.sending = Sending(poster, output)
        try:
            await poster.sending.serve(self.input.reader)
        finally:
            self.end()

    def end(self) -> None:
        """End as SIGKILL does."""
        self.process.end()
        self.output.close()


class Webhooks:
    """A worker's side of its webhooks: what is to be sent, and its sender.

    Args:
        worker: with the tables of `WEBHOOK_FORMATS`.
    """

    def __init__(self, worker: Any, receivers: Receivers) -> None:
        app = worker.app
        self._worker = worker
        self._receivers = receivers
        self._sender: _Sender | None = None
        self._senders = 0
        self._wanted = asyncio.Event()
        routing = Routing()
        for name, endpoint in ENDPOINTS.items():
            routing.put(name, endpoint)
        self._telling = Telling(
            WebhookTables(*(app.tables[name] for name in WEBHOOK_FORMATS)), routing, NAMES
        )
        self.feed = Feed(
            self,
            TableReader(app),
            self._telling.tables,
            routing,
            self._produce,
            lambda number: app.lanes.stand(TP(OUTCOMES, number)),
            app.lanes.generation,
            app.lanes.lag,
        )
        app.lanes.listen(DUE, self.feed.note)

    async def _produce(self, partition: int, records: Sequence[Output]) -> int:
        return await self._worker.produce(OUTCOMES, partition, records)

    # what `Feed` needs of a pipe

    @property
    def is_there(self) -> bool:
        """Whether there is a sender."""
        return self._sender is not None

    @property
    def unheard_bytes(self) -> int:
        """How much the sender has not read."""
        return 0

    def want(self) -> None:
        """Have a sender started, if none is there."""
        if self._sender is None:
            self._wanted.set()

    def tell(self, tidings: list[Tidings]) -> None:
        """Write to the sender, if it is there."""
        if self._sender is not None:
            self._sender.input.write(TIDINGS.frame(tidings))

    # the courier

    async def run(self) -> None:
        """Keep a sender, as `Courier` does, for ever."""
        self._worker.process.spawn(self._look())
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._senders += 1
            name = f"{self._worker.name}.sender{self._senders}"
            self._sender = sender = _Sender(self._worker.process.loop, name, self._receivers)
            self.feed.begin()
            await self._listen(sender.output.reader)
            self._sender = None
            self.feed.lost()
            await asyncio.sleep(RESTART_S)

    async def _listen(self, output: asyncio.StreamReader) -> None:
        try:
            while True:
                self.feed.hear(await QUESTIONS.read(output))
        except asyncio.IncompleteReadError:
            return

    async def _look(self) -> None:
        while True:
            self.feed.look()
            await asyncio.sleep(LOOK_S)

    def kill_sender(self, steps: int) -> None:
        """Kill the sender in the midst of its work."""
        sender = self._sender
        if sender is not None and sender.process.alive:
            sender.process.kill_after(steps, lambda process: sender.end())

    def close(self) -> None:
        """Have the sender find out that the worker has ended."""
        if self._sender is not None:
            self._sender.input.close()

    # what handlers do

    def enqueue(self, batch: Batch, unit: Unit) -> None:
        """Enqueue the webhooks of orders, in the same unit."""
        tells = self._telling.tells(unit)
        for record in batch.records:
            routes = [Route.to("first")]
            if record.offset % SECOND_OF == 0:
                routes.append(Route.to("second"))
            key, data = event_place("statuses", record.offset, 0), b'"order"'
            assert record.key is not None
            tells.append((key, "order", record.key.decode(), "now", data, record.timestamp, routes))

    def take(self, batch: Batch, unit: Unit) -> None:
        """Apply the outcomes of attempts.

        Raises:
            MalformedRecord: an outcome is beyond the limits of its type.
        """
        said = [read_said(record.value) for record in batch.records]
        results = Results(self._telling, unit)
        keys = results.load(said)
        for record, what, key in zip(batch.records, said, keys, strict=True):
            results.take(what, key, record.offset, record.timestamp)  # type: ignore[arg-type]
