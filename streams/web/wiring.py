"""Puts the views on the web server of the app; importing this is enough, before the worker starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.shared import telling
from agents.timers import attempt, clock, now_ms
from agents.timers import clean_up as clean_up_here
from agents.timers import produce as produce_requests
from streams.app import app, lanes, lifetimes, settings
from streams.engine.units import Headers
from streams.messages import Stream
from streams.topics import names
from streams.web.answers import CleanedPart
from streams.web.commands import Doing, Placed
from streams.web.counting import StatsTables
from streams.web.endpoints import Kept
from streams.web.judging import Judging
from streams.web.views import mount
from streams.webhooks.posting import Poster
from tables.deliveries import deliveries
from tables.endpoints import endpoints
from tables.pending_stats import pending_stats
from tables.period_stats import period_stats

# Faust's interface of a web server does not tell that it runs an aiohttp application
server: Any = app.web
inputs = names(settings.topic_prefix).inputs


async def produce(stream: Stream, key: bytes, value: bytes, partition: int, headers: Headers) -> Placed:
    """Produce outside of any transaction, like everybody who produces to an input topic."""
    offset = await app.produce(inputs[stream], partition, [(key, value, headers, None)])
    return Placed(inputs[stream], partition, offset)


async def clean_up(partitions: Sequence[int], within_s: float) -> CleanedPart:
    """Work off what is due in those of the partitions that this worker holds."""
    done = await clean_up_here(partitions, within_s)
    return CleanedPart(tuple(sorted(done.partitions)), done.removed, done.expired, done.complete)


statistics = mount(
    server.web_app,
    app.reader,
    StatsTables(deliveries, period_stats, pending_stats),
    Doing(produce, clean_up, lanes.calls),
    lifetimes.retention_ms,
    now_ms,
    Kept(endpoints, settings.secret_keys, settings.webhook_allow, Poster(settings.webhook_allow)),
    telling.tables,
    telling.routing.endpoints,
)
judging = Judging(
    app.reader,
    statistics,
    produce_requests,
    round(settings.health_window_s * 1000),
    settings.health_slow,
    settings.health_messages,
)


async def judge() -> None:
    """Have the providers judged."""
    now = await clock.agreed()
    if now is not None:
        await attempt(judging.judge(now), "providers could not be judged")


app.every(settings.health_interval_s, judge)
