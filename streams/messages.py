"""Wire types: how input records are read, and how events and dead letters are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args
from urllib.parse import urlsplit

import msgspec

from streams.domain.attempts import Failure, Text
from streams.domain.delivery import Callback, Erase, Expire, Judge, Purge, Stop, Tick, Track, Webhook
from streams.domain.endpoints import STATUS_EVENTS, Change, Heard, Register, Remove, is_pattern
from streams.domain.errors import MalformedCode, MalformedRecord
from streams.domain.headers import header_problem
from streams.domain.health import Figures, Reason
from streams.domain.periods import RESOLUTIONS
from streams.domain.reports import DeliveryReport
from streams.domain.secrets import new_secret_problem
from streams.domain.statistics import (
    CALLBACK_OUTCOMES,
    CREATED_THEN,
    MINUTE_MS,
    SENT_THEN,
    WINDOW_MINUTES,
    Cell,
    Cohort,
    Key,
    activity,
    cohort,
)
from streams.domain.statuses import NAMES, Source, Status
from streams.domain.times import WireTime, iso, to_ms
from streams.domain.webhooks import Abandon, Attempted, Resend, Trouble, owner_of

__all__ = [
    "ENDPOINT_EVENTS",
    "MAX_VALUE_BYTES",
    "EndpointEvent",
    "Event",
    "EventType",
    "GivenUp",
    "Origin",
    "ProviderEvent",
    "ProviderEventType",
    "Request",
    "Said",
    "Seal",
    "StatsRow",
    "StatusCallback",
    "Stream",
    "TrackRequest",
    "WebhookEvent",
    "WorkerEvent",
    "WorkerEventType",
    "dead_letter_headers",
    "encode",
    "event_headers",
    "forwarded_header",
    "malformed",
    "pattern_problem",
    "read_request",
    "read_said",
    "read_status",
    "request_reader",
    "stats_key",
    "stats_row",
]

MAX_VALUE_BYTES: Final = 65_536
"""Larger records are not read: a status is a few hundred bytes."""

MAX_TEXT_BYTES: Final = 4_096
"""Of a value of the metadata, and of an error's details, as JSON."""

MAX_CODE_CHARS: Final = 256
"""Of an error's code."""

MAX_MESSAGE_CHARS: Final = 1_000
"""Of an error's message."""

Stream: TypeAlias = Literal["requests", "statuses", "webhooks"]
Header: TypeAlias = tuple[str, bytes]

Request: TypeAlias = Track | Stop | Erase | Expire | Purge | Tick | Judge | Register | Change | Remove | Heard
"""What is asked for a message; from `Expire` on by workers."""

Seal: TypeAlias = Callable[[bytes, str], bytes]
"""Seals a secret for its owner."""

Said: TypeAlias = Attempted | Resend | Abandon
"""What is said of webhooks, by workers."""

EventType: TypeAlias = Literal[
    "tracking.started",
    "status.updated",
    "status.amended",
    "tracking.expired",
    "tracking.completed",
    "tracking.stopped",
    "tracking.erased",
    "tracking.removed",
]

ProviderEventType: TypeAlias = Literal["provider.degraded", "provider.recovered"]

MESSAGE_EVENTS: Final = (*get_args(EventType), *STATUS_EVENTS)
"""Names of the events that a message's own webhooks can receive."""

ENDPOINT_EVENTS: Final = (*MESSAGE_EVENTS, *get_args(ProviderEventType))
"""Names of the events that an endpoint can receive."""

T = TypeVar("T")

encode = msgspec.json.Encoder().encode


# Reading decodes into the wire types and then narrows times and JSON values in place, so that no second
# object is made for each record; from then on it is a `Callback` or a `Track`.


class WireFailure(msgspec.Struct, gc=False):
    """An error as it may be written: providers send codes as numbers, and errors without a text."""

    code: Text | int | float
    message: str | None = None
    details: Any = None


class StatusCallback(Callback, gc=False, rename="camel"):
    """Value of ``statuses``: a callback with times and errors as they may be written."""

    error: WireFailure | None = None  # type: ignore[assignment]
    timestamp: WireTime | None = None  # type: ignore[assignment]
    sent_at: WireTime | None = None  # type: ignore[assignment]
    delivered_at: WireTime | None = None  # type: ignore[assignment]
    read_at: WireTime | None = None  # type: ignore[assignment]
    clicked_at: WireTime | None = None  # type: ignore[assignment]
    failed_at: WireTime | None = None  # type: ignore[assignment]


class WebhookRequest(msgspec.Struct, gc=False, rename="camel"):
    """Where a track request wants its message told; `timeout` in ms.

    Attributes:
        sealed_secret, sealed_headers: as workers write them that take a request over HTTP.
    """

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=2_048)]
    events: Annotated[list[Text], msgspec.Meta(max_length=50)] | None = None
    secret: Text | None = None
    headers: dict[Text, Annotated[str, msgspec.Meta(max_length=4_096)]] | None = None
    timeout: Annotated[int, msgspec.Meta(ge=1, le=120_000)] | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    sealed_secret: Annotated[bytes, msgspec.Meta(max_length=1_000)] | None = None
    sealed_headers: bytes | None = None


class TrackRequest(Track, gc=False, rename="camel", tag_field="type", tag="track"):
    """Value of ``requests``: a track request with times as they may be written."""

    created_at: WireTime | None = None  # type: ignore[assignment]
    scheduled_at: WireTime | None = None  # type: ignore[assignment]
    webhooks: Annotated[list[WebhookRequest], msgspec.Meta(max_length=10)] | None = None  # type: ignore[assignment]


def _reader(decode: Callable[[bytes], Any], narrow: Callable[[Any], T]) -> Callable[[bytes | None], T]:
    def read(value: bytes | None) -> T:
        if not value:
            raise MalformedRecord("empty", "", "the record has no value")
        if len(value) > MAX_VALUE_BYTES:
            problem = f"the value has {len(value)} bytes; {MAX_VALUE_BYTES} are allowed"
            raise MalformedRecord("too-large", "", problem)
        try:
            if not value.isascii():
                # msgspec does not look into the strings of fields that it passes over
                value.decode()
            return narrow(decode(value))
        except (ValueError, OverflowError, RecursionError) as error:
            raise malformed(error) from None

    return read


def _narrow_status(callback: Any) -> Callback:
    """Narrow field by field and not in a loop over names: this runs for every record."""
    given = callback.timestamp
    if given is not None:
        callback.timestamp = to_ms(given, "timestamp")
    # an explicit time is mostly that of the callback itself, and comparing is cheaper than converting
    if (time := callback.sent_at) is not None:
        callback.sent_at = callback.timestamp if time == given else to_ms(time, "sentAt")
    if (time := callback.delivered_at) is not None:
        callback.delivered_at = callback.timestamp if time == given else to_ms(time, "deliveredAt")
    if callback.read_at is not None or callback.clicked_at is not None or callback.failed_at is not None:
        _narrow_rarer_times(callback)
    if callback.metadata is not None or callback.error is not None:
        _narrow_values(callback)
    _narrow_names(callback)
    return callback  # type: ignore[no-any-return]


def _narrow_names(said: Any) -> None:
    """Write the names of the provider and the channel in lower case: systems spell them differently."""
    if (name := said.provider) is not None and not name.islower():
        said.provider = name.lower()
    if (name := said.channel) is not None and not name.islower():
        said.channel = name.lower()


def _narrow_values(callback: Any) -> None:
    if callback.metadata is not None:
        callback.metadata = _texts(callback.metadata)
    if callback.error is not None:
        callback.error = _failure(callback.error)


def _narrow_rarer_times(callback: Any) -> None:
    for name, shown in (("read_at", "readAt"), ("clicked_at", "clickedAt"), ("failed_at", "failedAt")):
        time = getattr(callback, name)
        if time is not None:
            setattr(callback, name, to_ms(time, shown))


def _failure(error: WireFailure) -> Failure:
    """Return an error as it is stored: a text for a code that is a number, and texts of bounded length.

    Raises:
        MalformedRecord: the code is a number with too many digits.
    """
    code, message = str(error.code), error.message or ""
    if len(code) > MAX_CODE_CHARS:
        raise MalformedRecord("invalid-value", "error.code", f"Expected at most {MAX_CODE_CHARS} digits")
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[: MAX_MESSAGE_CHARS - 1] + "…"
    return Failure(code, message, None if error.details is None else _text(error.details))


def _narrow_request(request: Any, seal: Seal | None) -> Request:
    if not isinstance(request, TrackRequest):
        return request  # type: ignore[no-any-return]
    if request.created_at is not None:
        request.created_at = to_ms(request.created_at, "createdAt")
    if request.scheduled_at is not None:
        request.scheduled_at = to_ms(request.scheduled_at, "scheduledAt")
    if request.metadata is not None:
        request.metadata = _texts(request.metadata)
    _narrow_names(request)
    if request.webhooks is not None:
        owner, webhooks = owner_of(request.message_id), enumerate(request.webhooks)
        request.webhooks = [_narrow_webhook(n, said, owner, seal) for n, said in webhooks]  # type: ignore[misc]
    return request


def _narrow_webhook(number: int, said: Any, owner: str, seal: Seal | None) -> Webhook:
    """Check a webhook and seal its secret and headers; without keys these are dropped."""
    for field, problem in _webhook_problems(said):
        raise MalformedRecord("invalid-value", f"webhooks[{number}].{field}", problem)
    secret, headers = said.sealed_secret, said.sealed_headers
    if said.secret is not None:
        secret = b"" if seal is None else seal(said.secret.encode(), owner)
    if said.headers:
        headers = b"" if seal is None else seal(encode(said.headers), owner)
    return Webhook(said.url, said.events or None, said.timeout, said.retries, secret, headers)


def _webhook_problems(said: WebhookRequest) -> Iterator[tuple[str, str]]:
    """Yield the fields of a webhook that cannot work, each with what is wrong."""
    if problem := _url_problem(said.url):
        yield "url", problem
    for number, pattern in enumerate(said.events or ()):
        if problem := pattern_problem(pattern, MESSAGE_EVENTS):
            yield f"events[{number}]", problem
    if said.secret is not None and (problem := new_secret_problem(said.secret)):
        yield "secret", problem
    for name, value in (said.headers or {}).items():
        if problem := header_problem(name, value):
            yield f"headers.{name}", problem


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        usable = usable and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if not usable:
        return "Expected a URL such as https://example.com/hook"
    return "Expected no user or password; send them as a header" if "@" in parts.netloc else None


def pattern_problem(pattern: str, names: Sequence[str]) -> str | None:
    """Return why a pattern matches none of these names of events; None if it matches one."""
    if is_pattern(pattern, names):
        return None
    return f"Expected one of {', '.join(names)}, a prefix such as message.*, or *"


def _as_read(said: Said) -> Said:
    return said


read_status: Final = _reader(msgspec.json.Decoder(StatusCallback).decode, _narrow_status)
"""Read a value of ``statuses``; raises `MalformedRecord`, which says what to mend."""

_decode_request: Final = msgspec.json.Decoder(
    TrackRequest | Stop | Erase | Expire | Purge | Tick | Judge | Register | Change | Remove | Heard
).decode


def request_reader(seal: Seal | None) -> Callable[[bytes | None], Request]:
    """Return what reads a value of ``requests``; it raises `MalformedRecord`, also for an unknown type.

    Args:
        seal: what makes secrets fit to be kept; without it those of webhooks are let go.
    """
    return _reader(_decode_request, lambda request: _narrow_request(request, seal))


read_request: Final = request_reader(None)
"""Read a value of ``requests``, without what is secret in it."""

read_said: Final = _reader(msgspec.json.Decoder(Attempted | Resend | Abandon).decode, _as_read)
"""Read a value of ``webhooks``; raises `MalformedRecord`."""


def _text(value: object) -> str:
    """Write a value as compact JSON, the form in which it is compared, stored and shown."""
    text = encode(value)
    if len(text) > MAX_TEXT_BYTES:
        # kept with every event of the message; the callback itself has it all
        return f'{{"leftOutBytes":{len(text)}}}'
    return text.decode()


def _texts(values: dict[str, object]) -> dict[str, str]:
    return {key: _text(value) for key, value in values.items()}


_PLACE: Final = re.compile(r"(?P<problem>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_WRONG_TYPE: Final = re.compile(r"Expected `[^`]*`(, got |$)")
_UNKNOWN: Final = "Invalid enum value"
_UNKNOWN_TAG: Final = "Invalid value"
_CODE_OF_UNKNOWN: Final[dict[str, MalformedCode]] = {
    "status": "unknown-status",
    "initialStatus": "unknown-status",
    "type": "unsupported-type",
}


def malformed(error: Exception) -> MalformedRecord:
    """Say which field is to blame for what msgspec raised, and why."""
    if isinstance(error, RecursionError):
        return MalformedRecord("invalid-value", "", "values are nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return MalformedRecord("not-json", "", f"not UTF-8: {error.reason}")
    if not isinstance(error, msgspec.ValidationError):
        return MalformedRecord("not-json", "", str(error))
    return _invalid(str(error))


def _invalid(text: str) -> MalformedRecord:
    found = _PLACE.fullmatch(text)
    problem, field = (found["problem"], found["path"] or "") if found else (text, "")
    if missing := _MISSING.fullmatch(problem):
        field = f"{field}.{missing[1]}" if field else missing[1]
        return MalformedRecord("missing-field", field, "is required")
    if problem.startswith(_UNKNOWN) or (problem.startswith(_UNKNOWN_TAG) and field == "type"):
        return MalformedRecord(_CODE_OF_UNKNOWN.get(field, "invalid-value"), field, problem)
    code: MalformedCode = "wrong-type" if _WRONG_TYPE.match(problem) else "invalid-value"
    return MalformedRecord(code, field, problem)


class Event(msgspec.Struct, gc=False, rename="camel", omit_defaults=True):
    """Value of ``events``: what became of a message, and how its delivery stands then."""

    id: str
    type: EventType
    message_id: str
    occurred_at: str
    current_status: Status
    status: Status
    source: Source
    delivery_report: DeliveryReport | msgspec.Raw
    previous_status: Status | None = None
    provider: str | None = None
    tracking_completed: bool = False
    reason: str | None = None


WorkerEventType: TypeAlias = Literal["tracker.started", "tracker.stopped", "cleanup.completed"]


class Counts(msgspec.Struct, gc=False, rename="camel"):
    """Messages, where they stand now: counts that add up; times in ms.

    Attributes:
        arrived: those that have ever arrived; `arrived_final`: of these, those in a final status.
        clock_skew: those with times that cannot be, which do not count.
        duration_sum: of the times from sent to delivered; `duration_count` is of how many.
    """

    messages: int
    by_status: dict[Status, int]
    arrived: int
    arrived_final: int
    clock_skew: int
    by_error_code: dict[str, int]
    duration_sum: int
    duration_count: int


class StatsRow(msgspec.Struct, gc=False, rename="camel"):
    """Value of ``stats``: what one partition counts of a window and group.

    Attributes:
        granularity: hour or day.
        partition: the rows of all partitions add up.
        created, sent: the messages of the window.
        transitions: new history entries by status; `callbacks` by what became of them.
        lateness_sum: of the applied callbacks, ms.
        final: whether hardly anything is to come.
        correction: whether something came after that.
    """

    granularity: str
    begin: str = msgspec.field(name="from")
    to: str
    tenant: str | None
    channel: str | None
    provider: str | None
    template_id: str | None
    partition: int
    created: Counts
    sent: Counts
    transitions: dict[Status, int]
    callbacks: dict[str, int]
    lateness_sum: int
    final: bool
    correction: bool


def stats_row(key: Key, cell: Cell, partition: int, final: bool, correction: bool) -> StatsRow:
    """Return what is told of a cell of a full group."""
    tenant, channel, provider, template = key.group
    happened, minutes = activity(cell), WINDOW_MINUTES[key.granularity]
    return StatsRow(
        RESOLUTIONS[key.granularity],
        iso(key.start * MINUTE_MS),
        iso((key.start + minutes) * MINUTE_MS),
        tenant,
        channel,
        provider,
        template,
        partition,
        _counts(cohort(cell, CREATED_THEN)),
        _counts(cohort(cell, SENT_THEN)),
        dict(zip(NAMES, happened.by_status, strict=True)),
        dict(zip(CALLBACK_OUTCOMES, happened.outcomes, strict=True)),
        happened.lateness_sum,
        final,
        correction,
    )


def _counts(messages: Cohort) -> Counts:
    return Counts(
        sum(messages.by_status),
        dict(zip(NAMES, messages.by_status, strict=True)),
        messages.arrived,
        messages.arrived_final,
        messages.clock_skew,
        messages.failures,
        messages.duration_sum,
        sum(messages.durations.values()),
    )


def stats_key(key: Key) -> bytes:
    """Return what a row is compacted by, in its partition: window and group as a JSON array."""
    return encode([RESOLUTIONS[key.granularity], iso(key.start * MINUTE_MS), *key.group])


class WorkerEvent(msgspec.Struct, gc=False, rename="camel", omit_defaults=True):
    """Value of ``events`` that is not of a message: what a worker did."""

    id: str
    type: WorkerEventType
    worker_id: str
    occurred_at: str
    removed_count: int | None = None


class ProviderEvent(msgspec.Struct, gc=False, rename="camel"):
    """Value of ``events`` that is of a provider: that it delivers badly, or well again.

    Attributes:
        reason: why it is, or was, degraded.
        figures: what it was judged by at last.
    """

    id: str
    type: ProviderEventType
    provider: str
    occurred_at: str
    reason: Reason
    figures: Figures


GivenUp: TypeAlias = Literal["overflow", "gone"]
"""Why a webhook failed without an attempt."""

WebhookEventType: TypeAlias = Literal["webhook.delivered", "webhook.failed"]


class WebhookEvent(msgspec.Struct, gc=False, rename="camel"):
    """Value of ``events`` that is of a webhook: that it arrived, or that all its attempts are used up.

    Attributes:
        event_id: the event that was to be told, and id of the webhook.
        attempts: how many were made; `status` or `trouble` is what the last of them came to, or ``overflow``:
            it was given up, for too many waited behind it; or ``gone``: an earlier one was answered 410.
    """

    id: str
    type: WebhookEventType
    message_id: str
    occurred_at: str
    event_id: str
    endpoint_id: str
    attempts: int
    status: int | None
    trouble: Trouble | GivenUp | None


class EndpointEvent(msgspec.Struct, gc=False, rename="camel"):
    """Value of ``events`` that is of an endpoint: that webhooks are sent there no longer, and why."""

    id: str
    type: Literal["endpoint.disabled"]
    endpoint_id: str
    occurred_at: str
    reason: str | None


_SPEC_VERSION: Final[Header] = ("ce_specversion", b"1.0")
_SOURCE: Final[Header] = ("ce_source", b"/delivery-tracker")
_CONTENT_TYPE: Final[Header] = ("content-type", b"application/json")
_TYPES: Final[dict[str, Header]] = {
    type_: ("ce_type", type_.encode())
    for type_ in (
        *get_args(EventType),
        *get_args(WorkerEventType),
        *get_args(ProviderEventType),
        *get_args(WebhookEventType),
        "endpoint.disabled",
    )
}


def event_headers(
    event: Event | WorkerEvent | ProviderEvent | WebhookEvent | EndpointEvent, key: bytes
) -> list[Header]:
    """Return the CloudEvents 1.0 headers of an event (binary mode); `key` is its message's, or worker's."""
    return [
        _SPEC_VERSION,
        ("ce_id", event.id.encode()),
        _SOURCE,
        _TYPES[event.type],
        ("ce_time", event.occurred_at.encode()),
        ("ce_subject", key),
        _CONTENT_TYPE,
    ]


class Origin(NamedTuple):
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int


def dead_letter_headers(origin: Origin, stream: Stream, error: MalformedRecord) -> list[Header]:
    """Return the headers that say why a record could not be read, named as by Kafka Connect (KIP-298)."""
    kind = type(error)
    return [
        ("__connect.errors.topic", origin.topic.encode()),
        ("__connect.errors.partition", b"%d" % origin.partition),
        ("__connect.errors.offset", b"%d" % origin.offset),
        ("__connect.errors.exception.class.name", f"{kind.__module__}.{kind.__qualname__}".encode()),
        ("__connect.errors.exception.message", str(error).encode()),
        ("tracker-error-code", error.code.encode()),
        ("tracker-dead-letter-id", f"{stream}-{origin.partition}-{origin.offset}".encode()),
    ]


def forwarded_header(origin: Origin) -> Header:
    """Return the header that says where a record lay that was forwarded."""
    return "tracker-forwarded-from", f"{origin.topic}/{origin.partition}/{origin.offset}".encode()
