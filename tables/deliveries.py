"""messageId → the delivery of that message; listed by status, what changed last first."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from streams.app import app, settings
from tables.formats import DELIVERIES

if TYPE_CHECKING:
    from streams.domain.delivery import Delivery
    from streams.engine.table import Table

deliveries = cast(
    "Table[Delivery]",
    app.Table(
        "deliveries",
        format=DELIVERIES,
        partitions=settings.partitions,
        help="messageId → the delivery of that message",
    ),
)
