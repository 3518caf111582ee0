"""Codecs of batches; real ones, which are read again."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record import MemoryRecords

from streams.engine.compression import CODECS
from streams.engine.transactions import Packer
from streams.engine.units import NO_HEADERS, Output

#: Where the attributes of a batch are, and what they say (KIP-98).
ATTRIBUTES = slice(21, 23)
CODEC, IS_TRANSACTIONAL = 0x07, 0x10

OUTPUTS: list[Output] = [(b"k%d" % n, b"value %d " % n * 20, NO_HEADERS, None) for n in range(100)]


def batches(packer: Packer, topic: str) -> list[bytes]:
    return [bytes(batch._build()) for batch in packer._batches[topic, 0]]


def attributes(batch: bytes) -> int:
    return int.from_bytes(batch[ATTRIBUTES], "big")


def producer(**options: Any) -> AIOKafkaProducer:
    """A producer that is never started."""
    made = AIOKafkaProducer(**options)
    made._closed = True
    return made


@pytest.mark.parametrize("codec", CODECS)
async def test_a_topic_is_compressed_with_its_own_codec(codec: str) -> None:
    """In the same transaction as the others, every batch of it; the records are the same."""
    lane = producer(transactional_id="t", compression_type="zstd", max_batch_size=4_000)
    packer = Packer(lane, {"events": codec})

    packer.pack({("events", 0): OUTPUTS, ("changelog", 0): OUTPUTS})

    packed = batches(packer, "events")
    assert len(packed) > 1
    assert {attributes(batch) for batch in packed} == {CODECS[codec] | IS_TRANSACTIONAL}
    assert {attributes(batch) for batch in batches(packer, "changelog")} == {
        CODECS["zstd"] | IS_TRANSACTIONAL
    }
    read = [(record.key, record.value) for batch in packed for record in MemoryRecords(batch).next_batch()]
    assert read == [(key, value) for key, value, *_ in OUTPUTS]


async def test_a_batch_of_a_producer_without_transactions_belongs_to_none() -> None:
    """The broker refuses it otherwise."""
    packer = Packer(producer(), {"events": "gzip"})

    packer.pack({("events", 0): OUTPUTS})

    assert {attributes(batch) for batch in batches(packer, "events")} == {CODECS["gzip"]}
