"""From produced callback to event read by a read_committed consumer, at a steady rate."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.brokers import ANSWER_S, fresh_place, make_topics
from bench.ours import BenchFailed, until_ready, worker
from streams.demo.places import Place
from streams.demo.producing import bootstrap_servers

WARM_S = 5.0
LAST_S = 10.0
DELIVERED_AFTER_S = 1.0
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


class Event(msgspec.Struct, rename="camel", gc=False):
    type: str
    # workers tell of themselves in the same topic
    message_id: str = ""
    current_status: str = ""


@dataclass
class Reader:
    """Reads events in a thread and notes when each update was seen."""

    bootstrap: str
    place: Place
    name: str

    def __post_init__(self) -> None:
        self.seen: dict[tuple[str, str], float] = {}
        self.stopped = threading.Event()
        self.assigned = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "bench-latency",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 5,
                "fetch.queue.backoff.ms": 1,
            }
        )
        topic, decode = self.place.events, msgspec.json.Decoder(Event).decode
        places = [TopicPartition(topic, number) for number in range(self.place.partitions)]
        for place in places:
            place.offset = consumer.get_watermark_offsets(place, timeout=ANSWER_S)[1]
        consumer.assign(places)
        self.assigned.set()
        while not self.stopped.is_set():
            for message in consumer.consume(500, 0.002):
                if message.error():
                    continue
                now = time.perf_counter()
                event = decode(message.value())
                if event.type == "status.updated" and event.message_id.startswith(self.name):
                    self.seen[event.message_id, event.current_status] = now
        consumer.close()


def measure(url: str, rate: int, seconds: float) -> dict[str, float]:
    """Return the quantiles in milliseconds, and how many callbacks they are of.

    Half of the callbacks say SENT of new messages, half say DELIVERED of messages sent a second before.
    """
    place = fresh_place("latency")
    make_topics(url, place)
    with worker(url, place) as process:
        until_ready(process)
        return measure_now(url, place, rate, seconds)


def measure_now(url: str, place: Place, rate: int, seconds: float, name: str = "lat") -> dict[str, float]:
    """Do so on a worker that runs already; `name` begins the ids of the messages."""
    bootstrap = bootstrap_servers(url)
    reader = Reader(bootstrap, place, name)
    reader.thread.start()
    reader.assigned.wait(10)
    try:
        produced = produce(bootstrap, place, rate, WARM_S + seconds, name)
        _until_read(reader, len(produced))
    finally:
        reader.stopped.set()
        reader.thread.join(10)
    return _quantiles(produced, reader.seen)


def produce(
    bootstrap: str, place: Place, rate: int, seconds: float, name: str
) -> dict[tuple[str, str], float]:
    """Produce at a steady rate; return when each callback was, by message and status."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "partitioner": "murmur2_random"})
    encode, topic = msgspec.json.Encoder().encode, place.inputs["statuses"]
    produced: dict[tuple[str, str], float] = {}
    behind = int(rate * DELIVERED_AFTER_S / 2)
    started_at, sent = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started_at) < seconds:
        while sent < elapsed * rate:
            number, second = divmod(sent, 2)
            status = "DELIVERED" if second and number >= behind else "SENT"
            message_id = f"{name}-{number - behind if status == 'DELIVERED' else number}"
            if second and status == "SENT":  # nothing was sent a second ago yet
                message_id = f"{name}-early-{number}"
            value = {
                "messageId": message_id,
                "status": status,
                "timestamp": time.time(),
                "provider": "twilio",
                "source": "webhook",
                "channel": "sms",
                "attempt": 1,
            }
            produced[message_id, status] = time.perf_counter()
            producer.produce(topic, encode(value), message_id)
            sent += 1
        producer.poll(0)
        time.sleep(0.001)
    if producer.flush(30):
        raise BenchFailed("callbacks could not be produced within 30 s")
    return produced


def _until_read(reader: Reader, count: int) -> None:
    deadline = time.monotonic() + LAST_S
    while len(reader.seen) < count and time.monotonic() < deadline:
        time.sleep(0.05)


def _quantiles(
    produced: dict[tuple[str, str], float], seen: dict[tuple[str, str], float]
) -> dict[str, float]:
    missing = len(produced.keys() - seen.keys())
    if missing:
        raise BenchFailed(
            f"{missing:,} of {len(produced):,} callbacks came to no event within {LAST_S:.0f} s"
        )
    warm_until = min(produced.values()) + WARM_S
    delays = sorted((seen[which] - at) * 1000 for which, at in produced.items() if at >= warm_until)
    figures = {name: delays[int(q * (len(delays) - 1))] for name, q in QUANTILES.items()}
    return {"callbacks": len(delays), **figures}
