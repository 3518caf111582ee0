"""event and endpoint → what came of telling it there."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from streams.app import app, settings
from tables.formats import WEBHOOK_SENDINGS

if TYPE_CHECKING:
    from streams.domain.webhooks import Sending
    from streams.engine.table import Table

webhook_sendings = cast(
    "Table[Sending]",
    app.Table(
        "webhook_sendings",
        format=WEBHOOK_SENDINGS,
        partitions=settings.partitions,
        help="event and endpoint → what came of telling it there",
    ),
)
