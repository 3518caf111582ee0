"""Puts the views on the web server of the app; importing this is enough, before the worker starts."""

from __future__ import annotations

from typing import Any

from streams.app import app, settings
from streams.messages import Stream
from streams.topics import names
from streams.web.commands import Placed
from streams.web.views import mount
from tables.deliveries import deliveries
from tables.period_stats import period_stats

# Faust's interface of a web server does not tell that it runs an aiohttp application
server: Any = app.web
inputs = names(settings.topic_prefix).inputs


async def produce(stream: Stream, key: bytes, value: bytes, partition: int) -> Placed:
    """Produce outside of any transaction, like everybody who produces to an input topic."""
    done = await app.producer.send_and_wait(inputs[stream], key, value, partition, None, None)
    return Placed(done.topic, done.partition, done.offset)


mount(server.web_app, app.reader, deliveries, period_stats, produce)
