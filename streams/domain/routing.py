"""Which endpoints an event goes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple
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
        if webhook.is_complete and is_wanted(webhook.events or (), names):
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


class Routing:
    """The endpoints as far as they are known here, and what goes where.

    Events are many and of few kinds: what goes where is looked up once for each.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self._routes: dict[tuple[str | None, ...], tuple[Route, ...]] = {}
        self._wanted: dict[tuple[tuple[str, ...], Status | None], bool] = {}

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """All of them, by id."""
        return self._endpoints

    def put(self, endpoint_id: str, endpoint: Endpoint | None) -> None:
        """Take note of an endpoint as it is now; None: it is there no longer."""
        if endpoint is None:
            self._endpoints.pop(endpoint_id, None)
        else:
            self._endpoints[endpoint_id] = endpoint
        self._routes.clear()
        self._wanted.clear()

    def may_want(self, types: tuple[str, ...], reached: Status | None) -> bool:
        """Say whether any endpoint wants such events, of whatever message: mostly that is all to be asked.

        Args:
            types: of the events of one change.
        """
        if not self._endpoints:
            return False
        known = self._wanted.get((types, reached))
        if known is None:
            names = [name for type_ in types for name in names_of(type_, reached)]
            known = any(is_wanted(endpoint.events, names) for endpoint in self._endpoints.values())
            self._wanted[types, reached] = known
        return known

    def routes(
        self,
        type_: str,
        reached: Status | None,
        tenant: str | None,
        channel: str | None,
        provider: str | None,
    ) -> tuple[Route, ...]:
        """Return where an event goes.

        Args:
            reached: the status that its message came to by it.
        """
        kind = type_, reached, tenant, channel, provider
        known = self._routes.get(kind)
        if known is None:
            if len(self._routes) >= MOST_REMEMBERED:
                self._routes.clear()
            names = names_of(type_, reached)
            known = self._routes[kind] = tuple(
                Route.to(endpoint_id)
                for endpoint_id, endpoint in sorted(self._endpoints.items())
                if is_wanted(endpoint.events, names) and endpoint.filters.let(tenant, channel, provider)
            )
        return known
