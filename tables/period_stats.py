"""Window and group → what is counted of it: windows of a minute, an hour, a day, and all time."""

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
        help="window and group → the messages created and sent then, how they stand, and what happened then",
    ),
)
