"""delivery.webhooks → webhook_queues, webhook_sendings, delivery.events; what is due → the sender."""

from __future__ import annotations

import random
import time
from collections import Counter as Count
from typing import Any

from faust.types import TP
from prometheus_client import Counter, Gauge

from agents.dispatching import Dispatcher
from agents.flows import WebhookFlow
from agents.shared import tables, telling, topics
from agents.telling import DUE
from streams.app import app, lanes, lifetimes
from streams.domain.endpoints import Endpoint
from streams.domain.webhooks import group_of
from streams.engine.batches import Batch
from streams.engine.units import Output, Unit
from streams.webhooks.courier import Courier
from streams.webhooks.jobs import Done
from tables.endpoints import endpoints

flow = WebhookFlow(tables, topics, lifetimes)


@app.agent(app.batches_of(topics.webhooks), name="apply_webhooks")
async def apply_webhooks(batches: Any) -> None:
    """delivery.webhooks → webhook_queues, webhook_sendings, delivery.events."""
    async for event in batches.noack().events():
        await lanes.submit(event, handle)


def handle(batch: Batch, unit: Unit) -> None:
    """Apply each record in offset order; reads and writes go to the unit, nothing is awaited."""
    flow.handle(batch, unit)


async def produce(partition: int, records: list[Output]) -> int:
    """Produce what came of attempts, outside of any transaction."""
    return await app.produce(topics.webhooks, partition, records)


def stand(partition: int) -> int:
    """Return up to which offset all is applied that came of attempts."""
    return lanes.stand(TP(topics.webhooks, partition))


ATTEMPTS = Counter("tracker_webhook_attempts", "Attempts to deliver webhooks by their answer", ["answer"])
UNDER_WAY = Gauge("tracker_webhooks_under_way", "Attempts to deliver webhooks that are being made")


def told(results: list[Done]) -> None:
    """Take what the sender tells."""
    for answer, count in Count(map(_answer, results)).items():
        ATTEMPTS.labels(answer).inc(count)
    dispatcher.done(results)
    # who has room again need not wait: the sender has gathered already
    dispatcher.step()


def _answer(result: Done) -> str | None:
    return result.trouble if result.status is None else f"{result.status // 100}xx"


def lost() -> None:
    """Take that the sender has ended."""
    dispatcher.lost()


def take(key: bytes, endpoint: Endpoint | None) -> None:
    """Take note of an endpoint as it is now."""
    endpoint_id = key.decode()
    telling.routing.put(endpoint_id, endpoint)
    dispatcher.changed(endpoint_id, group_of(endpoint_id))


courier = Courier(told, lost)
dispatcher = Dispatcher(
    app.reader,
    telling.tables,
    telling.routing,
    courier,
    produce,
    stand,
    lambda: time.time_ns() // 1_000_000,
    random.random,
    lanes.generation,
    lanes.lag,
)
UNDER_WAY.set_function(lambda: dispatcher.under_way)
lanes.listen(DUE, dispatcher.note)
app.mirror(endpoints, take)


async def dispatch() -> None:
    """Hand what is due to the sender, as long as the worker runs."""
    await app.or_crash(dispatcher.run())


async def send() -> None:
    """Keep the sender, once there is something to send."""
    await app.or_crash(courier.run())


app.task()(dispatch)
app.task()(send)
