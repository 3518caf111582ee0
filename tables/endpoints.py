"""endpoint → where its webhooks go, and which."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from streams.app import app, settings
from tables.formats import ENDPOINTS

if TYPE_CHECKING:
    from streams.domain.endpoints import Endpoint
    from streams.engine.table import Table

endpoints = cast(
    "Table[Endpoint]",
    app.Table(
        "endpoints",
        format=ENDPOINTS,
        partitions=settings.partitions,
        help="endpoint → where its webhooks go, and which",
    ),
)
