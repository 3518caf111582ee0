"""The ceiling: a loop of confluent-kafka that polls, decodes, encodes and produces; no state, no transaction.

Run as `python -m bench.bare BOOTSTRAP SOURCE SINK COUNT HEADERS` (HEADERS: 0 or 1); prints JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

BATCH = 5_000
SILENT_S = 30.0


class Problem(msgspec.Struct, gc=False):
    code: str
    message: str | None = None


class Status(msgspec.Struct, rename="camel", gc=False):
    message_id: str
    status: str
    timestamp: str | None = None
    provider: str | None = None
    attempt: int | None = None
    source: str | None = None
    error: Problem | None = None
    metadata: dict[str, Any] | None = None
    sent_at: str | None = None
    delivered_at: str | None = None
    read_at: str | None = None
    clicked_at: str | None = None
    failed_at: str | None = None
    phone_number: str | None = None
    template_id: str | None = None


class Attempt(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    attempt_number: int
    provider: str | None
    attempted_at: str | None
    status: str
    error: Problem | None = None


class Report(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    message_id: str
    status: str
    attempts: list[Attempt]
    phone_number: str | None = None
    sent_at: str | None = None
    delivered_at: str | None = None
    read_at: str | None = None
    clicked_at: str | None = None
    failed_at: str | None = None
    error: Problem | None = None
    metadata: dict[str, Any] | None = None


class Event(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    id: str
    type: str
    message_id: str
    occurred_at: str | None
    current_status: str
    status: str
    provider: str | None
    source: str | None
    delivery_report: Report


def event_of(said: Status, event_id: str) -> Event:
    attempt = Attempt(1, said.provider, said.timestamp, said.status, said.error)
    report = Report(
        said.message_id,
        said.status,
        [attempt],
        said.phone_number,
        said.sent_at,
        said.delivered_at,
        said.read_at,
        said.clicked_at,
        said.failed_at,
        said.error,
        said.metadata,
    )
    return Event(
        event_id,
        "status.updated",
        said.message_id,
        said.timestamp,
        said.status,
        said.status,
        said.provider,
        said.source,
        report,
    )


def headers_of(event: Event, key: bytes) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.id.encode()),
        ("ce_source", b"/delivery-tracker"),
        ("ce_type", event.type.encode()),
        ("ce_time", (event.occurred_at or "").encode()),
        ("ce_subject", key),
        ("content-type", b"application/json"),
    ]


def run(bootstrap: str, source: str, sink: str, count: int, with_headers: bool) -> dict[str, float]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-bare",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 262_144,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": "zstd",
            "linger.ms": 20,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 1_048_576,
        }
    )
    partitions = len(consumer.list_topics(source, timeout=15).topics[source].partitions)
    consumer.assign([TopicPartition(source, number, 0) for number in range(partitions)])
    decode = msgspec.json.Decoder(Status).decode
    encode = msgspec.json.Encoder().encode
    before = resource.getrusage(resource.RUSAGE_SELF)
    done, started_at, heard_at = 0, 0.0, time.monotonic()
    while done < count:
        messages = consumer.consume(BATCH, 0.5)
        if messages:
            heard_at = time.monotonic()
            started_at = started_at or heard_at
        elif time.monotonic() - heard_at > SILENT_S:
            raise SystemExit(f"the topic went silent after {done:,} of {count:,}")
        for message in messages:
            key, partition = message.key(), message.partition()
            event = event_of(decode(message.value()), f"statuses-{partition}-{message.offset()}-0")
            headers = headers_of(event, key) if with_headers else None
            producer.produce(sink, encode(event), key, partition, headers=headers)
        producer.poll(0)
        done += len(messages)
    left = producer.flush(60)
    seconds = time.monotonic() - started_at
    consumer.close()
    if left:
        raise SystemExit(f"{left:,} events were not produced within 60 s")
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"records": done, "seconds": seconds, "cpu_s": cpu_s, "peak_bytes": after.ru_maxrss * 1024}


if __name__ == "__main__":
    _, bootstrap, source, sink, count, with_headers = sys.argv
    print(json.dumps(run(bootstrap, source, sink, int(count), with_headers == "1")))
