"""The delivery law: a delivery is what the set of things said about its message makes of it.

Any order, any repetition and any batching of the same callbacks gives the same delivery; ties are broken by
what callbacks say, never by when they arrived. So that adding a callback costs about the same however long
the history is, a `Delivery` keeps what the law derives beside the history it is derived from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from streams.domain.attempts import (
    REQUESTED,
    Attempt,
    Entry,
    Failure,
    LongText,
    Text,
    contradict,
    enter,
    speaker,
)
from streams.domain.health import Figures
from streams.domain.statuses import (
    CLICKED,
    DELIVERED,
    FAILED,
    FIRST_FINAL,
    NAMES,
    NOTHING,
    PRECEDENCE,
    READ,
    SENT,
    Source,
    Status,
    is_contradiction,
    winner,
)
from streams.domain.times import EARLIEST_MS, LEAD_MS, event_at

__all__ = [
    "DEFAULT_TRACKING_MS",
    "PRECEDENCE",
    "UNKNOWN",
    "Callback",
    "Delivery",
    "Erase",
    "Expire",
    "Judge",
    "Purge",
    "Request",
    "Stop",
    "Tick",
    "Track",
    "Webhook",
    "close_webhook",
    "end",
    "erase",
    "merge",
    "say",
    "track",
]

DEFAULT_TRACKING_MS: Final = 72 * 3_600_000
"""How long a message is waited for: the latest receipts of the providers we know come after three days."""

MAX_HISTORY: Final = 200
"""Entries that are kept; see `_fold` for those that go. Up to here a repeated callback is known as such."""

MAX_METADATA: Final = 50
"""Keys that are kept: those of the latest event times."""

UNKNOWN: Final = "unknown"
"""Stands for the provider where nobody has named one."""

_NEVER: Final = -(2**63)
_FAILED: Final = 1 << FAILED

MessageId: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
AttemptNumber: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Duration: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]


class Callback(msgspec.Struct, gc=False, rename="camel"):
    """What someone says about a message at one moment; times in ms, `metadata` as JSON text by key."""

    message_id: MessageId
    status: Status
    timestamp: int | None = None
    provider: Text | None = None
    attempt: AttemptNumber | None = None
    provider_message_id: LongText | None = None
    source: Source | None = None
    error: Failure | None = None
    metadata: dict[Text, Any] | None = None
    sent_at: int | None = None
    delivered_at: int | None = None
    read_at: int | None = None
    clicked_at: int | None = None
    failed_at: int | None = None
    id: Text | None = None
    channel: Text | None = None
    tenant: Text | None = None
    phone_number: LongText | None = None
    template_id: Text | None = None


class Webhook(msgspec.Struct, array_like=True, gc=False):
    """Where to tell of a message.

    Attributes:
        events: the types that are told; all, if there are none.
        timeout_ms: how long the receiver may take.
        retries: how often it is tried again.
        secret: sealed; empty: there is one, and it could not be kept.
        headers: sealed, as JSON; likewise.
        gone: whether its receiver has answered 410.
    """

    url: str
    events: list[str] | None = None
    timeout_ms: int | None = None
    retries: int | None = None
    secret: bytes | None = None
    headers: bytes | None = None
    gone: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all is known that it needs to be told."""
        return self.secret != b"" and self.headers != b""


class Track(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="track"):
    """The request that a message be tracked; times in ms, `metadata` as JSON text by key."""

    message_id: MessageId
    phone_number: LongText
    template_id: Text
    provider: Text
    channel: Text | None = None
    tenant: Text | None = None
    initial_status: Status | None = None
    metadata: dict[Text, Any] | None = None
    created_at: int | None = None
    scheduled_at: int | None = None
    max_tracking_duration: Duration | None = None
    webhooks: list[Webhook] | None = None


class Stop(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="stop"):
    """The request that a message be tracked no longer, and forgotten."""

    message_id: MessageId
    reason: Text | None = None


class Erase(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="erase"):
    """The request that what may be personal be forgotten; the message is tracked on without it."""

    message_id: MessageId


class Expire(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="expire"):
    """A timer's request: the message has expired, if nothing final is known of it and it is due."""

    message_id: MessageId


class Purge(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="purge"):
    """A timer's request: the record has been kept for long enough, or what marks that it was there."""

    message_id: MessageId


class Tick(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="tick"):
    """A timer's request: time has come as far as the record's timestamp; it is about no message.

    Attributes:
        message_id: says which partition it is for, and nothing else.
    """

    message_id: MessageId


class Judge(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="judge"):
    """A timer's request: judge a provider by these figures, at the record's timestamp.

    Attributes:
        message_id: the provider's name; it is about no message.
    """

    message_id: MessageId
    figures: Figures


class Request(msgspec.Struct, array_like=True, gc=False):
    """The fields of the track request that counts.

    Attributes:
        scheduled_at: when the message is to be sent, ms; None: at once.
    """

    created_at: int
    phone_number: str | None
    template_id: str
    provider: str
    channel: str | None
    tenant: str | None
    tracking_ms: int = DEFAULT_TRACKING_MS
    webhooks: list[Webhook] | None = None
    scheduled_at: int | None = None

    @property
    def expires_at(self) -> int:
        """When tracking ends without a final status; ms. It begins at `scheduled_at` if that is later."""
        begin, scheduled = self.created_at, self.scheduled_at
        return (begin if scheduled is None or scheduled < begin else scheduled) + self.tracking_ms


class Delivery(msgspec.Struct, array_like=True, gc=False):
    """All that is known of one message, and how it is stored: an array that begins with its version.

    A new one knows nothing: precedence is NOTHING until the first callback or request is added.

    Attributes:
        precedence: of the current status.
        updated_at: arrival of the last record that changed anything, never decreasing; ms.
        times: by precedence, when that status was reached: the least time said for it, or where none was
            said, the least event time of its entries.
        seen: bit n tells that the history holds a status of precedence n.
        history: in order of arrival.
        attempts: in order of arrival.
        named: the provider of the attempt that speaks for the message.
        folded: how many entries the history has no longer.
        explicit: bit n tells that ``times[n]`` was said explicitly.
        completed_at: arrival of the record that first made the status final; ms.
        metadata: by key, event time and JSON text of the last value.
        ended_at: arrival of the request that stopped or removed it; then all else is gone, and only that is
            known.
        erased: whether what may be personal is left out, whatever is said.
        channel_hint: what statuses say of the channel, the least of it; likewise the other hints.
        due_at: when something is to be done about it if nothing more is said (`lifetimes.due_at`); ms.
    """

    version: Literal[2] = 2
    precedence: int = NOTHING
    updated_at: int = _NEVER
    times: list[int | None] = msgspec.field(default_factory=lambda: [None] * len(NAMES))
    seen: int = 0
    history: list[Entry] = []
    attempts: list[Attempt] = []
    named: str | None = None
    completed_at: int | None = None
    folded: int = 0
    explicit: int = 0
    channel_hint: str | None = None
    metadata: dict[str, tuple[int, str]] = {}
    request: Request | None = None
    phone_number_hint: str | None = None
    template_id_hint: str | None = None
    tenant_hint: str | None = None
    ended_at: int | None = None
    erased: bool = False
    due_at: int | None = None

    @property
    def status(self) -> Status:
        """The status of the attempt that speaks for the message."""
        return NAMES[self.precedence]

    @property
    def tracked(self) -> bool:
        """Whether anyone asked to track the message."""
        return self.request is not None

    @property
    def provider(self) -> str | None:
        """Who made the attempt that speaks for the message, else who was asked to."""
        if self.named is None and self.request is not None:
            return self.request.provider
        return self.named

    @property
    def phone_number(self) -> str | None:
        """The recipient."""
        return self.request.phone_number if self.request is not None else self.phone_number_hint

    @property
    def template_id(self) -> str | None:
        """The template that the message was made from."""
        return self.request.template_id if self.request is not None else self.template_id_hint

    @property
    def channel(self) -> str | None:
        """The kind of message."""
        requested = self.request.channel if self.request is not None else None
        return self.channel_hint if requested is None else requested

    @property
    def tenant(self) -> str | None:
        """Whose message it is."""
        requested = self.request.tenant if self.request is not None else None
        return self.tenant_hint if requested is None else requested

    @property
    def created_at(self) -> int:
        """When the message was created, as far as known; ms."""
        if self.request is not None:
            return self.request.created_at
        attempts = self.attempts
        return attempts[0].at if len(attempts) == 1 else min(attempt.at for attempt in attempts)

    @property
    def expires_at(self) -> int | None:
        """Until when a tracked message is waited for; ms."""
        return None if self.request is None else self.request.expires_at

    @property
    def sent_at(self) -> int | None:
        """When the message was sent; ms."""
        return self.times[SENT]

    @property
    def delivered_at(self) -> int | None:
        """When the message arrived; if nobody said, when it was first read or clicked; ms."""
        if (arrived := self.times[DELIVERED]) is not None:
            return arrived
        return min((time for time in (self.read_at, self.clicked_at) if time is not None), default=None)

    @property
    def is_delivery_inferred(self) -> bool:
        """Whether it arrived, but nobody said when."""
        return self.times[DELIVERED] is None and self.delivered_at is not None

    @property
    def read_at(self) -> int | None:
        """When the message was read; ms."""
        return self.times[READ]

    @property
    def clicked_at(self) -> int | None:
        """When a link in the message was followed; ms."""
        return self.times[CLICKED]

    @property
    def failed_at(self) -> int | None:
        """When the message failed; ms."""
        return self.times[FAILED]

    @property
    def contradiction(self) -> bool:
        """Whether an attempt was said both to have failed and to have arrived."""
        # across attempts that is no contradiction, but what a failover is for
        # the look at the bit alone is for the many that never failed
        return self.seen & _FAILED != 0 and is_contradiction(self.seen) and contradict(self.attempts)


def merge(delivery: Delivery, callback: Callback, receipt: int) -> Entry | None:
    """Add one callback to the set that the delivery is made of.

    Returns:
        Its entry in the history, or None when that was there already and nothing has changed.
    """
    given = callback.timestamp
    entry = Entry(
        PRECEDENCE[callback.status],
        event_at(given, receipt),
        given,
        receipt,
        callback.provider,
        callback.attempt,
        callback.source or "provider",
        callback.id,
        callback.error,
    )
    if delivery.seen >> entry.precedence & 1 and _is_known(delivery.history, entry):
        return None
    _enter(delivery, entry)
    _say_times(delivery, callback, receipt)
    _hint(delivery, callback)
    if callback.metadata:
        _annotate(delivery, entry.at, callback.metadata)
    _conclude(delivery, receipt)
    return entry


def track(delivery: Delivery, request: Track, receipt: int) -> Entry | None:
    """Add one track request to the set that the delivery is made of; of several the least counts.

    Returns:
        The entry that it makes in the history (whether or not that is there already), or None when nothing
        has changed.
    """
    status, given = request.initial_status or "QUEUED", request.created_at
    at = event_at(given, receipt)
    entry = Entry(PRECEDENCE[status], at, given, receipt, request.provider, REQUESTED, "system")
    changed = not _is_known(delivery.history, entry)
    if changed:
        _enter(delivery, entry)
    changed |= _request(delivery, request, at)
    if request.metadata and not delivery.erased:
        changed |= _annotate(delivery, at, request.metadata)
    if not changed:
        return None
    _conclude(delivery, receipt)
    return entry


def say(delivery: Delivery, entry: Entry) -> None:
    """Add an entry that is not in the history yet."""
    _enter(delivery, entry)
    _conclude(delivery, entry.receipt)


def end(delivery: Delivery, receipt: int) -> Delivery:
    """Return what is left of a delivery that is tracked no longer: that it is, and nothing comes back."""
    return Delivery(updated_at=max(receipt, delivery.updated_at), ended_at=receipt)


def erase(delivery: Delivery, receipt: int) -> bool:
    """Forget what may be personal, now and whatever is said later; say whether that changed anything."""
    if delivery.erased:
        return False
    delivery.erased = True
    delivery.updated_at = max(receipt, delivery.updated_at)
    _forget(delivery)
    return True


def _forget(delivery: Delivery) -> None:
    """Leave out the recipient, and all that is free text: codes and times stay, for they are counted."""
    delivery.phone_number_hint = None
    delivery.metadata = {}
    if delivery.request is not None:
        delivery.request.phone_number = None
    for failure in (*(e.error for e in delivery.history), *(a.failure for a in delivery.attempts)):
        if failure is not None:
            failure.message, failure.details = "", None


def _is_known(history: list[Entry], entry: Entry) -> bool:
    """Say whether an entry of this identity is there: its id and status, else all that its callback says."""
    precedence, id_ = entry.precedence, entry.id
    for known in history:
        if known.precedence == precedence and known.id == id_ and (id_ is not None or _agree(known, entry)):
            return True
    return False


def _agree(known: Entry, entry: Entry) -> bool:
    return (
        known.given == entry.given
        and known.provider == entry.provider
        and known.attempt == entry.attempt
        and known.source == entry.source
        and error_code(known) == error_code(entry)
    )


def error_code(entry: Entry) -> str | None:
    """Return the code of the entry's error, if it has one."""
    return None if entry.error is None else entry.error.code


def _enter(delivery: Delivery, entry: Entry) -> None:
    """Add an entry to the history, and what it means for times and attempts."""
    delivery.history.append(entry)
    precedence, at = entry.precedence, entry.at
    bit = 1 << precedence
    delivery.seen |= bit
    if not delivery.explicit & bit:
        times = delivery.times
        reached = times[precedence]
        if reached is None or at < reached:
            times[precedence] = at
    enter(delivery.attempts, entry)
    if len(delivery.history) > MAX_HISTORY:
        _fold(delivery)


def _fold(delivery: Delivery) -> None:
    """Let one entry go, and count it: the oldest of which the same attempt has a newer one in that status.

    Which one depends on the entries alone: each status of each attempt keeps its newest, and of all others
    the newest stay. Only if there is one of each is the oldest of those gone, too.
    """
    history = delivery.history
    newest: dict[tuple[int, str | None, int | None], Entry] = {}
    for entry in history:
        of = entry.precedence, entry.provider, entry.attempt
        if of not in newest or _age(entry) > _age(newest[of]):
            newest[of] = entry
    kept = {id(entry) for entry in newest.values()}
    others = [entry for entry in history if id(entry) not in kept]
    oldest = min(others or history, key=_age)
    delivery.history = [entry for entry in history if entry is not oldest]
    delivery.folded += 1


def _age(entry: Entry) -> tuple[object, ...]:
    """Return by what entries are compared; no two of different identity are equal."""
    return (
        entry.at,
        entry.precedence,
        (entry.id is not None, entry.id or ""),
        (entry.provider is not None, entry.provider or ""),
        (entry.attempt is not None, entry.attempt or 0),
        _NEVER if entry.given is None else entry.given,
        (entry.error is not None, error_code(entry) or ""),
        entry.source,
    )


def _conclude(delivery: Delivery, receipt: int) -> None:
    """Let the attempt that speaks give the message its status, now that all is entered."""
    attempts = delivery.attempts
    # mostly there is one
    speaks = attempts[0] if len(attempts) == 1 else speaker(attempts, delivery.channel)
    now = speaks.seen.bit_length() - 1
    if now == DELIVERED and speaks.seen & _FAILED:
        now = winner(speaks.seen, delivery.channel)
    delivery.precedence, delivery.named = now, speaks.provider
    if delivery.erased:
        _forget(delivery)
    if now >= FIRST_FINAL and delivery.completed_at is None:
        delivery.completed_at = receipt
    if receipt > delivery.updated_at:
        delivery.updated_at = receipt


def _say_times(delivery: Delivery, callback: Callback, receipt: int) -> None:
    if callback.sent_at is not None:
        _say_time(delivery, SENT, callback.sent_at, receipt)
    if callback.delivered_at is not None:
        _say_time(delivery, DELIVERED, callback.delivered_at, receipt)
    if callback.read_at is not None:
        _say_time(delivery, READ, callback.read_at, receipt)
    if callback.clicked_at is not None:
        _say_time(delivery, CLICKED, callback.clicked_at, receipt)
    if callback.failed_at is not None:
        _say_time(delivery, FAILED, callback.failed_at, receipt)


def _say_time(delivery: Delivery, precedence: int, time: int, receipt: int) -> None:
    """Let an explicit time replace those only derived; of several explicit ones the least counts."""
    if not EARLIEST_MS <= time <= receipt + LEAD_MS:
        return
    bit = 1 << precedence
    reached = delivery.times[precedence]
    if not delivery.explicit & bit:
        delivery.explicit |= bit
    elif reached is not None and time >= reached:
        return
    delivery.times[precedence] = time


def _hint(delivery: Delivery, callback: Callback) -> None:
    if callback.channel is not None and callback.channel != delivery.channel_hint:
        delivery.channel_hint = _least(delivery.channel_hint, callback.channel)
    if callback.phone_number is not None:
        delivery.phone_number_hint = _least(delivery.phone_number_hint, callback.phone_number)
    if callback.template_id is not None:
        delivery.template_id_hint = _least(delivery.template_id_hint, callback.template_id)
    if callback.tenant is not None:
        delivery.tenant_hint = _least(delivery.tenant_hint, callback.tenant)


def _least(known: str | None, said: str) -> str:
    return said if known is None or said < known else known


def _annotate(delivery: Delivery, at: int, said: Mapping[str, str]) -> bool:
    """Keep of each key the value with the greatest event time, then text; say whether any has changed."""
    metadata = delivery.metadata
    changed = set()
    for key, text in said.items():
        value = (at, text)
        if key not in metadata or value > metadata[key]:
            metadata[key] = value
            changed.add(key)
    while len(metadata) > MAX_METADATA:
        oldest = min(metadata, key=lambda key: (metadata[key][0], key))
        del metadata[oldest]
        changed.discard(oldest)
    return bool(changed)


def _request(delivery: Delivery, request: Track, at: int) -> bool:
    """Keep the least of the track requests; say whether it is this one."""
    said = Request(
        at,
        None if delivery.erased else request.phone_number,
        request.template_id,
        request.provider,
        request.channel,
        request.tenant,
        request.max_tracking_duration or DEFAULT_TRACKING_MS,
        request.webhooks or None,
        request.scheduled_at,
    )
    known = delivery.request
    if known is not None and request_order(said) >= request_order(known):
        return False
    delivery.request = said
    if known is not None and known.webhooks is not None:
        gone = {webhook.url for webhook in known.webhooks if webhook.gone}
        for webhook in said.webhooks or ():
            webhook.gone = webhook.url in gone
    return True


def close_webhook(delivery: Delivery, number: int, url: str) -> bool:
    """Mark a webhook of the message's own as gone: its receiver has answered 410.

    Args:
        number: of the webhook in the request.
        url: of the webhook that was answered; another request may have replaced the one that named it.
    Returns: whether that changed the delivery.
    """
    webhooks = [] if delivery.request is None else delivery.request.webhooks or []
    if number >= len(webhooks) or webhooks[number].url != url or webhooks[number].gone:
        return False
    webhooks[number].gone = True
    return True


def _webhook_order(webhook: Webhook) -> tuple[object, ...]:
    optional = (webhook.timeout_ms, webhook.retries)
    return webhook.url, webhook.events or [], *((-1 if number is None else number) for number in optional)


def request_order(request: Request) -> tuple[object, ...]:
    """Return by what track requests are compared; the least counts."""
    return (
        request.created_at,
        request.template_id,
        request.provider,
        (request.channel is not None, request.channel or ""),
        (request.tenant is not None, request.tenant or ""),
        request.tracking_ms,
        (request.scheduled_at is not None, request.scheduled_at or 0),
        [_webhook_order(webhook) for webhook in request.webhooks or ()],
        # the last, for once it is erased it must not have mattered
        request.phone_number or "",
    )
