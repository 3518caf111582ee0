"""Webhooks over HTTP: what became of each, what waits and what failed, and sending it again.

An event's id says in which partition it was made, so any worker knows whom to ask. Sending again is a record
like any other that changes something.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from streams.domain.endpoints import Endpoint
from streams.domain.times import iso
from streams.domain.webhooks import (
    GROUP_BYTES,
    Resend,
    Sending,
    State,
    Told,
    Trouble,
    Try,
    event_id,
    event_key,
    group_of,
    partition_named,
    queue_key,
    queue_names,
    sending_key,
    sending_names,
)
from streams.engine.reading import Reader
from streams.messages import encode
from streams.web import problems
from streams.web.answers import PAGE_ROWS, require_held
from streams.web.bodies import bytes_of, json_response, refuse_foreign, said_in
from streams.web.commands import Doing, by_holder
from streams.web.endpoints import ANSWERED_S, APPLIED_S, unknown_endpoint
from streams.web.gathering import Gathering
from streams.web.problems import Problem, invalid_parameter
from streams.web.queries import (
    cursor,
    join,
    parse_limit,
    parse_partitions,
    parse_span,
    place_of,
    single_values,
)
from tables.formats import FRESH, RETRY, SENDINGS_OF
from tables.webhooks import WebhookTables

__all__ = ["INTERNAL_REPLAY", "INTERNAL_WEBHOOKS", "Webhooks"]

INTERNAL_WEBHOOKS: Final = "/v1/internal/webhooks"
INTERNAL_REPLAY: Final = "/v1/internal/replay"
UNKNOWN_WEBHOOK: Final = "urn:delivery-tracker:unknown-webhook"

STATES: Final[tuple[State, ...]] = ("pending", "delivered", "failed")
ENTRY_BYTES: Final = 1 + GROUP_BYTES + 8
REPLAY_S: Final = 20.0
"""How long a replay goes on in one call; the answer says whether anything is left."""

LAST_MS: Final = (1 << 63) - 1


class ShownTry(msgspec.Struct, rename="camel"):
    """What came of an attempt; `duration` in ms, `body` the first characters of the answer."""

    number: int
    started_at: str
    duration: int
    status: int | None
    trouble: Trouble | None
    body: str


class ShownSending(msgspec.Struct, rename="camel"):
    """How it stands with telling an event to an endpoint.

    Attributes:
        behind: how many events of the message are told there first.
    """

    endpoint_id: str
    status: State | Literal["forgotten"]
    attempts: int
    next_attempt_at: str | None
    behind: int
    log: list[ShownTry]


class Shown(msgspec.Struct, rename="camel"):
    """An event that was to be told, as it was told, and to whom."""

    event_id: str
    type: str
    message_id: str
    created_at: str
    endpoints: list[ShownSending]
    body: msgspec.Raw


class Item(msgspec.Struct, rename="camel"):
    """A webhook in a list: of what waits, the first one, and how many wait with it."""

    event_id: str
    endpoint_id: str
    message_id: str
    status: State
    attempts: int
    created_at: str | None
    next_attempt_at: str | None
    waiting: int
    last: ShownTry | None


class WebhooksPart(msgspec.Struct, frozen=True):
    """One worker's share of a list: place in the index, and the item as JSON."""

    partitions: tuple[int, ...]
    rows: list[tuple[bytes, bytes]]


class ReplayedPart(msgspec.Struct, frozen=True):
    """What one worker has let be sent again; `complete`: nothing is left of what was asked for."""

    partitions: tuple[int, ...]
    resent: int
    complete: bool


class Replay(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body that has sent again what an endpoint was told of the events of a time."""

    since: str | float = msgspec.field(name="from")
    to: str | float | None = None
    status: Literal["failed", "delivered", "all"] = "failed"


class Asked(NamedTuple):
    """Which webhooks of an endpoint: in a state, of events made from a time on, before another; ms."""

    endpoint_id: str
    states: tuple[State, ...]
    begin: int
    end: int

    def query(self) -> dict[str, str]:
        """Ask another worker the same."""
        return {
            "endpoint": self.endpoint_id,
            "status": ",".join(self.states),
            "from": iso(self.begin),
            **({"to": iso(self.end)} if self.end < LAST_MS else {}),
        }


@dataclass(frozen=True)
class Webhooks:
    """The handlers of webhooks.

    Attributes:
        endpoints: all endpoints, as this worker knows them.
    """

    tables: WebhookTables
    endpoints: Mapping[str, Endpoint]
    doing: Doing
    reader: Reader
    gathering: Gathering

    async def one(self, request: web.Request) -> web.Response:
        """Show what became of telling an event."""
        single_values(request.query, ())
        partition, key = self._place(request)
        if (answer := await by_holder(self.gathering, request, partition, ANSWERED_S)) is not None:
            return answer
        told = self._told(request, partition, key)
        return json_response(200, self._shown(partition, key, told))

    async def resend(self, request: web.Request) -> web.Response:
        """Have an event told again, to all that it was told to or to one endpoint."""
        refuse_foreign(request)
        values = single_values(request.query, ("endpoint",))
        partition, key = self._place(request)
        if (answer := await by_holder(self.gathering, request, partition, ANSWERED_S)) is not None:
            return answer
        told = self._told(request, partition, key)
        one = values.get("endpoint")
        if one is not None and one not in self.endpoints:
            raise unknown_endpoint(one)
        names = told.endpoints if one is None else [one]
        resent = await self._resend(
            partition, [Resend(told.message_id, event_id(partition, key), name) for name in names]
        )
        return json_response(200, {"resent": resent})

    async def listing(self, request: web.Request) -> web.Response:
        """List the webhooks of an endpoint in one state, by the time of their events."""
        values = single_values(request.query, ("endpoint", "status", "from", "to", "limit", "cursor"))
        asked = self._asked(values)
        limit = parse_limit(values.get("limit"))
        after = place_of(values.get("cursor"), ENTRY_BYTES, self._prefixes(asked))
        query = asked.query() | {"limit": str(limit)} | ({} if after is None else {"cursor": cursor(after)})
        parts = await self.gathering.scatter(
            WebhooksPart,
            lambda partitions: self._part(asked, limit, after, partitions),
            lambda partitions: f"{INTERNAL_WEBHOOKS}?{urlencode(query | {'partitions': join(partitions)})}",
        )
        rows = sorted(row for part in parts for row in part.rows)
        more = len(rows) > limit
        return json_response(
            200,
            {
                "items": [msgspec.Raw(item) for _, item in rows[:limit]],
                "nextCursor": cursor(rows[limit - 1][0]) if more else None,
            },
        )

    async def listing_part(self, request: web.Request) -> web.Response:
        """Show this worker's share of a list to another worker."""
        values = single_values(
            request.query, ("endpoint", "status", "from", "to", "limit", "cursor", "partitions")
        )
        asked = self._asked(values)
        after = place_of(values.get("cursor"), ENTRY_BYTES, self._prefixes(asked))
        partitions = parse_partitions(values.get("partitions"), self.reader.partitions)
        part = await self._part(asked, parse_limit(values.get("limit")), after, partitions)
        return web.Response(body=msgspec.msgpack.encode(part), content_type="application/msgpack")

    async def replay(self, request: web.Request) -> web.Response:
        """Have sent again what was told to an endpoint of the events of a time."""
        single_values(request.query, ())
        endpoint_id = request.match_info["endpointId"]
        said = said_in(await bytes_of(request), Replay)
        if endpoint_id not in self.endpoints:
            raise unknown_endpoint(endpoint_id)
        states: tuple[State, ...] = ("delivered", "failed") if said.status == "all" else (said.status,)
        asked = Asked(endpoint_id, states, *parse_span(said.since, said.to, LAST_MS))
        query = asked.query()
        parts = await self.gathering.scatter(
            ReplayedPart,
            lambda partitions: self._replayed(asked, partitions),
            lambda partitions: f"{INTERNAL_REPLAY}?{urlencode(query | {'partitions': join(partitions)})}",
            2 * REPLAY_S,
            method="POST",
        )
        return json_response(
            200,
            {"resent": sum(part.resent for part in parts), "complete": all(part.complete for part in parts)},
        )

    async def replay_part(self, request: web.Request) -> web.Response:
        """Do this worker's share of a replay."""
        refuse_foreign(request)
        values = single_values(request.query, ("endpoint", "status", "from", "to", "partitions"))
        asked = self._asked(values, most_states=len(STATES))
        partitions = parse_partitions(values.get("partitions"), self.reader.partitions)
        part = await self._replayed(asked, partitions)
        return web.Response(body=msgspec.msgpack.encode(part), content_type="application/msgpack")

    def _asked(self, values: Mapping[str, str], most_states: int = 1) -> Asked:
        endpoint_id = values.get("endpoint")
        if endpoint_id is None or not endpoint_id.isprintable():
            raise invalid_parameter("endpoint", "endpoint is required: whose webhooks are asked for.")
        given = values.get("status", "").split(",")
        states = tuple(state for state in STATES if state in given)
        if len(states) != len(given) or len(states) > most_states:
            raise invalid_parameter("status", f"status is one of {', '.join(STATES)}.")
        return Asked(endpoint_id, states, *parse_span(values.get("from"), values.get("to"), LAST_MS))

    def _prefixes(self, asked: Asked) -> list[bytes]:
        group = group_of(asked.endpoint_id)
        if "pending" in asked.states:
            return [FRESH + group, RETRY + group]
        return [SENDINGS_OF[state] + group for state in asked.states]

    async def _part(
        self, asked: Asked, limit: int, after: bytes | None, partitions: Sequence[int]
    ) -> WebhooksPart:
        """Return one row more than the limit, which tells whether there is a next page."""
        rows: list[tuple[bytes, bytes]] = []
        for partition in partitions:
            require_held(self.reader, [partition])
            rows += self._rows(asked, partition, limit + 1, after)
            await asyncio.sleep(0)
        require_held(self.reader, partitions)
        return WebhooksPart(tuple(partitions), sorted(rows)[: limit + 1])

    def _rows(
        self, asked: Asked, partition: int, limit: int, after: bytes | None
    ) -> list[tuple[bytes, bytes]]:
        is_pending = "pending" in asked.states
        table = self.tables.queues if is_pending else self.tables.sendings
        rows: list[tuple[bytes, bytes]] = []
        for prefix in self._prefixes(asked):
            first, end = prefix + _time(asked.begin), prefix + _time(asked.end)
            start = first if after is None or after < first else after + b"\0"
            for entry, key in self.reader.listings(table, partition, start, end).take(limit):
                item = self._waiting(partition, key) if is_pending else self._ended(partition, key)
                if item is not None:
                    rows.append((entry + key, msgspec.json.encode(item)))
        return rows

    def _waiting(self, partition: int, key: bytes) -> Item | None:
        queue = self.reader.get(self.tables.queues, partition, key)
        if queue is None:
            return None
        endpoint_id, message_id = queue_names(key)
        sending = self.reader.get(self.tables.sendings, partition, sending_key(queue.waiting[0], endpoint_id))
        return Item(
            event_id(partition, queue.waiting[0]),
            endpoint_id,
            message_id,
            "pending",
            queue.attempts,
            None,
            None if queue.is_fresh else iso(queue.due_at),
            len(queue.waiting),
            _last(sending),
        )

    def _ended(self, partition: int, key: bytes) -> Item | None:
        sending = self.reader.get(self.tables.sendings, partition, key)
        if sending is None:
            return None
        event, endpoint_id = sending_names(key)
        return Item(
            event_id(partition, event),
            endpoint_id,
            sending.message_id,
            sending.state,
            sending.attempts,
            iso(sending.at),
            None,
            0,
            _last(sending),
        )

    async def _replayed(self, asked: Asked, partitions: Sequence[int]) -> ReplayedPart:
        deadline, resent, complete = time.monotonic() + REPLAY_S, 0, True
        for partition in partitions:
            for resends in self._pages(asked, partition):
                if time.monotonic() > deadline:
                    complete = False
                    break
                resent += await self._resend(partition, resends)
        return ReplayedPart(tuple(partitions), resent, complete)

    def _pages(self, asked: Asked, partition: int) -> Iterator[list[Resend]]:
        """Yield what is to be sent again in a partition, oldest first, as it is then; each once."""
        seen: set[bytes] = set()
        for prefix in self._prefixes(asked):
            first, end = prefix + _time(asked.begin), prefix + _time(asked.end)
            while True:
                require_held(self.reader, [partition])
                found = self.reader.listings(self.tables.sendings, partition, first, end).take(PAGE_ROWS)
                resends = []
                for _, key in found:
                    sending = self.reader.get(self.tables.sendings, partition, key)
                    if sending is not None and key not in seen:
                        seen.add(key)
                        id_ = event_id(partition, sending_names(key)[0])
                        resends.append(Resend(sending.message_id, id_, asked.endpoint_id))
                if resends:
                    yield resends
                if len(found) < PAGE_ROWS:
                    break
                first = b"".join(found[-1]) + b"\0"

    async def _resend(self, partition: int, resends: Sequence[Resend]) -> int:
        """Have webhooks sent again; return how many of them are, once that is true.

        Raises:
            Problem: it is not known whether they are.
        """
        with self.doing.calls.expect() as call:
            headers, produced = [call.header], self.doing.produced
            await asyncio.gather(
                *(
                    produced("webhooks", resend.message_id.encode(), encode(resend), partition, headers)
                    for resend in resends
                )
            )
            if not await call.until(len(resends), APPLIED_S):
                raise problems.not_produced()
            return call.outcomes["webhook-resent"]

    def _place(self, request: web.Request) -> tuple[int, bytes]:
        """Return where an event was made."""
        id_ = request.match_info["eventId"]
        key, partition = event_key(id_), partition_named(id_)
        if key is None or partition is None or partition >= self.reader.partitions:
            raise _unknown(id_)
        return partition, key

    def _told(self, request: web.Request, partition: int, key: bytes) -> Told:
        require_held(self.reader, [partition])
        told = self.reader.get(self.tables.events, partition, key)
        if told is None:
            raise _unknown(request.match_info["eventId"])
        return told

    def _shown(self, partition: int, key: bytes, told: Told) -> Shown:
        return Shown(
            event_id(partition, key),
            told.type,
            told.message_id,
            iso(told.at),
            [self._shown_sending(partition, key, told, endpoint_id) for endpoint_id in told.endpoints],
            msgspec.Raw(told.body),
        )

    def _shown_sending(self, partition: int, key: bytes, told: Told, endpoint_id: str) -> ShownSending:
        queue = self.reader.get(self.tables.queues, partition, queue_key(endpoint_id, told.message_id))
        sending = self.reader.get(self.tables.sendings, partition, sending_key(key, endpoint_id))
        waits = queue is not None and key in queue.waiting
        behind = queue.waiting.index(key) if queue is not None and waits else 0
        if waits:
            state: State | Literal["forgotten"] = "pending"
        else:
            # its endpoint was removed before it was told
            state = "forgotten" if sending is None or sending.state == "pending" else sending.state
        return ShownSending(
            endpoint_id,
            state,
            0 if sending is None else sending.attempts,
            iso(queue.due_at) if queue is not None and waits and not behind and not queue.is_fresh else None,
            behind,
            [] if sending is None else [_shown_try(tried) for tried in sending.tries],
        )


def _time(at: int) -> bytes:
    return at.to_bytes(8, "big")


def _last(sending: Sending | None) -> ShownTry | None:
    return None if sending is None or not sending.tries else _shown_try(sending.tries[-1])


def _shown_try(tried: Try) -> ShownTry:
    return ShownTry(
        tried.number, iso(tried.started_at), tried.duration_ms, tried.status, tried.trouble, tried.body
    )


def _unknown(id_: str) -> Problem:
    return Problem(
        404,
        f"Nothing is known of a webhook {id_!r}: none was told, or that is too long ago.",
        type=UNKNOWN_WEBHOOK,
        title="Unknown webhook",
        eventId=id_,
    )
