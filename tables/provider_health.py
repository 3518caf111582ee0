"""provider → whether it delivers as it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from streams.app import app, settings
from tables.formats import PROVIDER_HEALTH

if TYPE_CHECKING:
    from streams.domain.health import Health
    from streams.engine.table import Table

provider_health = cast(
    "Table[Health]",
    app.Table(
        "provider_health",
        format=PROVIDER_HEALTH,
        partitions=settings.partitions,
        help="provider → whether it delivers as it should",
    ),
)
