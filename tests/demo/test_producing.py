"""Rules of producing simulated traffic, without a broker."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from streams.demo.producing import Packer, bootstrap_servers, fill, key_hash, play
from streams.demo.traffic import Sample


class Batch:
    def __init__(self, room: int) -> None:
        self.room = room
        self.records: list[Any] = []

    def append(self, **record: Any) -> object | None:
        if len(self.records) == self.room:
            return None
        self.records.append(record)
        return self

    def close(self) -> None: ...

    def record_count(self) -> int:
        return len(self.records)


class Producer:
    """Takes batches of three records and keeps them."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, list[Any]]] = []

    def create_batch(self) -> Batch:
        return Batch(3)

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
        self.sent.append((topic, partition, batch.records))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


TOPICS = {"requests": "t.requests", "statuses": "t.statuses"}


def sample(number: int, at_ms: int = 0, shift: int = 0) -> Sample:
    return Sample("statuses", b"key-%d" % number, b"%d" % number, at_ms, shift)


def test_each_record_lands_once_on_its_keys_partition() -> None:
    """In order within a partition, batches cut where they are full."""
    producer = Producer()
    samples = [sample(number % 5) for number in range(100)]

    assert asyncio.run(fill(Packer(producer, TOPICS, 4), samples)) == 100

    laid = [(partition, r["key"]) for _, partition, records in producer.sent for r in records]
    assert len(laid) == 100
    assert all(partition == key_hash(key) % 4 for partition, key in laid)
    assert all(len(records) <= 3 for *_, records in producer.sent)


def test_a_misplaced_record_lands_past_its_partition() -> None:
    """`shift` counts partitions from the key's own."""
    producer = Producer()
    asyncio.run(fill(Packer(producer, TOPICS, 4), [sample(1, shift=1)]))
    assert producer.sent[0][1] == (key_hash(b"key-1") + 1) % 4


def test_playing_waits_for_each_records_time() -> None:
    """No record goes out before its own time."""
    producer = Producer()
    start_ms = time.time_ns() // 1_000_000
    samples = iter([sample(1, start_ms), sample(2, start_ms + 150)])

    assert asyncio.run(play(Packer(producer, TOPICS, 1), samples)) == 2
    assert time.time_ns() // 1_000_000 >= start_ms + 150


def test_a_broker_url_names_its_bootstrap_servers() -> None:
    """One or several, with or without the scheme."""
    assert bootstrap_servers("kafka://127.0.0.1:9092") == "127.0.0.1:9092"
    assert bootstrap_servers("kafka://a:1;kafka://b:2") == "a:1,b:2"
    assert bootstrap_servers("a:1,b:2") == "a:1,b:2"
