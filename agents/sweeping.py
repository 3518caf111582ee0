"""What a worker asks for by itself, when the time of a message has come.

A sweep pages through the deliveries that are due and produces a request for each, to the topic that all
requests come in by; a page is followed by one of another partition, and the next one of the same partition
comes when the lane has committed it. So no lane is asked for more than it can do, none waits for another, and
what else comes in has its turn between two pages.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from streams.domain.delivery import Delivery, Expire, Purge
from streams.engine.calls import Calls
from streams.engine.reading import Reader
from streams.engine.units import Output, TableLike
from streams.messages import encode
from tables.formats import EXPIRES, REMOVED, due_by

__all__ = ["ANSWER_S", "ProduceRequests", "Sweep", "Sweeper"]

log = logging.getLogger(__name__)

PAGE: Final = 500
"""Requests that are produced at a time."""

ANSWER_S: Final = 10.0
"""How long the lane may take for what it is asked; then the partition is left for the next time."""

KINDS: Final = {EXPIRES: Expire, REMOVED: Purge}

#: Produces records to the partition of the requests; returns when the broker has acknowledged all.
ProduceRequests = Callable[[int, list[Output]], Awaitable[object]]


@dataclass
class Sweep:
    """What came of a sweep.

    Attributes:
        partitions: those that were swept.
        removed: records that are gone.
        expired: messages that have expired.
        complete: whether nothing of them is due any more.
    """

    partitions: frozenset[int]
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
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def sweep(
        self, now: int, within_s: float | None = None, partitions: Iterable[int] | None = None
    ) -> Sweep:
        """Work off what is due; end between two pages when `within_s` are over.

        Args:
            now: ms; a lane that lags behind its inputs goes by how far it has come.
            partitions: where; those that are not held here are left out. None: all that are.
        """
        began = time.monotonic()
        held = self.reader.held()
        done = Sweep(held if partitions is None else held & frozenset(partitions))
        try:
            await asyncio.wait_for(self._one.acquire(), within_s)
        except TimeoutError:
            done.complete = False
            return done
        try:
            await self._work_off(now, None if within_s is None else began + within_s, done)
        finally:
            self._one.release()
        return done

    async def _work_off(self, now: int, deadline: float | None, done: Sweep) -> None:
        """Go round the partitions, a page of each at a time, until none has anything that is due."""
        places: dict[tuple[int, bytes], bytes | None] = {
            (partition, kind): None for partition in sorted(done.partitions) for kind in KINDS
        }
        while places:
            for (partition, kind), after in list(places.items()):
                # reading has no end of its own to wait for
                await asyncio.sleep(0)
                if deadline is not None and time.monotonic() > deadline:
                    done.complete = False
                    return
                place = await self._page(partition, kind, now, after, done)
                if place is None:
                    del places[partition, kind]
                else:
                    places[partition, kind] = place

    async def _page(
        self, partition: int, kind: bytes, now: int, after: bytes | None, done: Sweep
    ) -> bytes | None:
        """Ask for a page of what is due; return where the next one begins, None if this was the last."""
        if partition not in self.reader.held():
            done.complete = False
            return None
        at = self.reader.clock(partition, now)
        due = self.reader.scan_index(self.deliveries, partition, kind, PAGE, after, due_by(kind, at))
        if not due:
            # what is held back only because the lane has still to catch up
            if at < now and self.reader.scan_index(
                self.deliveries, partition, kind, 1, after, due_by(kind, now)
            ):
                done.complete = False
            return None
        if not await self._ask(partition, kind, [key for _, key in due], at, done):
            done.complete = False
            return None
        return b"".join(due[-1])

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
