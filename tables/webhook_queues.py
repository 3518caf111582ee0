"""endpoint and message → the events that wait to be told there."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from streams.app import app, settings
from tables.formats import WEBHOOK_QUEUES

if TYPE_CHECKING:
    from streams.domain.webhooks import Queue
    from streams.engine.table import Table

webhook_queues = cast(
    "Table[Queue]",
    app.Table(
        "webhook_queues",
        format=WEBHOOK_QUEUES,
        partitions=settings.partitions,
        help="endpoint and message → the events that wait to be told there",
    ),
)
