"""What the project's formats say of its stored bytes, in the reference's form."""

import json
import struct
from typing import Any

import msgspec

from streams.domain.reports import record_view
from tables.formats import DELIVERIES, PERIOD_STATS

from .inputs import STATUSES, Json

CellKey = tuple[int, str] | str


def read_delivery(key: bytes, value: bytes) -> tuple[str, Json]:
    message_id, delivery = key.decode(), DELIVERIES.decode(value)
    if not delivery.history:
        return message_id, {"stopped": delivery.ended_at is not None, "erased": delivery.erased}
    return message_id, json.loads(msgspec.json.encode(record_view(message_id, delivery)))


def read_cell(key: bytes, value: bytes) -> tuple[CellKey, dict[str, Any]]:
    """A cell of a minute is keyed by (minute, provider), one of all time by its provider."""
    cell = PERIOD_STATS.decode(value)
    counts = dict(zip(STATUSES, cell.counts, strict=True))
    if key[:1] == b"m":
        return (struct.unpack(">I", key[1:5])[0], key[5:].decode()), counts
    times = {"sum": cell.duration_sum, "count": cell.duration_count, "updatedAt": cell.updated_at}
    return key[1:].decode(), {"counts": counts} | times


def listing(table: str, key: bytes, value: bytes) -> list[bytes]:
    """The index entries of a delivery; other tables have none."""
    if table != "deliveries":
        return []
    assert DELIVERIES.index is not None
    return [entry + key for entry in DELIVERIES.index(key, DELIVERIES.decode(value))]
