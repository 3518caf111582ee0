"""Count what units of work cost in steps of the interpreter: of one Python always the same, within 1 %.

Where the machine's pace swings, a change of a few percent does not show in its time; here it does. What is
done in C (msgspec, RocksDB, aiokafka) counts as the one step that calls it. It is the main thread's
work without Kafka: callbacks read, applied, told, packed and stored; and what came of attempts likewise. Run
it as ``python -m bench.steps``.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from rich.table import Table

from agents.flows import Flow, StatusFlow, WebhookFlow
from agents.telling import DUE
from bench import reports
from bench.handler import UNIT_RECORDS, Record, records, tables_for
from bench.webhooks import EVENTS
from streams.domain.endpoints import Endpoint
from streams.domain.lifetimes import Lifetimes
from streams.domain.routing import Routing
from streams.domain.webhooks import Attempted, event_id, queue_names
from streams.engine.batches import Batch
from streams.engine.lanes import PART_RECORDS
from streams.engine.store import PartitionStore
from streams.engine.transactions import BATCH_BYTES, Packer
from streams.engine.units import TableLike, Unit
from streams.messages import encode
from streams.topics import names

ZSTD = 4
SHOWN = 40


class Steps:
    """Counts the steps of each function, while it is asked to; or none at all."""

    def __init__(self, *, counts: bool = True) -> None:
        self.taken = Counter[CodeType]()
        self._counts = counts

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is done within."""
        sys.settrace(self._enter if self._counts else None)
        try:
            yield
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, what: str, about: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        code, taken = frame.f_code, self.taken

        def step(frame: FrameType, what: str, about: Any) -> Any:
            if what == "opcode":
                taken[code] += 1
            return step

        return step


class Producer:
    """Makes batches as aiokafka's producer does."""

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(BATCH_BYTES, ZSTD, is_transactional=True)


class Worker:
    """One partition's units of work, without Kafka; what is to be told has arrived before the next."""

    def __init__(self, directory: Path, endpoints: int, steps: Steps) -> None:
        self.webhooks = 0
        self._steps = steps
        self._directory = directory
        self._stores: dict[str, PartitionStore] = {}
        self._outcomes: list[Record] = []
        self._stored = 0
        routing = Routing()
        for number in range(endpoints):
            routing.put(f"ep_{number:024d}", Endpoint(url="http://127.0.0.1/", events=[*EVENTS.values()]))
        tables = tables_for(routing)
        self._statuses = StatusFlow(tables, names("delivery."), Lifetimes())
        self._attempts = WebhookFlow(tables, names("delivery."), Lifetimes())

    def work(self, log: list[Record]) -> None:
        """Apply callbacks, and what comes of what is told."""
        for at in range(0, len(log), UNIT_RECORDS):
            self._unit(log[at : at + UNIT_RECORDS])
        while self._outcomes:
            self._unit([])

    def close(self) -> None:
        for store in self._stores.values():
            store.close()

    def _unit(self, statuses: list[Record]) -> None:
        outcomes, self._outcomes = self._outcomes, []
        inputs: list[tuple[list[Record], Flow[Any]]] = [
            (statuses, self._statuses),
            (outcomes, self._attempts),
        ]
        unit, packer = Unit(0, 1, self._read), Packer(Producer())
        with self._steps.counted():
            for said, flow in inputs:
                if said:
                    self._handle(said, flow, unit, packer)
            for _ in unit.finish():
                packer.pack(unit.take_outputs())
            packer.pack(unit.take_outputs())
            for table, writes in unit.changes():
                packer.pack_writes(table.name, 0, writes)
                self._stored += len(writes)
                self._store(table).write(writes, self._stored, 0)
        self._arrive(unit, max((record.timestamp for record in (*statuses, *outcomes)), default=0))

    def _handle(self, said: list[Record], flow: Flow[Any], unit: Unit, packer: Packer) -> None:
        first, last = said[0], said[-1]
        for part in Batch(first.topic, 0, first.offset, last.offset + 1, said).cut(PART_RECORDS):
            flow.handle(part, unit)
            unit.settle()
            packer.pack(unit.take_outputs())

    def _arrive(self, unit: Unit, at: int) -> None:
        """Let each first that waits be delivered at a time, ms, at its first attempt."""
        for (_, key), standing in unit.notes.get(DUE, {}).items():  # type: ignore[misc]
            if standing is None:
                continue
            queue, _ = standing
            endpoint_id, message_id = queue_names(key)
            said = Attempted(
                message_id,
                event_id(0, queue.waiting[0]),
                endpoint_id,
                queue.attempts + 1,
                queue.due_at,
                at,
                1,
                0.5,
                204,
            )
            place = "delivery.webhooks", 0, self.webhooks, at
            self._outcomes.append(Record(*place, message_id.encode(), encode(said)))
            self.webhooks += 1

    def _read(self, table: TableLike[Any], keys: Any) -> Any:
        return self._store(table).read_many(keys)

    def _store(self, table: TableLike[Any]) -> PartitionStore:
        store = self._stores.get(table.name)
        if store is None:
            store = self._stores[table.name] = PartitionStore(self._directory / table.name, table.format)
        return store


def counted(log: list[Record], endpoints: int, steps: Steps) -> int:
    """Count the steps that callbacks take; return how many webhooks there were."""
    with tempfile.TemporaryDirectory(prefix="delivery-tracker-bench-") as name:
        worker = Worker(Path(name), endpoints, steps)
        try:
            worker.work(log)
        finally:
            worker.close()
        return worker.webhooks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callbacks", type=int, default=12_000)
    parser.add_argument("--endpoints", type=int, default=1, help="each wants what is read, clicked or failed")
    args = parser.parse_args()
    log = records(args.callbacks, "adjacent")
    # what is remembered from then on costs both the same
    counted(log, args.endpoints, Steps(counts=False))
    without, with_ = Steps(), Steps()
    print(f"counting {len(log):,} callbacks, 1 of 2 times", file=sys.stderr)
    counted(log, 0, without)
    print(f"counting {len(log):,} callbacks, 2 of 2 times", file=sys.stderr)
    webhooks = counted(log, args.endpoints, with_)
    bare, told = without.taken, with_.taken
    rows = {
        code: (bare[code] / len(log), (told[code] - bare[code]) / max(1, webhooks))
        for code in bare.keys() | told.keys()
    }
    sums = [sum(row[number] for row in rows.values()) for number in range(2)]
    table = Table(title=f"steps: {len(log):,} callbacks, {webhooks:,} webhooks", title_justify="left")
    table.add_column("where")
    table.add_column("a callback", justify="right")
    table.add_column("a webhook", justify="right")
    table.add_row("all", *(f"{steps:,.0f}" for steps in sums), end_section=True)
    for code, row in sorted(rows.items(), key=lambda item: -sum(item[1]))[:SHOWN]:
        where = f"{Path(code.co_filename).stem}.{code.co_qualname}"
        table.add_row(where, *(f"{steps:,.1f}" for steps in row))
    reports.console().print(table)


if __name__ == "__main__":
    main()
