"""The handlers on topics and tables in memory: what they make of traffic, without a broker."""

import random
from collections.abc import Sequence
from typing import Any

from agents import requests, statuses
from streams.engine.batches import Batch
from streams.engine.units import TableLike, Unit

from .checker import World
from .decoding import read_cell, read_delivery
from .inputs import Raw
from .traffic import Sent

PARTITIONS = 3
START_MS = 1_764_000_000_000
HANDLERS = {"requests": requests.handle, "statuses": statuses.handle}


class Logs:
    """Topics and tables in memory, and units of work that change them at once."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.topics: dict[tuple[str, int], list[Raw]] = {}
        self.tables: dict[tuple[str, int], dict[bytes, bytes]] = {}
        self.stands: dict[tuple[str, int], int] = {}
        self.counts: dict[str, int] = {}

    def append(self, topic: str, p: int, at: int, key: Any, value: Any, headers: Any) -> None:
        log = self.topics.setdefault((topic, p), [])
        log.append(Raw(topic, p, len(log), at, key, value, tuple(headers)))

    def run(self, traffic: Sequence[Sent]) -> None:
        """Apply all of the traffic and the copies that it leads to, in units of any size."""
        for sent in traffic:
            place = (f"delivery.{sent.stream}", sent.partition)
            self.append(*place, sent.at, sent.key, sent.value, sent.headers)
        while waiting := [
            place
            for place, log in self.topics.items()
            if self.stands.get(place, 0) < len(log) and is_input(place)
        ]:
            self.apply(*self.rng.choice(waiting))

    def apply(self, topic: str, p: int) -> None:
        def read_many(table: TableLike[Any], keys: Sequence[bytes]) -> list[bytes | None]:
            stored = self.tables.get((table.name, p), {})
            return [stored.get(key) for key in keys]

        unit = Unit(p, PARTITIONS, read_many)
        log, start = self.topics[topic, p], self.stands.get((topic, p), 0)
        end = min(len(log), start + self.rng.randrange(1, 60))
        HANDLERS[topic.partition(".")[2]](Batch(topic, p, start, end, log[start:end]), unit)
        self.stands[topic, p] = end
        assert sum(unit.counts.values()) == end - start
        for (out, number), outputs in unit.outputs.items():
            for key, value, headers, at in outputs:
                self.append(out, number, START_MS if at is None else at, key, value, headers)
        for table, writes in unit.changes():
            stored = self.tables.setdefault((table.name, p), {})
            stored.update({key: value for key, value, _, _ in writes if value is not None})

    def by_partition(self, topic: str) -> dict[int, list[Raw]]:
        return {p: log for (name, p), log in self.topics.items() if name == topic}

    def world(self) -> World:
        cells: dict[int, dict[Any, Any]] = {}
        deliveries: dict[int, dict[str, Any]] = {}
        for (table, p), stored in self.tables.items():
            read, into = (read_delivery, deliveries) if table == "deliveries" else (read_cell, cells)
            into[p] = dict(read(key, value) for key, value in stored.items())
        return World(
            partitions=PARTITIONS,
            requests=self.by_partition("delivery.requests"),
            statuses=self.by_partition("delivery.statuses"),
            events=self.by_partition("delivery.events"),
            dead_letters=self.by_partition("delivery.dead-letters"),
            deliveries=deliveries,
            minutes={p: {k: v for k, v in by.items() if isinstance(k, tuple)} for p, by in cells.items()},
            totals={p: {k: v for k, v in by.items() if isinstance(k, str)} for p, by in cells.items()},
            committed={(topic.partition(".")[2], p): end for (topic, p), end in self.stands.items()},
        )


def is_input(place: tuple[str, int]) -> bool:
    return place[0].partition(".")[2] in HANDLERS
