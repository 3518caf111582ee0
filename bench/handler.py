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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.flows import Flow, Tables
from bench.brokers import callbacks
from bench.rounds import ARRANGEMENTS
from streams.demo.traffic import Arrangement
from streams.domain.delivery import merge
from streams.domain.lifetimes import Lifetimes
from streams.engine.batches import Batch
from streams.engine.formats import Format
from streams.engine.lanes import PART_RECORDS
from streams.engine.units import TableLike, Unit
from streams.messages import read_status
from streams.topics import names
from tables.formats import DELIVERIES, PERIOD_STATS

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
    """Both tables of the one partition, as bytes."""

    tables: dict[str, dict[bytes, bytes]] = field(
        default_factory=lambda: {"deliveries": {}, "period_stats": {}}
    )

    def read_many(self, table: TableLike[Any], keys: Sequence[bytes]) -> list[bytes | None]:
        stored = self.tables[table.name]
        return [stored.get(key) for key in keys]

    def write(self, unit: Unit) -> None:
        for table, writes in unit.changes():
            stored = self.tables[table.name]
            for key, value, _, _ in writes:
                stored[key] = value


def records(count: int, arrangement: Arrangement) -> list[Record]:
    """So many callbacks of one partition, out of an hour's traffic as the other benchmarks have it."""
    return [
        Record("delivery.statuses", 0, offset, sample.at_ms, sample.key, sample.value)
        for offset, sample in enumerate(callbacks(count, arrangement))
    ]


def run(log: list[Record], flow: Flow[Any]) -> tuple[float, Store]:
    """Return the seconds it took to apply the log, and what it left."""
    store = Store()
    batches = [
        Batch(
            "delivery.statuses", 0, log[at].offset, log[at].offset + UNIT_RECORDS, log[at : at + UNIT_RECORDS]
        )
        for at in range(0, len(log), UNIT_RECORDS)
    ]
    began = time.process_time()
    for batch in batches:
        unit = Unit(0, 1, store.read_many)
        for part in batch.cut(PART_RECORDS):
            flow.handle(part, unit)
            unit.settle()
            unit.take_outputs()
        store.write(unit)
    return time.process_time() - began, store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callbacks", type=int, default=75_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="profile one round of each arrangement")
    args = parser.parse_args()

    tables = Tables(Table("deliveries", DELIVERIES), Table("period_stats", PERIOD_STATS))
    flow = Flow("statuses", read_status, merge, tables, names("delivery."), Lifetimes())
    # as in the worker, where collection runs between units of work
    gc.disable()
    for arrangement in ARRANGEMENTS:
        log = records(args.callbacks, arrangement)
        if args.profile:
            profile = cProfile.Profile()
            profile.runcall(run, log, flow)
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
            continue
        micros = [run(log, flow)[0] / len(log) * 1e6 for _ in range(args.rounds)]
        best, median = min(micros), statistics.median(micros)
        print(f"{arrangement:>9}: {len(log)} callbacks, {median:.2f} µs each (median; best {best:.2f})")


if __name__ == "__main__":
    main()
