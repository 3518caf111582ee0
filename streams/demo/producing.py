"""Bring simulated traffic into Kafka: as fast as the broker takes it, or at the pace of its own clock.

Records are packed into whole batches (`create_batch`/`send_batch`), which costs one future a batch where
`AIOKafkaProducer.send` costs one a record.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from streams.demo.traffic import Sample, Stream
from streams.kafka import topics

BATCH_BYTES = 900_000
"""Below the broker's `message.max.bytes` (1 MiB) with room for the batch's own header."""

IN_FLIGHT = 16
TICK_S = 0.05

Topics = Mapping[Stream, str]
Notify = Callable[[int], None]


@lru_cache(maxsize=131_072)
def key_hash(key: bytes | None) -> int:
    """Kafka's default hash of a key; 2.5 µs in pure Python, and a message comes with several records."""
    return 0 if key is None else int(murmur2(key)) & 0x7FFFFFFF


@asynccontextmanager
async def open_producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer (idempotent, zstd), stopped at the end. `bootstrap` is host:port[,host:port]."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        compression_type="zstd",
        max_batch_size=BATCH_BYTES,
        max_request_size=2 * BATCH_BYTES,
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


class Packer:
    """Packs records into batches, one open batch for each topic and partition."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics, partitions: int) -> None:
        self.producer = producer
        self.topics = topics
        self.partitions = partitions
        self.sent = 0
        self._open: dict[tuple[Stream, int], BatchBuilder] = {}
        self._pending: set[asyncio.Future[object]] = set()

    async def add(self, sample: Sample) -> None:
        """Put one record into its batch; waits only when that batch is full and many are in flight."""
        stream, key, value, at_ms, shift = sample
        place = (stream, (key_hash(key) + shift) % self.partitions)
        batch = self._open.get(place)
        if batch is None:
            batch = self._open[place] = self.producer.create_batch()
        if batch.append(timestamp=at_ms, key=key, value=value) is None:
            await self._send(place, batch)
            batch = self._open[place] = self.producer.create_batch()
            batch.append(timestamp=at_ms, key=key, value=value)

    async def flush(self) -> None:
        """Send what is open and wait until the broker has everything."""
        for place, batch in self._open.items():
            await self._send(place, batch)
        self._open.clear()
        await self._settle(0)

    async def _send(self, place: tuple[Stream, int], batch: BatchBuilder) -> None:
        await self._settle(IN_FLIGHT - 1)
        stream, partition = place
        batch.close()
        count = batch.record_count()
        future = await self.producer.send_batch(batch, self.topics[stream], partition=partition)
        self._pending.add(future)
        self.sent += count

    async def _settle(self, most: int) -> None:
        """Wait until at most `most` batches are in flight; raises what a failed one raises."""
        while len(self._pending) > most:
            done, self._pending = await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()


async def fill(packer: Packer, samples: Iterable[Sample], notify: Notify = lambda count: None) -> int:
    """Produce all of `samples` as fast as possible; returns how many.

    `notify` is called now and then with the number so far.
    """
    count = 0
    for count, sample in enumerate(samples, 1):
        await packer.add(sample)
        if count % 5_000 == 0:
            notify(count)
            await asyncio.sleep(0)  # lets the producer's own tasks run
    await packer.flush()
    notify(count)
    return count


async def play(packer: Packer, samples: Iterator[Sample], notify: Notify = lambda count: None) -> int:
    """Produce each of `samples` when its time has come by the wall clock; returns how many."""
    count = 0
    for sample in samples:
        while sample.at_ms > (now_ms := time.time_ns() // 1_000_000):
            await packer.flush()
            notify(count)
            await asyncio.sleep(max(TICK_S, min(1.0, (sample.at_ms - now_ms) / 1000)))
        await packer.add(sample)
        count += 1
    await packer.flush()
    notify(count)
    return count


def bootstrap_servers(broker_url: str) -> str:
    """host:port[,host:port] of a broker URL as settings have it (`kafka://host:port[;kafka://…]`)."""
    return ",".join(topics.bootstrap_servers(broker_url))


def quiet_kafka_clients() -> None:
    """Keep aiokafka's remarks about what it tries again out of the demonstration; what fails is raised."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
