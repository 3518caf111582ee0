"""What was produced while no worker ran: webhooks and memory after the start."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from .cluster import Cluster, until
from .logs import Names, committed, count_records

PARTITIONS = 8
MESSAGES = 300
STATUSES = ("SENT", "DELIVERED", "READ")
#: A final status completes the tracking, so the completion follows DELIVERED.
EXPECTED = ("status.updated SENT", "status.updated DELIVERED", "tracking.completed", "status.updated READ")
LARGE_BYTES = 1 << 20
#: `FAULTS_LARGE_RECORDS` sets another number.
LARGE_RECORDS = int(os.environ.get("FAULTS_LARGE_RECORDS", "400"))
MEMORY_BYTES = 1 << 30

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(240 + LARGE_RECORDS // 10)]


class Receiver(ThreadingHTTPServer):
    """Answers 204 and keeps the bodies, in the order of their arrival."""

    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.bodies: list[dict[str, object]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Be silent."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, name="receiver", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def topics(kafka: Any, names: Any) -> Names:
    return Names(kafka.bootstrap, names.app_id, names.prefix, PARTITIONS)


def producer(names: Names) -> Producer:
    return Producer(
        {
            "bootstrap.servers": names.bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "message.max.bytes": 4 * LARGE_BYTES,
            "queue.buffering.max.kbytes": 256 * 1024,
        }
    )


def produce_messages(names: Names, url: str) -> None:
    """Produce a request with webhooks of its own and then the statuses, message by message."""
    to = producer(names)
    hook = {"url": url, "events": ["message.sent", "message.delivered", "message.read", "tracking.completed"]}
    for n in range(MESSAGES):
        message_id = f"m-{n}"
        request = {
            "type": "track",
            "messageId": message_id,
            "phoneNumber": "+82100000001",
            "templateId": "otp",
            "provider": "acme",
            "webhooks": [hook],
        }
        to.produce(f"{names.prefix}requests", json.dumps(request), message_id)
    assert to.flush(30) == 0
    for status in STATUSES:
        for n in range(MESSAGES):
            said = {"messageId": f"m-{n}", "status": status, "provider": "acme"}
            to.produce(f"{names.prefix}statuses", json.dumps(said), f"m-{n}")
    assert to.flush(30) == 0


def test_every_webhook_of_messages_from_a_downtime_arrives_in_order(topics: Names, tmp_path: Path) -> None:
    """A worker that starts later applies each request before the statuses that were produced after it."""
    extra = {"TRACKER_WEBHOOK_ALLOW": "127.0.0.1"}
    with receiver() as server, Cluster(topics, tmp_path, extra=extra) as cluster:
        cluster.create_topics()
        produce_messages(topics, server.url)
        worker = cluster.worker("w0")
        worker.start()
        cluster.await_ready(worker)
        cluster.await_caught_up()
        total = MESSAGES * len(EXPECTED)
        until(lambda: len(server.bodies) >= total, 60, f"{total} webhooks")
        arrived: dict[str, list[str]] = defaultdict(list)
        for body in list(server.bodies):
            data = body["data"]
            assert isinstance(data, dict)
            kind = str(body["type"])
            shown = f"{kind} {data['status']}" if kind == "status.updated" else kind
            arrived[data["messageId"]].append(shown)

    assert len(arrived) == MESSAGES
    assert {tuple(each) for each in arrived.values()} == {EXPECTED}


def test_a_backlog_of_large_records_is_processed_within_bounded_memory(topics: Names, tmp_path: Path) -> None:
    """They are too large to be read, so they go whole to the dead letters, a few at a time."""
    with Cluster(topics, tmp_path, unit_records=5_000) as cluster:
        cluster.create_topics()
        to = producer(topics)
        value = b"x" * (LARGE_BYTES - 200)
        for n in range(LARGE_RECORDS):
            to.produce(f"{topics.prefix}statuses", value, b"%d" % n, n % topics.partitions)
            to.poll(0)
            if n % 100 == 99:
                to.flush(60)
        assert to.flush(60) == 0
        worker = cluster.worker("w0")
        worker.start()
        cluster.await_ready(worker)
        peak = [0]

        def is_done() -> bool:
            assert worker.process is not None
            process = psutil.Process(worker.process.pid)
            running = [process, *process.children(recursive=True)]
            peak[0] = max(peak[0], *(each.memory_info().rss for each in running))
            # workers commit ticks of their own in the requests
            found = committed(topics)
            return sum(found.get(("statuses", p), 0) for p in range(PARTITIONS)) >= LARGE_RECORDS

        until(is_done, 120 + LARGE_RECORDS / 20, f"{LARGE_RECORDS} large records", every_s=0.2)

    print(f"peak memory {peak[0] / 2**20:,.0f} MiB")
    assert peak[0] < MEMORY_BYTES
    dead_letters = f"{topics.prefix}dead-letters"
    # the markers of the last transaction may reach their partitions after that of the group's offsets
    until(lambda: count_records(topics, dead_letters) >= LARGE_RECORDS, 30, "the last markers")
    assert count_records(topics, dead_letters) == LARGE_RECORDS
