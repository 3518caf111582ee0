"""How the tables' values are stored: msgpack arrays whose first element is a version. Imports no Faust."""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgspec

from streams.domain.delivery import Delivery
from streams.domain.lifetimes import LAST_MS
from streams.domain.statistics import Cell
from streams.domain.statuses import FIRST_FINAL, NOTHING
from streams.engine.formats import Entries, Format

__all__ = ["DELIVERIES", "EXPIRES", "PERIOD_STATS", "REMOVED", "due_by", "index_entries"]

_ENTRY: Final = Struct(">BQ")
_entry: Final = _ENTRY.pack
EXPIRES: Final = b"\x80"
"""Begins the entries of deliveries that are not final, by when they expire."""
REMOVED: Final = b"\x81"
"""Begins the entries of those that are, and of markers, by when they are removed."""
_EXPIRES: Final = EXPIRES[0]
_REMOVED: Final = REMOVED[0]
# Trap 23: JSON was larger and slower to read and write, and without a version nothing could ever be changed.
_encode = msgspec.msgpack.Encoder().encode


def index_entries(key: bytes, delivery: Delivery) -> Entries:
    """List a delivery by its status, what changed last first, if it has one; and by when it is due."""
    precedence, due_at = delivery.precedence, delivery.due_at
    if precedence == NOTHING:
        return () if due_at is None else (_entry(_REMOVED, due_at),)
    listed = _entry(precedence, LAST_MS - delivery.updated_at)
    if due_at is None:
        return (listed,)
    return listed, _entry(_EXPIRES if precedence < FIRST_FINAL else _REMOVED, due_at)


def due_by(kind: bytes, now: int) -> bytes:
    """Return what no entry of a kind that is due at `now`, ms, comes up to."""
    return kind + (now + 1).to_bytes(8, "big")


DELIVERIES: Final[Format[Delivery]] = Format(
    encode=_encode,
    decode=msgspec.msgpack.Decoder(Delivery).decode,
    index=index_entries,
    index_bytes=_ENTRY.size,
)

PERIOD_STATS: Final[Format[Cell]] = Format(encode=_encode, decode=msgspec.msgpack.Decoder(Cell).decode)
