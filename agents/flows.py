"""What both input topics have in common: a record is read, placed, applied, and what changed is told.

Pure but for the unit of work that is written to; knows no Faust.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from streams.domain import statistics
from streams.domain.attempts import Entry
from streams.domain.delivery import Delivery, Erase, Stop, Track, erase, stop, track
from streams.domain.errors import MalformedRecord
from streams.domain.placement import partition_of
from streams.domain.reports import DeliveryReport, report
from streams.domain.statistics import Cell, Standing, Tally, standing
from streams.domain.statuses import NAMES, NOTHING
from streams.domain.times import iso
from streams.engine.batches import Batch, Record
from streams.engine.units import TableLike, Unit, View
from streams.messages import (
    Event,
    EventType,
    Origin,
    Request,
    Stream,
    dead_letter_headers,
    encode,
    event_headers,
    forwarded_header,
    read_request,
)
from streams.topics import Names

__all__ = ["Flow", "Tables"]

log = logging.getLogger(__name__)

Outcome: TypeAlias = Literal["applied", "amended", "repeated", "refused", "forwarded", "dead-lettered"]
"""What became of a record; each has exactly one."""


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
        tally = unit.gathered(Tally, self._add_up)
        events = Events(f"{self.stream}-{batch.partition}-", self.names.events, unit)
        apply = self._apply
        outcomes = [
            apply(batch, record, key, what, deliveries, tally, events, unit) for record, key, what in said
        ]
        for outcome, count in Counter(outcomes).items():
            unit.count(outcome, count)

    def _add_up(self, tally: Tally, unit: Unit) -> None:
        """Write the statistics of a unit: one read for all cells, one write of each."""
        period_stats = unit.table(self.tables.period_stats)
        added = list(tally.cells())
        period_stats.load([key for key, _ in added])
        for key, more in added:
            cell = period_stats.get(key)
            if cell is None:
                cell = more
            else:
                statistics.merge(cell, more)
            period_stats.put(key, cell)

    def _read_all(self, batch: Batch, unit: Unit) -> list[tuple[Record, bytes, S]]:
        """Return what can be read and lies under its own key; send the rest where it belongs."""
        read = self.read
        said: list[tuple[Record, bytes, S]] = []
        for record in batch.records:
            try:
                what = read(record.value)
            except MalformedRecord as error:
                unit.count(self._bury(batch, record, error, unit))
                continue
            key = what.message_id.encode()
            if record.key == key:
                said.append((record, key, what))
            else:
                unit.count(self._forward(batch, record, key, unit))
        return said

    def _apply(
        self,
        batch: Batch,
        record: Record,
        key: bytes,
        what: S,
        deliveries: View[Delivery],
        tally: Tally,
        events: Events,
        unit: Unit,
    ) -> Outcome:
        """Add what is said to the delivery of its message; tell of a change, and say what became of it."""
        delivery = deliveries.get(key)
        stood: Standing | None = None
        if delivery is not None:
            if delivery.stopped_at is not None:
                return "refused"
            if delivery.precedence != NOTHING:
                stood = standing(delivery)
        elif partition_of(key, unit.partitions) == unit.partition:
            delivery = Delivery()
        else:
            # asked only for a message that is new here: those known here are in their place
            return self._forward(batch, record, key, unit)
        before, completed_at = delivery.precedence, delivery.completed_at
        tracked, entries = delivery.request, len(delivery.history) + delivery.folded
        entry = self.add(delivery, what, record.timestamp)
        if entry is None:
            return "repeated"
        deliveries.put(key, delivery)
        if len(delivery.history) + delivery.folded > entries:
            tally.happened(entry.at, entry.provider, entry.precedence)
        tally.moved(stood, delivery)
        started = tracked is None and delivery.request is not None
        completes = delivery.completed_at != completed_at
        events.tell(record.offset, key, what.message_id, entry, before, started, completes, delivery)
        return "amended" if delivery.precedence == before else "applied"

    def _bury(self, batch: Batch, record: Record, error: MalformedRecord, unit: Unit) -> Outcome:
        """Keep a record that cannot be read, with the reason, where someone can mend it and send it again."""
        headers = [*record.headers, *dead_letter_headers(_origin(batch, record), self.stream, error)]
        unit.emit(self.names.dead_letters, record.key, record.value, headers, timestamp_ms=record.timestamp)
        return "dead-lettered"

    def _forward(self, batch: Batch, record: Record, key: bytes, unit: Unit) -> Outcome:
        """Send a record to the partition of its message, under its key."""
        if not self._warned:
            self._warned = True
            log.warning(
                "records of %s are not where Kafka's default partitioner lays their messageId (the first: "
                "partition %d, offset %d); they are forwarded, which costs a hop and their order",
                batch.topic,
                batch.partition,
                record.offset,
            )
        unit.emit(
            batch.topic,
            key,
            record.value,
            [*record.headers, forwarded_header(_origin(batch, record))],
            partition=partition_of(key, unit.partitions),
            timestamp_ms=record.timestamp,
        )
        return "forwarded"


class RequestFlow(Flow[Request]):
    """The way of requests: a track request is said of a message like a status, others end what is known."""

    def __init__(self, tables: Tables, names: Names) -> None:
        super().__init__("requests", read_request, track, tables, names)  # type: ignore[arg-type]

    def _apply(
        self,
        batch: Batch,
        record: Record,
        key: bytes,
        what: Request,
        deliveries: View[Delivery],
        tally: Tally,
        events: Events,
        unit: Unit,
    ) -> Outcome:
        if isinstance(what, Track):
            return super()._apply(batch, record, key, what, deliveries, tally, events, unit)
        delivery = deliveries.get(key)
        if delivery is None:
            if partition_of(key, unit.partitions) != unit.partition:
                return self._forward(batch, record, key, unit)
            delivery = Delivery()
        elif delivery.stopped_at is not None:
            return "repeated" if isinstance(what, Stop) else "refused"
        ended = _end(delivery, what, record.timestamp)
        if ended is None:
            return "repeated"
        deliveries.put(key, ended)
        # what is not known yet is only marked, for what may be said of it later
        if delivery.precedence != NOTHING:
            if ended is not delivery:
                tally.left(standing(delivery))
            events.tell_end(record, key, what, delivery)
        return "applied"


def _end(delivery: Delivery, what: Stop | Erase, receipt: int) -> Delivery | None:
    """Return what is left of a delivery; None when the request changed nothing."""
    if isinstance(what, Stop):
        return stop(delivery, receipt)
    return delivery if erase(delivery, receipt) else None


def _origin(batch: Batch, record: Record) -> Origin:
    return Origin(batch.topic, batch.partition, record.offset)


class Events:
    """Makes the events of one batch; their ids depend on nothing but where the input record stands.

    Args:
        place: what ids begin with, up to the offset.
    """

    def __init__(self, place: str, topic: str, unit: Unit) -> None:
        self._place = place
        self._emit = unit.emitter(topic)

    def tell(
        self,
        offset: int,
        key: bytes,
        message_id: str,
        entry: Entry,
        before: int,
        started: bool,
        completes: bool,
        delivery: Delivery,
    ) -> None:
        """Emit what happened to a delivery when `entry` was added to it."""
        now = delivery.precedence
        types = EVENT_TYPES[started, completes, before, now]
        occurred_at = iso(entry.at)
        shown: DeliveryReport | msgspec.Raw = report(message_id, delivery)
        if len(types) > 1:
            shown = msgspec.Raw(encode(shown))
        for number, type_ in enumerate(types):
            event = Event(
                f"{self._place}{offset}-{number}",
                type_,
                message_id,
                occurred_at,
                NAMES[now],
                NAMES[entry.precedence],
                entry.source,
                shown,
                None if before == NOTHING else NAMES[before],
                entry.provider,
                type_ == "tracking.completed",
            )
            self._emit((key, encode(event), event_headers(event, key), None))

    def tell_end(
        self,
        record: Record,
        key: bytes,
        what: Stop | Erase,
        delivery: Delivery,
    ) -> None:
        """Emit that a delivery is tracked no longer, or without what may be personal, and how it stood."""
        event = Event(
            f"{self._place}{record.offset}-0",
            "tracking.stopped" if isinstance(what, Stop) else "tracking.erased",
            what.message_id,
            iso(record.timestamp),
            delivery.status,
            delivery.status,
            "system",
            report(what.message_id, delivery),
            provider=delivery.provider,
            reason=what.reason if isinstance(what, Stop) else None,
        )
        self._emit((key, encode(event), event_headers(event, key), None))


def event_types(started: bool, completes: bool, before: int, now: int) -> tuple[EventType, ...]:
    """Say what happened, in order, as a delivery went from one status to another (precedences) or stayed.

    Args:
        started: whether it is tracked from now on.
        completes: whether its status is final for the first time.
    """
    types: list[EventType] = []
    if started:
        types.append("tracking.started")
    if now == before and not started:
        types.append("status.amended")
    if now != before and not (started and before == NOTHING):
        types.append("status.updated")
    if completes:
        types.append("tracking.completed")
    return tuple(types)


EVENT_TYPES: Final[Mapping[tuple[bool, bool, int, int], tuple[EventType, ...]]] = {
    (started, completes, before, now): event_types(started, completes, before, now)
    for started in (False, True)
    for completes in (False, True)
    for before in range(NOTHING, len(NAMES))
    for now in range(len(NAMES))
}
