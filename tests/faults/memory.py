"""The handlers on topics and tables in memory: what they make of traffic, without a broker."""

import json
import random
from collections.abc import Sequence
from typing import Any

from agents.flows import Flow, RequestFlow, StatusFlow
from streams.domain.lifetimes import Lifetimes
from streams.engine.batches import Batch
from streams.engine.units import TableLike, Unit
from tables.formats import DELIVERIES, EXPIRES, REMOVED, due_by
from tests.agents.flowing import COUNTING, NAMES
from tests.agents.flowing import TABLES as NORMAL

from .checker import World
from .decoding import read_cells, read_delivery
from .inputs import Ages, Raw
from .traffic import Sent

PARTITIONS = 3
START_MS = 1_764_000_000_000
AGES = Ages(tracking_ms=9_000, retention_ms=7_000)
#: So few changes may be pending that cells are written often.
COUNTING_OFTEN = COUNTING._replace(most_entries=40)
TABLES = NORMAL._replace(counting=COUNTING_OFTEN)
LIFETIMES = Lifetimes(AGES.tracking_ms, AGES.retention_ms, 10**12)
FLOWS: dict[str, Flow[Any]] = {
    "requests": RequestFlow(TABLES, NAMES, LIFETIMES),
    "statuses": StatusFlow(TABLES, NAMES, LIFETIMES),
}
KINDS = {EXPIRES: "expire", REMOVED: "purge"}


class Logs:
    """Topics and tables in memory, and units of work that change them at once."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.topics: dict[tuple[str, int], list[Raw]] = {}
        self.tables: dict[tuple[str, int], dict[bytes, bytes]] = {}
        self.stands: dict[tuple[str, int], int] = {}
        self.now = START_MS

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
            if self.rng.random() < 0.3:
                self.sweep(self.rng.randrange(PARTITIONS))

    def sweep(self, p: int) -> None:
        """Ask for some of what is due, as a timer does, by a clock that goes in leaps; some of it twice."""
        self.now += self.rng.randrange(3_000)
        assert DELIVERIES.index is not None
        for key, value in list(self.tables.get(("deliveries", p), {}).items()):
            for entry in DELIVERIES.index(key, DELIVERIES.decode(value)):
                kind = KINDS.get(entry[:1])
                if kind and entry < due_by(entry[:1], self.now) and self.rng.random() < 0.7:
                    asked = json.dumps({"type": kind, "messageId": key.decode()}).encode()
                    self.append("delivery.requests", p, self.now, key, asked, ())

    def apply(self, topic: str, p: int) -> None:
        def read_many(table: TableLike[Any], keys: Sequence[bytes]) -> list[bytes | None]:
            stored = self.tables.get((table.name, p), {})
            return [stored.get(key) for key in keys]

        unit = Unit(p, PARTITIONS, read_many)
        log, start = self.topics[topic, p], self.stands.get((topic, p), 0)
        end = min(len(log), start + self.rng.randrange(1, 60))
        FLOWS[topic.partition(".")[2]].handle(Batch(topic, p, start, end, log[start:end]), unit)
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
        stored = {
            table: {p: self.tables.get((table, p), {}) for p in range(PARTITIONS)}
            for table in ("deliveries", "period_stats", "pending_stats")
        }
        cells = {
            p: read_cells(stored["period_stats"][p], stored["pending_stats"][p]) for p in range(PARTITIONS)
        }
        return World(
            partitions=PARTITIONS,
            requests=self.by_partition("delivery.requests"),
            statuses=self.by_partition("delivery.statuses"),
            events=self.by_partition("delivery.events"),
            dead_letters=self.by_partition("delivery.dead-letters"),
            deliveries={
                p: dict(read_delivery(*row) for row in by.items()) for p, by in stored["deliveries"].items()
            },
            cells={p: counts for p, (counts, _) in cells.items()},
            updated_at={p: at for p, (_, at) in cells.items()},
            ages=AGES,
            committed={(topic.partition(".")[2], p): end for (topic, p), end in self.stands.items()},
        )


def is_input(place: tuple[str, int]) -> bool:
    return place[0].partition(".")[2] in FLOWS
