"""What both input topics have in common: a record is read, placed, applied, and what changed is told.

Pure but for the unit of work that is written to; knows no Faust.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from streams.domain import statistics
from streams.domain.delivery import Delivery, Entry
from streams.domain.errors import MalformedRecord
from streams.domain.placement import partition_of
from streams.domain.reports import report
from streams.domain.statistics import Cell, Standing, Tally, standing
from streams.domain.statuses import FIRST_FINAL, NAMES, NOTHING
from streams.domain.times import iso
from streams.engine.batches import Batch, Record
from streams.engine.units import TableLike, Unit, View
from streams.messages import (
    Event,
    EventType,
    Stream,
    dead_letter_headers,
    encode,
    event_headers,
    forwarded_header,
)
from streams.topics import Names

__all__ = ["Flow", "Tables"]

log = logging.getLogger(__name__)


class Addressed(Protocol):
    """Anything that is said about a message."""

    message_id: str


S = TypeVar("S", bound=Addressed)


class Tables(NamedTuple):
    """The tables that the flows change."""

    deliveries: TableLike[Delivery]
    period_stats: TableLike[Cell]


class Flow(Generic[S]):
    """The way of one input topic's records into the tables and out as events.

    Args:
        stream: names the input in the ids of events and dead letters.
        read: makes what is said of a record's value; raises `MalformedRecord`.
        add: adds what is said, arrived at so many ms, to a delivery; returns its history entry, or None
            when it changed nothing.
    """

    def __init__(
        self,
        stream: Stream,
        read: Callable[[bytes | None], S],
        add: Callable[[Delivery, S, int], Entry | None],
        tables: Tables,
        names: Names,
    ) -> None:
        self.stream: Final = stream
        self.read: Final = read
        self.add: Final = add
        self.tables: Final = tables
        self.names: Final = names
        self._warned = False

    def handle(self, batch: Batch, unit: Unit) -> None:
        """Apply each record in offset order; what becomes of it is counted."""
        said = self._read_all(batch, unit)
        deliveries = unit.table(self.tables.deliveries)
        deliveries.load([key for _, key, _ in said])
        tally = Tally()
        apply = self._apply
        for record, key, what in said:
            apply(record, key, what, deliveries, tally, unit)
        _write(tally, unit.table(self.tables.period_stats))

    def _read_all(self, batch: Batch, unit: Unit) -> list[tuple[Record, bytes, S]]:
        """Return what can be read and lies under its own key; send the rest where it belongs."""
        read = self.read
        said: list[tuple[Record, bytes, S]] = []
        for record in batch.records:
            try:
                what = read(record.value)
            except MalformedRecord as error:
                self._bury(record, error, unit)
                continue
            key = what.message_id.encode()
            if record.key == key:
                said.append((record, key, what))
            else:
                self._forward(record, key, unit)
        return said

    def _apply(
        self, record: Record, key: bytes, what: S, deliveries: View[Delivery], tally: Tally, unit: Unit
    ) -> None:
        """Add what is said to the delivery of its message; of a change tell the tables and the world."""
        delivery = deliveries.get(key)
        stood: Standing | None = None
        before = NOTHING
        tracked = False
        if delivery is not None:
            stood = standing(delivery)
            before = delivery.precedence
            tracked = delivery.request is not None
        elif partition_of(key, unit.partitions) == unit.partition:
            delivery = Delivery()
        else:
            # asked only for a message that is new here: those known here are in their place
            self._forward(record, key, unit)
            return
        entries = len(delivery.history)
        entry = self.add(delivery, what, record.timestamp)
        if entry is None:
            unit.count("repeated")
            return
        deliveries.put(key, delivery)
        if len(delivery.history) > entries:
            tally.happened(entry.at, entry.provider, entry.precedence)
        tally.moved(stood, standing(delivery), delivery.updated_at)
        unit.count("applied" if delivery.precedence != before else "amended")
        types = event_types(before, delivery.precedence, started=not tracked and delivery.request is not None)
        self._tell(types, record, key, what.message_id, entry, before, delivery, unit)

    def _tell(
        self,
        types: tuple[EventType, ...],
        record: Record,
        key: bytes,
        message_id: str,
        entry: Entry,
        before: int,
        delivery: Delivery,
        unit: Unit,
    ) -> None:
        """Emit an event of each type; their ids depend on nothing but where the input record stands."""
        occurred_at = iso(entry.at)
        shown = report(message_id, delivery)
        for number, type_ in enumerate(types):
            event = Event(
                f"{self.stream}-{record.partition}-{record.offset}-{number}",
                type_,
                message_id,
                occurred_at,
                NAMES[delivery.precedence],
                NAMES[entry.precedence],
                entry.source,
                shown,
                None if before == NOTHING else NAMES[before],
                entry.provider,
                type_ == "tracking.completed",
            )
            unit.emit(self.names.events, key, encode(event), event_headers(event, key))

    def _bury(self, record: Record, error: MalformedRecord, unit: Unit) -> None:
        """Keep a record that cannot be read, with the reason, where someone can mend it and send it again."""
        headers = [*record.headers, *dead_letter_headers(record, self.stream, error)]
        unit.emit(self.names.dead_letters, record.key, record.value, headers, timestamp_ms=record.timestamp)
        unit.count("dead-lettered")

    def _forward(self, record: Record, key: bytes, unit: Unit) -> None:
        """Send a record to the partition of its message, under its key."""
        if not self._warned:
            self._warned = True
            log.warning(
                "records of %s are not where Kafka's default partitioner lays their messageId (the first: "
                "partition %d, offset %d); they are forwarded, which costs a hop and their order",
                record.topic,
                record.partition,
                record.offset,
            )
        unit.emit(
            record.topic,
            key,
            record.value,
            [*record.headers, forwarded_header(record)],
            partition=partition_of(key, unit.partitions),
            timestamp_ms=record.timestamp,
        )
        unit.count("forwarded")


def event_types(before: int, now: int, *, started: bool) -> tuple[EventType, ...]:
    """Say what happened, in order, as a delivery went from one status to another (precedences) or stayed."""
    types: list[EventType] = []
    if started:
        types.append("tracking.started")
    if now == before and not started:
        types.append("status.amended")
    if now != before and not (started and before == NOTHING):
        types.append("status.updated")
    if before < FIRST_FINAL <= now:
        types.append("tracking.completed")
    return tuple(types)


def _write(tally: Tally, period_stats: View[Cell]) -> None:
    """Add up the statistics: one read for all cells, one write of each."""
    added = list(tally.cells())
    period_stats.load([key for key, _ in added])
    for key, more in added:
        cell = period_stats.get(key)
        if cell is None:
            cell = more
        else:
            statistics.merge(cell, more)
        period_stats.put(key, cell)
