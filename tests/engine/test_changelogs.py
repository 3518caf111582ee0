"""What a real broker reports about changelogs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faust.types import TP

from streams.engine.changelogs import LogId, connected_changelogs
from tests.conftest import Broker, Names
from tests.engine.test_recovery import DAY_MS, NOON, Log, Worker

pytestmark = pytest.mark.kafka

#: Compacted as soon as a segment is closed; a tombstone is removed by the second compaction that meets it.
HASTY = {
    "cleanup.policy": "compact",
    "segment.ms": "1000",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "1",
}


@asynccontextmanager
async def connected_admin(kafka: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def create(kafka: Broker, topic: str, config: dict[str, str]) -> None:
    async with connected_admin(kafka) as admin:
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=config)])


async def id_of(kafka: Broker, tp: TP) -> LogId:
    async with connected_changelogs(kafka.bootstrap) as changelogs:
        return (await changelogs.ids({tp}))[tp]


@asynccontextmanager
async def producing(kafka: Broker) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=0)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def consuming(kafka: Broker, tp: TP) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(*tp)])
        yield consumer
    finally:
        await consumer.stop()


async def read(kafka: Broker, tp: TP) -> tuple[Sequence[Any], int]:
    """Return all records of a log that has some, and its end."""
    place = TopicPartition(*tp)
    async with consuming(kafka, tp) as consumer:
        end = (await consumer.end_offsets([place]))[place]
        records: list[Any] = []
        while await consumer.position(place) < end:
            records += (await consumer.getmany(place, timeout_ms=200)).get(place, [])
    return records, end


async def test_a_topic_made_anew_has_another_id(kafka: Broker, names: Names) -> None:
    """The same name in the same cluster, twice."""
    tp = TP(names.topic("log"), 0)
    await create(kafka, tp.topic, {})
    first = await id_of(kafka, tp)
    assert first == await id_of(kafka, tp)

    async with connected_admin(kafka) as admin:
        await admin.delete_topics([tp.topic])
    await create(kafka, tp.topic, {})
    second = await id_of(kafka, tp)

    assert first.topic_id
    assert first.cluster
    assert second == first._replace(topic_id=second.topic_id)
    assert not first.is_same(second)


async def test_ends_and_ages_are_the_logs(kafka: Broker, names: Names) -> None:
    """Where the broker stamps the records, that timestamp is what producer, log and consumer agree on."""
    tp = TP(names.topic("log"), 0)
    await create(kafka, tp.topic, {"message.timestamp.type": "LogAppendTime"})
    async with connected_changelogs(kafka.bootstrap) as changelogs, producing(kafka) as producer:
        assert await changelogs.ends({tp}) == {tp: 0}
        assert await changelogs.newer_than({tp: 0}) == frozenset()
        batch = producer.create_batch()
        batch.append(key=b"k", value=b"v", timestamp=1_000)
        batch.close()
        written = await (await producer.send_batch(batch, tp.topic, partition=0))

        assert written.timestamp_type == 1
        assert await changelogs.ends({tp}) == {tp: 1}
        assert await changelogs.newer_than({tp: written.timestamp - 1}) == {tp}
        assert await changelogs.newer_than({tp: written.timestamp}) == frozenset()
    records, _ = await read(kafka, tp)
    assert [record.timestamp for record in records] == [written.timestamp]


async def test_a_store_is_rebuilt_after_its_tombstones_were_compacted_away(
    kafka: Broker, names: Names, tmp_path: Path
) -> None:
    """The broker has removed a row and its deletion; a directory that is put back comes to the right rows."""
    tp = TP(names.topic("log"), 0)
    await create(kafka, tp.topic, HASTY)
    old, new = Worker(tmp_path / "old", tp), Worker(tmp_path / "new", tp)
    async with producing(kafka) as producer, connected_changelogs(kafka.bootstrap) as changelogs:

        async def write(key: bytes, value: bytes | None, day: float) -> None:
            timestamp_ms = NOON + round(day * DAY_MS)
            await producer.send_and_wait(tp.topic, value, key, partition=0, timestamp_ms=timestamp_ms)

        async def log() -> Log:
            return Log(*await read(kafka, tp), changelogs=changelogs)

        await write(b"a", b"1", 0)
        await old.recover(await log())
        await write(b"a", None, 0.1)
        day = 4.0
        while any(record.key == b"a" for record in (await log()).records):
            # each closes the segment before
            await write(b"b", b"2", day)
            day += 0.01
            await asyncio.sleep(0.2)
        compacted = await log()

        assert await new.recover(compacted) == await old.recover(compacted)
    assert old.rows() == new.rows() == [(b"b", b"2")]
