"""How the tables' values are stored: msgpack arrays whose first element is a version. Imports no Faust."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

import msgspec

from streams.domain.delivery import Delivery
from streams.domain.endpoints import Endpoint
from streams.domain.health import Health
from streams.domain.lifetimes import LAST_MS
from streams.domain.statistics import Cell, Pending
from streams.domain.statuses import FIRST_FINAL, NOTHING
from streams.domain.webhooks import GROUP_BYTES, Queue, Sending, State, Told
from streams.engine.formats import Entries, Format

__all__ = [
    "CREATED",
    "DELIVERIES",
    "ENDPOINTS",
    "EXPIRES",
    "FRESH",
    "HEAD",
    "MOST_ROWS",
    "PENDING_STATS",
    "PERIOD_STATS",
    "PROVIDER_HEALTH",
    "REMOVED",
    "RETRY",
    "SENDINGS_OF",
    "WEBHOOK_EVENTS",
    "WEBHOOK_QUEUES",
    "WEBHOOK_SENDINGS",
    "created_from",
    "due_by",
    "groups_row",
    "index_entries",
    "listed_at",
    "pending_row",
    "pending_rows",
    "queue_listing",
    "queues_end",
    "retry_listing",
    "untold_row",
]

_ENTRY: Final = Struct(">BQ")
_entry: Final = _ENTRY.pack
EXPIRES: Final = b"\x80"
"""Begins the entries of deliveries that are not final, by when they expire."""
REMOVED: Final = b"\x81"
"""Begins the entries of those that are, and of markers, by when they are removed."""
CREATED: Final = b"\x82"
"""Begins the entries of all deliveries, by when they were created."""
_EXPIRES: Final = EXPIRES[0]
_REMOVED: Final = REMOVED[0]
_CREATED: Final = CREATED[0]
# Trap 23: JSON was larger and slower to read and write, and without a version nothing could ever be changed.
_encode = msgspec.msgpack.Encoder().encode


def index_entries(key: bytes, delivery: Delivery) -> Entries:
    """List a delivery by its status, what changed last first, and by its creation; and by when it is due."""
    precedence, due_at = delivery.precedence, delivery.due_at
    if precedence == NOTHING:
        return () if due_at is None else (_entry(_REMOVED, due_at),)
    listed = _entry(precedence, LAST_MS - delivery.updated_at)
    created = _entry(_CREATED, _listable(delivery.created_at))
    if due_at is None:
        return listed, created
    return listed, created, _entry(_EXPIRES if precedence < FIRST_FINAL else _REMOVED, due_at)


def _listable(time: int) -> int:
    """Return a time as it can be listed; a record may carry any."""
    return time if 0 <= time <= LAST_MS else max(0, min(time, LAST_MS))


def created_from(time: int) -> bytes:
    """Return what no entry of a delivery that was created before `time`, ms, comes up to."""
    return _entry(_CREATED, _listable(time))


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

ENDPOINTS: Final[Format[Endpoint]] = Format(encode=_encode, decode=msgspec.msgpack.Decoder(Endpoint).decode)

PROVIDER_HEALTH: Final[Format[Health]] = Format(encode=_encode, decode=msgspec.msgpack.Decoder(Health).decode)

PENDING_STATS: Final[Format[Pending]] = Format(encode=_encode, decode=msgspec.msgpack.Decoder(Pending).decode)

FRESH: Final = b"\x80"
"""Begins the entries of queues whose first was not tried yet, by group, then by when it came."""
RETRY: Final = b"\x81"
"""Begins those of the others, by group, then by when it is tried again."""
SENDINGS_OF: Final[Mapping[State, bytes]] = {"delivered": b"\x80", "failed": b"\x81"}
"""Begins the entries of what is no longer pending, by group, then by when its event was made."""


_GROUPED: Final = Struct(f">c{GROUP_BYTES}sQ")
_pack: Final = _GROUPED.pack


def _grouped(kind: bytes, group: bytes, at: int) -> bytes:
    return _pack(kind, group, at if 0 <= at <= LAST_MS else _listable(at))


def _queue_entries(key: bytes, queue: Queue) -> Entries:
    return (_grouped(FRESH if queue.is_fresh else RETRY, queue.group, queue.due_at),)


def queue_listing(key: bytes, queue: Queue) -> bytes:
    """Return how a queue is listed: its entry and its key."""
    return _queue_entries(key, queue)[0] + key


def retry_listing(group: bytes, due_at: int, key: bytes) -> bytes:
    """Return how a queue of a group is listed that is tried again at a time, ms."""
    return _grouped(RETRY, group, due_at) + key


def queues_end(kind: bytes, group: bytes) -> bytes:
    """Return what comes after the listings of a group that are of a kind."""
    return kind + group + b"\xff" * 8


def listed_at(listing: bytes) -> int:
    """Return the time in a queue's entry or listing, ms."""
    return int.from_bytes(listing[1 + GROUP_BYTES : _GROUPED.size], "big")


def _sending_entries(key: bytes, sending: Sending) -> Entries:
    kind = SENDINGS_OF.get(sending.state)
    return () if kind is None else (_grouped(kind, sending.group, sending.at),)


WEBHOOK_EVENTS: Final[Format[Told]] = Format(encode=_encode, decode=msgspec.msgpack.Decoder(Told).decode)

WEBHOOK_QUEUES: Final[Format[Queue]] = Format(
    encode=_encode,
    decode=msgspec.msgpack.Decoder(Queue).decode,
    index=_queue_entries,
    index_bytes=_GROUPED.size,
)

WEBHOOK_SENDINGS: Final[Format[Sending]] = Format(
    encode=_encode,
    decode=msgspec.msgpack.Decoder(Sending).decode,
    index=_sending_entries,
    index_bytes=_GROUPED.size,
)

HEAD: Final = b"\x00"
"""Key of the row that says which rows are pending."""

MOST_ROWS: Final = 256
"""Rows that may be pending."""


def untold_row(number: int) -> bytes:
    """Return the key of a row of cells that changed and were not told of; used but once."""
    return b"\x02" + number.to_bytes(8, "big")


def groups_row(window: bytes) -> bytes:
    """Return the key of the row that says how many groups a window counts apart (`window_of`)."""
    return b"\x03" + window


def pending_row(number: int) -> bytes:
    """Return the key of a row of the sequence; it is used again later, so that nothing need be deleted."""
    return b"\x01" + bytes((number % MOST_ROWS,))


def pending_rows(head: Pending) -> list[bytes]:
    """Return the keys of the rows that are pending."""
    return [pending_row(number) for number in range(head.first, head.end)]
