"""Endpoints: where webhooks go, and which events go there.

Secrets and headers are sealed before they come here; this only says for how long each secret signs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import structs

from streams.domain.delivery import MessageId
from streams.domain.retries import Verdict
from streams.domain.statuses import NAMES, Status

__all__ = [
    "DEFAULT_TIMEOUT_MS",
    "DISABLED_AFTER_MS",
    "MOST_OVERLAP_MS",
    "MOST_RATE",
    "MOST_RETRIES",
    "MOST_TIMEOUT_MS",
    "OVERLAP_MS",
    "STATUS_EVENTS",
    "Change",
    "Endpoint",
    "Filters",
    "Heard",
    "Register",
    "Remove",
    "Secret",
    "State",
    "changed",
    "heard",
    "is_pattern",
    "is_wanted",
    "live_secrets",
    "names_of",
    "rotated",
]

State: TypeAlias = Literal["active", "paused", "disabled"]
"""Webhooks go there; they wait, as someone wanted it so; they wait, as nothing got through for too long."""

OVERLAP_MS: Final = 24 * 3_600_000
"""How long a secret still signs after another has taken its place."""

DISABLED_AFTER_MS: Final = 120 * 3_600_000
"""How long nothing gets through until an endpoint is disabled."""

MOST_RETRIES: Final = 20
DEFAULT_TIMEOUT_MS: Final = 15_000
MOST_TIMEOUT_MS: Final = 30_000
MOST_RATE: Final = 10_000
MOST_OVERLAP_MS: Final = 30 * 86_400_000
LAST_MS: Final = 2**63 - 1

EndpointId: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^@\0][^\0]*$")]
"""No NUL, for it ends the id in keys; and none that a message's own request could name (`webhooks.OWN`)."""

Time: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=LAST_MS)]
"""A time, ms; a record may carry any."""

Timeout: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MOST_TIMEOUT_MS)]
Retries: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MOST_RETRIES)]
Rate: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MOST_RATE)]
Overlap: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MOST_OVERLAP_MS)]

MOST_LIVE: Final = 5
"""Secrets that sign at a time; each adds a signature to every webhook."""

_PATTERN: Final = re.compile(r"\*|[a-z]+(\.[a-z]+)*(\.\*)?")

GONE_REASON: Final = "the receiver answered 410 Gone"
FAILING_REASON: Final = "no webhook got through for too long"

SEEDS_NAME: Final = "message."
"""Begins what k-msg calls an event: by the status that was reached."""

STATUS_EVENTS: Final = tuple(SEEDS_NAME + status.lower() for status in NAMES)
"""The names of the events ``status.updated`` by the status that was reached."""


class Secret(msgspec.Struct, array_like=True, gc=False):
    """A sealed secret.

    Attributes:
        until: when it signs no longer, ms; None: it is not to be replaced yet.
    """

    sealed: bytes
    since: Time
    until: Time | None = None


class Filters(msgspec.Struct, array_like=True, gc=False):
    """What a message must have for its events to go to an endpoint; an empty list asks for nothing."""

    tenant: str | None = None
    channels: list[str] = []
    providers: list[str] = []

    def let(self, tenant: str | None, channel: str | None, provider: str | None) -> bool:
        """Say whether events of such a message go there; an endpoint of one tenant gets no other's."""
        return (
            (self.tenant is None or tenant == self.tenant)
            and (not self.channels or channel in self.channels)
            and (not self.providers or provider in self.providers)
        )


class Endpoint(msgspec.Struct, array_like=True, gc=False):
    """An endpoint, and how it is stored: an array that begins with its version.

    Attributes:
        events: patterns of the types that go there; none: all.
        secrets: the newest first.
        headers: sealed, as JSON; their names, which are not secret, beside it.
        timeout_ms: how long the receiver may take.
        retries: how often it is tried again, as k-msg does; None: the default schedule.
        rate: webhooks per second at most; None: no limit.
        kmsg_headers: whether k-msg's headers go along.
        reason: why it is in its state, if someone or something said so.
        failing_since: when it was first heard that nothing gets through, ms; None: as far as is known
            something does.
    """

    version: Literal[1] = 1
    url: str = ""
    created_at: Time = 0
    updated_at: Time = 0
    events: list[str] = []
    filters: Filters = msgspec.field(default_factory=Filters)
    secrets: list[Secret] = []
    headers: bytes | None = None
    header_names: list[str] = []
    timeout_ms: Timeout = DEFAULT_TIMEOUT_MS
    retries: Retries | None = None
    rate: Rate | None = None
    kmsg_headers: bool = False
    state: State = "active"
    reason: str | None = None
    failing_since: Time | None = None


class Register(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="endpoint.register"):
    """A worker's request that there be an endpoint; what is secret of it is sealed.

    Attributes:
        message_id: the endpoint's id; it is about no message.
    """

    message_id: EndpointId
    endpoint: Endpoint


class Change(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="endpoint.change"):
    """A worker's request that an endpoint be changed in what is said.

    Attributes:
        message_id: the endpoint's id.
        secret: a sealed one that takes the place of the newest, while that signs for `overlap_ms` on.
    """

    message_id: MessageId
    url: str | msgspec.UnsetType = msgspec.UNSET
    events: list[str] | msgspec.UnsetType = msgspec.UNSET
    tenant: str | msgspec.UnsetType | None = msgspec.UNSET
    channels: list[str] | msgspec.UnsetType = msgspec.UNSET
    providers: list[str] | msgspec.UnsetType = msgspec.UNSET
    headers: bytes | msgspec.UnsetType | None = msgspec.UNSET
    header_names: list[str] | msgspec.UnsetType = msgspec.UNSET
    timeout_ms: Timeout | msgspec.UnsetType = msgspec.UNSET
    retries: Retries | msgspec.UnsetType | None = msgspec.UNSET
    rate: Rate | msgspec.UnsetType | None = msgspec.UNSET
    kmsg_headers: bool | msgspec.UnsetType = msgspec.UNSET
    state: State | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType | None = msgspec.UNSET
    secret: bytes | msgspec.UnsetType = msgspec.UNSET
    overlap_ms: Overlap = OVERLAP_MS


class Remove(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="endpoint.remove"):
    """A worker's request that there be an endpoint no longer.

    Attributes:
        message_id: the endpoint's id.
    """

    message_id: MessageId


class Heard(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="endpoint.heard"):
    """What a lane has heard of an endpoint, and what changes how it stands.

    Attributes:
        message_id: the endpoint's id.
        verdict: what an attempt came to.
    """

    message_id: MessageId
    verdict: Verdict


def heard(
    endpoint: Endpoint, verdict: Verdict, now: int, disabled_after_ms: int = DISABLED_AFTER_MS
) -> Endpoint | None:
    """Return an endpoint as it is after an attempt was made; None when that changes nothing.

    One that says that it is gone is disabled, and one that nothing got through to for so long.
    """
    if verdict == "delivered":
        return None if endpoint.failing_since is None else structs.replace(endpoint, failing_since=None)
    since = endpoint.failing_since
    after = endpoint if since is not None else structs.replace(endpoint, failing_since=now)
    if endpoint.state != "disabled":
        if verdict == "gone":
            return structs.replace(after, state="disabled", reason=GONE_REASON, updated_at=now)
        if since is not None and now - since >= disabled_after_ms:
            return structs.replace(after, state="disabled", reason=FAILING_REASON, updated_at=now)
    return None if after is endpoint else after


def changed(endpoint: Endpoint, change: Change, now: int) -> Endpoint | None:
    """Return an endpoint as it is after a change; None when that changes nothing."""
    after = structs.replace(endpoint, **_said(change, Endpoint))
    if change.state == "active" or after.url != endpoint.url:
        # an operator has repaired the endpoint, or nothing has failed at its new URL yet
        after.failing_since = None
    after.filters = structs.replace(endpoint.filters, **_said(change, Filters))
    if isinstance(change.secret, bytes):
        after.secrets = rotated(endpoint.secrets, change.secret, now, change.overlap_ms)
    if after == endpoint:
        return None
    after.updated_at = now
    return after


def _said(change: Change, of: type[msgspec.Struct]) -> dict[str, Any]:
    """Return what is said of the fields that something has."""
    said = {name: getattr(change, name, msgspec.UNSET) for name in of.__struct_fields__}
    return {name: value for name, value in said.items() if value is not msgspec.UNSET}


def names_of(type_: str, reached: Status | None) -> tuple[str, ...]:
    """Return what an event is called: its type, and if a status was reached, as k-msg calls it."""
    return (type_,) if reached is None else (type_, SEEDS_NAME + reached.lower())


def is_pattern(text: str, names: Iterable[str]) -> bool:
    """Return whether a text is a pattern that matches at least one of these names of events.

    A pattern is a name, a prefix of names (``message.*``), or ``*``.
    """
    return _PATTERN.fullmatch(text) is not None and is_wanted([text], names)


def is_wanted(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Say whether an event of these names is meant by any of the patterns; if there are none, all are."""
    return not patterns or any(_means(pattern, name) for name in names for pattern in patterns)


def _means(pattern: str, name: str) -> bool:
    return name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))


def live_secrets(secrets: Iterable[Secret], now: int) -> list[Secret]:
    """Return the secrets that sign at a time, the newest first."""
    return [secret for secret in secrets if secret.until is None or now < secret.until][:MOST_LIVE]


def rotated(secrets: Sequence[Secret], sealed: bytes, now: int, overlap_ms: int = OVERLAP_MS) -> list[Secret]:
    """Return the secrets when another takes the place of the newest: those before sign for a while.

    Rotated once more, one that has an end keeps it if that comes earlier; what has ended is let go.
    """
    until = min(now + overlap_ms, LAST_MS)
    before = [
        Secret(secret.sealed, secret.since, until if secret.until is None else min(secret.until, until))
        for secret in secrets
    ]
    return [Secret(sealed, now), *live_secrets(before, now)][:MOST_LIVE]
