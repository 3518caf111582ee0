"""Which endpoints an event goes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from streams.domain.delivery import Webhook
from streams.domain.endpoints import (
    DEFAULT_TIMEOUT_MS,
    MOST_TIMEOUT_MS,
    Endpoint,
    Secret,
    is_wanted,
    names_of,
)
from streams.domain.statuses import Status
from streams.domain.webhooks import OWN, group_of

__all__ = ["Route", "Routing", "own_routes"]

MOST_REMEMBERED: Final = 10_000
"""Kinds of events whose routes are remembered; tenants and providers are few, but anybody may name one."""


class Route(NamedTuple):
    """An endpoint that an event goes to, and what stands for it in the index.

    Attributes:
        endpoint: if the message itself says so.
    """

    endpoint_id: str
    group: bytes
    endpoint: Endpoint | None = None

    @classmethod
    def to(cls, endpoint_id: str) -> Route:
        """Return the route to a registered endpoint."""
        return cls(endpoint_id, group_of(endpoint_id))


def own_routes(webhooks: Sequence[Webhook], type_: str, reached: Status | None) -> Iterator[Route]:
    """Yield where an event goes because its message's own request says so.

    Those of one server share what it takes; each message has its own.
    """
    names = names_of(type_, reached)
    for number, webhook in enumerate(webhooks):
        if webhook.is_complete and not webhook.gone and is_wanted(webhook.events or (), names):
            parts = urlsplit(webhook.url)
            group = group_of(f"{parts.scheme}://{parts.netloc}")
            yield Route(f"{OWN}{number}", group, _own(webhook))


def _own(webhook: Webhook) -> Endpoint:
    """Return an endpoint as a request names it; k-msg's headers go along, as its tracker sent them."""
    return Endpoint(
        url=webhook.url,
        events=webhook.events or [],
        secrets=[] if webhook.secret is None else [Secret(webhook.secret, 0)],
        headers=webhook.headers,
        timeout_ms=min(webhook.timeout_ms or DEFAULT_TIMEOUT_MS, MOST_TIMEOUT_MS),
        retries=webhook.retries,
        kmsg_headers=True,
    )


Change: TypeAlias = tuple[tuple[str, ...], Status | None]
"""The types of the events of one change, and the status that its message came to."""

Kind: TypeAlias = tuple[str, Status | None, str | None, str | None, str | None]
"""An event's type, the status that its message came to by it, and its tenant, channel and provider."""


class _Wants(dict[Change, bool]):
    """Whether any endpoint wants events of a change, of whatever message; found once for each change."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    def __missing__(self, change: Change) -> bool:
        types, reached = change
        names = [name for type_ in types for name in names_of(type_, reached)]
        wanted = self[change] = any(is_wanted(known.events, names) for known in self._endpoints.values())
        return wanted


class _Routes(dict[Kind, tuple[Route, ...]]):
    """Where events of a kind go; found once for each kind."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    def __missing__(self, kind: Kind) -> tuple[Route, ...]:
        type_, reached, tenant, channel, provider = kind
        if len(self) >= MOST_REMEMBERED:
            self.clear()
        names = names_of(type_, reached)
        routes = self[kind] = tuple(
            Route.to(endpoint_id)
            for endpoint_id, endpoint in sorted(self._endpoints.items())
            if is_wanted(endpoint.events, names) and endpoint.filters.let(tenant, channel, provider)
        )
        return routes


class Routing:
    """The endpoints as far as they are known here, and what goes where.

    Events are many and of few kinds, so what is asked for each is a dictionary.

    Attributes:
        endpoints: all of them, by id.
        wants: whether any of them wants events of a change: mostly that is all to be asked.
        routes: where events of a kind go.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self.endpoints: Final[Mapping[str, Endpoint]] = self._endpoints
        self.wants: Final[dict[Change, bool]] = _Wants(self._endpoints)
        self.routes: Final[dict[Kind, tuple[Route, ...]]] = _Routes(self._endpoints)

    def put(self, endpoint_id: str, endpoint: Endpoint | None) -> None:
        """Take note of an endpoint as it is now; None: it is there no longer."""
        if endpoint is None:
            self._endpoints.pop(endpoint_id, None)
        else:
            self._endpoints[endpoint_id] = endpoint
        self.routes.clear()
        self.wants.clear()
