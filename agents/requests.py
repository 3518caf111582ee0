"""delivery.requests → deliveries, pending_stats, period_stats, delivery.events, delivery.stats, …"""

from __future__ import annotations

from typing import Any

from agents.counting import Counting
from agents.flows import RequestFlow, Tables
from agents.publishing import Publishing
from streams.app import app, grace_ms, lanes, lifetimes, settings, thresholds, windows
from streams.engine.batches import Batch
from streams.engine.units import Unit
from streams.topics import names
from tables.deliveries import deliveries
from tables.endpoints import endpoints
from tables.pending_stats import pending_stats
from tables.period_stats import period_stats
from tables.provider_health import provider_health

topics = names(settings.topic_prefix)
counting = Counting(period_stats, pending_stats, Publishing(topics.stats, grace_ms), windows)
flow = RequestFlow(Tables(deliveries, counting, provider_health, endpoints), topics, lifetimes, thresholds)


@app.agent(app.batches_of(topics.requests), name="apply_requests")
async def apply_requests(batches: Any) -> None:
    """delivery.requests → deliveries, pending_stats, period_stats, delivery.events, delivery.stats, …"""
    async for event in batches.noack().events():
        await lanes.submit(event, handle)


def handle(batch: Batch, unit: Unit) -> None:
    """Apply each request in offset order; reads and writes go to the unit, nothing is awaited."""
    flow.handle(batch, unit)
