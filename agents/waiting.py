"""What waits for an endpoint in a partition, as far as it is known: what is due, and what will be when.

The index knows all of it, but what is deleted there in order is stepped over by whoever looks from the
beginning, until RocksDB compacts it: an endpoint that is dead would cost more the longer it is. So what is
heard of is remembered, up to a number, and the index is read only from there on where that ends.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Final

from streams.domain.webhooks import Queue
from streams.webhooks.pipe import Listed, Look
from tables.formats import FRESH, RETRY, listed_at, queue_listing, queues_end, retry_listing

__all__ = ["LATER", "PAGE", "Waiting", "looked_up"]

PAGE: Final = 1_000
"""Queues of an endpoint and partition that are known to be due; others are looked for when these are done."""

LATER: Final = 50
"""Queues that are known to be due later, up to twice as many: few, for there may be many dead endpoints."""

Lister = Callable[[bytes, bytes, int], list[tuple[bytes, bytes]]]
"""Reads up to so many listings of the index from one on, before another, each cut into entry and key."""


@dataclass
class Waiting:
    """What waits for one endpoint in one partition.

    All of it is known but what is listed from `fresh_from` and `retries_from` on. What is heard while the
    index is being looked up comes in the order in which it became so, be it before the answer or after it.

    Attributes:
        keys: of queues that are due, in order.
        later: queues that were tried and when they are due again, ms: a heap.
        fresh_from: where in the index others may be that were not tried yet; None: nowhere.
        retries_from: where others may be that were.
        wakes_at: when to look here again, ms.
        is_looked_up: whether the index has been asked and has not answered.
    """

    group: bytes
    keys: deque[bytes] = field(default_factory=deque)
    later: list[tuple[int, bytes]] = field(default_factory=list)
    fresh_from: bytes | None = None
    retries_from: bytes | None = None
    wakes_at: int | None = None
    is_looked_up: bool = False

    def begin_anew(self) -> None:
        """Know nothing any more: all that waits is found in the index."""
        self.keys.clear()
        self.later.clear()
        self.fresh_from, self.retries_from = FRESH + self.group, RETRY + self.group

    def is_fresh(self, key: bytes, queue: Queue) -> None:
        """Take that a queue's first was not tried yet."""
        if self.fresh_from is not None and queue_listing(key, queue) >= self.fresh_from:
            return
        if len(self.keys) < PAGE:
            self.keys.append(key)
        else:
            self.fresh_from = queue_listing(key, queue)

    def is_later(self, key: bytes, queue: Queue) -> None:
        """Take that a queue's first was tried, and when it is tried again."""
        listing = queue_listing(key, queue)
        if self.retries_from is not None and listing >= self.retries_from:
            return
        heapq.heappush(self.later, (listed_at(listing), key))
        if len(self.later) > 2 * LATER:
            self.later = heapq.nsmallest(LATER + 1, self.later)
            self.retries_from = retry_listing(self.group, *self.later.pop())

    def refill(self, busy: Container[bytes], now: int) -> bool:
        """Have what is due of what is known; False if that is nothing.

        Args:
            busy: queues that need not be found: it will be heard how they stand.
        """
        while self.later and self.later[0][0] <= now and len(self.keys) < PAGE:
            _, key = heapq.heappop(self.later)
            if key not in busy:
                self.keys.append(key)
        return bool(self.keys)

    def unknown(self, partition: int, now: int) -> Look | None:
        """Return what to ask the index when nothing is known to be due; None: nothing else waits there."""
        retries_from = None if self.later else self.retries_from
        if retries_from is None and self.fresh_from is None:
            return None
        # both, so that neither kind makes the other wait
        return Look(0, partition, self.group, now, retries_from, self.fresh_from)

    def found(self, asked: Look, listed: Listed, busy: Container[bytes]) -> None:
        """Take what the index answered, unless what was asked is known otherwise by now."""
        if asked.retries_from is not None and asked.retries_from == self.retries_from:
            self.retries_from = listed.retries_from
            for entry, key in listed.retries or ():
                heapq.heappush(self.later, (listed_at(entry), key))
        if asked.fresh_from is not None and asked.fresh_from == self.fresh_from:
            self.fresh_from = listed.fresh_from
            self.refill(busy, asked.now)
            self.keys.extend(key for _, key in listed.fresh if key not in busy)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits here."""
        return not (self.keys or self.later or self.fresh_from or self.retries_from)


def looked_up(asked: Look, index: Lister) -> Listed:
    """Return what the index lists: what is due again and a little more, and what was not tried yet."""
    retries: list[tuple[bytes, bytes]] = []
    retries_from, fresh_from, fresh = asked.retries_from, asked.fresh_from, []
    end = queues_end(RETRY, asked.group)
    while retries_from is not None and len(retries) < PAGE:
        found = index(retries_from, end, LATER)
        retries += found
        retries_from = _behind(found) if len(found) == LATER else None
        if found and listed_at(found[-1][0]) > asked.now:
            break
    if fresh_from is not None:
        fresh = index(fresh_from, queues_end(FRESH, asked.group), PAGE)
        fresh_from = _behind(fresh) if len(fresh) == PAGE else None
    return Listed(asked.number, retries, retries_from, fresh, fresh_from)


def _behind(found: list[tuple[bytes, bytes]]) -> bytes:
    """Return what comes right after the last of some listings."""
    entry, key = found[-1]
    return entry + key + b"\0"
