"""How events are told to endpoints: what is to be told is kept with the event, in the same unit of work.

The body of a webhook is frozen when the event is made. Who sends reads what is due, writes nothing, and says
what came of each attempt in a record, which is applied here like any other.

Pure but for the unit of work that is written to; knows no Faust.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from streams.domain.delivery import Delivery
from streams.domain.endpoints import DISABLED_AFTER_MS, Endpoint, Heard, heard
from streams.domain.placement import partition_of
from streams.domain.retries import SCHEDULE_MS, Verdict, schedule_of
from streams.domain.routing import Route, Routing, own_routes
from streams.domain.statuses import DELIVERED, NAMES, Status
from streams.domain.times import iso
from streams.domain.webhooks import (
    EVENT_RANGES,
    MOST_BODY_BYTES,
    Abandon,
    Attempted,
    Queue,
    Resend,
    Sending,
    Standing,
    State,
    Told,
    after_attempt,
    begun_anew,
    counts,
    event_id,
    event_key,
    queue_key,
    queue_names,
    sending_key,
    verdict,
)
from streams.engine.units import Unit, View
from streams.messages import (
    Event,
    EventType,
    GivenUp,
    ProviderEvent,
    Said,
    WebhookEvent,
    encode,
    event_headers,
)
from streams.topics import Names
from tables.webhooks import WebhookTables

__all__ = ["DUE", "Results", "Telling"]

DUE: Final = "webhooks"
"""What those listen to who are to know how a queue stands whenever its first, or when that is due, changes.

They are told its group and key, and `Standing`.
"""

Notes: TypeAlias = dict[tuple[bytes, bytes], Standing]
"""How queues stand, by group and key."""

Wait: TypeAlias = tuple[bytes, bytes, bytes, Told, Endpoint | None]
"""A queue's key, its group, an event's key, the event, where to."""

Audience: TypeAlias = tuple[str | None, str | None, str | None]
"""Tenant, channel and provider of a message."""

STEP: Final = 200
MOST_WAITING: Final = 1_000
"""Events that wait for one endpoint and message."""

MOST_LEFT_OUT: Final = 10
"""Events that are given up for one that comes, where more wait than is allowed now."""

MOST_LET_GO: Final = 5_000
"""Events whose webhooks a unit lets go of."""

HEARD_EVERY_MS: Final = 1_000
"""How often it is told at most how an endpoint fares."""


class Tells(list[tuple[bytes, str, str, str, bytes, int, Sequence[Route]]]):
    """What a unit has to tell, in order.

    Of an event its key, its type, its message's id, when it occurred, its data, when its record came, ms, and
    where it goes.
    """


class Telling:
    """What is told to endpoints, and what came of it.

    Args:
        routing: the endpoints, as they are known here.
        schedule: pauses between attempts where an endpoint has no other, ms.
        disabled_after_ms: how long nothing gets through to an endpoint until it is disabled.
        retention_ms: how long an event can be told again.
    """

    def __init__(
        self,
        tables: WebhookTables,
        routing: Routing,
        names: Names,
        schedule: Sequence[int] = SCHEDULE_MS,
        disabled_after_ms: int = DISABLED_AFTER_MS,
        retention_ms: int = 7 * 86_400_000,
    ) -> None:
        self.tables: Final = tables
        self.routing: Final = routing
        self.names: Final = names
        self.schedule: Final = schedule
        self.disabled_after_ms: Final = disabled_after_ms
        self.retention_ms: Final = retention_ms
        self._heard_at: dict[tuple[str, bool], int] = {}

    def tells(self, unit: Unit) -> Tells:
        """Return what a unit has to tell, to which `tell` adds."""
        return unit.gathered(Tells, self._tell_all)

    def tell(
        self,
        tells: Tells,
        key: bytes,
        event: Event,
        value: bytes,
        reached: Status | None,
        delivery: Delivery,
        at: int,
    ) -> None:
        """Keep that an event of a message is to be told, if it is.

        Args:
            tells: what the unit has to tell.
            key: the event's (`event_place`).
            value: the event as it is emitted.
            reached: the status that its message came to by it.
            at: when the record came that it is made of, ms.
        """
        kind = delivery.tenant, delivery.channel, delivery.provider
        routes = self._routes(event.type, reached, delivery, kind)
        if routes:
            self.tell_to(tells, key, event, value, routes, at)

    def tell_to(
        self, tells: Tells, key: bytes, event: Event, value: bytes, routes: Sequence[Route], at: int
    ) -> None:
        """Keep that an event of a message is to be sent to these endpoints; see `tell`."""
        if len(value) > MOST_BODY_BYTES - ROOM:
            value = encode(_without_report(event))
        tells.append((key, event.type, event.message_id, event.occurred_at, value, at, routes))

    def _routes(
        self, type_: EventType, reached: Status | None, delivery: Delivery, kind: Audience
    ) -> Sequence[Route]:
        routes: Sequence[Route] = self.routing.routes[type_, reached, *kind]
        request = delivery.request
        if request is not None and request.webhooks is not None:
            routes = (*routes, *own_routes(request.webhooks, type_, reached))
        return routes

    def added_routes(
        self, type_: EventType, reached: Status | None, delivery: Delivery, before: Audience
    ) -> list[Route]:
        """Return the routes of an event that match a delivery now and did not match it before.

        Args:
            before: tenant, channel and provider of the delivery then, when it had no webhooks of its own.
        """
        known = {route.endpoint_id for route in self.routing.routes[type_, reached, *before]}
        now = delivery.tenant, delivery.channel, delivery.provider
        routes = self._routes(type_, reached, delivery, now)
        return [route for route in routes if route.endpoint_id not in known]

    def latest_statuses(self, delivery: Delivery, before: Audience) -> dict[int, list[Route]]:
        """Return, by precedence, the added routes to which that status is the latest one that they want.

        Of the statuses before the current one, only those of a message that has arrived count.
        """
        earlier = range(delivery.precedence - 1, DELIVERED - 1, -1)
        reached = [delivery.precedence, *(p for p in earlier if delivery.seen >> p & 1)]
        latest: dict[int, list[Route]] = {}
        served: set[str] = set()
        for precedence in reached:
            added = self.added_routes("status.updated", NAMES[precedence], delivery, before)
            routes = [route for route in added if route.endpoint_id not in served]
            served.update(route.endpoint_id for route in routes)
            if routes:
                latest[precedence] = routes
        return dict(sorted(latest.items()))

    def tell_of_provider(self, key: bytes, event: ProviderEvent, value: bytes, at: int, unit: Unit) -> None:
        """Keep that an event of a provider is to be told, if it is."""
        routes = self.routing.routes[event.type, None, None, None, event.provider]
        if routes:
            told = key, event.type, event.provider, event.occurred_at, value, at, routes
            self.tells(unit).append(told)

    def _tell_all(self, tells: Tells, unit: Unit) -> Iterator[None]:
        """Let all wait that a unit has to tell, behind what waits of the same messages.

        Together, for it is little beside the callbacks that it comes from: one by one each would find that
        its code and data have left the processor's caches. Queues that are read together cost a tenth.
        """
        events, waits = unit.table(self.tables.events), list[Wait]()
        for key, type_, message_id, occurred_at, data, at, routes in tells:
            # as `encode` would have it, but the data are encoded already; type and time need no escaping
            parts = type_.encode(), occurred_at.encode(), data
            body = b'{"type":"%s","timestamp":"%s","data":%s}' % parts
            told = Told(1, message_id, type_, at, [route.endpoint_id for route in routes], body)
            events.put(key, told)
            for endpoint_id, group, endpoint in routes:
                waits.append((queue_key(endpoint_id, message_id), group, key, told, endpoint))
            if len(waits) >= STEP:
                self._enqueue_all(waits, unit)
                waits.clear()
                yield
        if waits:
            self._enqueue_all(waits, unit)

    def _enqueue_all(self, waits: Sequence[Wait], unit: Unit) -> None:
        queues, noted = unit.table(self.tables.queues), unit.noted(DUE)
        queues.load([key for key, *_ in waits])
        for wait in waits:
            self._enqueue(queues, noted, wait, wait[3].at, unit)
        unit.settle()

    def _enqueue(self, queues: View[Queue], noted: Notes, wait: Wait, at: int, unit: Unit) -> Queue | None:
        """Let an event wait from a time on, ms; return the queue if it is its first."""
        key, group, event, told, endpoint = wait
        queue = queues.get(key)
        if queue is not None:
            queue.waiting.append(event)
            if len(queue.waiting) > MOST_WAITING:
                self._leave_out(key, queue, at, unit)
            queues.put(key, queue)
            return None
        queue = Queue(1, group, [event], at, endpoint=endpoint)
        queues.put(key, queue)
        noted[group, key] = queue, told
        return queue

    def _leave_out(self, key: bytes, queue: Queue, at: int, unit: Unit) -> None:
        """Give up the oldest events of a queue that is too long, except the first, which may be under way.

        A queue is one row, which is written with each event.
        """
        end = 1 + min(len(queue.waiting) - MOST_WAITING, MOST_LEFT_OUT)
        self.give_up(key, queue, slice(1, end), "overflow", at, unit)

    def give_up(self, key: bytes, queue: Queue, which: slice, reason: GivenUp, at: int, unit: Unit) -> None:
        """Remove events from a queue without an attempt; they count as failed and can be resent."""
        endpoint_id, message_id = queue_names(key)
        events, sendings = unit.table(self.tables.events), unit.table(self.tables.sendings)
        emit, message_key = unit.emitter(self.names.events), message_id.encode()
        for event in queue.waiting[which]:
            told, kept_at, id_ = (
                events.get(event),
                sending_key(event, endpoint_id),
                event_id(unit.partition, event),
            )
            made_at = at if told is None else told.at
            sending = sendings.get(kept_at) or Sending(
                1, message_id, group=queue.group, at=made_at, endpoint=queue.endpoint
            )
            sending.state = "failed"
            sendings.put(kept_at, sending)
            failed = WebhookEvent(
                f"{id_}-{endpoint_id}",
                "webhook.failed",
                message_id,
                iso(at),
                id_,
                endpoint_id,
                sending.attempts,
                None,
                reason,
            )
            emit((message_key, encode(failed), event_headers(failed, message_key), None))
        del queue.waiting[which]

    def resend(self, said: Resend, audience: Audience, at: int, unit: Unit) -> bool:
        """Send an event to an endpoint once more, from the first attempt on.

        Args:
            audience: of the message as it is now: an endpoint receives no other tenant's events.
        Returns: False if it waits there already, is forgotten, or the endpoint's filters do not let it pass.
        """
        event = event_key(said.event_id)
        told = None if event is None else unit.table(self.tables.events).get(event)
        if event is None or told is None or told.message_id != said.message_id:
            return False
        key, kept_at = queue_key(said.endpoint_id, said.message_id), sending_key(event, said.endpoint_id)
        queues, sendings = unit.table(self.tables.queues), unit.table(self.tables.sendings)
        queue, sending = queues.get(key), sendings.get(kept_at)
        own = None if sending is None else sending.endpoint
        endpoint = own or self.routing.endpoints.get(said.endpoint_id)
        if endpoint is None or not endpoint.filters.let(*audience):
            return False
        if queue is not None and event in queue.waiting:
            return False
        group = Route.to(said.endpoint_id).group if own is None or sending is None else sending.group
        first = self._enqueue(queues, unit.noted(DUE), (key, group, event, told, own), at, unit)
        if sending is not None:
            sending.state = "pending"
            sendings.put(kept_at, sending)
            if first is not None:
                begun_anew(first, at, sending.attempts)
        if said.endpoint_id not in told.endpoints:
            told.endpoints.append(said.endpoint_id)
            unit.table(self.tables.events).put(event, told)
        return True

    def abandon(self, said: Abandon, unit: Unit) -> bool:
        """Forget what waits for an endpoint that is there no longer; False if there is nothing, or it is."""
        queues, key = unit.table(self.tables.queues), queue_key(said.endpoint_id, said.message_id)
        queue = queues.get(key)
        if queue is None:
            return False
        gone = queue.endpoint is None and said.endpoint_id not in self.routing.endpoints
        if gone:
            queues.delete(key)
        unit.noted(DUE)[queue.group, key] = None if gone else (queue, None)
        return gone

    def let_go(self, now: int, unit: Unit) -> Iterator[None]:
        """Forget what was told longer ago than it is kept, up to so much; in steps."""
        events, before = unit.table(self.tables.events), now - self.retention_ms
        for first, end in EVENT_RANGES:
            left = MOST_LET_GO
            while left > 0 and (keys := unit.stored_keys(self.tables.events, first, end, STEP)):
                events.load(keys)
                rows = [(key, told) for key in keys if (told := events.get(key)) is not None]
                old = [(key, told) for key, told in rows if told.at < before]
                for key, told in old:
                    self._forget(key, told, unit)
                unit.settle()
                yield
                # those of a clock that was far ahead must not hide what is behind them
                if not old and not any(told.at > now + DAY_MS for _, told in rows):
                    break
                left, first = left - len(keys), keys[-1] + b"\0"

    def _forget(self, key: bytes, told: Told, unit: Unit) -> None:
        events, queues = unit.table(self.tables.events), unit.table(self.tables.queues)
        sendings = unit.table(self.tables.sendings)
        for endpoint_id in told.endpoints:
            place = sending_key(key, endpoint_id)
            if sendings.get(place) is not None:
                sendings.delete(place)
            where = queue_key(endpoint_id, told.message_id)
            queue = queues.get(where)
            if queue is None or key not in queue.waiting:
                continue
            if queue.waiting[0] == key:
                _next(queues, sendings, unit.noted(DUE), where, queue, endpoint_id, queue.due_at)
            else:
                queue.waiting.remove(key)
                queues.put(where, queue)
        events.delete(key)

    def hear(self, endpoint_id: str, endpoint: Endpoint, came_to: Verdict, at: int, unit: Unit) -> None:
        """Let the endpoint's lane know what changes how it stands, wherever that is; now and then."""
        if heard(endpoint, came_to, at, self.disabled_after_ms) is None:
            return
        kind = endpoint_id, came_to == "delivered"
        if came_to != "gone" and abs(at - self._heard_at.get(kind, 0)) < HEARD_EVERY_MS:
            return
        self._heard_at[kind] = at
        key, value = endpoint_id.encode(), encode(Heard(endpoint_id, came_to))
        unit.emit(self.names.requests, key, value, partition=partition_of(key, unit.partitions))


class Results:
    """Applies the results of the webhook attempts of one batch.

    Attributes:
        gone: message id, endpoint id and URL of each webhook of a message's own that was answered 410.
    """

    def __init__(self, telling: Telling, unit: Unit) -> None:
        self.gone: list[tuple[str, str, str]] = []
        self._telling = telling
        self._unit = unit
        self._place = f"webhooks-{unit.partition}-"
        self._queues = unit.table(telling.tables.queues)
        self._sendings = unit.table(telling.tables.sendings)
        self._emit = unit.emitter(telling.names.events)
        self._noted: Notes = unit.noted(DUE)
        self._endpoints = telling.routing.endpoints

    def load(self, said: Sequence[Said]) -> list[bytes]:
        """Read together what will change; return the keys of the queues that it is said of, in order."""
        keys, more = [queue_key(one.endpoint_id, one.message_id) for one in said], list[bytes]()
        self._queues.load(keys)
        for key, one in zip(keys, said, strict=True):
            queue = self._queues.get(key)
            if queue is None or not isinstance(one, Attempted):
                continue
            if one.number > 1:
                more.append(sending_key(queue.waiting[0], one.endpoint_id))
            # of a first attempt nothing is kept yet, but perhaps of the event behind it
            if len(queue.waiting) > 1:
                more.append(sending_key(queue.waiting[1], one.endpoint_id))
        self._sendings.load(more)
        return keys

    def take(self, said: Attempted, key: bytes, offset: int, at: int) -> State | None:
        """Take what came of an attempt; None if that is known already, or nobody waits for it any more.

        Args:
            key: the queue's.
            offset: of the record that says so, and its time, ms.
        """
        queue = self._queues.get(key)
        if queue is None:
            return None
        event, endpoint_id = queue.waiting[0], said.endpoint_id
        if not counts(queue, said) or event_id(self._unit.partition, event) != said.event_id:
            self._noted[queue.group, key] = queue, None
            return None
        own, kept_at = queue.endpoint, sending_key(event, endpoint_id)
        # a queue's attempts are counted from those that are kept, so of the first nothing is
        sending, put = None, self._sendings.put_new
        if queue.attempts:
            sending, put = self._sendings.get(kept_at), self._sendings.put
        if sending is None:
            sending = Sending(1, said.message_id, "pending", queue.group, said.made_at, endpoint=own)
        endpoint, came_to = self._endpoints.get(endpoint_id) or own, verdict(said)
        schedule = schedule_of(None if endpoint is None else endpoint.retries, self._telling.schedule)
        state = after_attempt(queue, sending, said, came_to, schedule, is_kept=own is None)
        put(kept_at, sending)
        if state == "pending":
            self._queues.put(key, queue)
            self._noted[queue.group, key] = queue, None
        else:
            self._tell(said, state == "delivered", offset, at)
            if came_to == "gone" and own is not None:
                self.gone.append((said.message_id, endpoint_id, own.url))
                self._telling.give_up(key, queue, slice(1, None), "gone", at, self._unit)
            ended_at = said.started_at + said.duration
            _next(self._queues, self._sendings, self._noted, key, queue, endpoint_id, ended_at)
        if own is None and endpoint is not None:
            self._telling.hear(endpoint_id, endpoint, came_to, at, self._unit)
        return state

    def _tell(self, said: Attempted, arrived: bool, offset: int, at: int) -> None:
        key = said.message_id.encode()
        event = WebhookEvent(
            f"{self._place}{offset}-0",
            "webhook.delivered" if arrived else "webhook.failed",
            said.message_id,
            iso(at),
            said.event_id,
            said.endpoint_id,
            said.number,
            said.status,
            said.trouble,
        )
        self._emit((key, encode(event), event_headers(event, key), None))


def _next(
    queues: View[Queue],
    sendings: View[Sending],
    noted: Notes,
    key: bytes,
    queue: Queue,
    endpoint_id: str,
    at: int,
) -> None:
    """Let a queue's first go, and the next one be it."""
    if len(queue.waiting) == 1:
        queues.delete(key)
        noted[queue.group, key] = None
        return
    del queue.waiting[0]
    again = sendings.get(sending_key(queue.waiting[0], endpoint_id))
    begun_anew(queue, at, 0 if again is None else again.attempts)
    queues.put(key, queue)
    noted[queue.group, key] = queue, None


DAY_MS: Final = 86_400_000
ROOM: Final = 200
"""What a body has beside its data, bytes."""


def _without_report(event: Event) -> Event:
    """Return an event without its report: what is left is a few hundred bytes."""
    return msgspec.structs.replace(event, delivery_report=NO_REPORT)


NO_REPORT: Final = msgspec.Raw(b"null")
