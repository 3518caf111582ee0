"""delivery.statuses → deliveries, pending_stats, period_stats, delivery.events, delivery.stats, …"""

from __future__ import annotations

from typing import Any

from agents.counting import Counting
from agents.flows import StatusFlow, Tables
from agents.publishing import Publishing
from streams.app import app, grace_ms, lanes, lifetimes, settings, windows
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
flow = StatusFlow(Tables(deliveries, counting, provider_health, endpoints), topics, lifetimes)


@app.agent(app.batches_of(topics.statuses), name="apply_statuses")
async def apply_statuses(batches: Any) -> None:
    """delivery.statuses → deliveries, pending_stats, period_stats, delivery.events, delivery.stats, …"""
    async for event in batches.noack().events():
        await lanes.submit(event, handle)


def handle(batch: Batch, unit: Unit) -> None:
    """Apply each status in offset order; reads and writes go to the unit, nothing is awaited."""
    flow.handle(batch, unit)
