"""event → its webhook, and which endpoints it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from streams.app import app, settings
from tables.formats import WEBHOOK_EVENTS

if TYPE_CHECKING:
    from streams.domain.webhooks import Told
    from streams.engine.table import Table

webhook_events = cast(
    "Table[Told]",
    app.Table(
        "webhook_events",
        format=WEBHOOK_EVENTS,
        partitions=settings.partitions,
        help="event → its webhook, and which endpoints it is told to",
    ),
)
