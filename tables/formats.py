"""How the tables' values are stored: msgpack arrays whose first element is a version. Imports no Faust."""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgspec

from streams.domain.delivery import Delivery
from streams.domain.statistics import Cell
from streams.domain.statuses import NOTHING
from streams.engine.formats import Format

__all__ = ["DELIVERIES", "PERIOD_STATS", "index_entry"]

_LAST_MS: Final = 2**63 - 1
_ENTRY: Final = Struct(">BQ")
# Trap 23: JSON was larger and slower to read and write, and without a version nothing could ever be changed.
_encode = msgspec.msgpack.Encoder().encode


def index_entry(key: bytes, delivery: Delivery) -> bytes | None:
    """List a delivery by its status, what changed last first; not one that has none, or none any more."""
    if delivery.precedence == NOTHING:
        return None
    return _ENTRY.pack(delivery.precedence, _LAST_MS - delivery.updated_at)


DELIVERIES: Final[Format[Delivery]] = Format(
    encode=_encode,
    decode=msgspec.msgpack.Decoder(Delivery).decode,
    index=index_entry,
    index_bytes=_ENTRY.size,
)

PERIOD_STATS: Final[Format[Cell]] = Format(encode=_encode, decode=msgspec.msgpack.Decoder(Cell).decode)
