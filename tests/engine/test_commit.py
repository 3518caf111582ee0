"""What a commit makes of the broker's answers: aiokafka's real producer over a broker in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced
from faust.types import TP

from streams.engine import transactions
from streams.engine.formats import Format
from streams.engine.producing import Producer
from streams.engine.transactions import (
    VALUE_BYTES,
    BatchRefused,
    NotCommitted,
    Packer,
    ValueTooLarge,
    abandon,
    commit,
)
from streams.engine.units import Unit
from tests.engine.broker import Broker
from tests.engine.records import NUMBERS

MESSAGE_TOO_LARGE = 10
NOT_LEADER = 6
INVALID_TIMESTAMP = 32
DUPLICATE_SEQUENCE = 46
INVALID_PRODUCER_EPOCH = 47


class Table:
    """A table whose store remembers what was written to it."""

    name = "numbers"
    format: Format[Any] = NUMBERS
    changelog_topic_name = "changelog"

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self.offset: int | None = None

    @property
    def store(self) -> Table:
        return self

    def partition(self, number: int) -> Table:
        return self

    def write(self, writes: Any, offset: int, timestamp_ms: int) -> None:
        self.rows.update({key: value for key, value, *_ in writes})
        self.offset = offset


@pytest.fixture
def broker() -> Broker:
    return Broker()


async def transactional(broker: Broker) -> AIOKafkaProducer:
    return await broker.producer(transactional_id="app-0")


async def apply(producer: AIOKafkaProducer, table: Table, number: int) -> None:
    """Commit a unit that changes one row and emits one event."""
    unit = Unit(0, 1, lambda _, keys: [None] * len(keys))
    unit.table(table).put(b"row-%d" % number, number)
    unit.emit("events", b"event-%d" % number, b"")
    packer = Packer(producer)
    packer.pack(unit.take_outputs())
    packer.pack_changes(unit)
    await commit(producer, "group", 0, packer, {TP("input", 0): number + 1})


@pytest.mark.parametrize("topic", ["events", "changelog"])
@pytest.mark.parametrize("code", [MESSAGE_TOO_LARGE, INVALID_TIMESTAMP, -1])
async def test_a_unit_with_a_refused_batch_is_not_committed(broker: Broker, topic: str, code: int) -> None:
    """Neither its outputs nor its offset nor the table, whichever topic refused the batch."""
    producer, table = await transactional(broker), Table()
    await apply(producer, table, 0)
    broker.refusals[topic] = [code]

    with pytest.raises(NotCommitted) as caught:
        await apply(producer, table, 1)
    await producer.stop()

    assert isinstance(caught.value.__cause__, BatchRefused)
    assert f"{topic}/0" in str(caught.value.__cause__)
    assert (broker.offsets, broker.logs["events", 0]) == ({("input", 0): 1}, [b"event-0"])
    assert (table.rows, table.offset) == ({b"row-0": b"0"}, 0)


async def test_a_new_producer_commits_the_unit_again(broker: Broker) -> None:
    """The refused producer is out of sequence; the next one with its transactional id begins anew."""
    producer, table = await transactional(broker), Table()
    broker.refusals["events"] = [MESSAGE_TOO_LARGE]
    with pytest.raises(NotCommitted):
        await apply(producer, table, 0)
    await producer.stop()
    successor = await transactional(broker)
    await apply(successor, table, 0)
    await successor.stop()

    assert (broker.offsets, broker.logs["events", 0]) == ({("input", 0): 1}, [b"event-0"])
    assert table.rows == {b"row-0": b"0"}


async def test_a_retriable_error_is_retried_within_the_transaction(broker: Broker) -> None:
    """A leader that moves delays the commit, and nothing else."""
    producer, table = await transactional(broker), Table()
    broker.refusals["events"] = [NOT_LEADER, NOT_LEADER]
    await apply(producer, table, 0)
    await producer.stop()

    assert broker.logs["events", 0] == [b"event-0"]


async def test_a_changelog_batch_without_an_offset_is_not_committed(broker: Broker) -> None:
    """The store could not say how far it contains the changelog."""
    producer = await transactional(broker)
    broker.refusals["changelog"] = [DUPLICATE_SEQUENCE]

    with pytest.raises(NotCommitted):
        await apply(producer, Table(), 0)
    await producer.stop()

    assert broker.offsets == {}


async def test_a_fenced_producer_is_not_taken_for_a_refused_batch(broker: Broker) -> None:
    """Another worker has the partition; to commit the unit again is not this one's business."""
    producer = await transactional(broker)
    broker.refusals["events"] = [INVALID_PRODUCER_EPOCH]

    with pytest.raises(ProducerFenced):
        await apply(producer, Table(), 0)
    await producer.stop()

    assert broker.offsets == {}


@pytest.fixture
def outside(broker: Broker) -> Producer:
    return Producer(broker.make, lambda: 1_764_000_000_000)


async def produce(producer: Producer, *keys: bytes, size: int = 0) -> int:
    return await producer.produce("requests", 0, [(key, bytes(size), [], None) for key in keys])


async def test_records_outside_of_transactions_are_produced_after_a_refusal(
    broker: Broker, outside: Producer
) -> None:
    """One refused batch leaves a gap in the sequence of its producer, which is replaced."""
    assert await produce(outside, b"a") == 0
    broker.refusals["requests"] = [INVALID_TIMESTAMP]
    with pytest.raises(BatchRefused):
        await produce(outside, b"b")

    assert [await produce(outside, key) for key in (b"b", b"c")] == [1, 2]
    await outside.stop()
    assert broker.logs["requests", 0] == [b"a", b"b", b"c"]


async def test_a_refusal_replaces_the_producer_once_for_all_who_wait(
    broker: Broker, outside: Producer
) -> None:
    """Whoever fails later with the old producer leaves the new one alone."""
    await produce(outside, b"a")
    broker.refusals["requests"] = [INVALID_TIMESTAMP]
    results = await asyncio.gather(
        *(produce(outside, key) for key in (b"b", b"c", b"d")), return_exceptions=True
    )
    await produce(outside, b"e")
    await outside.stop()

    assert [type(result) for result in results] == [BatchRefused] * 3
    assert broker._ids == 2
    assert broker.logs["requests", 0] == [b"a", b"e"]


async def test_every_batch_outside_of_transactions_is_awaited(broker: Broker, outside: Producer) -> None:
    """Records of several batches are produced when the first one is stored, too, not only the last."""
    broker.refusals["requests"] = [MESSAGE_TOO_LARGE]

    with pytest.raises(BatchRefused):
        await produce(outside, b"a", b"b", b"c", size=20_000)
    await outside.stop()


async def test_a_value_that_no_changelog_takes_is_refused_before_the_transaction(broker: Broker) -> None:
    """The error has the table and the key; the broker's own would name a batch."""
    producer, table = await transactional(broker), Table()
    unit = Unit(0, 1, lambda _, keys: [None] * len(keys))
    table.format = Format(encode=lambda value: bytes(value), decode=len)
    unit.table(table).put(b"small", 10)
    unit.table(table).put(b"large", VALUE_BYTES + 1)

    with pytest.raises(ValueTooLarge) as caught:
        Packer(producer).pack_changes(unit)
    await producer.stop()

    assert (caught.value.table, caught.value.key) == ("numbers", b"large")


async def test_a_transaction_that_the_broker_does_not_store_is_given_up(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka would send it again for ever, and a rebalance would wait for it."""
    monkeypatch.setattr(transactions, "STORE_S", 0.05)
    producer = await transactional(broker)
    broker.refusals["events"] = [NOT_LEADER] * 100_000

    with pytest.raises(NotCommitted) as caught:
        await apply(producer, Table(), 0)
    await abandon(producer)

    assert "did not store it within" in str(caught.value.__cause__)
    assert broker.ended == []


async def test_a_fence_counts_for_more_than_a_refusal(broker: Broker) -> None:
    """To open the producer again would fence the one that owns the partition now."""
    producer = await transactional(broker)
    broker.refusals["changelog"], broker.refusals["events"] = [MESSAGE_TOO_LARGE], [INVALID_PRODUCER_EPOCH]

    with pytest.raises(ProducerFenced):
        await apply(producer, Table(), 0)
    await producer.stop()
