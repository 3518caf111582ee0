"""delivery.webhooks → webhook_queues, webhook_sendings, delivery.events; what is due → the sender."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faust.types import TP
from prometheus_client import Counter, Gauge

from agents.feeding import Feed
from agents.flows import WebhookFlow
from agents.shared import tables, telling, topics
from agents.telling import DUE
from streams.app import app, lanes, lifetimes
from streams.domain.endpoints import Endpoint
from streams.engine.batches import Batch
from streams.engine.units import Output, Unit
from streams.webhooks.courier import Courier
from tables.endpoints import endpoints

LOOK_S = 0.1
"""How often it is looked whether partitions have come or gone."""

flow = WebhookFlow(tables, topics, lifetimes)
lanes.dead_letters[topics.webhooks] = flow.write_dead_letter


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


def count(answers: Mapping[str, int]) -> None:
    """Count what attempts came to."""
    for answer, number in answers.items():
        ATTEMPTS.labels(answer).inc(number)


def take(key: bytes, endpoint: Endpoint | None) -> None:
    """Take note of an endpoint as it is now."""
    endpoint_id = key.decode()
    telling.routing.put(endpoint_id, endpoint)
    feed.changed(endpoint_id, endpoint)


courier = Courier(lambda: feed.begin(), lambda said: feed.hear(said), lambda: feed.lost())
feed: Feed = Feed(
    courier,
    app.reader,
    telling.tables,
    telling.routing,
    produce,
    stand,
    lanes.generation,
    lanes.lag,
    count,
)
UNDER_WAY.set_function(lambda: feed.under_way)
lanes.listen(DUE, feed.note)
app.mirror(endpoints, take)


async def look() -> None:
    """Tell the sender of what nobody says."""
    feed.look()


async def send() -> None:
    """Keep the sender, once there is something to send."""
    await app.or_crash(courier.run())


app.every(LOOK_S, look)
app.task()(send)
