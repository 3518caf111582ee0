"""Both flows over one partition in memory: lists in, lists out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agents.flows import Flow, RequestFlow, Tables
from streams.domain.delivery import Delivery, merge
from streams.domain.lifetimes import Lifetimes
from streams.domain.statistics import TOTAL, Cell, DeliveryStats, totals
from streams.engine.batches import Batch
from streams.engine.formats import Format
from streams.engine.units import TableLike, Unit
from streams.messages import read_status
from streams.topics import names
from tables.formats import DELIVERIES, PERIOD_STATS

NOON = 1_795_435_200_000


@dataclass
class Table:
    name: str
    format: Format[Any]


TABLES = Tables(Table("deliveries", DELIVERIES), Table("period_stats", PERIOD_STATS))
NAMES = names("delivery.")
LIFETIMES = Lifetimes()


def listings(
    stored: Mapping[bytes, bytes],
    format_: Format[Any],
    prefix: bytes,
    after: bytes | None,
    before: bytes | None,
) -> list[tuple[bytes, bytes]]:
    """What a store lists of these values, as `Reader.scan_index` cuts it; without a limit."""
    assert format_.index is not None
    listed = [(e, key) for key, value in stored.items() for e in format_.index(key, format_.decode(value))]
    return sorted(
        (entry, key)
        for entry, key in listed
        if entry.startswith(prefix)
        and (after is None or entry + key > after)
        and (before is None or entry + key < before)
    )


@dataclass
class Record:
    value: bytes | None
    key: bytes | None
    timestamp: int = NOON
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = ""
    partition: int = 0
    offset: int = 0


@dataclass
class Output:
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int | None

    @property
    def json(self) -> Any:
        return json.loads(self.value or b"")


def record(message_id: str = "m-1", /, *, receipt: int = NOON, **said: Any) -> Record:
    """A record under the key of its message, arrived at noon."""
    value = json.dumps({"messageId": message_id} | said, ensure_ascii=False).encode()
    return Record(value, message_id.encode(), receipt)


def status(name: str, message_id: str = "m-1", /, *, receipt: int = NOON, **said: Any) -> Record:
    return record(message_id, receipt=receipt, status=name, **said)


def request(message_id: str = "m-1", /, *, receipt: int = NOON, **said: Any) -> Record:
    required = {"type": "track", "phoneNumber": "+82100000001", "templateId": "tpl", "provider": "solapi"}
    return record(message_id, receipt=receipt, **(required | said))


@dataclass
class Partition:
    """One partition: its tables as bytes, and all that its units of work put out."""

    number: int = 0
    partitions: int = 1
    stored: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    outputs: dict[str, list[Output]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    changed: list[str] = field(default_factory=list)
    offsets: Counter[str] = field(default_factory=Counter)
    told: list[tuple[bytes, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.flows: dict[str, Flow[Any]] = {
            "statuses": Flow("statuses", read_status, merge, TABLES, NAMES, LIFETIMES),
            "requests": RequestFlow(TABLES, NAMES, LIFETIMES),
        }

    def say(self, *records: Record) -> Partition:
        """Apply statuses as one batch, in one unit of work."""
        return self._apply("statuses", records)

    def ask(self, *records: Record) -> Partition:
        """Apply requests as one batch, in one unit of work."""
        return self._apply("requests", records)

    def _apply(self, stream: str, records: Sequence[Record]) -> Partition:
        start = self.offsets[stream]
        for offset, one in enumerate(records, start):
            one.topic, one.partition, one.offset = f"delivery.{stream}", self.number, offset
        self.offsets[stream] += len(records)
        unit = Unit(self.number, self.partitions, self._read_many)
        batch = Batch(f"delivery.{stream}", self.number, start, self.offsets[stream], records)
        self.flows[stream].handle(batch, unit)
        self._commit(unit, len(records))
        return self

    def _read_many(self, table: TableLike[Any], keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.stored.get(table.name, {}).get(key) for key in keys]

    def _commit(self, unit: Unit, consumed: int) -> None:
        assert sum(unit.counts.values()) == consumed
        self.counts.update(unit.counts)
        self.changed, self.told = [], unit.told
        for table, writes in unit.changes():
            for key, value, _, _ in writes:
                stored = self.stored.setdefault(table.name, {})
                if value is None:
                    del stored[key]
                else:
                    stored[key] = value
                self.changed.append(table.name)
        for (topic, number), outputs in unit.outputs.items():
            made = [Output(number, key, value, list(headers), at) for key, value, headers, at in outputs]
            self.outputs.setdefault(topic, []).extend(made)

    @property
    def events(self) -> list[Output]:
        return self.outputs.get("delivery.events", [])

    @property
    def dead_letters(self) -> list[Output]:
        return self.outputs.get("delivery.dead-letters", [])

    def types(self) -> list[str]:
        """The types of all events so far."""
        return [event.json["type"] for event in self.events]

    def delivery(self, message_id: str = "m-1") -> Delivery:
        return DELIVERIES.decode(self.stored["deliveries"][message_id.encode()])

    def totals(self) -> DeliveryStats:
        """How all deliveries stand; without when that last changed."""
        stand = totals((key, cell) for key, cell in self.cells().items() if key.startswith(TOTAL))
        return msgspec.structs.replace(stand, last_updated=None)

    def cells(self) -> dict[bytes, Cell]:
        """All cells that count anything."""
        stored: Iterable[tuple[bytes, bytes]] = self.stored.get("period_stats", {}).items()
        cells = {key: PERIOD_STATS.decode(value) for key, value in stored}
        return {key: cell for key, cell in cells.items() if any(cell.counts)}
