"""deliveries (what is due) → delivery.requests; the life of a worker → delivery.events"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import server_list
from prometheus_client import Gauge

from agents.clock import Clock
from agents.sweeping import Sweep, Sweeper
from agents.ticking import Ticker
from streams.app import app, lanes, settings
from streams.domain.placement import partition_of
from streams.domain.times import iso
from streams.engine.broker_time import broker_time
from streams.engine.units import Output
from streams.messages import WorkerEvent, WorkerEventType, encode, event_headers
from streams.topics import clock_topic, names
from tables.deliveries import deliveries
from tables.pending_stats import pending_stats

log = logging.getLogger(__name__)

START_POLL_S: Final = 0.1
TELL_S: Final = 3.0

topics = names(settings.topic_prefix)
worker_id = f"{socket.gethostname()}:{settings.web_port}"


async def produce(partition: int, records: list[Output]) -> int:
    """Produce requests, like everybody else."""
    return await app.produce(topics.requests, partition, records)


def now_ms() -> int:
    """Return the time by this machine's clock."""
    return time.time_ns() // 1_000_000


async def ask_broker() -> int:
    """Return the time by the broker's clock, ms."""
    topic = clock_topic(settings.app_id).name
    return await broker_time(server_list(app.transport.url, 9092), topic)


def offset_s() -> float:
    """Return by how many seconds this machine's clock is ahead of the broker's; NaN: not known yet."""
    return math.nan if clock.offset_ms is None else clock.offset_ms / 1000


clock = Clock(now_ms, time.monotonic, ask_broker)
app.now_ms = clock.corrected
OFFSET = Gauge("tracker_clock_offset_seconds", "By how much this machine's clock is ahead of the broker's")
OFFSET.set_function(offset_s)
_works = asyncio.Event()
sweeper = Sweeper(app.reader, deliveries, lanes.calls, produce)
ticker = Ticker(app.reader, pending_stats, topics.statuses, lanes.calls, produce)


async def attempt(doing: Awaitable[object], what: str) -> None:
    """Do what is done again at the next time, so that it may fail now."""
    try:
        await doing
    except (KafkaError, LookupError) as error:
        # the broker is away, or a partition has just gone: nothing was applied that was not committed
        log.warning("%s: %r", what, error)


async def sweep() -> None:
    """Ask for what is due."""
    await attempt(sweep_and_tell(), "what is due could not be asked for")


async def sweep_and_tell() -> None:
    """Ask for what is due, and tell what came of it."""
    now = await clock.agreed()
    if now is not None:
        await tell_of(await sweeper.sweep(now))


async def tick() -> None:
    """Say how late it is."""
    now = await clock.agreed()
    if now is not None:
        await attempt(ticker.tick(now), "the time could not be told")


async def clean_up(partitions: Sequence[int], within_s: float) -> Sweep:
    """Request the expiry and removal of due messages, in the given partitions that this worker holds.

    Nothing is while this machine's clock is not to be believed; then it is not complete.
    """
    now = await clock.agreed()
    if now is None:
        return Sweep(app.reader.held() & frozenset(partitions), complete=False)
    done = await sweeper.sweep(now, within_s, partitions)
    await tell_of(done)
    return done


async def tell_of(done: Sweep) -> None:
    """Emit that records were removed, if any were."""
    if done.removed:
        await tell("cleanup.completed", removed_count=done.removed)


async def tell_start() -> None:
    """Emit that this worker works, once it does."""
    while not app.reader.ready()[0]:
        await asyncio.sleep(START_POLL_S)
    _works.set()
    await tell("tracker.started")


async def tell_stop(*_: Any, **__: Any) -> None:
    """Emit that this worker is about to stop, if it ever worked; one that is killed cannot."""
    if _works.is_set():
        await tell("tracker.stopped")


async def tell(type_: WorkerEventType, removed_count: int | None = None) -> None:
    """Emit what happened to this worker; outside of any transaction, so it is told at most once."""
    at = clock.corrected()
    event = WorkerEvent(f"{worker_id}-{type_}-{at}", type_, worker_id, iso(at), removed_count)
    key = worker_id.encode()
    record = (key, encode(event), event_headers(event, key), None)
    try:
        # a worker that is told to stop must not wait for a broker that has gone
        async with asyncio.timeout(TELL_S):
            await app.produce(topics.events, partition_of(key, settings.partitions), [record])
    except Exception as error:
        # it changes nothing that nobody hears of it
        log.warning("%s could not be told: %r", type_, error)


async def compare_clocks() -> None:
    """Compare the clocks once before lanes begin, so that timestamps are right from the first unit on."""
    await clock.agreed()


app.every(settings.sweep_interval_s, sweep)
app.every(settings.stats_interval_s, tick)
app.before_lanes(compare_clocks)
app.task()(tell_start)
app.on_before_shutdown.connect(tell_stop)
