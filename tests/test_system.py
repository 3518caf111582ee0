"""A worker as its neighbours see it: foreign producers before it, a foreign consumer and HTTP behind it."""

import json
import random
import re
import signal
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import murmur2
from confluent_kafka import Producer

from streams.kafka.broker import EmbeddedKafka
from tests.faults.cluster import Cluster, Worker, until
from tests.faults.inputs import Json, Raw, iso
from tests.faults.logs import Names, of_messages, read_topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

PARTITIONS = 4
MESSAGES = 50
START_MS = 1_764_000_000_000
HUGE_BYTES = 10 * 1024 * 1024
PHONE = "+82109876"  # begins all phone numbers here; nothing else holds it
EVENT_FIELDS = {
    "id",
    "type",
    "messageId",
    "occurredAt",
    "currentStatus",
    "status",
    "source",
    "deliveryReport",
    "reason",
}
OPTIONAL_FIELDS = {"previousStatus", "provider", "trackingCompleted"}
HEADERS = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "content-type"]


def partition_of(key: str) -> int:
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % PARTITIONS)


@dataclass
class Producers:
    """Two services: one with librdkafka's default partitioner, one with Kafka's."""

    names: Names
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        common = {
            "bootstrap.servers": self.names.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.max.bytes": 2 * HUGE_BYTES,
        }
        self.default = Producer(common)
        self.murmur2 = Producer(common | {"partitioner": "murmur2_random"})

    def flush(self) -> None:
        assert self.default.flush(30) == self.murmur2.flush(30) == 0
        assert self.failures == []

    def send(self, by: Producer, stream: str, key: str | None, said: Json, timestamp: int = 0) -> None:
        """Produce a record; the timestamp is the producer's time when it is 0."""
        self.send_raw(by, stream, key=key, value=json.dumps(said).encode(), timestamp=timestamp)

    def send_raw(self, by: Producer, stream: str, **record: Any) -> None:
        by.produce(self.names.input(stream), on_delivery=self._delivered, **record)

    def _delivered(self, error: object, _message: object) -> None:
        if error is not None:
            self.failures.append(str(error))


def told(names: Names) -> list[Raw]:
    """The events of messages; workers tell of themselves in the same topic."""
    logs = read_topic(names, f"{names.prefix}events").values()
    return [raw for log in logs for raw in of_messages(log)]


def request(n: int) -> Json:
    return {
        "type": "track",
        "messageId": f"m-{n}",
        "phoneNumber": f"{PHONE}{n:04d}",
        "templateId": "otp",
        "provider": "acme",
        "createdAt": START_MS + n * 1000,
    }


def status(n: int, name: str, after_ms: int) -> Json:
    at = iso(START_MS + n * 1000 + after_ms)
    return {"messageId": f"m-{n}", "status": name, "provider": "acme", "timestamp": at}


def produce(producers: Producers) -> int:
    """Produce all that is said about the messages, each message's records over both producers.

    Returns: how many records there are.
    """
    rng = random.Random(5)
    both = [producers.default, producers.murmur2]
    sent = 0
    for n in range(MESSAGES):
        rng.shuffle(both)
        first, second = both
        # some services know no key, or take another one
        key = (None, f"{PHONE}{n:04d}")[n // 5 % 2] if n % 5 == 0 else f"m-{n}"
        says: list[tuple[Producer, str, str | None, Json]] = [
            (first, "requests", f"m-{n}", request(n)),
            (second, "statuses", f"m-{n}", status(n, "SENT", 100)),
            (first, "statuses", key, status(n, "DELIVERED", 250)),
            (second, "statuses", f"m-{n}", status(n, "DELIVERED", 250)),
        ]
        if n % 5 == 1:
            says.append((second, "requests", (None, f"{PHONE}{n:04d}")[n // 5 % 2], request(n)))
        for said in says:
            # some clients write seconds, or what their memory holds
            producers.send(*said, timestamp=START_MS // 1000 if n % 7 == 3 else 0)
        sent += len(says)
    producers.flush()
    return sent


@dataclass
class Outcome:
    """What one run over both producers left behind."""

    records: dict[str, tuple[int, Json]]  # by message id, as HTTP answers
    by_phone: int  # status of asking for a message by a key that is not its id
    stats: Json
    metrics: str
    log: str
    sent: int
    names: Names
    events: list[Raw]


def metrics_of(worker: Worker) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def counted(metrics: str, outcome: str = "(?!ticked|judged)[a-z-]+") -> int:
    """The sum of tracker_records_total over all partitions; of no worker's own ticks."""
    samples = re.findall(
        rf'^tracker_records_total\{{[^}}]*outcome="{outcome}"[^}}]*\}} (\S+)', metrics, re.MULTILINE
    )
    return int(sum(map(float, samples)))


def fresh_names(bootstrap: str) -> Names:
    """Topics and a group that no other test has, on the broker that all share."""
    unique = f"t{random.SystemRandom().randrange(16**8):08x}"
    return Names(bootstrap, f"{unique}-app", f"{unique}.", PARTITIONS)


@pytest.fixture(scope="module")
def outcome(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    directory = tmp_path_factory.mktemp("system")
    names = fresh_names(kafka.bootstrap)
    with Cluster(names, directory) as cluster:
        cluster.create_topics()
        worker = cluster.worker("w0")
        worker.start()
        sent = produce(Producers(names))
        cluster.await_ready(worker)
        cluster.await_caught_up(30)
        # the offsets are committed a moment before the tables are written and the outcomes counted
        until(
            lambda: counted(m := metrics_of(worker)) == sent + counted(m, "forwarded"),
            10,
            "all records counted",
        )
        yield Outcome(
            records={f"m-{n}": worker.get(f"/v1/messages/m-{n}") for n in range(MESSAGES)},
            by_phone=worker.get(f"/v1/messages/%2B{PHONE[1:]}0005")[0],
            stats=worker.get("/v1/stats")[1],
            metrics=metrics_of(worker),
            log=worker.log.read_text(),
            sent=sent,
            names=names,
            events=told(names),
        )


def test_records_of_one_message_from_both_partitioners_make_one_delivery(outcome: Outcome) -> None:
    """Whatever partition or key its records came under, a message has one record, a callback one entry."""
    for n in range(MESSAGES):
        code, record = outcome.records[f"m-{n}"]
        assert code == 200, record
        assert record["messageId"] == f"m-{n}"
        assert (record["tracked"], record["currentStatus"]) == (True, "DELIVERED")
        assert record["phoneNumber"] == f"{PHONE}{n:04d}"
        assert sorted(entry["status"] for entry in record["statusHistory"]) == ["DELIVERED", "QUEUED", "SENT"]
        assert all(entry["timeSource"] == "given" for entry in record["statusHistory"])
        assert record["updatedAt"] > iso(START_MS)
        report = record["deliveryReport"]
        at = START_MS + n * 1000
        assert (report["sentAt"], report["deliveredAt"]) == (iso(at + 100), iso(at + 250))

    assert outcome.by_phone == 404
    assert outcome.stats["totalMessages"] == MESSAGES
    assert outcome.stats["byStatus"]["DELIVERED"] == MESSAGES
    assert outcome.stats["averageDeliveryTime"] == 150
    assert counted(outcome.metrics, "dead-lettered") == 0


def test_what_is_forwarded_is_counted_and_warned_of_once_a_topic(outcome: Outcome) -> None:
    """Operators learn of a wrong partitioner from one line a topic and a counter, which name no recipient."""
    assert 0 < counted(outcome.metrics, "forwarded") < outcome.sent
    for stream in ("requests", "statuses"):
        lines = [
            line for line in outcome.log.splitlines() if f"records of {outcome.names.input(stream)} " in line
        ]
        assert len(lines) == 1, lines
        assert "forwarded" in lines[0]
        assert "WARN" in lines[0]
    assert PHONE not in outcome.log


def test_each_event_is_the_cloud_event_that_the_contract_says(outcome: Outcome) -> None:
    """A foreign consumer finds key, headers and value of every event as docs/contract.md has them."""
    ids = [json.loads(event.value or b"")["id"] for event in outcome.events]
    assert len(ids) == len(set(ids)) >= 3 * MESSAGES
    for event in outcome.events:
        value = json.loads(event.value or b"")
        assert event.key == value["messageId"].encode()
        assert event.partition == partition_of(value["messageId"])
        assert [name for name, _ in event.headers] == HEADERS
        assert dict(event.headers) == {
            "ce_specversion": b"1.0",
            "ce_id": value["id"].encode(),
            "ce_source": b"/delivery-tracker",
            "ce_type": value["type"].encode(),
            "ce_time": value["occurredAt"].encode(),
            "ce_subject": event.key,
            "content-type": b"application/json",
        }
        assert value.keys() >= EVENT_FIELDS
        assert value.keys() <= EVENT_FIELDS | OPTIONAL_FIELDS
        # the input record lay in the partition of its message, where its outcome was made
        assert re.fullmatch(rf"(requests|statuses)-{event.partition}-\d+-\d", value["id"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value["occurredAt"])
        assert value.get("trackingCompleted", False) is (value["type"] == "tracking.completed")
        assert (value["status"], value["source"]) in {
            ("QUEUED", "system"),
            ("SENT", "provider"),
            ("DELIVERED", "provider"),
        }
        assert value["deliveryReport"]["messageId"] == value["messageId"]
        assert value["deliveryReport"]["status"] == value["currentStatus"]


def test_the_events_of_a_message_tell_its_story_in_order(outcome: Outcome) -> None:
    """Each event goes on from the status where the one before it left off; start and completion come once."""
    stories: dict[str, list[Json]] = {}
    for event in sorted(outcome.events, key=lambda event: event.offset):
        value = json.loads(event.value or b"")
        stories.setdefault(value["messageId"], []).append(value)
    assert stories.keys() == {f"m-{n}" for n in range(MESSAGES)}
    for message_id, story in stories.items():
        types = [event["type"] for event in story]
        assert types.count("tracking.started") == types.count("tracking.completed") == 1, types
        current, cause = None, ""
        for event in story:
            # several events of one input record tell of the same step
            same_step = event["id"].rpartition("-")[0] == cause
            assert same_step or event.get("previousStatus") == current, story
            moved = event["currentStatus"] != event.get("previousStatus")
            assert moved or event["type"] in ("status.amended", "tracking.started"), story
            current, cause = event["currentStatus"], event["id"].rpartition("-")[0]
        assert current == "DELIVERED"
        assert story[-1]["deliveryReport"] == outcome.records[message_id][1]["deliveryReport"]


def test_a_huge_record_that_does_not_compress_becomes_a_dead_letter(
    kafka: Any, names: Any, tmp_path: Path
) -> None:
    """10 MiB of noise between two good records goes whole to the dead letters and holds up neither."""
    topics = Names(kafka.bootstrap, names.app_id, names.prefix, PARTITIONS)
    one, other = [n for n in range(100) if partition_of(f"m-{n}") == 2][:2]
    noise = random.Random(10).randbytes(HUGE_BYTES)
    headers = [("trace", b"\x00\xff"), ("trace", b"again"), ("empty", b""), ("none", None)]
    huge = {"key": b"\xff\x00 no id", "value": noise, "headers": headers, "timestamp": START_MS}
    producers = Producers(topics)
    with Cluster(topics, tmp_path) as cluster:
        cluster.create_topics()
        worker = cluster.worker("w0")
        worker.start()
        producers.send(producers.murmur2, "statuses", f"m-{one}", status(one, "SENT", 0))
        producers.send_raw(producers.murmur2, "statuses", partition=2, **huge)
        producers.send(producers.murmur2, "statuses", f"m-{other}", status(other, "SENT", 0))
        producers.flush()
        cluster.await_ready(worker)
        pages = [f"/v1/messages/m-{n}" for n in (one, other)]
        until(lambda: all(worker.get(page)[0] == 200 for page in pages), 30, "both good ones applied")
        cluster.await_caught_up(10)
        letters = read_topic(topics, f"{topics.prefix}dead-letters")
        until(lambda: counted(metrics_of(worker)) == 3, 10, "all records counted")
        assert counted(metrics_of(worker), "dead-lettered") == 1

    assert {p: len(log) for p, log in letters.items()} == {2: 1}
    (letter,) = letters[2]
    assert letter.value == noise
    assert (letter.key, letter.timestamp) == (huge["key"], START_MS)
    assert list(letter.headers[: len(headers)]) == headers
    reasons = dict(letter.headers[len(headers) :])
    assert reasons.pop("__connect.errors.exception.message")
    assert reasons.pop("__connect.errors.exception.class.name")
    assert reasons == {
        "__connect.errors.topic": topics.input("statuses").encode(),
        "__connect.errors.partition": b"2",
        "__connect.errors.offset": b"1",
        "tracker-error-code": b"too-large",
        "tracker-dead-letter-id": b"statuses-2-1",
    }


def test_what_is_called_over_http_is_applied_like_any_record(kafka: Any, tmp_path: Path) -> None:
    """Track, say, erase and stop a message by HTTP alone; each call is answered with its place in Kafka."""
    names = fresh_names(kafka.bootstrap)
    with Cluster(names, tmp_path) as cluster:
        cluster.create_topics()
        worker = cluster.worker("w0")
        worker.start()
        cluster.await_ready(worker)

        def call(method: str, path: str, said: Json | None = None) -> Json:
            url = f"http://127.0.0.1:{worker.port}/v1/messages{path}"
            body = None if said is None else json.dumps(said).encode()
            asked = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
            with urllib.request.urlopen(asked, timeout=15) as answer:
                assert answer.status == 202
                placed: Json = json.loads(answer.read())
            assert placed["partition"] == partition_of("m-1")
            return placed

        def shown() -> Json:
            return worker.get("/v1/messages/m-1")[1]

        tracked = call("POST", "", {name: said for name, said in request(1).items() if name != "type"})
        assert tracked["topic"] == names.input("requests")
        until(lambda: shown().get("tracked"), 15, "the message is tracked")
        call("POST", "/m-1/statuses", {"status": "SENT", "provider": "acme"})
        until(lambda: shown().get("currentStatus") == "SENT", 15, "the status is applied")
        call("POST", "/m-1/erase")
        until(lambda: shown().get("erased"), 15, "the message is erased")
        assert "phoneNumber" not in shown()
        call("DELETE", "/m-1?reason=asked")
        until(lambda: worker.get("/v1/messages/m-1")[0] == 404, 15, "the message is gone")

        events = [json.loads(raw.value or b"") for raw in told(names)]
        assert [event["type"] for event in events] == [
            "tracking.started",
            "status.updated",
            "tracking.erased",
            "tracking.stopped",
        ]
        assert events[-1]["reason"] == "asked"
        assert PHONE not in json.dumps(events[2:])


def test_a_worker_that_is_told_to_stop_stops_though_the_broker_has_gone(tmp_path: Path) -> None:
    """aiokafka would wait for it to come back; a supervisor waits seconds, and data are safe by then."""
    with EmbeddedKafka(say=print) as broker:
        names = fresh_names(broker.url.removeprefix("kafka://"))
        cluster = Cluster(names, tmp_path)
        cluster.create_topics()
        worker = cluster.worker("w0")
        worker.start()
        cluster.await_ready(worker)
    with cluster:
        until(lambda: "marking coordinator dead" in worker.last_words(), 30, "it has noticed")

        worker.send(signal.SIGTERM)

        assert worker.wait(30) >= 0
