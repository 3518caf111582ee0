"""The delivery tracker as an object: what it knows over HTTP, what happens from Kafka.

`DeliveryTracker` has the methods of k-msg's in-memory class of that name, one for one, in Python's case;
behind it are workers that run elsewhere. `docs/parity.md` tells where it differs from the original, and why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer
from pyee.asyncio import AsyncIOEventEmitter
from yarl import URL

from streams.domain.statuses import Source, Status

__all__ = [
    "Attempt",
    "DeliveryReport",
    "DeliveryStats",
    "DeliveryTracker",
    "HistoryDetails",
    "HistoryEntry",
    "MessageError",
    "MessageEvent",
    "TrackerProblem",
    "TrackingRecord",
    "Webhook",
]

log = logging.getLogger(__name__)

Listener = Callable[..., Any]

DEFAULT_TIMEOUT_S: Final = 70.0
CLEANUP_PAUSE_S: Final = 0.5
PAGE: Final = 200
#: What the seed calls the types of its events, by the status that a message has come to.
MESSAGE_EVENT: Final = "message."


class Shown(msgspec.Struct, rename="camel", frozen=True):
    """What the tracker answers; members that it leaves out are None, False or empty. Times are in UTC."""


class MessageError(Shown, frozen=True):
    """Why a message, or an attempt, failed."""

    code: str
    message: str = ""
    details: Any = None


class Attempt(Shown, frozen=True):
    """One try to deliver a message."""

    attempt_number: int
    attempted_at: datetime
    status: Status
    provider: str | None = None
    error: MessageError | None = None


class DeliveryReport(Shown, frozen=True):
    """How the delivery of a message stands."""

    message_id: str
    status: Status
    phone_number: str | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    clicked_at: datetime | None = None
    failed_at: datetime | None = None
    error: MessageError | None = None
    attempts: list[Attempt] = []
    contradiction: bool = False
    metadata: dict[str, Any] = {}
    delivered_at_inferred: bool = False


class Webhook(Shown, frozen=True):
    """Where a message is to be told of.

    Attributes:
        events: the types that are told; all, if there are none.
        secret, headers: what the sender needs; never shown.
        timeout: how long the receiver may take, ms.
        retries: how often it is tried again.
    """

    url: str
    events: list[str] = []
    secret: str | None = None
    headers: dict[str, str] = {}
    timeout: int | None = None
    retries: int | None = None


class HistoryDetails(Shown, frozen=True):
    """What else an entry of the history says."""

    error: MessageError | None = None


class HistoryEntry(Shown, frozen=True):
    """One thing that was said about a message: `timestamp` is when it happened."""

    id: str
    status: Status
    timestamp: datetime
    time_source: str
    received_at: datetime
    source: Source
    provider: str | None = None
    attempt: int | None = None
    details: HistoryDetails | None = None


class TrackingRecord(Shown, frozen=True):
    """All that is known of one message."""

    message_id: str
    tracked: bool
    current_status: Status
    status_history: list[HistoryEntry]
    delivery_report: DeliveryReport
    created_at: datetime
    updated_at: datetime
    phone_number: str | None = None
    template_id: str | None = None
    provider: str | None = None
    channel: str | None = None
    tenant: str | None = None
    expires_at: datetime | None = None
    metadata: dict[str, Any] = {}
    history_folded: int = 0
    erased: bool = False
    webhooks: list[Webhook] = []


class DeliveryStats(Shown, frozen=True):
    """Counts of messages by where they stand; times in ms, rates in percent.

    Attributes:
        delivery_rate: of all messages those that have ever arrived; `delivery_rate_of_final` of those that
            are in a final status.
        delivery_time: by p50, p90, p95 and p99, the time from sent to delivered that so many do not exceed.
        delivery_curve: of all messages those that have arrived within 5s, 30s, 1m, 5m, 1h and 24h.
        resolution: of a period: "exact", or how wide the windows are that its ends had to be moved to.
    """

    total_messages: int
    by_status: dict[Status, int]
    by_provider: dict[str, int]
    by_error_code: dict[str, int]
    average_delivery_time: float
    delivery_rate: float
    delivery_rate_of_final: float
    failure_rate: float
    delivery_time: dict[str, float | None]
    delivery_curve: dict[str, float]
    last_updated: datetime | None = None
    resolution: str | None = None


class MessageEvent(msgspec.Struct, frozen=True):
    """What listeners get.

    Attributes:
        id: unique, and the same however often the event is told.
        type: ``message.`` and the current status in small letters.
        data: the value of the event in ``delivery.events``, names as there.
        metadata: that of the message.
    """

    id: str
    type: str
    timestamp: datetime
    data: dict[str, Any]
    metadata: dict[str, Any]


class TrackerProblem(Exception):
    """The tracker could not, or would not, do what was asked (RFC 9457).

    Attributes:
        status: that of HTTP.
        field: the field that is to blame, if one is.
        problem: the problem document.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.field: str = self.problem.get("field", "")
        blamed = f"{self.field}: " if self.field else ""
        super().__init__(
            f"{status} {self.problem.get('title', '')}: {blamed}{self.problem.get('detail', '')}"
        )


class _Page(Shown, frozen=True):
    items: list[TrackingRecord]
    next_cursor: str | None = None


class _Outcome(Shown, frozen=True):
    outcome: str | None = None


class _Cleaned(Shown, frozen=True):
    removed_count: int
    complete: bool


class DeliveryTracker:
    """Track messages, say what became of them, ask, and listen.

    All that asks or says needs workers only; `start` is needed to listen. Methods that say something return
    when it is committed. Use it as ``async with DeliveryTracker(url) as tracker``, or call `start`, `stop`.

    Args:
        url: of any worker; it answers for all.
        broker_url: brokers as in the settings, ``kafka://host:port``.
        topic_prefix: as in the settings.
        wait_s: how long to wait for what is said to be committed, up to 30.

    Raises (every method that asks a worker):
        TrackerProblem: it answered with a problem; 503 may be tried again.
        aiohttp.ClientError, TimeoutError: it did not answer.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:6066",
        *,
        broker_url: str = "kafka://127.0.0.1:9092",
        topic_prefix: str = "delivery.",
        wait_s: float = 30.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._bootstrap = [part.removeprefix("kafka://") for part in broker_url.split(";")]
        self._topic = f"{topic_prefix}events"
        self._wait = f"{round(wait_s * 1000)}ms"
        self._emitter = AsyncIOEventEmitter()
        # pyee raises what nobody listens for; a listener that fails must not keep the others from theirs
        self._emitter.on("error", _log_failure)
        self._session: aiohttp.ClientSession | None = None
        self._listening: asyncio.Task[None] | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen from now on: every event that is committed after this returns goes to the listeners."""
        async with self._starting:
            if self._listening is None:
                await self._start()

    async def _start(self) -> None:
        consumer = AIOKafkaConsumer(
            self._topic,
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="latest",
            fetch_max_wait_ms=100,
        )
        try:
            await consumer.start()
            if not consumer.assignment():
                raise LookupError(f"there is no topic {self._topic}; is the prefix right?")
            # its place is "the end" only once it has asked where that is
            await asyncio.gather(*(consumer.position(partition) for partition in consumer.assignment()))
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer
        self._listening = asyncio.create_task(self._listen(consumer), name="delivery-tracker-events")
        self.emit("tracker:started")

    async def stop(self) -> None:
        """Listen no longer, and close what is open; the workers go on, and so do listeners that still run."""
        listening, self._listening = self._listening, None
        if listening is not None and self._consumer is not None:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
            await self._consumer.stop()
            self.emit("tracker:stopped")
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def track_message(
        self,
        message_id: str,
        phone_number: str,
        template_id: str,
        provider: str,
        *,
        initial_status: Status | None = None,
        metadata: Mapping[str, Any] | None = None,
        webhooks: Sequence[Webhook] | None = None,
        channel: str | None = None,
        tenant: str | None = None,
        created_at: datetime | None = None,
        scheduled_at: datetime | None = None,
        max_tracking_duration_ms: int | None = None,
    ) -> None:
        """Begin to track a message; one that is tracked already is amended.

        The message is waited for from its creation on, or from `scheduled_at` if it is to be sent later.
        """
        said = {
            "messageId": message_id,
            "phoneNumber": phone_number,
            "templateId": template_id,
            "provider": provider,
            "initialStatus": initial_status,
            "metadata": metadata,
            "webhooks": webhooks,
            "channel": channel,
            "tenant": tenant,
            "createdAt": created_at or datetime.now(UTC),
            "scheduledAt": scheduled_at,
            "maxTrackingDuration": max_tracking_duration_ms,
        }
        await self._say("POST", "/v1/messages", said)

    async def update_status(
        self,
        message_id: str,
        status: Status,
        *,
        provider: str | None = None,
        error: MessageError | None = None,
        metadata: Mapping[str, Any] | None = None,
        source: Source = "system",
        sent_at: datetime | None = None,
        delivered_at: datetime | None = None,
        read_at: datetime | None = None,
        clicked_at: datetime | None = None,
        failed_at: datetime | None = None,
        timestamp: datetime | None = None,
        attempt: int | None = None,
        id: str | None = None,
    ) -> bool:
        """Say what became of a message; say whether that changed anything of its record.

        Args:
            timestamp: when it happened; now, if it is not given.
            id: the callback's own identity: what is said twice under one id and status counts once.
        """
        said = {
            "status": status,
            "provider": provider,
            "error": error,
            "metadata": metadata,
            "source": source,
            "sentAt": sent_at,
            "deliveredAt": delivered_at,
            "readAt": read_at,
            "clickedAt": clicked_at,
            "failedAt": failed_at,
            "timestamp": timestamp or datetime.now(UTC),
            "attempt": attempt,
            "id": id,
        }
        outcome = await self._say("POST", f"{_message(message_id)}/statuses", said)
        return outcome in ("applied", "amended")

    async def stop_tracking(self, message_id: str, reason: str | None = None) -> bool:
        """Stop tracking a message; say whether it was known."""
        query = f"reason={quote(reason, safe='')}" if reason else ""
        return await self._say("DELETE", _message(message_id), None, query) == "applied"

    async def erase(self, message_id: str) -> bool:
        """Forget what may be personal of a message; say whether it was known, with anything to forget."""
        return await self._say("POST", f"{_message(message_id)}/erase", None) == "applied"

    async def get_delivery_report(self, message_id: str) -> DeliveryReport | None:
        """Return how the delivery of a message stands, None if the message is not known."""
        body = await self._ask("GET", f"{_message(message_id)}/report", absent_is_none=True)
        return None if body is None else msgspec.json.decode(body, type=DeliveryReport)

    async def get_tracking_record(self, message_id: str) -> TrackingRecord | None:
        """Return all that is known of a message, None if that is nothing."""
        body = await self._ask("GET", _message(message_id), absent_is_none=True)
        return None if body is None else msgspec.json.decode(body, type=TrackingRecord)

    async def get_messages_by_status(self, status: Status, limit: int | None = None) -> list[TrackingRecord]:
        """Return the messages in a status, newest first; all of them, or so many."""
        found: list[TrackingRecord] = []
        async for record in self.messages_by_status(status):
            if limit is not None and len(found) >= limit:
                break
            found.append(record)
        return found

    async def messages_by_status(self, status: Status) -> AsyncIterator[TrackingRecord]:
        """Yield the messages in a status, newest first, page by page."""
        cursor: str | None = None
        while True:
            after = f"&cursor={cursor}" if cursor else ""
            body = await self._ask("GET", f"/v1/messages?status={quote(status)}&limit={PAGE}{after}")
            page = msgspec.json.decode(body, type=_Page)
            for record in page.items:
                yield record
            cursor = page.next_cursor
            if cursor is None:
                return

    async def get_stats(self) -> DeliveryStats:
        """Return how all messages stand."""
        return msgspec.json.decode(await self._ask("GET", "/v1/stats"), type=DeliveryStats)

    async def get_stats_for_period(self, start: datetime, end: datetime) -> DeliveryStats:
        """Return how the messages stand that were created from `start` to `end`, both included."""
        # the calls of HTTP leave out the end, as all do that are put together
        query = f"from={quote(_iso(start))}&to={quote(_iso(end + timedelta(milliseconds=1)))}"
        return msgspec.json.decode(await self._ask("GET", f"/v1/stats?{query}"), type=DeliveryStats)

    async def cleanup(self) -> int:
        """Have removed now what was kept for long enough; return how many records that were."""
        removed = 0
        while True:
            done = msgspec.json.decode(await self._ask("POST", "/v1/cleanup"), type=_Cleaned)
            removed += done.removed_count
            if done.complete:
                return removed
            # a worker that still catches up with its inputs keeps some back
            await asyncio.sleep(CLEANUP_PAUSE_S)

    def on(self, event_name: str, listener: Listener) -> Self:
        """Call a listener at every event of a name; it may be a coroutine function."""
        self._emitter.on(event_name, listener)
        return self

    def once(self, event_name: str, listener: Listener) -> Self:
        """Call a listener at the next event of a name only."""
        self._emitter.once(event_name, listener)
        return self

    def off(self, event_name: str, listener: Listener) -> Self:
        """Call a listener no longer; one that is not there is no error."""
        with suppress(KeyError):
            self._emitter.remove_listener(event_name, listener)
        return self

    def add_listener(self, event_name: str, listener: Listener) -> Self:
        """Do as `on`."""
        return self.on(event_name, listener)

    def remove_listener(self, event_name: str, listener: Listener) -> Self:
        """Do as `off`."""
        return self.off(event_name, listener)

    def remove_all_listeners(self, event_name: str | None = None) -> Self:
        """Remove the listeners of a name, or all."""
        self._emitter.remove_all_listeners(event_name)
        if event_name in (None, "error"):
            self._emitter.on("error", _log_failure)
        return self

    def emit(self, event_name: str, *args: Any) -> bool:
        """Call the listeners of a name, here and not elsewhere; say whether there are any."""
        return self._emitter.emit(event_name, *args)

    async def _say(self, method: str, path: str, said: Mapping[str, Any] | None, query: str = "") -> str:
        """Say something of a message and return its outcome; TimeoutError when that is not known yet."""
        present = None if said is None else {k: v for k, v in said.items() if v is not None}
        body = None if present is None else msgspec.json.encode(present)
        path = f"{path}?wait={self._wait}" + (f"&{query}" if query else "")
        answer = msgspec.json.decode(await self._ask(method, path, body), type=_Outcome)
        if answer.outcome is None:
            raise TimeoutError("it is in Kafka, but no worker has applied it in time")
        return answer.outcome

    async def _ask(
        self, method: str, path: str, body: bytes | None = None, absent_is_none: bool = False
    ) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=DEFAULT_TIMEOUT_S), cookie_jar=aiohttp.DummyCookieJar()
            )
        headers = {} if body is None else {"Content-Type": "application/json"}
        target = URL(self._url + path, encoded=True)
        async with self._session.request(method, target, data=body, headers=headers) as answer:
            said = await answer.read()
        if answer.status in (200, 202):
            return said
        problem = _problem(said)
        if absent_is_none and answer.status == 404 and "messageId" in problem:
            return None
        raise TrackerProblem(answer.status, problem)

    async def _listen(self, consumer: AIOKafkaConsumer) -> None:
        """Tell the listeners what comes, in the order of each partition, until cancelled.

        A broker that is away is waited for. What cannot be waited for ends it, and is told as `error`.
        """
        try:
            async for record in consumer:
                try:
                    self._tell(msgspec.json.decode(record.value))
                except Exception:
                    log.exception("event at %s/%s/%s", record.topic, record.partition, record.offset)
        except Exception as error:
            log.exception("listening has ended; stop() and start() begin anew")
            self.emit("error", error)

    def _tell(self, event: dict[str, Any]) -> None:
        name = event["type"].replace(".", ":", 1)
        at = msgspec.convert(event["occurredAt"], datetime)
        if "workerId" in event:
            # what a worker says of itself; the seed's own names of it are this object's
            name = name.replace("tracker:", "worker:")
            self.emit(name, event)
            return
        if "deliveryReport" not in event:
            # of a provider
            self.emit(name, event)
            return
        metadata = event["deliveryReport"].get("metadata", {})
        kind = MESSAGE_EVENT + event["currentStatus"].lower()
        self.emit(name, MessageEvent(event["id"], kind, at, event, metadata))


def _log_failure(error: object) -> None:
    log.error("a listener failed: %r", error)


def _message(message_id: str) -> str:
    return f"/v1/messages/{quote(message_id, safe='')}"


def _iso(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError("the time has no zone: write datetime(…, tzinfo=UTC)")
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return problem if isinstance(problem, dict) else {}
