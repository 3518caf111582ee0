"""Every row of docs/parity.md, through a worker and a real broker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from aiohttp import web
from confluent_kafka import Producer
from standardwebhooks import Webhook as StandardWebhook

from streams.client import DeliveryTracker, MessageError, MessageEvent, TrackerProblem, Webhook
from streams.domain.statuses import Status
from tests.faults.cluster import Cluster, Worker, until
from tests.faults.hooks import topics_of
from tests.faults.logs import Names, read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

ROOT = Path(__file__).parent.parent
PARTITIONS = 2
HEARD_S = 20.0
PHONE = "+821098765432"
T0 = datetime(2026, 11, 2, 9, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LONG_AGO_MS = 1_400_000_000_000  # more than ten years


@pytest.fixture(scope="module")
def cluster(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One worker, which looks for what is due only when it is told to."""
    unique = f"t{uuid.uuid4().hex[:10]}"
    names = Names(kafka.bootstrap, f"{unique}-app", f"{unique}.", PARTITIONS)
    seal = {"TRACKER_SECRET_KEYS": f"k:{b64encode(bytes(32)).decode()}", "TRACKER_WEBHOOK_ALLOW": "127.0.0.1"}
    with Cluster(names, tmp_path_factory.mktemp("parity"), extra=seal) as cluster:
        cluster.create_topics()
        worker = cluster.worker("w0")
        worker.environment = worker.environment | {"TRACKER_SWEEP_INTERVAL": "1d"}
        worker.start()
        cluster.await_ready(worker)
        yield cluster


@pytest.fixture
def worker(cluster: Cluster) -> Worker:
    return cluster.workers["w0"]


def made(cluster: Cluster) -> DeliveryTracker:
    return DeliveryTracker(
        f"http://127.0.0.1:{cluster.workers['w0'].port}",
        broker_url=f"kafka://{cluster.names.bootstrap}",
        topic_prefix=cluster.names.prefix,
    )


@pytest.fixture
async def tracker(cluster: Cluster) -> AsyncIterator[DeliveryTracker]:
    async with made(cluster) as tracker:
        yield tracker


@pytest.fixture
def message_id() -> str:
    return f"m/{uuid.uuid4().hex[:8]} é"


class Heard:
    """What a tracker told of one message, in order."""

    def __init__(self, tracker: DeliveryTracker, message_id: str, *names: str) -> None:
        self.message_id = message_id
        self.events: list[tuple[str, MessageEvent]] = []
        self._came = asyncio.Event()
        for name in names:
            tracker.on(name, lambda event, name=name: self._take(name, event))

    def _take(self, name: str, event: MessageEvent) -> None:
        if event.data["messageId"] == self.message_id:
            self.events.append((name, event))
            self._came.set()

    async def until(self, name: str) -> MessageEvent:
        """Wait for an event of this name, and return it."""
        async with asyncio.timeout(HEARD_S):
            while True:
                for heard, event in self.events:
                    if heard == name:
                        return event
                self._came.clear()
                await self._came.wait()

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


async def tracked(tracker: DeliveryTracker, message_id: str, **options: Any) -> None:
    await tracker.track_message(message_id, PHONE, "otp", "solapi", **options)


async def test_tracking_needs_workers_only(cluster: Cluster, message_id: str) -> None:
    """An object that was never started, and knows no broker, tracks and asks; only listening needs one."""
    tracker = DeliveryTracker(
        f"http://127.0.0.1:{cluster.workers['w0'].port}/", broker_url="kafka://127.0.0.1:1"
    )

    await tracked(tracker, message_id)
    record = await tracker.get_tracking_record(message_id)
    await tracker.stop()

    assert record is not None
    assert record.current_status == "QUEUED"


async def test_start_and_stop_are_told(cluster: Cluster) -> None:
    """Once each, without an argument, however often they are called."""
    tracker, heard = made(cluster), []
    for name in ("tracker:started", "tracker:stopped"):
        tracker.on(name, lambda *args, name=name: heard.append((name, args)))

    await tracker.stop()
    await tracker.start()
    await tracker.start()
    await tracker.stop()
    await tracker.stop()

    assert heard == [("tracker:started", ()), ("tracker:stopped", ())]


async def test_a_worker_tells_of_its_own_life(cluster: Cluster, tracker: DeliveryTracker) -> None:
    """`worker:started` when it serves, `worker:stopped` when it is told to end; with its name."""
    started, stopped = asyncio.Queue[Any](), asyncio.Queue[Any]()
    tracker.on("worker:started", started.put_nowait).on("worker:stopped", stopped.put_nowait)
    worker = cluster.worker("w1")

    worker.start()
    began = await asyncio.wait_for(started.get(), 60)
    await asyncio.to_thread(worker.terminate)
    ended = await asyncio.wait_for(stopped.get(), HEARD_S)

    assert began["workerId"] == ended["workerId"]
    assert began["workerId"].endswith(f":{worker.port}")
    await asyncio.to_thread(answers_for_all, cluster.workers["w0"])


def answers_for_all(worker: Worker) -> None:
    """Wait until a worker has taken over what another one held."""
    until(lambda: worker.get("/v1/stats")[0] == 200, 60, "all partitions are answered for")


async def test_tracking_a_message(tracker: DeliveryTracker, message_id: str) -> None:
    """All options are in the record; a second request amends it and resets nothing."""
    await tracked(
        tracker,
        message_id,
        initial_status="SENT",
        metadata={"campaign": "a", "nested": {"x": [1]}},
        channel="alimtalk",
        tenant="t-1",
        created_at=T0,
        max_tracking_duration_ms=3_600_000,
    )
    await tracker.update_status(message_id, "DELIVERED", provider="solapi")
    await tracked(tracker, message_id, metadata={"more": None}, created_at=T0 + timedelta(seconds=1))

    record = await tracker.get_tracking_record(message_id)
    assert record is not None
    assert (record.phone_number, record.template_id, record.provider) == (PHONE, "otp", "solapi")
    assert (record.channel, record.tenant, record.tracked) == ("alimtalk", "t-1", True)
    assert (record.created_at, record.expires_at) == (T0, T0 + timedelta(hours=1))
    assert record.current_status == "DELIVERED"
    assert record.metadata == {"campaign": "a", "nested": {"x": [1]}, "more": None}
    assert [entry.status for entry in record.status_history] == ["SENT", "QUEUED", "DELIVERED"]
    with pytest.raises(TrackerProblem) as refused:
        await tracked(tracker, message_id, initial_status="LOST")
    assert (refused.value.status, refused.value.field) == (400, "initialStatus")


async def test_saying_a_status(tracker: DeliveryTracker, message_id: str) -> None:
    """True for what changes the record, in whatever order it comes; false for what is known, or refused."""
    error = MessageError("30003", "gone", {"raw": 1})

    assert await tracker.update_status(message_id, "FAILED", provider="a", error=error, failed_at=T0)
    failed = await tracker.get_delivery_report(message_id)
    assert failed is not None
    assert (failed.error, failed.failed_at) == (error, T0)
    later = {"provider": "b", "timestamp": T0 + timedelta(days=1), "id": "cb-1"}
    assert await tracker.update_status(
        message_id, "DELIVERED", **later, source="webhook", metadata={"cost": 3}
    )
    assert not await tracker.update_status(message_id, "DELIVERED", **later)
    assert await tracker.update_status(message_id, "SENT", attempt=2, provider="b", sent_at=T0, timestamp=T0)
    assert await tracker.update_status(message_id, "READ", provider="b", read_at=T0 + timedelta(days=2))
    assert await tracker.update_status(message_id, "CLICKED", provider="b", clicked_at=T0 + timedelta(days=3))

    record = await tracker.get_tracking_record(message_id)
    assert record is not None
    report = record.delivery_report
    assert (record.tracked, record.provider, report.status, report.error) == (False, "b", "CLICKED", None)
    assert (report.sent_at, report.delivered_at) == (T0, T0 + timedelta(days=1))
    assert (report.read_at, report.clicked_at) == (T0 + timedelta(days=2), T0 + timedelta(days=3))
    assert report.metadata == {"cost": 3}
    by_status = {entry.status: entry for entry in record.status_history}
    assert (by_status["DELIVERED"].id, by_status["DELIVERED"].source) == ("cb-1", "webhook")
    assert (by_status["SENT"].attempt, by_status["SENT"].source) == (2, "system")
    assert await tracker.stop_tracking(message_id)
    assert not await tracker.update_status(message_id, "SENT")


async def test_stopping_a_message(tracker: DeliveryTracker, message_id: str) -> None:
    """True if it was known; it is gone, and told of with the reason and the last report."""
    heard = Heard(tracker, message_id, "tracking:stopped")
    await tracked(tracker, message_id)

    assert await tracker.stop_tracking(message_id, "the customer & co")
    assert not await tracker.stop_tracking(message_id)
    assert not await tracker.stop_tracking(f"{message_id}-unknown")

    event = await heard.until("tracking:stopped")
    assert event.data["reason"] == "the customer & co"
    assert event.data["deliveryReport"]["phoneNumber"] == PHONE
    assert event.id
    assert await tracker.get_tracking_record(message_id) is None
    assert await tracker.get_delivery_report(message_id) is None


async def test_erasing_a_message(tracker: DeliveryTracker, message_id: str) -> None:
    """The recipient is gone from the record and from events; the status stays."""
    heard = Heard(tracker, message_id, "tracking:erased")
    await tracked(tracker, message_id)

    assert await tracker.erase(message_id)
    assert not await tracker.erase(message_id)

    record = await tracker.get_tracking_record(message_id)
    assert record is not None
    assert (record.erased, record.phone_number, record.current_status) == (True, None, "QUEUED")
    assert "phoneNumber" not in (await heard.until("tracking:erased")).data["deliveryReport"]


async def test_asking_for_a_message(tracker: DeliveryTracker, message_id: str) -> None:
    """Record, report, history and attempts, typed, times with a zone; what is not known is None."""
    await tracked(tracker, message_id, created_at=T0)
    sent = T0 + timedelta(seconds=1)
    await tracker.update_status(message_id, "SENT", provider="solapi", timestamp=sent)

    record = await tracker.get_tracking_record(message_id)
    report = await tracker.get_delivery_report(message_id)

    assert record is not None
    assert record.delivery_report == report
    assert (record.message_id, record.tracked, record.erased, record.history_folded) == (
        message_id,
        True,
        False,
        0,
    )
    assert report is not None
    assert (report.sent_at, report.delivered_at, report.contradiction) == (sent, None, False)
    (attempt,) = report.attempts
    assert (attempt.attempt_number, attempt.provider, attempt.status) == (1, "solapi", "SENT")
    assert attempt.attempted_at == T0
    queued, entry = record.status_history
    assert (queued.id, queued.source) == ("track", "system")
    assert (entry.timestamp, entry.time_source) == (sent, "given")
    assert entry.received_at.tzinfo is not None
    assert record.updated_at >= record.created_at
    assert await tracker.get_tracking_record(f"{message_id}-unknown") is None
    assert await tracker.get_delivery_report(f"{message_id}-unknown") is None


async def test_asking_by_status(tracker: DeliveryTracker, message_id: str) -> None:
    """Newest first, as many as are asked for; of a status that nothing is in, none."""
    for n in range(3):
        await tracker.update_status(f"{message_id}-{n}", "CANCELLED")

    newest = await tracker.get_messages_by_status("CANCELLED", limit=2)
    everything = await tracker.get_messages_by_status("CANCELLED")

    assert [record.message_id for record in newest] == [f"{message_id}-2", f"{message_id}-1"]
    assert [record.message_id for record in everything][:3] == [f"{message_id}-{n}" for n in (2, 1, 0)]
    assert {record.current_status for record in everything} == {"CANCELLED"}


async def test_statistics(tracker: DeliveryTracker, message_id: str) -> None:
    """Each message counts once, where it stands, for who delivered it; a click does not lower the rate."""
    before = await tracker.get_stats()
    provider = f"p-{message_id}"

    await tracker.update_status(message_id, "FAILED", provider="other")
    await tracker.update_status(message_id, "SENT", provider=provider, timestamp=T0)
    await tracker.update_status(
        message_id, "DELIVERED", provider=provider, timestamp=T0 + timedelta(seconds=3)
    )
    delivered = await tracker.get_stats()
    await tracker.update_status(message_id, "CLICKED", provider=provider)
    clicked = await tracker.get_stats()

    assert delivered.total_messages == before.total_messages + 1
    assert delivered.by_provider[provider] == 1
    assert delivered.by_status["DELIVERED"] == before.by_status["DELIVERED"] + 1
    assert clicked.by_status["CLICKED"] == before.by_status["CLICKED"] + 1
    assert clicked.delivery_rate == delivered.delivery_rate > 0
    assert delivered.average_delivery_time > 0
    assert delivered.last_updated is not None
    assert delivered.failure_rate == 100 * delivered.by_status["FAILED"] / delivered.total_messages


async def test_statistics_of_a_period(tracker: DeliveryTracker, message_id: str) -> None:
    """By createdAt, both ends included, whatever became of them; an end before the start is an error."""
    # of what is older than two days, windows of a minute are not kept
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=7)
    for n in range(4):
        at = begin + timedelta(milliseconds=n)
        await tracked(tracker, f"{message_id}-{n}", created_at=at)
    await tracker.update_status(f"{message_id}-1", "SENT", provider="solapi", timestamp=begin)
    await tracker.update_status(
        f"{message_id}-1", "DELIVERED", provider="solapi", timestamp=begin + timedelta(seconds=2)
    )

    stats = await tracker.get_stats_for_period(
        begin + timedelta(milliseconds=1), begin + timedelta(milliseconds=2)
    )
    nothing = await tracker.get_stats_for_period(begin - timedelta(minutes=2), begin - timedelta(minutes=1))

    assert stats.resolution == "exact"
    assert (stats.total_messages, stats.by_status["DELIVERED"], stats.by_status["QUEUED"]) == (2, 1, 1)
    assert (stats.by_provider, stats.average_delivery_time) == ({"solapi": 2}, 2000)
    assert (stats.delivery_rate, stats.failure_rate) == (50, 0)
    assert (nothing.total_messages, nothing.delivery_rate, nothing.last_updated) == (0, 0, None)
    with pytest.raises(TrackerProblem) as refused:
        await tracker.get_stats_for_period(begin, begin - timedelta(days=1))
    assert (refused.value.status, refused.value.field) == (400, "to")


async def test_cleaning_up(cluster: Cluster, tracker: DeliveryTracker, message_id: str) -> None:
    """What was kept for long enough is removed, what waited for long enough expires; both are told."""
    old, waiting = f"{message_id}-old", f"{message_id}-waiting"
    produce_at(cluster.names, LONG_AGO_MS, {"messageId": old, "status": "DELIVERED"})
    await tracked(tracker, message_id)
    await tracked(tracker, waiting, created_at=T0 - timedelta(days=300), max_tracking_duration_ms=1)
    removed = Heard(tracker, old, "tracking:removed")
    expired = Heard(tracker, waiting, "tracking:expired", "tracking:completed")
    cleaned = asyncio.Queue[Any]()
    tracker.on("cleanup:completed", cleaned.put_nowait)
    async with asyncio.timeout(HEARD_S):
        while await tracker.get_tracking_record(old) is None:
            await asyncio.sleep(0.05)
    before = await tracker.get_stats()

    count = await tracker.cleanup()

    assert count >= 1
    assert await tracker.get_tracking_record(old) is None
    assert (await removed.until("tracking:removed")).data["reason"] == "retention"
    assert (await expired.until("tracking:expired")).type == "message.expired"
    await expired.until("tracking:completed")
    assert (await asyncio.wait_for(cleaned.get(), HEARD_S))["removedCount"] == count
    record = await tracker.get_tracking_record(message_id)
    assert record is not None
    assert (await tracker.get_stats()).total_messages == before.total_messages
    assert await tracker.cleanup() == 0
    assert not await tracker.update_status(old, "CLICKED")


def produce_at(names: Names, at_ms: int, said: dict[str, Any]) -> None:
    """Produce a status as of long ago, as a replay does."""
    producer = Producer({"bootstrap.servers": names.bootstrap, "partitioner": "murmur2_random"})
    producer.produce(names.input("statuses"), json.dumps(said), said["messageId"], timestamp=at_ms)
    assert producer.flush(30) == 0


async def test_listening(tracker: DeliveryTracker, message_id: str) -> None:
    """Functions and coroutine functions, by both names, each once; a failing one keeps none from theirs."""
    calls: list[str] = []

    def fails(_: Any) -> None:
        raise RuntimeError("not my day")

    def plain(event: MessageEvent) -> None:
        calls.append(f"plain {event.data['messageId']}")

    async def coroutine(event: MessageEvent) -> None:
        calls.append(f"coroutine {event.data['messageId']}")

    assert tracker.on("status:updated", fails).on("status:updated", plain) is tracker
    tracker.on("status:updated", plain).add_listener("status:updated", coroutine)
    heard = Heard(tracker, message_id, "tracking:stopped")

    await tracker.update_status(message_id, "SENT")
    await tracker.stop_tracking(message_id)
    await heard.until("tracking:stopped")

    assert sorted(call for call in calls if message_id in call) == [
        f"coroutine {message_id}",
        f"plain {message_id}",
    ]


async def test_listening_once(tracker: DeliveryTracker, message_id: str) -> None:
    """The next event, and no other."""
    calls: list[Any] = []
    tracker.once("status:updated", calls.append)
    heard = Heard(tracker, message_id, "tracking:completed")

    await tracker.update_status(message_id, "SENT")
    await tracker.update_status(message_id, "DELIVERED")
    await heard.until("tracking:completed")

    assert len(calls) == 1


async def test_listening_no_longer(tracker: DeliveryTracker, message_id: str) -> None:
    """One listener, those of a name, or all; one that is not there is no error."""
    calls: list[Any] = []
    never = calls.append
    tracker.on("status:updated", never).off("status:updated", never).remove_listener("status:updated", never)
    tracker.once("status:amended", never).remove_all_listeners("status:amended")
    tracker.on("tracking:completed", never).remove_all_listeners()
    heard = Heard(tracker, message_id, "tracking:completed")

    await tracker.update_status(message_id, "DELIVERED")
    await tracker.update_status(message_id, "SENT")
    await heard.until("tracking:completed")

    assert calls == []


async def test_emitting(cluster: Cluster, tracker: DeliveryTracker) -> None:
    """Listeners of this object are called with the arguments; says whether there are any."""
    other, calls = made(cluster), []
    other.on("mine", lambda *args: calls.append(("other", args)))

    assert not tracker.emit("mine", 1)
    tracker.on("mine", lambda *args: calls.append(("own", args)))
    assert tracker.emit("mine", 1, "two")

    assert calls == [("own", (1, "two"))]


async def test_the_events_of_a_message(tracker: DeliveryTracker, message_id: str) -> None:
    """In order, each with an id of its own; completed once; the type names the status."""
    names = ("tracking:started", "status:updated", "status:amended", "tracking:completed")
    heard = Heard(tracker, message_id, *names, "tracking:stopped")

    await tracked(tracker, message_id, metadata={"campaign": "a"})
    await tracker.update_status(message_id, "SENDING", provider="solapi")
    await tracker.update_status(message_id, "DELIVERED", provider="solapi")
    await tracker.update_status(message_id, "SENT", provider="solapi")
    await tracker.update_status(message_id, "CLICKED", provider="solapi")
    await tracker.stop_tracking(message_id)
    await heard.until("tracking:stopped")

    assert [(name, event.type, event.data["reason"]) for name, event in heard.events] == [
        ("tracking:started", "message.queued", "requested"),
        ("status:updated", "message.sending", "progress"),
        ("status:updated", "message.delivered", "progress"),
        ("tracking:completed", "message.delivered", "final"),
        ("status:amended", "message.delivered", "late"),
        ("status:updated", "message.clicked", "progress"),
        ("tracking:stopped", "message.clicked", "requested"),
    ]
    events = [event for _, event in heard.events]
    assert len({event.id for event in events}) == len(events)
    assert {event.timestamp.tzinfo for event in events} == {UTC}
    assert [event.metadata for event in events] == [{"campaign": "a"}] * len(events)
    assert events[3].data["trackingCompleted"] is True
    assert events[1].data["previousStatus"] == "QUEUED"
    assert events[1].data["deliveryReport"]["messageId"] == message_id


async def test_a_final_initial_status_completes(tracker: DeliveryTracker, message_id: str) -> None:
    """A message that is tracked only after it came to its end is complete at once."""
    heard = Heard(tracker, message_id, "tracking:started", "tracking:completed")

    await tracked(tracker, message_id, initial_status="FAILED")

    assert (await heard.until("tracking:completed")).type == "message.failed"
    assert heard.names() == ["tracking:started", "tracking:completed"]


async def test_every_status_can_be_said(tracker: DeliveryTracker, message_id: str) -> None:
    """The seven of the original, READ and EXPIRED; another one is an error that names them."""
    for status in get_args(Status):
        assert await tracker.update_status(f"{message_id}-{status}", status)
        record = await tracker.get_tracking_record(f"{message_id}-{status}")
        assert record is not None
        assert record.current_status == status
    with pytest.raises(TrackerProblem) as refused:
        await tracker.update_status(message_id, "LOST")  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.field) == (400, "status")


async def test_options_are_settings_of_the_workers(
    cluster: Cluster, tracker: DeliveryTracker, message_id: str
) -> None:
    """How long a message is waited for and kept is the same for all who ask, and outlives the worker."""
    await tracked(tracker, message_id, created_at=T0)
    record = await tracker.get_tracking_record(message_id)
    assert record is not None
    assert record.expires_at == T0 + timedelta(milliseconds=cluster.ages.tracking_ms)

    worker = cluster.workers["w0"]
    await asyncio.to_thread(worker.kill)
    worker.start()
    await asyncio.to_thread(cluster.await_ready, worker)

    assert await tracker.get_tracking_record(message_id) == record


async def test_webhooks_of_a_message_are_sent(
    cluster: Cluster, tracker: DeliveryTracker, message_id: str
) -> None:
    """Signed and with headers, to where the request says; the record shows them without what is secret."""
    came: list[dict[str, str]] = []

    async def take(request: web.Request) -> web.Response:
        came.append({name.lower(): value for name, value in request.headers.items()})
        assert verify_standard(SECRET, came[-1], await request.read())["messageId"] == message_id
        return web.Response(status=204 if len(came) > 1 else 500)

    told: list[dict[str, Any]] = []
    tracker.on("webhook:delivered", told.append)
    heard = Heard(tracker, message_id, "tracking:completed")
    async with served(take) as url:
        hook = Webhook(url, ["message.delivered"], timeout=1_000, retries=1)
        secret = {"secret": SECRET, "headers": {"X-Key": "hidden_too"}}
        await tracked(tracker, message_id, webhooks=[msgspec.structs.replace(hook, **secret)])
        await tracker.update_status(message_id, "DELIVERED", provider="solapi")
        await heard.until("tracking:completed")
        async with asyncio.timeout(HEARD_S):
            while not any(event["messageId"] == message_id for event in told):
                await asyncio.sleep(0.05)

    assert [headers["x-key"] for headers in came] == ["hidden_too"] * 2
    assert came[0]["webhook-id"] == came[1]["webhook-id"] == told[-1]["eventId"]
    record = await tracker.get_tracking_record(message_id)
    assert record is not None
    assert record.webhooks == [hook]
    for topic in topics_of(cluster.names):
        logs = await asyncio.to_thread(read_topic, cluster.names, topic)
        text = b"".join(raw.value or b"" for log in logs.values() for raw in log)
        assert b"hidden_too" not in text
        assert SECRET.removeprefix("whsec_").encode() not in text
    with pytest.raises(TrackerProblem) as refused:
        await tracked(tracker, message_id, webhooks=[hook, Webhook("file:///etc/passwd")])
    assert (refused.value.status, refused.value.field) == (400, "webhooks[1].url")


def verify_standard(secret: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """What a webhook tells, if Standard Webhooks' own library takes its signature."""
    data: dict[str, Any] = StandardWebhook(secret).verify(body, headers)["data"]
    return data


@asynccontextmanager
async def served(take: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """The address of a receiver on loopback."""
    application = web.Application()
    application.router.add_post("/hook", take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}/hook".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


def test_the_example_calls_each_method(cluster: Cluster) -> None:
    """What the page names runs as it stands, and leaves no method out."""
    path = ROOT / "examples/tracker.py"
    url = f"http://127.0.0.1:{cluster.workers['w0'].port}"
    command = [sys.executable, "-m", "examples.tracker", "--url", url]
    command += ["--broker", f"kafka://{cluster.names.bootstrap}", "--prefix", cluster.names.prefix]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "report    DELIVERED: solapi FAILED, aligo DELIVERED" in done.stdout
    assert done.stdout.count("heard") == 7
    methods = [name for name in vars(DeliveryTracker) if not name.startswith("_")]
    assert [name for name in methods if f".{name}(" not in path.read_text()] == ["messages_by_status"]


def test_every_row_names_its_test() -> None:
    """docs/parity.md promises a test for each method, event, option and type."""
    page = (ROOT / "docs/parity.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    named = [row.rstrip(" |").rpartition("| ")[2].strip("`") for row in rows if "| test |" not in row]

    assert len(named) > 40
    assert [name for name in named if not callable(globals().get(name))] == []
