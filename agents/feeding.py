"""What a worker tells its sender: how its partitions stand, what waits there, and what it is asked.

All of it in the order in which it became so: what is answered is as the tables were when all had been told
that was told before, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from agents.dispatching import MOST_KNOWN
from agents.waiting import looked_up
from streams.domain.endpoints import Endpoint
from streams.domain.routing import Routing
from streams.domain.webhooks import GROUP_BYTES, Queue, Told
from streams.engine.reading import Reader
from streams.engine.units import NO_HEADERS, Output
from streams.webhooks.pipe import (
    Answer,
    Counted,
    Firsts,
    Groups,
    Held,
    Known,
    Listed,
    Look,
    Noted,
    Produce,
    Produced,
    Question,
    Said,
    Stands,
    Tidings,
    Waits,
)
from tables.formats import FRESH, RETRY, queues_end
from tables.webhooks import WebhookTables

__all__ = ["Feed", "Pipe"]

log = logging.getLogger(__name__)

MOST_UNHEARD: Final = 16 << 20
"""While a sender has not heard so many bytes, it reads for itself what is to be sent."""


class Pipe(Protocol):
    """The way to a sender."""

    @property
    def is_there(self) -> bool:
        """Whether a sender hears what it is told."""

    def want(self) -> None:
        """Have a sender started, if none is there."""

    def tell(self, tidings: list[Tidings]) -> None:
        """Tell it, if it is there."""

    @property
    def unheard_bytes(self) -> int:
        """How much it has not heard yet."""


@dataclass
class Feed:
    """Tells a sender what it has to know.

    Attributes:
        produce: produces to a partition of the topic of webhooks; returns the last record's offset.
        stand: says up to which offset of that topic's partition all is applied.
        generation: changes whenever partitions may have been elsewhere.
        is_busy: says whether lanes lag behind their inputs.
        count: counts what attempts came to.
    """

    pipe: Pipe
    reader: Reader
    tables: WebhookTables
    routing: Routing
    produce: Callable[[int, list[Output]], Awaitable[int]]
    stand: Callable[[int], int]
    generation: Callable[[], int]
    is_busy: Callable[[], bool]
    count: Callable[[Mapping[str, int]], None] = lambda answers: None
    under_way: int = 0
    _held: Held = field(default_factory=lambda: Held(0, [], 0))
    _stands: Stands = field(default_factory=lambda: Stands({}, False))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    # by partition, what is being produced, and where the last of it lies; and what was a former sender's
    _producing: Counter[int] = field(default_factory=Counter)
    _produced: dict[int, int] = field(default_factory=dict)
    _former: set[int] = field(default_factory=set)
    # counts senders: one must not hear what another asked for
    _sender: int = 0

    def begin(self) -> None:
        """Tell a new sender all that it has to know from the beginning."""
        self.under_way = 0
        self._sender += 1
        # what is not applied yet still looks as if it was to be sent
        self._former = {*self._producing, *self._produced}
        self._held, self._stands = Held(0, [], 0), Stands({}, False)
        self.pipe.tell([Known(name, endpoint) for name, endpoint in self.routing.endpoints.items()])
        self.look()

    def lost(self) -> None:
        """Take that the sender has ended; what it had under way waits as before."""
        self.under_way = 0
        self._want_if_anything_waits()

    def look(self) -> None:
        """Tell what has changed that nobody says."""
        if changes := self._changes():
            self.pipe.tell(changes)

    def _changes(self) -> list[Tidings]:
        """Return what has changed of the partitions, and of how far lanes have come."""
        changes: list[Tidings] = []
        self._former = {partition for partition in self._former if self._is_unapplied(partition)}
        ours = sorted(self.reader.held() - self._former)
        held = Held(self.generation(), ours, self.reader.partitions)
        if held != self._held:
            self._held = held
            self._want_if_anything_waits()
            changes.append(held)
        stands = Stands({number: self.stand(number) for number in held.held}, self.is_busy())
        if stands != self._stands:
            self._stands = stands
            changes.append(stands)
        return changes

    def _is_unapplied(self, partition: int) -> bool:
        """Whether something was produced to a partition that this worker holds and has not applied yet."""
        if partition not in self.reader.held():
            return False
        return self._producing[partition] > 0 or self.stand(partition) <= self._produced.get(partition, -1)

    def _want_if_anything_waits(self) -> None:
        if self.pipe.is_there:
            return
        for partition in self.reader.held():
            for kind in (FRESH, RETRY):
                if self.reader.scan_index(self.tables.queues, partition, kind, 1):
                    self.pipe.want()
                    return

    def note(self, partition: int, due: Mapping[Hashable, Any]) -> None:
        """Take how queues of a partition stand now (`DUE`)."""
        self.pipe.want()
        if self.pipe.is_there:
            told: list[Any] = list(due.items())
            known = 0 if self.pipe.unheard_bytes > MOST_UNHEARD else MOST_KNOWN
            for number, (where, standing) in enumerate(told[: max(0, len(told) - known)]):
                told[number] = where, standing and (standing[0], None)
            self.pipe.tell([*self._changes(), Noted(partition, told)])

    def changed(self, endpoint_id: str, endpoint: Endpoint | None) -> None:
        """Take an endpoint as it is now."""
        self.pipe.tell([Known(endpoint_id, endpoint)])

    def hear(self, said: Iterable[Said]) -> None:
        """Answer what the sender asks, in order; and count what it counts."""
        for one in said:
            if isinstance(one, Counted):
                self.under_way = one.under_way
                self.count(one.answers)
            elif isinstance(one, Produce):
                task = asyncio.get_running_loop().create_task(self._produce(one, self._sender))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                # what it asks of may have gone, or been elsewhere
                self.pipe.tell([*self._changes(), self._answer(one)])

    async def _produce(self, said: Produce, asked_by: int) -> None:
        records: list[Output] = [(key, value, NO_HEADERS, None) for key, value in said.records]
        offset, partition = None, said.partition
        self._producing[partition] += 1
        try:
            offset = self._produced[partition] = await self.produce(partition, records)
        except Exception as error:
            # whatever it was, the sender keeps the outcomes and asks again
            log.warning("the outcomes of %d webhooks could not be produced: %r", len(records), error)
        finally:
            self._producing[partition] -= 1
            if asked_by == self._sender:
                self.pipe.tell([*self._changes(), Produced(said.number, offset)])

    def _answer(self, asked: Question) -> Answer:
        partition = asked.partition
        is_held = partition in self.reader.held()
        if isinstance(asked, Groups):
            return Waits(asked.number, sorted(self._groups(partition)) if is_held else None)
        queues = self.tables.queues
        if isinstance(asked, Look):
            if not is_held:
                return Listed(asked.number, None, None, [], None)
            return looked_up(
                asked,
                lambda first, end, limit: self.reader.listings(queues, partition, first, end).take(limit),
            )
        return Firsts(asked.number, self._firsts(partition, asked.keys) if is_held else None)

    def _firsts(self, partition: int, keys: list[bytes]) -> list[tuple[Queue | None, Told | None]]:
        queues = self.reader.get_many(self.tables.queues, partition, keys)
        firsts = [queue.waiting[0] for queue in queues if queue is not None]
        told = self.reader.get_many(self.tables.events, partition, firsts)
        by_key = dict(zip(firsts, told, strict=True))
        return [(queue, None if queue is None else by_key[queue.waiting[0]]) for queue in queues]

    def _groups(self, partition: int) -> set[bytes]:
        """Return what waits for whom: from each group to the next, not over all that waits."""
        groups: set[bytes] = set()
        for kind in (FRESH, RETRY):
            after: bytes | None = None
            while found := self.reader.scan_index(self.tables.queues, partition, kind, 1, after):
                group = found[0][0][1 : 1 + GROUP_BYTES]
                groups.add(group)
                after = queues_end(kind, group)
        return groups
