"""What is shown of a delivery: the report that travels with events, and the whole tracking record."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from operator import itemgetter

import msgspec

from streams.domain.attempts import REQUESTED, Attempt, Entry, Failure, in_order, speaker
from streams.domain.delivery import Delivery, error_code
from streams.domain.statuses import CLICKED, DELIVERED, FAILED, NAMES, READ, SENT, Source, Status, winner
from streams.domain.times import TimeSource, iso, time_source

__all__ = ["DeliveryReport", "TrackingRecord", "record_view", "report"]

_encode = msgspec.json.Encoder().encode


class Shown(msgspec.Struct, gc=False, rename="camel", omit_defaults=True):
    """What people read: camelCase, without what is not there."""


class ShownError(Shown):
    """Why it failed."""

    code: str
    message: str
    details: msgspec.Raw | None = None


class ShownAttempt(Shown):
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
    attempts: list[ShownAttempt] | None = None
    contradiction: bool = False
    metadata: dict[str, msgspec.Raw] | None = None
    delivered_at_inferred: bool = False


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


class ShownWebhook(Shown):
    """A webhook of the message's own; `timeout` in ms.

    Attributes:
        gone: whether its receiver has answered 410, so that nothing more is sent there.
    """

    url: str
    events: list[str] | None = None
    timeout: int | None = None
    retries: int | None = None
    gone: bool = False


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
    scheduled_at: str | None = None
    expires_at: str | None = None
    metadata: dict[str, msgspec.Raw] | None = None
    history_folded: int = 0
    erased: bool = False
    webhooks: list[ShownWebhook] | None = None


def report(message_id: str, delivery: Delivery) -> DeliveryReport:
    """Return the delivery report of a message."""
    times, attempts, request = delivery.times, delivery.attempts, delivery.request
    if len(attempts) == 1:
        status = NAMES[delivery.precedence]
        failure, shown = attempts[0].failure, [_shown_attempt(1, attempts[0], status)]
    else:
        channel = delivery.channel
        failure, shown = speaker(attempts, channel).failure, _shown_attempts(attempts, channel)
    delivered_at, inferred = times[DELIVERED], False
    if delivered_at is None and (times[READ] is not None or times[CLICKED] is not None):
        delivered_at, inferred = delivery.delivered_at, True
    return DeliveryReport(
        message_id,
        NAMES[delivery.precedence],
        delivery.phone_number_hint if request is None else request.phone_number,
        None if (time := times[SENT]) is None else iso(time),
        None if delivered_at is None else iso(delivered_at),
        None if (time := times[READ]) is None else iso(time),
        None if (time := times[CLICKED]) is None else iso(time),
        None if (time := times[FAILED]) is None else iso(time),
        None if failure is None else _shown_error(failure),
        shown,
        delivery.contradiction,
        _shown_metadata(delivery.metadata) if delivery.metadata else None,
        inferred,
    )


def record_view(message_id: str, delivery: Delivery) -> TrackingRecord:
    """Return the whole tracking record of a message."""
    expires_at = delivery.expires_at
    scheduled_at = None if delivery.request is None else delivery.request.scheduled_at
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
        None if scheduled_at is None else iso(scheduled_at),
        None if expires_at is None else iso(expires_at),
        shown.metadata,
        delivery.folded,
        delivery.erased,
        _shown_webhooks(delivery),
    )


def _shown_webhooks(delivery: Delivery) -> list[ShownWebhook] | None:
    if delivery.request is None or not delivery.request.webhooks:
        return None
    return [
        ShownWebhook(webhook.url, webhook.events, webhook.timeout_ms, webhook.retries, webhook.gone)
        for webhook in delivery.request.webhooks
    ]


def _shown_error(error: Failure) -> ShownError:
    details = None if error.details is None else msgspec.Raw(error.details)
    return ShownError(error.code, error.message, details)


def _shown_metadata(metadata: Mapping[str, tuple[int, str]]) -> dict[str, msgspec.Raw]:
    return {key: msgspec.Raw(text) for key, (_, text) in metadata.items()}


def _shown_attempts(attempts: list[Attempt], channel: str | None) -> list[ShownAttempt]:
    return [
        _shown_attempt(number, attempt, NAMES[winner(attempt.seen, channel)])
        for number, attempt in enumerate(in_order(attempts), 1)
    ]


def _shown_attempt(number: int, attempt: Attempt, status: Status) -> ShownAttempt:
    error = None if attempt.failure is None else _shown_error(attempt.failure)
    return ShownAttempt(number, iso(attempt.at), status, attempt.provider, error)


def _shown_history(message_id: str, history: list[Entry]) -> list[HistoryEntry]:
    placed = [
        (
            entry.at,
            entry.precedence,
            shown_id(message_id, entry),
            entry.provider or "",
            # two track requests may have nothing else apart
            (entry.given is not None, entry.given or 0),
            entry,
        )
        for entry in history
    ]
    placed.sort(key=itemgetter(0, 1, 2, 3, 4))
    return [_shown_entry(id_, entry) for _, _, id_, _, _, entry in placed]


def _shown_entry(id_: str, entry: Entry) -> HistoryEntry:
    details = None if entry.error is None else Details(_shown_error(entry.error))
    return HistoryEntry(
        id_,
        NAMES[entry.precedence],
        iso(entry.at),
        time_source(entry.given, entry.receipt),
        iso(entry.receipt),
        entry.source,
        entry.provider,
        entry.attempt or None,  # a request has none
        details,
    )


def shown_id(message_id: str, entry: Entry) -> str:
    """Return the id of an entry: the one it was given, else a hash of what makes it different from others."""
    if entry.attempt == REQUESTED:
        return "track"
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
