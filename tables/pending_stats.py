"""What units of work have added to the statistics, in sequence, until there is enough of it for the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from streams.app import app, settings
from tables.formats import PENDING_STATS

if TYPE_CHECKING:
    from streams.domain.statistics import Pending
    from streams.engine.table import Table

pending_stats = cast(
    "Table[Pending]",
    app.Table(
        "pending_stats",
        format=PENDING_STATS,
        partitions=settings.partitions,
        help="unit of work → what it has added to the statistics and is not in period_stats yet",
    ),
)
