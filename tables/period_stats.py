"""``m`` + minute + provider → what happened then; ``t`` + provider → how all deliveries stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from streams.app import app, settings
from tables.formats import PERIOD_STATS

if TYPE_CHECKING:
    from streams.domain.statistics import Cell
    from streams.engine.table import Table

period_stats = cast(
    "Table[Cell]",
    app.Table(
        "period_stats",
        format=PERIOD_STATS,
        partitions=settings.partitions,
        help="minute and provider → what happened then; provider → how all deliveries stand",
    ),
)
