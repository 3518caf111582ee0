"""delivery.statuses → deliveries, pending_stats, period_stats, delivery.events, delivery.stats, …"""

from __future__ import annotations

from typing import Any

from agents.flows import StatusFlow
from agents.shared import tables, topics
from streams.app import app, lanes, lifetimes
from streams.engine.batches import Batch
from streams.engine.units import Unit

flow = StatusFlow(tables, topics, lifetimes)
lanes.dead_letters[topics.statuses] = flow.write_dead_letter


@app.agent(app.batches_of(topics.statuses), name="apply_statuses")
async def apply_statuses(batches: Any) -> None:
    """delivery.statuses → deliveries, pending_stats, period_stats, delivery.events, delivery.stats, …"""
    async for event in batches.noack().events():
        await lanes.submit(event, handle)


def handle(batch: Batch, unit: Unit) -> None:
    """Apply each status in offset order; reads and writes go to the unit, nothing is awaited."""
    flow.handle(batch, unit)
