"""Answers about partitions that several workers share: ask those who hold them, put the parts together.

An answer is whole or it is a problem that names what is missing. A worker that was asked by another answers
from its own tables or not at all: it never asks on, so a stale view of who holds what cannot send a request
in circles.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar
from urllib.parse import quote

import msgspec

from streams.domain.placement import partition_of
from streams.engine.reading import Reader
from streams.web import answers
from streams.web.answers import CleanedPart, Deliveries, ListPart, NotHeld
from streams.web.asking import ASK_TIMEOUT_S, Ask, Unreachable
from streams.web.problems import UNKNOWN_MESSAGE, Problem, partitions_unavailable, unknown_message
from streams.web.queries import Listing, cursor, join

INTERNAL_LIST = "/v1/internal/messages"
INTERNAL_CLEANUP = "/v1/internal/cleanup"


class Part(Protocol):
    """One worker's share of an answer."""

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions that it answers for."""


class PointAnswer(msgspec.Struct, rename="camel"):
    """What must stand in another worker's answer about a message, be it the record or the problem."""

    message_id: str
    type: str | None = None


P = TypeVar("P", bound=Part)
Point = Callable[[Reader, Deliveries, str], bytes | None]
Local = Callable[[Sequence[int]], Awaitable[P]]


@dataclass(frozen=True)
class Gathering:
    """The questions of the web view, answered for all partitions from any worker.

    Attributes:
        deliveries: the table of records.
    """

    reader: Reader
    deliveries: Deliveries
    ask: Ask

    async def record(self, message_id: str, *, asked_by_worker: bool) -> bytes:
        """Return the tracking record as JSON."""
        return await self._point(answers.record, message_id, "", asked_by_worker)

    async def report(self, message_id: str, *, asked_by_worker: bool) -> bytes:
        """Return the delivery report as JSON."""
        return await self._point(answers.report, message_id, "/report", asked_by_worker)

    async def listing(self, listing: Listing) -> bytes:
        """Return {items, nextCursor}.

        A walk through the pages shows a message that stays as it is exactly once, whichever workers are asked
        and however partitions move between them, and no message twice. One that changes moves to the front: a
        walk that had not come to it yet misses it.
        """
        parts = await self.scatter(
            ListPart,
            lambda partitions: self.listing_part(listing, partitions),
            lambda partitions: f"{INTERNAL_LIST}?{listing.query(partitions)}",
        )
        rows = list(islice(heapq.merge(*(part.rows for part in parts), key=_place), listing.limit))
        more = any(part.more for part in parts) or sum(len(part.rows) for part in parts) > listing.limit
        items = [msgspec.Raw(item) for _, item in rows if item is not None]
        return msgspec.json.encode({"items": items, "nextCursor": cursor(_place(rows[-1])) if more else None})

    async def cleanup(self, local: Local[CleanedPart], within_s: float) -> bytes:
        """Have every worker work off what is due, by `local` for at most `within_s`; say what came of it."""
        parts = await self.scatter(
            CleanedPart,
            local,
            lambda partitions: f"{INTERNAL_CLEANUP}?partitions={quote(join(partitions))}",
            2 * within_s,
            method="POST",
        )
        return msgspec.json.encode(
            {
                "removedCount": sum(part.removed for part in parts),
                "expiredCount": sum(part.expired for part in parts),
                "complete": all(part.complete for part in parts),
            }
        )

    async def listing_part(self, listing: Listing, partitions: Sequence[int]) -> ListPart:
        """Return this worker's share of a list."""
        return await answers.newest(self.reader, self.deliveries, partitions, listing)

    def unavailable(self, missing: Iterable[int]) -> Problem:
        """Say for which partitions nobody answered, and who should have."""
        numbers = list(missing)
        return partitions_unavailable(numbers, {number: self.reader.holder(number) for number in numbers})

    async def _point(self, answer: Point, message_id: str, suffix: str, asked_by_worker: bool) -> bytes:
        try:
            body = answer(self.reader, self.deliveries, message_id)
        except NotHeld:
            if asked_by_worker:
                raise
            return await self._forward(message_id, suffix)
        if body is None:
            raise unknown_message(message_id)
        return body

    async def _forward(self, message_id: str, suffix: str) -> bytes:
        """Pass the holder's answer on; whatever is not about this message does not count as one."""
        partition = partition_of(message_id.encode(), self.reader.partitions)
        holder = self.reader.holder(partition)
        if holder is None:
            raise self.unavailable([partition])
        try:
            status, body = await self.ask(holder, f"/v1/messages/{quote(message_id, safe='')}{suffix}")
            said = msgspec.json.decode(body, type=PointAnswer)
        except (Unreachable, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.unavailable([partition]) from error
        if said.message_id == message_id and status == 200:
            return body
        if said.message_id == message_id and status == 404 and said.type == UNKNOWN_MESSAGE:
            raise unknown_message(message_id)
        raise self.unavailable([partition])

    async def scatter(
        self,
        kind: type[P],
        local: Local[P],
        path: Callable[[Sequence[int]], str],
        within_s: float = ASK_TIMEOUT_S,
        method: str = "GET",
    ) -> list[P]:
        """Ask each holder for its partitions and return the parts, if together they are the whole."""
        held = self.reader.held()
        own = sorted(held & frozenset(range(self.reader.partitions)))
        asked = [_read_own(local, own)] if own else []
        for holder, partitions in self._others(held).items():
            answer = self.ask(holder, path(partitions), method=method, within_s=within_s)
            asked.append(_part_of(kind, partitions, answer))
        parts = [part for part in await asyncio.gather(*asked) if part is not None]
        answered = [partition for part in parts for partition in part.partitions]
        if sorted(answered) != list(range(self.reader.partitions)):
            raise self.unavailable(p for p in range(self.reader.partitions) if answered.count(p) != 1)
        return parts

    def _others(self, held: frozenset[int]) -> Mapping[str, list[int]]:
        """Group the partitions that are not here by who holds them; one without a holder stays missing."""
        groups: dict[str, list[int]] = defaultdict(list)
        for partition in range(self.reader.partitions):
            holder = self.reader.holder(partition)
            if partition not in held and holder is not None:
                groups[holder].append(partition)
        return groups


async def _part_of(kind: type[P], partitions: list[int], answer: Awaitable[tuple[int, bytes]]) -> P | None:
    try:
        status, body = await answer
        part = msgspec.msgpack.decode(body, type=kind) if status == 200 else None
    except (Unreachable, msgspec.DecodeError):
        return None
    return part if part is not None and sorted(part.partitions) == partitions else None


async def _read_own(local: Local[P], partitions: list[int]) -> P | None:
    try:
        return await local(partitions)
    except NotHeld:
        return None


def _place(row: tuple[bytes, bytes | None]) -> bytes:
    return row[0]
