"""The queued records of one partition's input topics, taken in the order of their timestamps.

A lane takes the record with the lowest timestamp first, as a Kafka Streams task does, so a request that was
produced before a status is applied before it. Records of different keys do not depend on each other: a run of
records is handed to each topic's handler as one batch wherever that keeps the order of every key.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Final, NamedTuple, cast

from streams.engine.batches import HOLE, Batch, Record, uncovered
from streams.engine.units import Unit

__all__ = ["Handler", "InputQueue", "Inputs", "Part", "Room", "Taken"]

#: Applies the records of a batch to a unit of work; synchronous, pure but for the unit.
Handler = Callable[[Batch, Unit], None]

#: Records that a handler gets at a time: what it decodes, changes and emits of so many stays in the
#: processor's cache. Thousands at a time cost half as much again for each.
PART_RECORDS = 250

#: A batch and its handler.
Part = tuple[Batch, Handler]
#: A queued batch: what it is, the generation it was polled in, who applies it.
Item = tuple[Batch, int, Handler]

TIMESTAMP: Final = attrgetter("timestamp")
RANKS: Final = 8
"""More than there are topics."""


class Taken(NamedTuple):
    """The batches that a lane applies next, and the gaps before others.

    Attributes:
        parts: batches in the order in which they are applied.
        gaps: batches that begin behind the position of their topic, each with that position.
    """

    parts: list[Part]
    gaps: list[tuple[Batch, int]]


class Room(NamedTuple):
    """How much a unit of work takes.

    Attributes:
        records: number of records.
        size_bytes: their size; a record that is larger still gets a unit of its own.
    """

    records: int
    size_bytes: int

    def fits(self, batch: Batch) -> int:
        """Return how many of the first records of a batch fit, going by their average size."""
        average = batch.size_bytes // max(1, len(batch))
        return min(self.records, self.size_bytes // average if average else self.records)

    def without(self, batch: Batch) -> Room:
        """Return the room that a batch leaves."""
        return Room(self.records - max(1, len(batch)), self.size_bytes - batch.size_bytes)


class InputQueue:
    """The queued batches of one topic, in the order in which they were polled."""

    def __init__(self, topic: str, rank: int) -> None:
        self.topic = topic
        self.rank = rank
        self.records = 0
        self.size_bytes = 0
        #: Where the last queued batch ends; the position if there was none.
        self.reach = 0
        self._items: deque[Item] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        """Append a polled batch."""
        self._items.append(item)
        self._count(item[0], 1)
        self.reach = max(self.reach, item[0].end)

    def put_back(self, item: Item) -> None:
        """Return a batch that was taken to the head of the queue."""
        self._items.appendleft(item)
        self._count(item[0], 1)

    def pop(self) -> Item:
        """Remove the head."""
        item = self._items.popleft()
        self._count(item[0], -1)
        return item

    def clear(self) -> None:
        """Remove everything; it was not applied and will be polled again."""
        self._items.clear()
        self.records = self.size_bytes = 0

    def _count(self, batch: Batch, sign: int) -> None:
        self.records += sign * len(batch)
        self.size_bytes += sign * batch.size_bytes

    def head(
        self, generation: int | None, position: int | None, gaps: list[tuple[Batch, int]]
    ) -> Item | None:
        """Return the first batch to be applied from a position on; drop those before that are not.

        Args:
            generation: of the group; batches of another one are dropped.
            position: None when the topic is not assigned.
            gaps: gets the batches that begin behind the position, which are dropped.
        """
        while self._items:
            batch, polled_in, handler = self._items[0]
            if polled_in == generation and position is not None:
                rest = uncovered(batch, position)
                if isinstance(rest, Batch):
                    if rest is not batch:
                        self.pop()
                        self.put_back((rest, polled_in, handler))
                    return self._items[0]
                if rest == HOLE:
                    gaps.append((batch, position))
            self.pop()
        return None

    def first_timestamp(self) -> int | None:
        """Return the timestamp of the first queued record; ms."""
        return next((batch.records[0].timestamp for batch, _, _ in self._items if batch.records), None)


class _Source:
    """Batches of one queue that are merged with those of others.

    Attributes:
        orders: a number for each record, by which the records of all sources are merged: the timestamp, or a
            greater one before it in the log, for no offset is passed over; and the rank of the topic.
        used: how many records were merged.
    """

    def __init__(self, queue: InputQueue) -> None:
        self.queue = queue
        self.handler: Handler | None = None
        self.records: list[Record] = []
        self.orders: list[int] = []
        self.used = 0
        self._items: list[Item] = []
        self._start = 0
        self._end = 0
        self._emitted = 0

    def append(self, item: Item) -> None:
        """Append a batch, contiguous to the last one."""
        if not self._items:
            self._start = item[0].start
        self._items.append(item)
        self.handler = item[2]
        self.records += item[0].records
        self._end = item[0].end

    def close(self) -> None:
        """Note the orders, once all batches are there."""
        timestamps = accumulate(map(TIMESTAMP, self.records), max)
        rank = self.queue.rank
        self.orders = [timestamp * RANKS + rank for timestamp in timestamps]

    def window(self, last: int, most: int) -> range:
        """Return the places of the next records up to an order, `most` of them."""
        end = min(self.used + most, len(self.orders))
        return range(self.used, bisect_right(self.orders, last, self.used, end))

    def emit(self, parts: list[Part]) -> None:
        """Hand over the records that were merged since the last time as one batch."""
        end = self.records[self.used].offset if self.used < len(self.records) else self._end
        if end > self._start:
            records = self.records[self._emitted : self.used]
            batch = Batch(self.queue.topic, self._items[0][0].partition, self._start, end, records)
            parts.append((batch, cast(Handler, self.handler)))
            self._emitted, self._start = self.used, end

    def put_back(self) -> None:
        """Return the records that are not used to the queue."""
        count = len(self.records)
        while self._items and count > self.used:
            batch, generation, handler = self._items.pop()
            count -= len(batch)
            rest = batch if count >= self.used else batch.split(self.used - count)[1]
            if rest is not None:
                self.queue.put_back((rest, generation, handler))


def _merge(sources: Sequence[_Source], most: int, is_lacking: Callable[[InputQueue], bool]) -> list[Part]:
    """Merge up to `most` records of several sources, in windows.

    The records of a window are applied topic by topic, in the order of the ranks, if that keeps the order of
    every key; else in shorter runs.
    """
    parts: list[Part] = []
    for source in sources:
        source.close()
    # beyond the last record of these, the next one may have a lower timestamp than those of the others
    cut = [source for source in sources if len(source.queue) or is_lacking(source.queue)]
    while most > 0 and all(source.used < len(source.records) for source in cut):
        windows = _windows(sources, min(most, PART_RECORDS), [source.orders[-1] for source in cut])
        if not any(windows):
            break
        if _keeps_order(sources, windows):
            for source, window in zip(sources, windows, strict=True):
                source.used = window.stop
        else:
            _interleave(sources, windows, parts)
        for source in sources:
            source.emit(parts)
        most -= sum(map(len, windows))
    for source in sources:
        # offsets without records behind the last one
        source.emit(parts)
    return parts


def _windows(sources: Sequence[_Source], most: int, ends: Sequence[int]) -> list[range]:
    """Return the places of the records that come next, up to `most`, and none behind an end."""
    following = sorted(
        order for source in sources for order in source.orders[source.used : source.used + most]
    )
    last = min([*following[:most][-1:], *ends], default=0)
    windows = [source.window(last, most) for source in sources]
    excess = sum(map(len, windows)) - most
    if excess > 0:
        # several records of one topic have the last timestamp
        number = next(n for n, source in enumerate(sources) if source.queue.rank == last % RANKS)
        windows[number] = windows[number][:-excess]
    return windows


def _keeps_order(sources: Sequence[_Source], windows: Sequence[range]) -> bool:
    """Whether no key has a record in a window behind one of the same key and a higher rank."""
    active = [(source, window) for source, window in zip(sources, windows, strict=True) if window]
    lasts: dict[bytes | None, int] = {}
    for number, (source, window) in enumerate(active, 1):
        keys = [record.key for record in source.records[window.start : window.stop]]
        orders = source.orders[window.start : window.stop]
        if number > 1 and not lasts.keys().isdisjoint(keys):
            firsts = dict(zip(reversed(keys), reversed(orders), strict=True))
            if any(lasts[key] > firsts[key] for key in lasts.keys() & firsts.keys()):
                return False
        if number < len(active):
            lasts.update(zip(keys, orders, strict=True))
    return True


def _interleave(sources: Sequence[_Source], windows: Sequence[range], parts: list[Part]) -> None:
    """Use the records of the windows one by one; emit those before a record that must follow them."""
    places = sorted(
        (source.orders[place], number)
        for number, (source, window) in enumerate(zip(sources, windows, strict=True))
        for place in window
    )
    ranks: dict[bytes | None, int] = {}
    for _, number in places:
        source = sources[number]
        key = source.records[source.used].key
        if ranks.get(key, number) > number:
            for each in sources:
                each.emit(parts)
            ranks.clear()
        ranks[key] = number
        source.used += 1


class Inputs:
    """The input queues of one partition.

    Args:
        topics: the input topics; of records with equal timestamps, those of the first topic come first.
    """

    def __init__(self, partition: int, topics: Sequence[str]) -> None:
        self._partition = partition
        self._topics = topics
        self.queues = {topic: InputQueue(topic, rank) for rank, topic in enumerate(topics)}

    @property
    def records(self) -> int:
        """Number of queued records."""
        return sum(queue.records for queue in self.queues.values())

    @property
    def is_empty(self) -> bool:
        """Whether no batch is queued."""
        return not any(self.queues.values())

    def put(self, item: Item) -> None:
        """Queue a polled batch."""
        self.queues[item[0].topic].put(item)

    def put_back(self, parts: Sequence[Part], generation: int) -> None:
        """Queue parts again that were taken and not applied."""
        for batch, handler in reversed(parts):
            self.queues[batch.topic].put_back((batch, generation, handler))

    def open(self, positions: Mapping[str, int]) -> None:
        """Begin at these positions; what is queued stays, the generation decides about it."""
        for topic, queue in self.queues.items():
            queue.reach = positions.get(topic, 0)

    def clear(self) -> None:
        """Drop what is queued."""
        for queue in self.queues.values():
            queue.clear()

    def timestamps(self) -> dict[str, int]:
        """Return the timestamp of the first queued record of each topic that has one; ms."""
        firsts = {topic: queue.first_timestamp() for topic, queue in self.queues.items()}
        return {topic: first for topic, first in firsts.items() if first is not None}

    def take(
        self,
        generation: int | None,
        positions: Mapping[str, int],
        room: Room,
        is_lacking: Callable[[InputQueue], bool],
    ) -> Taken:
        """Take what is applied next, in the order of timestamps.

        Args:
            generation: of the group; None drops everything.
            positions: by topic, where the lane stands.
            is_lacking: says whether a topic has records on the broker that are not queued yet. Nothing is
                taken beyond the end of such a queue.
        """
        taken = Taken([], [])
        heads = {
            topic: queue.head(generation, positions.get(topic), taken.gaps)
            for topic, queue in self.queues.items()
        }
        ready = [self.queues[topic] for topic, head in heads.items() if head is not None]
        if len(ready) == 1:
            self._take_one(ready[0], generation, positions, room, taken)
        elif ready:
            self._take_merged(ready, generation, positions, room, is_lacking, taken)
        return taken

    def _take_one(
        self,
        queue: InputQueue,
        generation: int | None,
        positions: Mapping[str, int],
        room: Room,
        taken: Taken,
    ) -> None:
        """Take batches of the only queue that has any."""
        position: int | None = positions[queue.topic]
        while (item := queue.head(generation, position, taken.gaps)) is not None and room.records > 0:
            batch, polled_in, handler = item
            fits = room.fits(batch)
            if not fits and taken.parts:
                break
            queue.pop()
            first, rest = batch.split(max(1, fits))
            if rest is not None:
                queue.put_back((rest, polled_in, handler))
            taken.parts.append((first, handler))
            room, position = room.without(first), first.end

    def _take_merged(
        self,
        ready: Sequence[InputQueue],
        generation: int | None,
        positions: Mapping[str, int],
        room: Room,
        is_lacking: Callable[[InputQueue], bool],
        taken: Taken,
    ) -> None:
        """Take records of several queues in the order of their timestamps."""
        share = Room(room.records, room.size_bytes // len(ready))
        sources = [_source(queue, generation, positions[queue.topic], share, taken) for queue in ready]
        taken.parts.extend(_merge(sources, room.records, is_lacking))
        for source in sources:
            source.put_back()


def _source(queue: InputQueue, generation: int | None, position: int, room: Room, taken: Taken) -> _Source:
    """Return the first batches of a queue that have the same handler and fit."""
    source = _Source(queue)
    start: int | None = position
    while (item := queue.head(generation, start, taken.gaps)) is not None and room.records > 0:
        batch, polled_in, handler = item
        fits = room.fits(batch)
        if source.handler is not None and (handler != source.handler or not fits):
            break
        queue.pop()
        first, rest = batch.split(max(1, fits))
        if rest is not None:
            queue.put_back((rest, polled_in, handler))
        source.append((first, polled_in, handler))
        room, start = room.without(first), first.end
    return source
