"""delivery.requests → deliveries, pending_stats, period_stats, delivery.events, delivery.stats, …"""

from __future__ import annotations

from typing import Any

from agents.flows import RequestFlow
from agents.shared import tables, topics
from streams.app import app, lanes, lifetimes, settings, thresholds
from streams.engine.batches import Batch
from streams.engine.units import Unit

seal = None if settings.secret_keys is None else settings.secret_keys.seal
flow = RequestFlow(tables, topics, lifetimes, thresholds, seal)
lanes.dead_letters[topics.requests] = flow.write_dead_letter


@app.agent(app.batches_of(topics.requests), name="apply_requests")
async def apply_requests(batches: Any) -> None:
    """delivery.requests → deliveries, pending_stats, period_stats, delivery.events, delivery.stats, …"""
    async for event in batches.noack().events():
        await lanes.submit(event, handle)


def handle(batch: Batch, unit: Unit) -> None:
    """Apply each request in offset order; reads and writes go to the unit, nothing is awaited."""
    flow.handle(batch, unit)
