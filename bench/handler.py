"""Measure the pure handler: microseconds per status callback, without Kafka and without RocksDB.

One callback is: JSON read, record looked up and decoded, merged, encoded; event built, encoded and given its
headers; statistics. Run it as ``python -m bench.handler``; ``--profile`` shows where the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import agents.flows
from agents.counting import Counting
from agents.flows import Flow, StatusFlow, Tables
from agents.publishing import Publishing
from agents.telling import Telling
from bench.brokers import callbacks
from bench.rounds import ARRANGEMENTS
from streams.demo.traffic import Arrangement
from streams.domain.attempts import Entry
from streams.domain.delivery import Callback, Delivery
from streams.domain.lifetimes import Lifetimes
from streams.domain.routing import Routing
from streams.domain.statistics import Tally, Touched
from streams.engine.batches import Batch
from streams.engine.formats import Format
from streams.engine.lanes import PART_RECORDS
from streams.engine.units import TableLike, Unit
from streams.topics import names
from tables.formats import (
    DELIVERIES,
    ENDPOINTS,
    PENDING_STATS,
    PERIOD_STATS,
    PROVIDER_HEALTH,
    WEBHOOK_EVENTS,
    WEBHOOK_QUEUES,
    WEBHOOK_SENDINGS,
)
from tables.webhooks import WebhookTables

UNIT_RECORDS = 5_000


@dataclass(slots=True)
class Record:
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class Table:
    name: str
    format: Format[Any]


@dataclass
class Store:
    """The tables of the one partition, as bytes."""

    tables: dict[str, dict[bytes, bytes | None]] = field(default_factory=lambda: defaultdict(dict))

    def read_many(self, table: TableLike[Any], keys: Sequence[bytes]) -> list[bytes | None]:
        stored = self.tables[table.name]
        return [stored.get(key) for key in keys]

    def write(self, unit: Unit) -> None:
        for table, writes in unit.changes():
            stored = self.tables[table.name]
            for key, value, _, _ in writes:
                stored[key] = value


class NoTally(Tally):
    """Counts nothing: what is left is the time without statistics."""

    def before(self, key: bytes, delivery: Delivery) -> Touched:
        return NOTHING

    def changed(self, key: bytes, touched: Touched, entry: Entry | None = None) -> None:
        pass

    def ended(self, outcome: int, at: int, callback: Callback | None = None) -> None:
        pass


NOTHING = Touched(None, Delivery())


def tables_for(routing: Routing) -> Tables:
    """All tables, and the endpoints that are known."""
    counting = Counting(
        Table("period_stats", PERIOD_STATS),
        Table("pending_stats", PENDING_STATS),
        Publishing("delivery.stats"),
    )
    webhooks = WebhookTables(
        Table("webhook_events", WEBHOOK_EVENTS),
        Table("webhook_queues", WEBHOOK_QUEUES),
        Table("webhook_sendings", WEBHOOK_SENDINGS),
    )
    return Tables(
        Table("deliveries", DELIVERIES),
        counting,
        Table("provider_health", PROVIDER_HEALTH),
        Table("endpoints", ENDPOINTS),
        Telling(webhooks, routing, names("delivery.")),
    )


def records(count: int, arrangement: Arrangement) -> list[Record]:
    """So many callbacks of one partition, out of an hour's traffic as the other benchmarks have it."""
    return [
        Record("delivery.statuses", 0, offset, sample.at_ms, sample.key, sample.value)
        for offset, sample in enumerate(callbacks(count, arrangement))
    ]


def run(
    log: list[Record], flow: StatusFlow, last: StatusFlow, tally: type[Tally] = Tally
) -> tuple[float, Store]:
    """Return the seconds it took to apply the log, and what it left.

    Args:
        last: applies the last batch.
    """
    store = Store()
    batches = [
        Batch(
            "delivery.statuses", 0, log[at].offset, log[at].offset + UNIT_RECORDS, log[at : at + UNIT_RECORDS]
        )
        for at in range(0, len(log), UNIT_RECORDS)
    ]
    agents.flows.Tally = tally  # type: ignore[misc]
    began = time.process_time()
    for batch in batches[:-1]:
        _apply(batch, flow, store)
    _apply(batches[-1], last, store)
    return time.process_time() - began, store


def _apply(batch: Batch, flow: Flow[Any], store: Store) -> None:
    unit = Unit(0, 1, store.read_many)
    for part in batch.cut(PART_RECORDS):
        flow.handle(part, unit)
        unit.settle()
        unit.take_outputs()
    for _ in unit.finish():
        unit.take_outputs()
    store.write(unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callbacks", type=int, default=75_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="profile one round of each arrangement")
    args = parser.parse_args()

    tables = tables_for(Routing())
    flow = StatusFlow(tables, names("delivery."), Lifetimes())
    # no part of the statistics is left for later
    at_once = tables._replace(counting=tables.counting._replace(most_entries=0))
    last = StatusFlow(at_once, names("delivery."), Lifetimes())
    # as in the worker, where collection runs between units of work
    gc.disable()
    for arrangement in ARRANGEMENTS:
        log = records(args.callbacks, arrangement)
        if args.profile:
            profile = cProfile.Profile()
            profile.runcall(run, log, flow, last)
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
            continue
        with_, without = [], []
        for _ in range(args.rounds):
            with_.append(run(log, flow, last)[0] / len(log) * 1e6)
            without.append(run(log, flow, last, NoTally)[0] / len(log) * 1e6)
        median, bare = statistics.median(with_), statistics.median(without)
        more = statistics.median(one / other for one, other in zip(with_, without, strict=True)) - 1
        print(
            f"{arrangement:>9}: {len(log)} callbacks, {median:.2f} µs each (median; best {min(with_):.2f}); "
            f"without statistics {bare:.2f} (best {min(without):.2f}): {more:+.0%} (median of the rounds)"
        )


if __name__ == "__main__":
    main()
