"""What a worker asks for by itself, when the time of a message has come.

A sweep pages through the deliveries that are due and produces a request for each, to the topic that all
requests come in by; it goes on to the next page when the lane has committed them, so it never asks for more
than the lane can do, and what else comes in takes its turns between two pages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from streams.domain.delivery import Delivery, Expire, Purge
from streams.engine.calls import Calls
from streams.engine.reading import Reader
from streams.engine.units import Output, TableLike
from streams.messages import encode
from tables.formats import EXPIRES, REMOVED, due_by

__all__ = ["Sweep", "Sweeper"]

log = logging.getLogger(__name__)

PAGE: Final = 500
"""Requests that are produced at a time."""

ANSWER_S: Final = 10.0
"""How long the lane may take for a page; then the partition is left for the next sweep."""

FULL_EVERY: Final = 12
"""Sweeps after which one begins at the very first entry again. The others go on from where the last one came
to, for RocksDB steps over all that was deleted until it has compacted it; only what was due at once when it
came in, or when it changed, lies before that place."""

KINDS: Final = {EXPIRES: Expire, REMOVED: Purge}

#: Produces records to the partition of the requests; returns when the broker has acknowledged all.
ProduceRequests = Callable[[int, list[Output]], Awaitable[object]]


@dataclass
class Sweep:
    """What came of a sweep.

    Attributes:
        removed: records that are gone.
        expired: messages that have expired.
        complete: whether nothing is due any more.
    """

    removed: int = 0
    expired: int = 0
    complete: bool = True


@dataclass
class Sweeper:
    """Sweeps the partitions that this worker holds."""

    reader: Reader
    deliveries: TableLike[Delivery]
    calls: Calls
    produce: ProduceRequests
    _floors: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    _held: frozenset[int] = frozenset()
    _sweeps: int = 0
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def on_timer(self, now: int) -> Sweep:
        """Sweep what was here at the last time already: one that has just come has still to catch up."""
        settled, self._held = self._held, self.reader.held()
        self._sweeps += 1
        is_full = self._sweeps % FULL_EVERY == 0
        return await self._sweep(sorted(settled & self._held), now, lambda: False, is_full)

    async def at_once(self, now: int, is_over: Callable[[], bool]) -> Sweep:
        """Sweep all partitions that are here, from the first entry on, until `is_over`."""
        return await self._sweep(sorted(self.reader.held()), now, is_over, is_full=True)

    async def _sweep(
        self, partitions: list[int], now: int, is_over: Callable[[], bool], is_full: bool
    ) -> Sweep:
        async with self._one:
            if is_full:
                self._floors.clear()
            done = Sweep()
            for partition in partitions:
                for kind in KINDS:
                    await self._work_off(partition, kind, now, done, is_over)
            return done

    async def _work_off(
        self, partition: int, kind: bytes, now: int, done: Sweep, is_over: Callable[[], bool]
    ) -> None:
        """Ask for all that is due of one kind in one partition."""
        place = (partition, kind)
        while not is_over():
            if partition not in self.reader.held():
                self._floors.pop(place, None)
                break
            at = self.reader.clock(partition, now)
            rows = self.reader.scan_index(self.deliveries, partition, kind, PAGE, self._floors.get(place))
            last = due_by(kind, at)
            due = [(entry, key) for entry, key in rows if entry < last]
            if not due:
                return
            if not await self._ask(partition, kind, [key for _, key in due], at, done):
                self._floors.pop(place, None)
                break
            self._floors[place] = b"".join(due[-1])
            if len(due) < PAGE:
                return
        done.complete = False

    async def _ask(self, partition: int, kind: bytes, keys: list[bytes], at: int, done: Sweep) -> bool:
        """Produce a page of requests and wait until they are committed; False when that takes too long."""
        request = KINDS[kind]
        with self.calls.expect() as call:
            headers = [call.header]
            await self.produce(partition, [(key, encode(request(key.decode())), headers, at) for key in keys])
            answered = await call.until(len(keys), ANSWER_S)
        if kind == EXPIRES:
            done.expired += call.outcomes["applied"]
        else:
            done.removed += call.outcomes["applied"]
        if not answered:
            log.info("partition %d: requests of a sweep were not applied in time", partition)
        return answered
