"""What both input topics have in common: a record is read, placed, applied, and what changed is told.

Pure but for the unit of work that is written to; knows no Faust.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import structs

from agents.counting import Counting
from agents.telling import Results, Telling
from streams.domain.attempts import REQUESTED, Entry
from streams.domain.delivery import (
    Callback,
    Delivery,
    Erase,
    Expire,
    Judge,
    Purge,
    Stop,
    Tick,
    Track,
    close_webhook,
    end,
    erase,
    merge,
    track,
)
from streams.domain.endpoints import Change, Endpoint, Heard, Register, Remove, changed, heard
from streams.domain.errors import MalformedRecord, UnprocessableRecord
from streams.domain.health import Health, Thresholds, judged
from streams.domain.lifetimes import Lifetimes, due_at, expire, is_due, purge
from streams.domain.placement import partition_of
from streams.domain.reports import DeliveryReport, report
from streams.domain.routing import Route
from streams.domain.statistics import (
    CONTRADICTORY,
    DEAD_LETTERED,
    REFUSED,
    REPEATED,
    Tally,
    standing,
)
from streams.domain.statuses import NAMES, NOTHING
from streams.domain.times import event_at, iso
from streams.domain.webhooks import OWN, Abandon, Attempted, Resend, State, event_place
from streams.engine.batches import Batch, Record
from streams.engine.units import TableLike, Unit, View
from streams.messages import (
    EndpointEvent,
    Event,
    EventType,
    Origin,
    ProviderEvent,
    Request,
    Said,
    Seal,
    Stream,
    dead_letter_headers,
    encode,
    event_headers,
    forwarded_header,
    read_said,
    read_status,
    request_reader,
)
from streams.topics import Names

__all__ = ["Flow", "RequestFlow", "StatusFlow", "Tables", "WebhookFlow"]

log = logging.getLogger(__name__)

Outcome: TypeAlias = Literal[
    "applied",
    "amended",
    "repeated",
    "refused",
    "marked",
    "forgotten",
    "ticked",
    "judged",
    "forwarded",
    "dead-lettered",
    "webhook-delivered",
    "webhook-retried",
    "webhook-failed",
    "webhook-repeated",
    "webhook-resent",
    "webhook-abandoned",
]
"""What became of a record; each has exactly one."""

Reason: TypeAlias = Literal[
    "requested",
    "first",
    "progress",
    "failover",
    "correction",
    "contradiction",
    "late",
    "detail",
    "timeout",
    "final",
    "retention",
]
"""Why an event was emitted; a stop request may give words of its own."""


class Addressed(Protocol):
    """Anything that is said about a message."""

    message_id: str


S = TypeVar("S", bound=Addressed)


class Tables(NamedTuple):
    """The tables that the flows change."""

    deliveries: TableLike[Delivery]
    counting: Counting
    provider_health: TableLike[Health]
    endpoints: TableLike[Endpoint]
    telling: Telling


class Flow(Generic[S]):
    """The way of one input topic's records into the tables and out as events.

    Args:
        stream: names the input in the ids of events and dead letters.
        read: makes what is said of a record's value; raises `MalformedRecord`.
        add: adds what is said, arrived at so many ms, to a delivery; returns its history entry, or None
            when it changed nothing.
        lifetimes: what is not said by a message itself.
    """

    def __init__(
        self,
        stream: Stream,
        read: Callable[[bytes | None], S],
        add: Callable[[Delivery, S, int], Entry | None],
        tables: Tables,
        names: Names,
        lifetimes: Lifetimes,
    ) -> None:
        self.stream: Final = stream
        self.read: Final = read
        self.add: Final = add
        self.tables: Final = tables
        self.names: Final = names
        self.lifetimes: Final = lifetimes
        self._warned = False

    def handle(self, batch: Batch, unit: Unit) -> None:
        """Apply each record in offset order; what becomes of it is counted."""
        tally = unit.gathered(Tally, self.tables.counting.add_up)
        said = self._read_all(batch, tally, unit)
        deliveries = unit.table(self.tables.deliveries)
        deliveries.load([key for _, key, _ in said])
        events = Events(self.stream, batch.partition, self.names.events, self.tables.telling, unit)
        apply = self._apply
        outcomes = [
            apply(batch, record, key, what, deliveries, tally, events, unit) for record, key, what in said
        ]
        self._conclude(said, outcomes, tally, unit)
        tally.settle()

    def _conclude(
        self, said: list[tuple[Record, bytes, S]], outcomes: list[Outcome], tally: Tally, unit: Unit
    ) -> None:
        """Count what became of the records, and tell those who wait for one."""
        for outcome, count in Counter(outcomes).items():
            unit.count(outcome, count)
        for (record, _, what), outcome in zip(said, outcomes, strict=True):
            if record.headers:
                unit.tell(record.headers, outcome)
            if outcome in UNAPPLIED:
                self._count(UNAPPLIED[outcome], record, what, tally)

    def _count(self, outcome: int, record: Record, what: S | None, tally: Tally) -> None:
        """Count what became of a callback, None if it could not be read; other inputs have none."""

    def _read_all(self, batch: Batch, tally: Tally, unit: Unit) -> list[tuple[Record, bytes, S]]:
        """Return what can be read and lies under its own key; send the rest where it belongs."""
        read = self.read
        said: list[tuple[Record, bytes, S]] = []
        for record in batch.records:
            try:
                what = read(record.value)
            except MalformedRecord as error:
                unit.count(self._bury(batch, record, error, unit))
                self._count(DEAD_LETTERED, record, None, tally)
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
        if delivery is not None:
            if delivery.ended_at is not None:
                return "refused"
        elif partition_of(key, unit.partitions) == unit.partition:
            delivery = Delivery()
        else:
            # asked only for a message that is new here: those known here are in their place
            return self._forward(batch, record, key, unit)
        before, completed_at, named = delivery.precedence, delivery.completed_at, delivery.named
        contradicted, touched = delivery.contradiction, tally.before(key, delivery)
        tracked, entries = delivery.request, len(delivery.history) + delivery.folded
        entry = self.add(delivery, what, record.timestamp)
        if entry is None:
            return "repeated"
        delivery.due_at = due_at(delivery, self.lifetimes)
        deliveries.put(key, delivery)
        is_new = len(delivery.history) + delivery.folded > entries
        tally.changed(key, touched, entry if is_new else None)
        if not contradicted and delivery.contradiction:
            self._count(CONTRADICTORY, record, what, tally)
        now = delivery.precedence
        types = EVENT_TYPES[
            tracked is None and delivery.request is not None,
            delivery.completed_at != completed_at,
            isinstance(what, Expire),
            before,
            now,
        ]
        reason = _why(entry, before, named, contradicted, delivery)
        events.tell(record, key, what.message_id, entry, before, types, reason, delivery)
        return "amended" if now == before else "applied"

    def _bury(self, batch: Batch, record: Record, error: MalformedRecord, unit: Unit) -> Outcome:
        """Keep a record that cannot be read, with the reason, where someone can mend it and send it again."""
        headers = [*record.headers, *dead_letter_headers(_origin(batch, record), self.stream, error)]
        unit.emit(self.names.dead_letters, record.key, record.value, headers, timestamp_ms=record.timestamp)
        return "dead-lettered"

    def write_dead_letter(self, batch: Batch, unit: Unit, error: Exception) -> None:
        """Keep records that could not be processed; a value may be personal, so only the fault is named."""
        tally = unit.gathered(Tally, self.tables.counting.add_up)
        unprocessable = UnprocessableRecord(type(error).__name__)
        for record in batch.records:
            outcome = self._bury(batch, record, unprocessable, unit)
            unit.count(outcome)
            unit.tell(record.headers, outcome)
            self._count(DEAD_LETTERED, record, None, tally)
        tally.settle()

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


class StatusFlow(Flow[Callback]):
    """The way of statuses: each is a callback, and counts as such."""

    def __init__(self, tables: Tables, names: Names, lifetimes: Lifetimes) -> None:
        super().__init__("statuses", read_status, merge, tables, names, lifetimes)

    def _count(self, outcome: int, record: Record, what: Callback | None, tally: Tally) -> None:
        given = None if what is None else what.timestamp
        tally.ended(outcome, event_at(given, record.timestamp), what)


class RequestFlow(Flow[Request]):
    """The way of requests: a track request is said of a message like a status, others end what is known."""

    def __init__(
        self,
        tables: Tables,
        names: Names,
        lifetimes: Lifetimes,
        thresholds: Thresholds = Thresholds(),  # noqa: B008
        seal: Seal | None = None,
    ) -> None:
        super().__init__("requests", request_reader(seal), self._say, tables, names, lifetimes)
        self.thresholds: Final = thresholds

    def _say(self, delivery: Delivery, what: Request, receipt: int) -> Entry | None:
        if isinstance(what, Track):
            if what.max_tracking_duration is None:
                what.max_tracking_duration = self.lifetimes.tracking_ms
            return track(delivery, what, receipt)
        return expire(delivery, receipt)

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
        if isinstance(what, Track | Expire):
            known = earlier(deliveries.get(key)) if isinstance(what, Track) else None
            outcome = super()._apply(batch, record, key, what, deliveries, tally, events, unit)
            if known is not None:
                events.catch_up(record, key, what.message_id, known, deliveries.get(key))
            return outcome
        if isinstance(what, Tick):
            tally.time = max(tally.time, record.timestamp)
            unit.gathered(Passed, self._let_go).now = record.timestamp
            return "ticked"
        if isinstance(what, Judge):
            return self._judge(batch, record, key, what, unit)
        if deliveries.get(key) is None and partition_of(key, unit.partitions) != unit.partition:
            return self._forward(batch, record, key, unit)
        if isinstance(what, Register | Change | Remove | Heard):
            return self._keep(batch, record, key, what, unit)
        if isinstance(what, Purge):
            return self._purge(record, key, what, deliveries, tally, events)
        return self._end(record, key, what, deliveries, tally, events)

    def _end(
        self,
        record: Record,
        key: bytes,
        what: Stop | Erase,
        deliveries: View[Delivery],
        tally: Tally,
        events: Events,
    ) -> Outcome:
        """Stop tracking a message, or forget what may be personal; also of one that is not known yet."""
        delivery = deliveries.get(key) or Delivery()
        if delivery.ended_at is not None:
            return "repeated" if isinstance(what, Stop) else "refused"
        tally.settle_one(key)
        ended = _ended(delivery, what, record.timestamp)
        if ended is None:
            return "repeated"
        ended.due_at = due_at(ended, self.lifetimes)
        deliveries.put(key, ended)
        # what is not known yet is only marked, for what may be said of it later
        if delivery.precedence == NOTHING:
            return "marked"
        if isinstance(what, Stop):
            tally.left(standing(delivery))
        events.tell_end(record, key, what, delivery)
        return "applied"

    def _judge(self, batch: Batch, record: Record, key: bytes, what: Judge, unit: Unit) -> Outcome:
        """Judge a provider; tell if it is degraded now, or recovered."""
        table = unit.table(self.tables.provider_health)
        before = table.get(key) or Health()
        health = judged(before, what.figures, record.timestamp, self.thresholds)
        if health is before:
            return "repeated"
        table.put(key, health)
        reason = health.degraded or before.degraded
        if reason is not None and health.degraded != before.degraded:
            event = ProviderEvent(
                f"requests-{batch.partition}-{record.offset}-0",
                "provider.recovered" if health.degraded is None else "provider.degraded",
                what.message_id,
                iso(record.timestamp),
                reason,
                what.figures,
            )
            value = encode(event)
            unit.emit(self.names.events, key, value, event_headers(event, key))
            place = event_place("requests", record.offset, 0)
            self.tables.telling.tell_of_provider(place, event, value, record.timestamp, unit)
        return "judged"

    def _let_go(self, passed: Passed, unit: Unit) -> Iterator[None]:
        return self.tables.telling.let_go(passed.now, unit)

    def _keep(
        self, batch: Batch, record: Record, key: bytes, what: Register | Change | Remove | Heard, unit: Unit
    ) -> Outcome:
        """Keep an endpoint, change it, or forget it; one that is not known is not changed."""
        endpoints = unit.table(self.tables.endpoints)
        known, now = endpoints.get(key), record.timestamp
        if isinstance(what, Register):
            if known is not None:
                return "repeated"
            endpoints.put(key, structs.replace(what.endpoint, created_at=now, updated_at=now))
            return "applied"
        if known is None:
            return "refused"
        if isinstance(what, Remove):
            endpoints.delete(key)
            return "applied"
        if isinstance(what, Heard):
            after = heard(known, what.verdict, now, self.tables.telling.disabled_after_ms)
        else:
            after = changed(known, what, now)
        if after is None:
            return "repeated"
        endpoints.put(key, after)
        if after.state == "disabled" != known.state:
            self._tell_disabled(batch, record, key, after, unit)
        return "applied"

    def _tell_disabled(
        self, batch: Batch, record: Record, key: bytes, endpoint: Endpoint, unit: Unit
    ) -> None:
        event = EndpointEvent(
            f"requests-{batch.partition}-{record.offset}-0",
            "endpoint.disabled",
            key.decode(),
            iso(record.timestamp),
            endpoint.reason,
        )
        unit.emit(self.names.events, key, encode(event), event_headers(event, key))

    def _purge(
        self,
        record: Record,
        key: bytes,
        what: Purge,
        deliveries: View[Delivery],
        tally: Tally,
        events: Events,
    ) -> Outcome:
        """Remove a record that was kept for long enough, and then what marks that it was there.

        It counts in the statistics as before: what happened has happened.
        """
        delivery = deliveries.get(key)
        if delivery is None or not is_due(delivery, record.timestamp):
            return "repeated"
        if delivery.precedence == NOTHING:
            deliveries.delete(key)
            return "forgotten"
        tally.settle_one(key)
        marker = purge(delivery, record.timestamp)
        if marker is None:
            return "repeated"
        marker.due_at = due_at(marker, self.lifetimes)
        deliveries.put(key, marker)
        events.tell_end(record, key, what, delivery)
        return "applied"


@dataclass
class Passed:
    """What a tick says, for the unit of work.

    Attributes:
        now: ms.
    """

    now: int = 0


class WebhookFlow(Flow[Said]):
    """Applies the results of webhook attempts, and the requests to resend and to abandon webhooks.

    It changes a delivery only where the receiver of a webhook of the message's own has answered 410.
    """

    def __init__(self, tables: Tables, names: Names, lifetimes: Lifetimes) -> None:
        super().__init__("webhooks", read_said, _adds_nothing, tables, names, lifetimes)

    def handle(self, batch: Batch, unit: Unit) -> None:
        """Apply each record in offset order; what becomes of it is counted."""
        tally = unit.gathered(Tally, self.tables.counting.add_up)
        said = self._read_all(batch, tally, unit)
        results = Results(self.tables.telling, unit)
        keys = results.load([what for _, _, what in said])
        take = results.take
        outcomes = [
            ATTEMPTED[take(what, key, record.offset, record.timestamp)]
            if isinstance(what, Attempted)
            else self._do(what, record.timestamp, unit)
            for (record, _, what), key in zip(said, keys, strict=True)
        ]
        for message_id, endpoint_id, url in results.gone:
            self._close_webhook(message_id, int(endpoint_id.removeprefix(OWN)), url, unit)
        self._conclude(said, outcomes, tally, unit)

    def _close_webhook(self, message_id: str, number: int, url: str, unit: Unit) -> None:
        deliveries, key = unit.table(self.tables.deliveries), message_id.encode()
        delivery = deliveries.get(key)
        if delivery is not None and close_webhook(delivery, number, url):
            deliveries.put(key, delivery)

    def _do(self, what: Resend | Abandon, at: int, unit: Unit) -> Outcome:
        telling = self.tables.telling
        if isinstance(what, Resend):
            delivery = unit.table(self.tables.deliveries).get(what.message_id.encode()) or Delivery()
            audience = delivery.tenant, delivery.channel, delivery.provider
            return "webhook-resent" if telling.resend(what, audience, at, unit) else "webhook-repeated"
        return "webhook-abandoned" if telling.abandon(what, unit) else "webhook-repeated"


ATTEMPTED: Final[Mapping[State | None, Outcome]] = {
    "delivered": "webhook-delivered",
    "pending": "webhook-retried",
    "failed": "webhook-failed",
    None: "webhook-repeated",
}
"""Outcomes of attempts, by how the webhook stands then; None: it was known, or nobody waits."""


def _adds_nothing(delivery: Delivery, what: Said, receipt: int) -> None:
    """Stand for what statuses and requests add to a delivery."""


UNAPPLIED: Final[Mapping[str, int]] = {"repeated": REPEATED, "refused": REFUSED}
"""Outcomes of callbacks that change nothing, as the statistics count them."""


def _ended(delivery: Delivery, what: Stop | Erase, receipt: int) -> Delivery | None:
    """Return what is left of a delivery; None when the request changed nothing."""
    if isinstance(what, Stop):
        return end(delivery, receipt)
    return delivery if erase(delivery, receipt) else None


def _why(entry: Entry, before: int, named: str | None, contradicted: bool, delivery: Delivery) -> Reason:
    """Say why the status was updated, or else what of the record changed.

    Args:
        before: the precedence of the status before, and `named` who had made the attempt that it came from.
        contradicted: whether that was known already of an attempt.
    """
    now = delivery.precedence
    if now == before:
        return _why_amended(entry, contradicted, delivery)
    if before == NOTHING:
        return "first"
    if named is not None and named != delivery.named:
        return "failover"
    return "progress" if now > before else "correction"


def _why_amended(entry: Entry, contradicted: bool, delivery: Delivery) -> Reason:
    if entry.attempt == REQUESTED:
        return "requested"
    if not contradicted and delivery.contradiction:
        return "contradiction"
    return "late" if entry.precedence < delivery.precedence else "detail"


def _origin(batch: Batch, record: Record) -> Origin:
    return Origin(batch.topic, batch.partition, record.offset)


class Events:
    """Makes the events of one batch; their ids depend on nothing but where the input record stands.

    Args:
        stream, partition: where the records come from; with the offset, what ids are made of.
        telling: how endpoints are told.
    """

    def __init__(self, stream: Stream, partition: int, topic: str, telling: Telling, unit: Unit) -> None:
        self._place = f"{stream}-{partition}-"
        self._stream = stream
        self._emit = unit.emitter(topic)
        self._telling = telling
        self._wants = telling.routing.wants
        self._tell = telling.tell
        self._tells = telling.tells(unit)

    def tell(
        self,
        record: Record,
        key: bytes,
        message_id: str,
        entry: Entry,
        before: int,
        types: tuple[EventType, ...],
        reason: Reason,
        delivery: Delivery,
    ) -> None:
        """Emit what happened to a delivery when `entry` was added to it.

        Args:
            reason: why the status was updated, or the record amended; other types have their own.
        """
        now, offset = delivery.precedence, record.offset
        occurred_at = iso(entry.at)
        reached = None if now == before else NAMES[now]
        request = delivery.request
        is_told = self._wants[types, reached] or (request is not None and request.webhooks is not None)
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
                REASONS.get(type_, reason),
            )
            value = encode(event)
            self._emit((key, value, event_headers(event, key), None))
            if is_told:
                place = event_place(self._stream, offset, number)
                came_to = reached if type_ in REACHES else None
                self._tell(self._tells, place, event, value, came_to, delivery, record.timestamp)

    def catch_up(
        self, record: Record, key: bytes, message_id: str, known: Earlier, delivery: Delivery | None
    ) -> None:
        """Notify the endpoints that match a message only since its track request.

        Each gets the latest status that it wants of those that the message has reached, and the completion.
        Nothing is emitted: the events of these transitions were emitted before.
        """
        if delivery is None or delivery.request is None:
            return
        statuses: dict[int, list[Route]] = {}
        if delivery.precedence == known.precedence:
            statuses = self._telling.latest_statuses(delivery, known.kind)
        report_ = report(message_id, delivery)
        notices: list[tuple[EventType, int, list[Route]]] = [
            ("status.updated", precedence, routes) for precedence, routes in statuses.items()
        ]
        if known.is_completed:
            routes = self._telling.added_routes("tracking.completed", None, delivery, known.kind)
            notices.append(("tracking.completed", delivery.precedence, routes))
        for number, (type_, precedence, routes) in enumerate(notices, FIRST_NOTICE):
            entry = next((e for e in reversed(delivery.history) if e.precedence == precedence), None)
            reached_at = delivery.times[precedence]
            event = Event(
                f"{self._place}{record.offset}-{number}",
                type_,
                message_id,
                iso(record.timestamp if reached_at is None else reached_at),
                delivery.status,
                NAMES[precedence],
                "system" if entry is None else entry.source,
                report_,
                provider=delivery.provider if entry is None else entry.provider,
                tracking_completed=type_ == "tracking.completed",
                reason=REASONS.get(type_, "requested"),
            )
            place = event_place(self._stream, record.offset, number)
            self._telling.tell_to(self._tells, place, event, encode(event), routes, record.timestamp)

    def tell_end(
        self,
        record: Record,
        key: bytes,
        what: Stop | Erase | Purge,
        delivery: Delivery,
    ) -> None:
        """Emit that a delivery is there no longer, or without what may be personal, and how it stood."""
        type_ = ENDS[type(what)]
        event = Event(
            f"{self._place}{record.offset}-0",
            type_,
            what.message_id,
            iso(record.timestamp),
            delivery.status,
            delivery.status,
            "system",
            report(what.message_id, delivery),
            provider=delivery.provider,
            reason=(what.reason if isinstance(what, Stop) else None) or REASONS[type_],
        )
        value = encode(event)
        self._emit((key, value, event_headers(event, key), None))
        request = delivery.request
        if self._wants[(type_,), None] or (request is not None and request.webhooks is not None):
            place = event_place(self._stream, record.offset, 0)
            self._tell(self._tells, place, event, value, None, delivery, record.timestamp)


FIRST_NOTICE: Final = 16
"""The number of the first webhook that a track request causes and that is no event of its own."""


class Earlier(NamedTuple):
    """How a delivery stood before its track request.

    Attributes:
        kind: its tenant, channel and provider, by which endpoints are chosen.
    """

    precedence: int
    is_completed: bool
    kind: tuple[str | None, str | None, str | None]


def earlier(delivery: Delivery | None) -> Earlier | None:
    """Return how a delivery stands of which statuses came and no track request yet; None for any other."""
    if delivery is None or delivery.request is not None or delivery.ended_at is not None:
        return None
    if delivery.precedence == NOTHING:
        return None
    kind = delivery.tenant, delivery.channel, delivery.provider
    return Earlier(delivery.precedence, delivery.completed_at is not None, kind)


REACHES: Final = frozenset({"tracking.started", "status.updated"})
"""Types that tell of a status that was reached, each of them once."""


ENDS: Final[Mapping[type, EventType]] = {
    Stop: "tracking.stopped",
    Erase: "tracking.erased",
    Purge: "tracking.removed",
}

REASONS: Final[Mapping[EventType, Reason]] = {
    "tracking.started": "requested",
    "tracking.expired": "timeout",
    "tracking.completed": "final",
    "tracking.stopped": "requested",
    "tracking.erased": "requested",
    "tracking.removed": "retention",
}
"""Types that have one reason only, or one where the request gives none."""


def event_types(
    started: bool, completes: bool, expires: bool, before: int, now: int
) -> tuple[EventType, ...]:
    """Say what happened, in order, as a delivery went from one status to another (precedences) or stayed.

    Args:
        started: whether it is tracked from now on.
        completes: whether its status is final for the first time.
        expires: whether that is so because its time was over.
    """
    types: list[EventType] = []
    if started:
        types.append("tracking.started")
    if now == before and not started:
        types.append("status.amended")
    if now != before and not (started and before == NOTHING):
        types.append("status.updated")
    if expires:
        types.append("tracking.expired")
    if completes:
        types.append("tracking.completed")
    return tuple(types)


EVENT_TYPES: Final[Mapping[tuple[bool, bool, bool, int, int], tuple[EventType, ...]]] = {
    (started, completes, expires, before, now): event_types(started, completes, expires, before, now)
    for started in (False, True)
    for completes in (False, True)
    for expires in (False, True)
    for before in range(NOTHING, len(NAMES))
    for now in range(len(NAMES))
}
