"""The queued records of one partition's input topics, taken in the order of their timestamps.

A lane takes the record with the lowest timestamp first, as a Kafka Streams task does, so a request that was
produced before a status is applied before it. Records of different keys do not depend on each other: a run of
records is handed to each topic's handler as one batch wherever that keeps the order of every key.
"""

from __future__ import annotations

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


class Taken(NamedTuple):
    """What a lane applies next.

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
    """Batches of one queue that are merged with those of others."""

    def __init__(self, queue: InputQueue) -> None:
        self.queue = queue
        self.handler: Handler | None = None
        self.records: list[Record] = []
        self.start = 0
        self.used = 0
        self._items: list[Item] = []
        self._end = 0

    def append(self, item: Item) -> None:
        """Append a batch, contiguous to the last one."""
        if not self._items:
            self.start = item[0].start
        self._items.append(item)
        self.handler = item[2]
        self.records += item[0].records
        self._end = item[0].end

    @property
    def end(self) -> int:
        """The offset before which all records are used."""
        return self.records[self.used].offset if self.used < len(self.records) else self._end

    def orders(self) -> list[int]:
        """Return a number for each record, by which the records of all sources are merged.

        It is the timestamp, or a greater one before it in the log: an offset is never passed over.
        """
        rank = self.queue.rank
        return [timestamp * 8 + rank for timestamp in accumulate(map(TIMESTAMP, self.records), max)]

    def put_back(self) -> None:
        """Return the records that are not used to the queue."""
        count = len(self.records)
        while self._items and count > self.used:
            batch, generation, handler = self._items.pop()
            count -= len(batch)
            rest = batch if count >= self.used else batch.split(self.used - count)[1]
            if rest is not None:
                self.queue.put_back((rest, generation, handler))


class _Merge:
    """Merges records of several sources by timestamp into parts.

    A part holds records of one topic. Between two flushes the topics are applied in the order of their ranks,
    which keeps the order of every key as long as no record follows one of the same key and a higher rank.
    """

    def __init__(self, partition: int, sources: Sequence[_Source]) -> None:
        self._partition = partition
        self._sources = sources
        self._firsts = [0] * len(sources)
        self._starts = [source.start for source in sources]
        self.parts: list[Part] = []

    def run(self, most: int, is_lacking: Callable[[InputQueue], bool]) -> None:
        """Merge up to `most` records."""
        sources = self._sources
        orders: list[int] = []
        origins: list[int] = []
        for number, source in enumerate(sources):
            orders += source.orders()
            origins += [number] * len(source.records)
        # beyond the last record of these, the next one may have a lower timestamp than those of the others
        cut = {n for n, source in enumerate(sources) if len(source.queue) or is_lacking(source.queue)}
        last_ranks: dict[bytes | None, int] = {}
        size = 0
        for place in sorted(range(len(orders)), key=orders.__getitem__)[:most]:
            number = origins[place]
            source = sources[number]
            key = source.records[source.used].key
            if size >= PART_RECORDS or last_ranks.get(key, number) > number:
                self._flush()
                last_ranks.clear()
                size = 0
            last_ranks[key] = number
            source.used += 1
            size += 1
            if number in cut and source.used == len(source.records):
                break
        self._flush()

    def _flush(self) -> None:
        for number, source in enumerate(self._sources):
            first, end = self._firsts[number], source.end
            if end > self._starts[number]:
                records = source.records[first : source.used]
                batch = Batch(source.queue.topic, self._partition, self._starts[number], end, records)
                self.parts.append((batch, cast(Handler, source.handler)))
                self._firsts[number], self._starts[number] = source.used, end


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
        merge = _Merge(self._partition, sources)
        merge.run(room.records, is_lacking)
        taken.parts.extend(merge.parts)
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
