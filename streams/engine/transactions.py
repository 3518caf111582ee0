"""One fenced transactional producer per partition number, and the steps of a commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from faust.exceptions import ConsistencyError
from faust.transport.consumer import TransactionManager
from faust.transport.drivers.aiokafka import server_list
from faust.types import TP

from streams.engine.compression import batch_of
from streams.engine.failpoints import passed
from streams.engine.formats import Write
from streams.engine.units import NO_HEADERS, Output, Unit

__all__ = ["Packer", "PartitionTransactions", "commit"]

#: Bytes of one record batch; a single larger record still gets a batch of its own.
BATCH_BYTES = 900_000
#: How long the broker lets a transaction of ours stay open when we die in it.
TRANSACTION_TIMEOUT_MS = 30_000


class _CalmRetries(logging.Filter):
    """Trap 9: while the broker completes the previous transaction (CONCURRENT_TRANSACTIONS, shown to old
    clients as NotEnoughReplicas), aiokafka warns at each retry. That is the normal course."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING and "retrying" in record.getMessage().lower():
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


logging.getLogger("aiokafka.producer.sender").addFilter(_CalmRetries())


class Packer:
    """Packs the outputs of one unit of work into as few record batches as they fit in.

    Args:
        producer: what the batches are for.
        codecs: by topic, how its batches are compressed, if not as the producer's others.
    """

    def __init__(self, producer: AIOKafkaProducer, codecs: Mapping[str, str] = {}) -> None:
        self._producer = producer
        self._codecs = codecs
        self._batches: dict[tuple[str, int], list[Any]] = {}

    def pack(self, outputs: Mapping[tuple[str, int], Sequence[Output]]) -> None:
        """Append the outputs, by topic and partition; soon after they were made, while they are in cache."""
        for where, records in outputs.items():
            # not even an empty batch, or a transaction has one more partition to mark
            if records:
                self._append(where, records)

    def _append(self, where: tuple[str, int], records: Iterable[Output]) -> None:
        batches = self._batches.get(where)
        if batches is None:
            batches = self._batches[where] = [self._new_batch(where[0])]
        batch = batches[-1]
        # aiokafka's own append() checks for serializers and closes, at a third of its cost
        append, number = batch._builder.append, batch._relative_offset
        for key, value, headers, timestamp_ms in records:
            if append(number, timestamp_ms, key, value, headers) is None:
                batch._relative_offset = number
                batch = self._new_batch(where[0])
                batches.append(batch)
                append, number = batch._builder.append, 0
                append(0, timestamp_ms, key, value, headers)
            number += 1
        batch._relative_offset = number

    def _new_batch(self, topic: str) -> Any:
        codec = self._codecs.get(topic)
        return self._producer.create_batch() if codec is None else batch_of(self._producer, codec)

    def pack_writes(self, topic: str, partition: int, writes: Sequence[Write]) -> None:
        """Append changelog records."""
        # without a step of the interpreter for each, but those that append it
        keys, values = map(itemgetter(0), writes), map(itemgetter(1), writes)
        self._append((topic, partition), zip(keys, values, repeat(NO_HEADERS), repeat(None)))

    async def send(self) -> dict[str, tuple[Awaitable[Any], int]]:
        """Hand all batches to the producer.

        Returns: by topic, the future of its last batch and the number of records in it.
        """
        last = {}
        for (topic, partition), batches in self._batches.items():
            for batch in batches:
                # closed, or a stray send() could append to it
                batch.close()
                last[topic] = (
                    await self._producer.send_batch(batch, topic, partition=partition),
                    batch.record_count(),
                )
        return last


async def commit(
    producer: AIOKafkaProducer, group_id: str, unit: Unit, packer: Packer, offsets: Mapping[TP, int]
) -> None:
    """Make all of a unit of work true, or none of it: changelogs, outputs and input offsets.

    The local stores are written last, so they are never ahead of the changelog. What a crash between
    any two steps leaves behind is told in ``docs/engine.md``.
    """
    changes: list[tuple[Any, list[Write]]] = unit.changes()
    for table, writes in changes:
        packer.pack_writes(table.changelog_topic_name, unit.partition, writes)
    await producer.begin_transaction()
    passed("produce.before")
    sent = await packer.send()
    passed("produce.after")
    passed("offsets.before")
    await producer.send_offsets_to_transaction(
        {TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(end, "") for tp, end in offsets.items()},
        group_id,
    )
    passed("offsets.after")
    passed("commit.before")
    await producer.commit_transaction()
    passed("commit.after")
    passed("store.before")
    for table, writes in changes:
        last, count = sent[table.changelog_topic_name]
        offset = (await last).offset + count - 1
        table.store.partition(unit.partition).write(writes, offset)
    passed("store.after")


class PartitionTransactions(TransactionManager):
    """Opens a producer for each partition number that is assigned, and closes it when it is not.

    aiokafka speaks version 0 of the transaction protocol, which does not fence by group generation
    (KIP-447), hence one transactional id a partition: ``InitProducerId`` fences the former owner and ends
    what it left open.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.producers: dict[int, AIOKafkaProducer] = {}

    @property
    def _lanes(self) -> Any:
        return self.app.lanes  # type: ignore[attr-defined]

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Trap 1: await the commits in flight, or Faust seeks to an offset that one is about to move."""
        await self._lanes.close()

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP]) -> None:
        """Fence, then ask where the lanes stand. Faust awaits this before recovery and before it seeks.

        A partition that stays is fenced anew, too: the broker acknowledges a commit before it has written its
        markers, and until then the group's offset and the changelog's end are those before it.
        """
        inputs = [tp for tp in assigned if tp.topic in self._lanes.topics and not self._is_standby(tp)]
        numbers = {tp.partition for tp in inputs}
        self._require_changelogs(numbers, assigned)
        await self._close_all()
        await asyncio.gather(*(self._open(number) for number in numbers))
        self._lanes.open(await self.consumer.stands(inputs))  # type: ignore[attr-defined]

    def _require_changelogs(self, numbers: set[int], assigned: set[TP]) -> None:
        """Refuse partitions whose tables could not be recovered.

        Faust's assignor leaves a topic out that its metadata do not know yet, with a warning.
        """
        changelogs = [table.changelog_topic_name for table in self.app.tables.values()]
        missing = {TP(topic, number) for topic in changelogs for number in numbers} - assigned
        if missing:
            raise ConsistencyError(
                f"assigned without their changelogs: {sorted(missing)}; the group's leader did not know them"
            )

    def _is_standby(self, tp: TP) -> bool:
        return self.app.assignor.is_standby(tp)

    async def _open(self, number: int) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=server_list(self.transport.url, 9092),
            client_id=f"{self.app.conf.broker_client_id}-{number}",
            transactional_id=f"{self.app.conf.id}-{number}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            linger_ms=0,
            # Trap 19: aiokafka compresses lz4 at level 9, a fifth of the worker's CPU
            compression_type="zstd",
            max_batch_size=BATCH_BYTES,
            # Trap 9: 100 ms, the default, between tries while the previous transaction is completed
            retry_backoff_ms=10,
        )
        await producer.start()
        self.producers[number] = producer

    async def _close_all(self) -> None:
        closing, self.producers = list(self.producers.values()), {}
        await asyncio.gather(*(producer.stop() for producer in closing))

    async def on_stop(self) -> None:
        """Trap 16: the lanes first (their commit in flight), then the producers."""
        await self._lanes.stop()
        await self._close_all()

    async def commit(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        """Leave Faust's timed commits out; see `commit` above."""
        return True

    async def send(self, topic: str, key: Any, value: Any, partition: Any, *args: Any, **kwargs: Any) -> Any:
        """Send outside of any transaction (timers, commands); Faust would open its own transaction here."""
        kwargs.pop("transactional_id", None)
        return await self.producer.send(topic, key, value, partition, *args, **kwargs)
