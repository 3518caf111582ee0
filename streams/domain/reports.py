"""What is shown of a delivery: the report that travels with events, and the whole tracking record."""

from __future__ import annotations

from hashlib import blake2b
from operator import itemgetter
from typing import Final

import msgspec

from streams.domain.delivery import Delivery, Entry, Failure, error_code, error_order
from streams.domain.statuses import (
    CLICKED,
    DELIVERED,
    FAILED,
    NAMES,
    READ,
    SENT,
    Source,
    Status,
    is_contradiction,
)
from streams.domain.times import TimeSource, iso, time_source

__all__ = ["DeliveryReport", "TrackingRecord", "record_view", "report"]

UNKNOWN: Final = "unknown"
"""Stands for a provider that nobody has named."""

_encode = msgspec.json.Encoder().encode


class Shown(msgspec.Struct, gc=False, rename="camel", omit_defaults=True):
    """What people read: camelCase, without what is not there."""


class ShownError(Shown):
    """Why it failed."""

    code: str
    message: str
    details: msgspec.Raw | None = None


class Attempt(Shown):
    """One try to deliver the message: what its provider made of it."""

    attempt_number: int
    attempted_at: str
    status: Status
    provider: str | None = None
    error: ShownError | None = None


class DeliveryReport(Shown):
    """How the delivery of a message stands."""

    message_id: str
    status: Status
    phone_number: str | None = None
    sent_at: str | None = None
    delivered_at: str | None = None
    read_at: str | None = None
    clicked_at: str | None = None
    failed_at: str | None = None
    error: ShownError | None = None
    attempts: list[Attempt] | None = None
    contradiction: bool = False
    metadata: dict[str, msgspec.Raw] | None = None


class Details(Shown):
    """What else a history entry says."""

    error: ShownError


class HistoryEntry(Shown):
    """One thing that was said about the message."""

    id: str
    status: Status
    timestamp: str
    time_source: TimeSource
    received_at: str
    source: Source
    provider: str | None = None
    attempt: int | None = None
    details: Details | None = None


class TrackingRecord(Shown):
    """All that is known of one message."""

    message_id: str
    tracked: bool
    current_status: Status
    status_history: list[HistoryEntry]
    delivery_report: DeliveryReport
    created_at: str
    updated_at: str
    phone_number: str | None = None
    template_id: str | None = None
    provider: str | None = None
    channel: str | None = None
    tenant: str | None = None
    expires_at: str | None = None
    metadata: dict[str, msgspec.Raw] | None = None


def report(message_id: str, delivery: Delivery) -> DeliveryReport:
    """Return the delivery report of a message."""
    times = delivery.times
    return DeliveryReport(
        message_id,
        NAMES[delivery.precedence],
        delivery.phone_number,
        None if (time := times[SENT]) is None else iso(time),
        None if (time := times[DELIVERED]) is None else iso(time),
        None if (time := times[READ]) is None else iso(time),
        None if (time := times[CLICKED]) is None else iso(time),
        None if (time := times[FAILED]) is None else iso(time),
        _shown_error(delivery.failure),
        _attempts(delivery.history),
        is_contradiction(delivery.seen),
        _shown_metadata(delivery),
    )


def record_view(message_id: str, delivery: Delivery) -> TrackingRecord:
    """Return the whole tracking record of a message."""
    expires_at = delivery.expires_at
    shown = report(message_id, delivery)
    return TrackingRecord(
        message_id,
        delivery.tracked,
        delivery.status,
        _shown_history(message_id, delivery.history),
        shown,
        iso(delivery.created_at),
        iso(delivery.updated_at),
        delivery.phone_number,
        delivery.template_id,
        delivery.provider,
        delivery.channel,
        delivery.tenant,
        None if expires_at is None else iso(expires_at),
        shown.metadata,
    )


def _shown_error(error: Failure | None) -> ShownError | None:
    if error is None:
        return None
    details = None if error.details is None else msgspec.Raw(error.details)
    return ShownError(error.code, error.message, details)


def _shown_metadata(delivery: Delivery) -> dict[str, msgspec.Raw] | None:
    metadata = delivery.metadata
    if not metadata:
        return None
    return {key: msgspec.Raw(metadata[key][1]) for key in sorted(metadata)}


class _Group:
    """The entries of one attempt, as far as they have been gone through."""

    __slots__ = ("at", "error", "error_at", "name", "named_at", "precedence", "provider")

    def __init__(self, name: str | int, entry: Entry) -> None:
        self.name = name
        self.at = self.named_at = self.error_at = entry.at
        self.precedence = entry.precedence
        self.provider = entry.provider
        self.error = entry.error

    def add(self, entry: Entry) -> None:
        at, provider, error = entry.at, entry.provider, entry.error
        if at < self.at:
            self.at = at
        if entry.precedence > self.precedence:
            self.precedence = entry.precedence
        if provider is not None and (
            self.provider is None or (at, provider) < (self.named_at, self.provider)
        ):
            self.provider, self.named_at = provider, at
        if error is not None and (
            self.error is None or error_order(at, error) > error_order(self.error_at, self.error)
        ):
            self.error, self.error_at = error, at

    def order(self) -> tuple[int, str]:
        return self.at, str(self.name)


def _attempts(history: list[Entry]) -> list[Attempt]:
    """Group the history by attempt, or where none is said, by provider."""
    groups: dict[str | int, _Group] = {}
    for entry in history:
        name: str | int | None = entry.attempt
        if name is None:
            name = UNKNOWN if entry.provider is None else entry.provider
        group = groups.get(name)
        if group is None:
            groups[name] = _Group(name, entry)
        else:
            group.add(entry)
    ordered = sorted(groups.values(), key=_Group.order) if len(groups) > 1 else groups.values()
    return [
        Attempt(number, iso(group.at), NAMES[group.precedence], group.provider, _shown_error(group.error))
        for number, group in enumerate(ordered, 1)
    ]


def _shown_history(message_id: str, history: list[Entry]) -> list[HistoryEntry]:
    placed = [(entry.at, entry.precedence, shown_id(message_id, entry), entry) for entry in history]
    placed.sort(key=itemgetter(0, 1, 2))
    return [_shown_entry(id_, entry) for _, _, id_, entry in placed]


def _shown_entry(id_: str, entry: Entry) -> HistoryEntry:
    error = _shown_error(entry.error)
    return HistoryEntry(
        id_,
        NAMES[entry.precedence],
        iso(entry.at),
        time_source(entry.given, entry.receipt),
        iso(entry.receipt),
        entry.source,
        entry.provider,
        entry.attempt,
        None if error is None else Details(error),
    )


def shown_id(message_id: str, entry: Entry) -> str:
    """Return the id of an entry: the one it was given, else a hash of what makes it different from others."""
    if entry.id is not None:
        return entry.id
    said = (
        message_id,
        NAMES[entry.precedence],
        entry.provider,
        entry.attempt,
        entry.given,
        error_code(entry),
        entry.source,
    )
    return blake2b(_encode(said), digest_size=8).hexdigest()
