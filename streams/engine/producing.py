"""Producing outside of transactions: requests of timers and views, results of webhook attempts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from streams.engine.transactions import Packer, abandon, acknowledged
from streams.engine.units import Output

__all__ = ["PRODUCE_S", "Producer"]

log = logging.getLogger(__name__)

#: How long the broker may take to store records, seconds.
PRODUCE_S = 10.0


class Producer:
    """Produces records outside of any transaction, and replaces its aiokafka producer after a failure.

    An idempotent producer whose batch has failed for good is out of sequence on that partition for ever, and
    aiokafka never asks for another producer id. Records that are produced here may be stored twice when an
    answer is lost; whoever applies them recognises a repetition.

    Args:
        make: returns a new aiokafka producer, which is not started.
        now_ms: returns the timestamp of records that have none.
    """

    def __init__(self, make: Callable[[], AIOKafkaProducer], now_ms: Callable[[], int]) -> None:
        self._make = make
        self._now_ms = now_ms
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def produce(self, topic: str, partition: int, records: Sequence[Output]) -> int:
        """Produce records to one partition.

        Returns: the offset of the last record, once the broker has stored all of them.

        Raises:
            BatchRefused: the broker did not store all of them.
            KafkaTimeoutError: it did not answer within `PRODUCE_S`, for each of connecting and storing.
        """
        try:
            return await self._produce(topic, partition, records)
        except TimeoutError as error:
            raise KafkaTimeoutError(f"the broker did not answer within {PRODUCE_S:g} s") from error

    async def _produce(self, topic: str, partition: int, records: Sequence[Output]) -> int:
        async with asyncio.timeout(PRODUCE_S):
            producer = await self._started()
        try:
            async with asyncio.timeout(PRODUCE_S):
                packer = Packer(producer, timestamp_ms=self._now_ms())
                packer.pack({(topic, partition): records})
                return (await acknowledged(await packer.send()))[topic, partition].offset
        except Exception as error:
            self._replace(producer, error)
            raise

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = self._make()
                try:
                    await producer.start()
                except BaseException:
                    await abandon(producer)
                    raise
                self._producer = producer
            return self._producer

    def _replace(self, producer: AIOKafkaProducer, error: BaseException) -> None:
        """Have the next record produced by another producer; once for all who share this one."""
        if producer is not self._producer:
            return
        self._producer = None
        log.warning("records were not produced, the next ones get a new producer: %r", error)
        self._close(producer)

    def _close(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(abandon(producer))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def stop(self) -> None:
        """Close the producer; records that are not stored yet fail."""
        producer, self._producer = self._producer, None
        if producer is not None:
            self._close(producer)
        await asyncio.gather(*self._closing)
