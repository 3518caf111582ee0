"""The tables of webhooks together. Imports no Faust."""

from __future__ import annotations

from typing import NamedTuple

from streams.domain.webhooks import Queue, Sending, Told
from streams.engine.units import TableLike

__all__ = ["WebhookTables"]


class WebhookTables(NamedTuple):
    """Events as they are told, what waits, and what came of it."""

    events: TableLike[Told]
    queues: TableLike[Queue]
    sendings: TableLike[Sending]
