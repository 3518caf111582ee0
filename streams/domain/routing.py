"""Which endpoints an event goes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from streams.domain.endpoints import Endpoint, is_wanted, names_of
from streams.domain.statuses import Status
from streams.domain.webhooks import group_of

__all__ = ["Route", "Routing"]

MOST_REMEMBERED: Final = 10_000
"""Kinds of events whose routes are remembered; tenants and providers are few, but anybody may name one."""


class Route(NamedTuple):
    """An endpoint that an event goes to, and what stands for it in the index."""

    endpoint_id: str
    group: bytes

    @classmethod
    def to(cls, endpoint_id: str) -> Route:
        """Return the route to a registered endpoint."""
        return cls(endpoint_id, group_of(endpoint_id))


class Routing:
    """The endpoints as far as they are known here, and what goes where.

    Events are many and of few kinds: what goes where is looked up once for each.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self._routes: dict[tuple[str | None, ...], tuple[Route, ...]] = {}
        self._wanted: dict[tuple[str, Status | None], bool] = {}

    def __bool__(self) -> bool:
        """Whether there is any endpoint."""
        return bool(self._endpoints)

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

    def may_want(self, type_: str, reached: Status | None) -> bool:
        """Say whether any endpoint wants such events, of whatever message: mostly that is all to be asked."""
        known = self._wanted.get((type_, reached))
        if known is None:
            names = names_of(type_, reached)
            known = any(is_wanted(endpoint.events, names) for endpoint in self._endpoints.values())
            self._wanted[type_, reached] = known
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
