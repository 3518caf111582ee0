"""Endpoints over HTTP: registered, shown, changed, removed; secrets are shown once, when they are made.

Like all that changes something, a call becomes a record, here always waited for: the lane of the endpoint's
partition keeps it. What is secret is sealed before it comes into Kafka, by the worker that has the endpoint.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from streams.domain.endpoints import (
    MOST_OVERLAP_MS,
    MOST_RATE,
    MOST_RETRIES,
    MOST_TIMEOUT_MS,
    OVERLAP_MS,
    Change,
    Endpoint,
    Filters,
    Register,
    Remove,
    Secret,
    live_secrets,
)
from streams.domain.errors import MalformedRecord
from streams.domain.headers import header_problem
from streams.domain.placement import partition_of
from streams.domain.retries import Verdict, verdict_of
from streams.domain.secrets import new_secret_problem
from streams.domain.times import iso
from streams.domain.webhooks import Trouble, owner_of
from streams.engine.reading import Reader
from streams.engine.units import TableLike
from streams.messages import ENDPOINT_EVENTS, MAX_VALUE_BYTES, encode, pattern_problem
from streams.web import problems
from streams.web.answers import PAGE_ROWS, require_held
from streams.web.bodies import bytes_of, json_response, refuse_foreign, said_in
from streams.web.commands import PRODUCE_TIMEOUT_S, Doing, by_holder
from streams.web.gathering import Gathering
from streams.web.problems import Problem
from streams.web.queries import join, parse_partitions, single_values, wrapped
from streams.webhooks.guard import Network, trouble_with
from streams.webhooks.posting import Poster
from streams.webhooks.sealing import Sealer, Unsealable
from streams.webhooks.sending import PING, Sender, body_of
from streams.webhooks.signatures import SECRET_BYTES, new_secret

__all__ = [
    "ANSWERED_S",
    "APPLIED_S",
    "INTERNAL_ENDPOINTS",
    "Endpoints",
    "EndpointsPart",
    "Kept",
    "unknown_endpoint",
]

INTERNAL_ENDPOINTS: Final = "/v1/internal/endpoints"
UNKNOWN_ENDPOINT: Final = "urn:delivery-tracker:unknown-endpoint"
NO_SECRET_KEYS: Final = "urn:delivery-tracker:no-secret-keys"

log = logging.getLogger(__name__)

APPLIED_S: Final = 10.0
"""How long is waited until a request is applied."""

ANSWERED_S: Final = max(PRODUCE_TIMEOUT_S + APPLIED_S, MOST_TIMEOUT_MS / 1000) + 5
"""How long another worker may take that a call is passed on to."""

ID_PREFIX: Final = "ep_"
ID_BYTES: Final = 16
ID_TRIES: Final = 10_000
LAST_KEY: Final = b"\xfd"

MOST_HEADER_CHARS: Final = 16_384

Text = Annotated[str, Meta(min_length=1, max_length=200)]
Url = Annotated[str, Meta(min_length=1, max_length=2_048)]
Texts = Annotated[list[Text], Meta(max_length=50)]
HeaderValues = Annotated[dict[str, str], Meta(max_length=20)]
TimeoutMs = Annotated[int, Meta(ge=100, le=MOST_TIMEOUT_MS)]
Retries = Annotated[int, Meta(ge=0, le=MOST_RETRIES)]
Rate = Annotated[int, Meta(ge=1, le=MOST_RATE)]
SecretText = Annotated[str, Meta(min_length=1, max_length=200)]


class New(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body that registers an endpoint; `timeout` in ms, `rate` per second."""

    url: Url
    events: Texts = []
    tenant: Text | None = None
    channels: Texts = []
    providers: Texts = []
    secret: SecretText | None = None
    headers: HeaderValues = {}
    timeout: TimeoutMs = 15_000
    retries: Retries | None = None
    rate: Rate | None = None
    kmsg_headers: bool = False
    state: Literal["active", "paused"] = "active"


class Patch(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body that changes an endpoint in what it has (RFC 7396, of its first level)."""

    url: Url | UnsetType = UNSET
    events: Texts | UnsetType = UNSET
    tenant: Text | UnsetType | None = UNSET
    channels: Texts | UnsetType = UNSET
    providers: Texts | UnsetType = UNSET
    headers: HeaderValues | UnsetType = UNSET
    timeout: TimeoutMs | UnsetType = UNSET
    retries: Retries | UnsetType | None = UNSET
    rate: Rate | UnsetType | None = UNSET
    kmsg_headers: bool | UnsetType = UNSET
    state: Literal["active", "paused"] | UnsetType = UNSET


class Rotation(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body that gives an endpoint another secret; `overlap` in ms."""

    secret: SecretText | None = None
    overlap: Annotated[int, Meta(ge=0, le=MOST_OVERLAP_MS)] = OVERLAP_MS


class ShownSecret(msgspec.Struct, rename="camel", omit_defaults=True):
    """A secret that signs: since when, and until when if it is replaced."""

    since: str
    until: str | None = None


class Shown(msgspec.Struct, rename="camel"):
    """An endpoint without what is secret of it."""

    id: str
    url: str
    state: str
    reason: str | None
    events: list[str]
    tenant: str | None
    channels: list[str]
    providers: list[str]
    secrets: list[ShownSecret]
    headers: list[str]
    timeout: int
    retries: int | None
    rate: int | None
    kmsg_headers: bool
    created_at: str
    updated_at: str
    failing_since: str | None


class EndpointsPart(msgspec.Struct, frozen=True):
    """One worker's share of the list."""

    partitions: tuple[int, ...]
    items: list[tuple[str, bytes]]


class Ping(msgspec.Struct, rename="camel"):
    """What came of a ping: the status and the first bytes of the answer, or why there was none.

    Attributes:
        verdict: what the sender would make of it.
        duration: ms.
    """

    webhook_id: str
    verdict: Verdict
    duration: int
    status: int | None
    body: str
    trouble: Trouble | None


@dataclass(frozen=True)
class Kept:
    """What endpoints are kept in, what guards them, and what reaches them.

    Attributes:
        sealer: None: nothing secret can be kept.
        allowed: networks beside the public ones.
    """

    table: TableLike[Endpoint]
    sealer: Sealer | None
    allowed: Sequence[Network]
    poster: Poster


def shown(endpoint_id: str, endpoint: Endpoint, now: int) -> Shown:
    """Return an endpoint as it is shown."""
    filters = endpoint.filters
    return Shown(
        endpoint_id,
        endpoint.url,
        endpoint.state,
        endpoint.reason,
        endpoint.events,
        filters.tenant,
        filters.channels,
        filters.providers,
        [
            ShownSecret(iso(secret.since), None if secret.until is None else iso(secret.until))
            for secret in live_secrets(endpoint.secrets, now)
        ],
        endpoint.header_names,
        endpoint.timeout_ms,
        endpoint.retries,
        endpoint.rate,
        endpoint.kmsg_headers,
        iso(endpoint.created_at),
        iso(endpoint.updated_at),
        None if endpoint.failing_since is None else iso(endpoint.failing_since),
    )


@dataclass(frozen=True)
class Endpoints:
    """The handlers of endpoints."""

    kept: Kept
    doing: Doing
    reader: Reader
    gathering: Gathering
    now: Callable[[], int]

    async def register(self, request: web.Request) -> web.Response:
        """Keep a new endpoint; answer with it, and with its secret, which is never shown again."""
        single_values(request.query, ())
        said = said_in(await bytes_of(request), New)
        self._check(said.url, said.events)
        endpoint_id = self._new_id()
        secret, sealed = self._secret(said.secret, endpoint_id)
        names, headers = self._headers(said.headers, endpoint_id)
        endpoint = Endpoint(
            url=said.url,
            events=said.events,
            filters=Filters(said.tenant, _lower_case(said.channels), _lower_case(said.providers)),
            secrets=[Secret(sealed, self.now())],
            headers=headers,
            header_names=names,
            timeout_ms=said.timeout,
            retries=said.retries,
            rate=said.rate,
            kmsg_headers=said.kmsg_headers,
            state=said.state,
        )
        await self._outcome(Register(endpoint_id, endpoint))
        answer = self._answer(201, endpoint_id, secret=secret)
        answer.headers["Location"] = f"/v1/endpoints/{endpoint_id}"
        return answer

    async def one(self, request: web.Request) -> web.Response:
        """Show an endpoint."""
        single_values(request.query, ())
        endpoint_id = request.match_info["endpointId"]
        passed_on = await self._passed_on(request, endpoint_id)
        return passed_on or self._answer(200, endpoint_id)

    async def change(self, request: web.Request) -> web.Response:
        """Change an endpoint in what is said, and show it."""
        single_values(request.query, ())
        endpoint_id = request.match_info["endpointId"]
        body = await bytes_of(request)
        said = said_in(body, Patch)
        if (passed_on := await self._passed_on(request, endpoint_id, body)) is not None:
            return passed_on
        self._known(endpoint_id)
        self._check(said.url, said.events)
        fields: dict[str, Any] = {
            name: value
            for name in (
                "url",
                "events",
                "tenant",
                "channels",
                "providers",
                "retries",
                "rate",
                "kmsg_headers",
            )
            if (value := getattr(said, name)) is not UNSET
        }
        for name in fields.keys() & {"channels", "providers"}:
            fields[name] = _lower_case(fields[name])
        if said.timeout is not UNSET:
            fields["timeout_ms"] = said.timeout
        if said.state is not UNSET:
            fields |= {"state": said.state, "reason": None}
        if said.headers is not UNSET:
            fields["header_names"], fields["headers"] = self._headers(said.headers, endpoint_id)
        await self._outcome(Change(endpoint_id, **fields))
        return self._answer(200, endpoint_id)

    async def rotate(self, request: web.Request) -> web.Response:
        """Give an endpoint another secret, shown once; the one before signs too for a while."""
        single_values(request.query, ())
        endpoint_id = request.match_info["endpointId"]
        body = await bytes_of(request)
        said = said_in(body, Rotation)
        if (passed_on := await self._passed_on(request, endpoint_id, body)) is not None:
            return passed_on
        self._known(endpoint_id)
        secret, sealed = self._secret(said.secret, endpoint_id)
        await self._outcome(Change(endpoint_id, secret=sealed, overlap_ms=said.overlap))
        return self._answer(200, endpoint_id, secret=secret)

    async def ping(self, request: web.Request) -> web.Response:
        """Send an endpoint a webhook that tells nothing, whatever its state, and say what came of it."""
        refuse_foreign(request)
        single_values(request.query, ())
        endpoint_id = request.match_info["endpointId"]
        if (passed_on := await self._passed_on(request, endpoint_id)) is not None:
            return passed_on
        endpoint = self._known(endpoint_id)
        webhook_id = f"ping-{_token()}"
        body = body_of(PING, self.now(), {"endpointId": endpoint_id})
        sender = Sender(self.kept.poster, self._sealer(), self.now)
        try:
            attempt = await sender.send(endpoint_id, endpoint, webhook_id, PING, body)
        except Unsealable as error:
            log.warning("a secret of endpoint %s cannot be opened: %s", endpoint_id, error)
            raise Problem(
                409,
                "Its secrets were sealed with a key that is not there: start the workers with it, too.",
                type=NO_SECRET_KEYS,
                title="No secret keys",
            ) from None
        return json_response(
            200,
            Ping(
                webhook_id,
                "failed" if attempt.status is None else verdict_of(attempt.status),
                attempt.duration_ms,
                attempt.status,
                attempt.body.decode(errors="replace"),
                attempt.trouble,
            ),
        )

    async def remove(self, request: web.Request) -> web.Response:
        """Forget an endpoint."""
        refuse_foreign(request)
        single_values(request.query, ())
        endpoint_id = request.match_info["endpointId"]
        if (passed_on := await self._passed_on(request, endpoint_id)) is not None:
            return passed_on
        self._known(endpoint_id)
        await self._outcome(Remove(endpoint_id))
        return web.Response(status=204)

    async def listing(self, request: web.Request) -> web.Response:
        """Show all endpoints, by id."""
        single_values(request.query, ())
        parts = await self.gathering.scatter(
            EndpointsPart,
            self._part,
            lambda partitions: f"{INTERNAL_ENDPOINTS}?partitions={quote(join(partitions))}",
        )
        items = [msgspec.Raw(item) for _, item in sorted(item for part in parts for item in part.items)]
        return json_response(200, {"items": items})

    async def listing_part(self, request: web.Request) -> web.Response:
        """Show this worker's share of them to another worker."""
        values = single_values(request.query, ("partitions",))
        partitions = parse_partitions(values.get("partitions"), self.reader.partitions)
        part = msgspec.msgpack.encode(await self._part(partitions))
        return web.Response(body=part, content_type="application/msgpack")

    async def close(self, _application: web.Application) -> None:
        """Close the connections to endpoints with the server."""
        self.kept.poster.close()

    def sealed(self, message_id: str, webhooks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the webhooks that a track request names with what is secret sealed, for its message only."""
        owner = owner_of(message_id)
        taken = []
        for number, webhook in enumerate(webhooks):
            kept = {name: value for name, value in webhook.items() if name not in ("secret", "headers")}
            if (secret := webhook.get("secret")) is not None:
                with _within(f"webhooks[{number}]"):
                    kept["sealedSecret"] = self._secret(secret, owner)[1]
            if webhook.get("headers"):
                with _within(f"webhooks[{number}]"):
                    kept["sealedHeaders"] = self._headers(webhook["headers"], owner)[1]
            taken.append(kept)
        return taken

    async def _part(self, partitions: Sequence[int]) -> EndpointsPart:
        items: list[tuple[str, bytes]] = []
        now = self.now()
        for partition in partitions:
            require_held(self.reader, [partition])
            rows = self.reader.rows(self.kept.table, partition, b"", LAST_KEY)
            while some := rows.take(PAGE_ROWS):
                for key, endpoint in some:
                    endpoint_id = key.decode()
                    items.append((endpoint_id, msgspec.json.encode(shown(endpoint_id, endpoint, now))))
                await asyncio.sleep(0)
        require_held(self.reader, partitions)
        return EndpointsPart(tuple(partitions), items)

    def _new_id(self) -> str:
        """Return an id that lies in a partition of this worker, so that it need not be passed on."""
        held = self.reader.held()
        for _ in range(ID_TRIES if held else 0):
            endpoint_id = ID_PREFIX + _token()
            if partition_of(endpoint_id.encode(), self.reader.partitions) in held:
                return endpoint_id
        raise problems.not_ready("This worker holds no partition yet.")

    def _check(self, url: str | UnsetType, events: list[str] | UnsetType) -> None:
        if url is not UNSET and (trouble := trouble_with(url, self.kept.allowed)):
            raise refused("url", trouble)
        if events is not UNSET:
            for number, pattern in enumerate(events):
                if problem := pattern_problem(pattern, ENDPOINT_EVENTS):
                    raise refused(f"events[{number}]", problem)

    def _secret(self, given: str | None, endpoint_id: str) -> tuple[str, bytes]:
        """Return a secret, the one that was given or a new one, and what is kept of it."""
        sealer = self._sealer()
        secret = new_secret(os.urandom(SECRET_BYTES)) if given is None else given
        if problem := new_secret_problem(secret):
            raise refused("secret", problem)
        return secret, sealer.seal(secret.encode(), endpoint_id)

    def _headers(self, headers: dict[str, str], endpoint_id: str) -> tuple[list[str], bytes | None]:
        """Return the names of headers, and what is kept of them."""
        for name, value in headers.items():
            if problem := header_problem(name, value):
                raise refused(f"headers.{name[:200]}", problem)
        if not headers:
            return [], None
        if sum(map(len, headers)) + sum(map(len, headers.values())) > MOST_HEADER_CHARS:
            raise refused("headers", f"Expected no more than {MOST_HEADER_CHARS} characters in all")
        return sorted(headers), self._sealer().seal(msgspec.json.encode(headers), endpoint_id)

    def _sealer(self) -> Sealer:
        """Return what seals, or say that it is needed."""
        if self.kept.sealer is None:
            raise Problem(
                409,
                "Secrets are not kept in the clear: start the workers with TRACKER_SECRET_KEYS.",
                type=NO_SECRET_KEYS,
                title="No secret keys",
            )
        return self.kept.sealer

    def _known(self, endpoint_id: str) -> Endpoint:
        key = endpoint_id.encode()
        partition = partition_of(key, self.reader.partitions)
        require_held(self.reader, [partition])
        endpoint = self.reader.get(self.kept.table, partition, key)
        if endpoint is None:
            raise unknown_endpoint(endpoint_id)
        return endpoint

    def _answer(self, status: int, endpoint_id: str, secret: str | None = None) -> web.Response:
        view = msgspec.to_builtins(shown(endpoint_id, self._known(endpoint_id), self.now()))
        return json_response(status, view if secret is None else view | {"secret": secret})

    async def _outcome(self, what: Register | Change | Remove) -> None:
        """Have a request applied by its lane.

        Raises:
            Problem: it is not known whether it was.
        """
        key, value = what.message_id.encode(), encode(what)
        if len(value) > MAX_VALUE_BYTES:
            raise Problem(413, f"Sealed, it has {len(value)} bytes; {MAX_VALUE_BYTES} can be kept.")
        partition = partition_of(key, self.reader.partitions)
        with self.doing.calls.expect() as call:
            await self.doing.produced("requests", key, value, partition, [call.header])
            if not await call.until(1, APPLIED_S):
                raise problems.not_produced()

    async def _passed_on(
        self, request: web.Request, endpoint_id: str, body: bytes | None = None
    ) -> web.Response | None:
        """Let the worker answer that holds the endpoint's partition; None if it is this one."""
        partition = partition_of(endpoint_id.encode(), self.reader.partitions)
        return await by_holder(self.gathering, request, partition, ANSWERED_S, body)


def _lower_case(names: Sequence[str]) -> list[str]:
    """Return names of providers or channels in lower case, as deliveries have them."""
    return [name.lower() for name in names]


@contextmanager
def _within(place: str) -> Iterator[None]:
    """Name a field that is to blame by where it stands."""
    try:
        yield
    except Problem as problem:
        if "field" in problem.members:
            problem.members["field"] = f"{place}.{problem.members['field']}"
        raise


def unknown_endpoint(endpoint_id: str) -> Problem:
    """Say that nobody has registered it."""
    return Problem(
        404,
        f"No endpoint {endpoint_id!r} is known.",
        type=UNKNOWN_ENDPOINT,
        title="Unknown endpoint",
        endpointId=endpoint_id,
    )


def _token() -> str:
    return wrapped(os.urandom(ID_BYTES))


def refused(field: str, problem: str) -> Problem:
    """Say which field cannot be used."""
    return problems.malformed(MalformedRecord("invalid-value", field, problem))
