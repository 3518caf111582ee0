"""What one worker answers from its own tables: a reader and parameters in, answers out; no HTTP.

A worker answers only for partitions that it holds, before the reading and after it. Reading and writing share
one event loop, so what happens without an await in between sees one state of a partition.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from streams.domain.delivery import Delivery
from streams.domain.placement import partition_of
from streams.domain.reports import record_view
from streams.domain.reports import report as report_view
from streams.domain.statuses import NOTHING, PRECEDENCE
from streams.engine.reading import Reader
from streams.engine.units import TableLike
from streams.web.queries import ENTRY_BYTES, Listing

T = TypeVar("T")

PAGE_ROWS = 200
"""Rows read in one step: the loop that reads tables also feeds the consumer and must not stand still."""

Deliveries = TableLike[Delivery]
Scan = Callable[[int, bytes | None], list[tuple[bytes, T]]]


class NotHeld(Exception):
    """These partitions cannot be answered for here and now."""

    def __init__(self, partitions: Iterable[int]) -> None:
        self.partitions = frozenset(partitions)
        super().__init__(f"partitions not held: {sorted(self.partitions)}")


class ListPart(msgspec.Struct, frozen=True):
    """One worker's share of a list.

    Attributes:
        rows: place in the index, and the record as JSON, in order. Its owner renders it, so that the
            answer is the same whoever was asked; None when the message left the list while it was read.
        more: whether these partitions hold further rows behind the last one.
    """

    partitions: tuple[int, ...]
    rows: list[tuple[bytes, bytes | None]]
    more: bool


class CleanedPart(msgspec.Struct, frozen=True):
    """What came of a cleanup in one worker's partitions; `complete`: nothing is due there any more."""

    partitions: tuple[int, ...]
    removed: int
    expired: int
    complete: bool


def record(reader: Reader, table: Deliveries, message_id: str) -> bytes | None:
    """Return the tracking record as JSON, None when the message is unknown."""
    return _shown(reader, table, message_id, record_view)


def report(reader: Reader, table: Deliveries, message_id: str) -> bytes | None:
    """Return the delivery report as JSON, None when the message is unknown."""
    return _shown(reader, table, message_id, report_view)


def _shown(
    reader: Reader, table: Deliveries, message_id: str, view: Callable[[str, Delivery], Any]
) -> bytes | None:
    key = message_id.encode()
    partition = partition_of(key, reader.partitions)
    require_held(reader, [partition])
    found = reader.get(table, partition, key)
    require_held(reader, [partition])
    if found is None or found.precedence == NOTHING:
        return None  # nothing was said of it, or it is tracked no longer
    return msgspec.json.encode(view(message_id, found))


async def newest(reader: Reader, table: Deliveries, partitions: Sequence[int], listing: Listing) -> ListPart:
    """Return the share of these partitions in a list, cut at its limit.

    A message that changes while it is read stays at the place where it was found, as it is now; one that has
    left the list gives None.
    """
    found = [await _places(reader, table, partition, listing) for partition in partitions]
    first = list(islice(heapq.merge(*found), listing.limit + 1))
    rows = [
        (place, _row(reader, table, partition, place, listing)) for place, partition in first[: listing.limit]
    ]
    require_held(reader, partitions)
    return ListPart(tuple(partitions), rows, more=len(first) > listing.limit)


async def _places(
    reader: Reader, table: Deliveries, partition: int, listing: Listing
) -> list[tuple[bytes, int]]:
    """Return one place more than the limit, which tells whether there is a next page."""

    def scan(limit: int, after: bytes | None) -> list[tuple[bytes, int]]:
        require_held(reader, [partition])
        start = listing.after if after is None else after
        rows = reader.scan_index(table, partition, listing.prefix, limit, start)
        return [(entry + key, partition) for entry, key in rows]

    return [place async for place in _paged(scan, listing.limit + 1)]


def _row(reader: Reader, table: Deliveries, partition: int, place: bytes, listing: Listing) -> bytes | None:
    require_held(reader, [partition])
    key = place[ENTRY_BYTES:]
    found = reader.get(table, partition, key)
    if found is None or found.precedence != PRECEDENCE[listing.status]:
        return None
    return msgspec.json.encode(record_view(key.decode(), found))


async def _paged(scan: Scan[T], most: int = sys.maxsize) -> AsyncIterator[tuple[bytes, T]]:
    """Yield at most so many rows, read in steps that let the loop go on in between."""
    after: bytes | None = None
    while most > 0:
        asked = min(PAGE_ROWS, most)
        rows = scan(asked, after)
        for row in rows:
            yield row
        await asyncio.sleep(0)
        if len(rows) < asked:
            return
        after, most = rows[-1][0], most - asked


def require_held(reader: Reader, partitions: Iterable[int]) -> None:
    """Refuse to go on when one of these partitions is not here."""
    missing = frozenset(partitions) - reader.held()
    if missing:
        raise NotHeld(missing)
