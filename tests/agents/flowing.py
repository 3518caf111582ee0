"""Both flows over one partition in memory: lists in, lists out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agents.counting import Counting
from agents.flows import Flow, RequestFlow, StatusFlow, Tables, WebhookFlow
from agents.publishing import Publishing
from agents.telling import Telling
from streams.domain.delivery import Delivery
from streams.domain.lifetimes import Lifetimes
from streams.domain.routing import Routing
from streams.domain.statistics import (
    ALL,
    CREATED_THEN,
    FULL,
    MINUTE,
    WHOLE,
    Activity,
    Cell,
    Changes,
    Cohort,
    Key,
    Pending,
    activity,
    add,
    cohort,
    rolled_up,
)
from streams.domain.summaries import DeliveryStats, summary
from streams.engine.batches import Batch
from streams.engine.formats import Format
from streams.engine.units import TableLike, Unit
from streams.topics import names
from tables.formats import (
    DELIVERIES,
    ENDPOINTS,
    HEAD,
    PENDING_STATS,
    PERIOD_STATS,
    PROVIDER_HEALTH,
    WEBHOOK_EVENTS,
    WEBHOOK_QUEUES,
    WEBHOOK_SENDINGS,
    pending_rows,
)
from tables.webhooks import WebhookTables

NOON = 1_795_435_200_000


@dataclass
class Table:
    name: str
    format: Format[Any]


NAMES = names("delivery.")


def telling(routing: Routing, **options: Any) -> Telling:
    tables = WebhookTables(
        Table("webhook_events", WEBHOOK_EVENTS),
        Table("webhook_queues", WEBHOOK_QUEUES),
        Table("webhook_sendings", WEBHOOK_SENDINGS),
    )
    return Telling(tables, routing, NAMES, **options)


COUNTING = Counting(
    Table("period_stats", PERIOD_STATS),
    Table("pending_stats", PENDING_STATS),
    Publishing(NAMES.stats),
)
TABLES = Tables(
    Table("deliveries", DELIVERIES),
    COUNTING,
    Table("provider_health", PROVIDER_HEALTH),
    Table("endpoints", ENDPOINTS),
    telling(Routing()),
)
LIFETIMES = Lifetimes()


def counted(cells: Mapping[bytes, bytes], pending: Mapping[bytes, bytes]) -> dict[Key, Cell]:
    """All cells that count anything, with what is pending; when they last changed only of all time."""
    counts = {Key.unpack(key): PERIOD_STATS.decode(value) for key, value in cells.items()}
    changes: Changes = {}
    head = PENDING_STATS.decode(pending[HEAD]) if HEAD in pending else Pending()
    for row in pending_rows(head):
        PENDING_STATS.decode(pending[row]).add_to(changes)
    for packed, more in rolled_up(changes, head.held):
        add(counts.setdefault(Key.unpack(packed), Cell()), more)
    for key, cell in counts.items():
        if key != EVERYTHING:
            cell.updated_at = 0
    return {key: cell for key, cell in counts.items() if cell.counts or cell.names}


EVERYTHING = Key(ALL, WHOLE, 0)


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


def _listed(table: TableLike[Any], key: bytes, value: bytes | None) -> list[bytes]:
    """The entries of the index that a value has."""
    index = table.format.index
    return [] if index is None or value is None else sorted(index(key, table.format.decode(value)))


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
    """One partition: its tables as bytes, and all that its units of work put out; what the last one read."""

    number: int = 0
    partitions: int = 1
    stored: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    outputs: dict[str, list[Output]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    changed: list[str] = field(default_factory=list)
    offsets: Counter[str] = field(default_factory=Counter)
    told: list[tuple[bytes, str]] = field(default_factory=list)
    notes: dict[str, dict[Any, Any]] = field(default_factory=dict)
    reads: Counter[str] = field(default_factory=Counter)
    tables: Tables = TABLES

    def __post_init__(self) -> None:
        self.flows: dict[str, Flow[Any]] = {
            "statuses": StatusFlow(self.tables, NAMES, LIFETIMES),
            "requests": RequestFlow(self.tables, NAMES, LIFETIMES),
            "webhooks": WebhookFlow(self.tables, NAMES, LIFETIMES),
        }

    def say(self, *records: Record) -> Partition:
        """Apply statuses as one batch, in one unit of work."""
        return self._apply("statuses", records)

    def ask(self, *records: Record) -> Partition:
        """Apply requests as one batch, in one unit of work."""
        return self._apply("requests", records)

    def hear(self, *records: Record) -> Partition:
        """Apply what is said of webhooks as one batch, in one unit of work."""
        return self._apply("webhooks", records)

    def _apply(self, stream: str, records: Sequence[Record]) -> Partition:
        start = self.offsets[stream]
        for offset, one in enumerate(records, start):
            one.topic, one.partition, one.offset = f"delivery.{stream}", self.number, offset
        self.offsets[stream] += len(records)
        self.reads.clear()
        unit = Unit(self.number, self.partitions, self._read_many, self._scan_keys)
        batch = Batch(f"delivery.{stream}", self.number, start, self.offsets[stream], records)
        self.flows[stream].handle(batch, unit)
        self._commit(unit, len(records))
        return self

    def _read_many(self, table: TableLike[Any], keys: Sequence[bytes]) -> list[bytes | None]:
        self.reads[table.name] += 1
        return [self.stored.get(table.name, {}).get(key) for key in keys]

    def _scan_keys(self, table: TableLike[Any], first: bytes, end: bytes, limit: int) -> list[bytes]:
        return sorted(key for key in self.stored.get(table.name, {}) if first <= key < end)[:limit]

    def _commit(self, unit: Unit, consumed: int) -> None:
        assert sum(unit.counts.values()) == consumed
        self.counts.update(unit.counts)
        self.changed, self.told = [], unit.told
        changes, self.notes = unit.changes(), unit.notes
        for table, writes in changes:
            stored = self.stored.setdefault(table.name, {})
            for key, value, was_listed, is_listed in writes:
                # or the store would leave entries of the index behind
                assert sorted(was_listed) == _listed(table, key, stored.get(key))
                assert sorted(is_listed) == _listed(table, key, value)
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

    def rows(self, table: TableLike[Any]) -> dict[bytes, Any]:
        """All that a table has."""
        return {key: table.format.decode(value) for key, value in self.stored.get(table.name, {}).items()}

    def delivery(self, message_id: str = "m-1") -> Delivery:
        return DELIVERIES.decode(self.stored["deliveries"][message_id.encode()])

    def totals(self) -> DeliveryStats:
        """How all deliveries stand; without when that last changed."""
        everything = self.cells().get(EVERYTHING, Cell())
        return msgspec.structs.replace(summary(everything, CREATED_THEN), last_updated=None)

    def cells(self) -> dict[Key, Cell]:
        """All cells that count anything."""
        return counted(self.stored.get("period_stats", {}), self.stored.get("pending_stats", {}))

    def cohorts(self, family: int) -> dict[Key, Cohort]:
        """The cohorts of all cells that have any message."""
        cohorts = {key: cohort(cell, family) for key, cell in self.cells().items()}
        return {key: found for key, found in cohorts.items() if any(found.by_status)}

    def activities(self) -> dict[Key, Activity]:
        """What happened in each minute and group in which anything did."""
        happened = {key: activity(cell) for key, cell in self.cells().items() if key[:2] == (MINUTE, FULL)}
        return {key: found for key, found in happened.items() if any(found.by_status) or any(found.outcomes)}
