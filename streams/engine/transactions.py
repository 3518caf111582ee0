"""One fenced transactional producer per partition number, and the steps of a commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata
from faust.exceptions import ConsistencyError
from faust.transport.consumer import TransactionManager
from faust.transport.drivers.aiokafka import server_list
from faust.types import TP

from streams.engine.compression import batch_of
from streams.engine.failpoints import passed
from streams.engine.formats import Write
from streams.engine.header_names import any_names_batch
from streams.engine.units import NO_HEADERS, Output, Unit

__all__ = [
    "BatchRefused",
    "NotCommitted",
    "Packer",
    "PartitionTaken",
    "PartitionTransactions",
    "SentBatch",
    "Stored",
    "ValueTooLarge",
    "abandon",
    "acknowledged",
    "commit",
]

#: Bytes of one record batch; a single larger record still gets a batch of its own.
BATCH_BYTES = 900_000
#: Bytes of one value in a table; changelogs take twice as much, compressed.
VALUE_BYTES = 8 << 20
#: How long the broker lets a transaction of ours stay open when we die in it.
TRANSACTION_TIMEOUT_MS = 30_000
#: How long the broker may take to store all of a transaction before its commit is requested, seconds: longer
#: than an election of leaders, shorter than a revoke waits and than the transaction timeout.
STORE_S = 10.0
#: How long the connections of an abandoned producer may take to close, seconds.
ABANDON_S = 1.0
#: How long a transactional id may take to be opened until a line of the log says so, seconds.
SLOW_OPEN_S = 5.0

log = logging.getLogger(__name__)


class _CalmRetries(logging.Filter):
    """Trap 9: while the broker completes the previous transaction (CONCURRENT_TRANSACTIONS, shown to old
    clients as NotEnoughReplicas), aiokafka warns at each retry. That is the normal course."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING and "retrying" in record.getMessage().lower():
            record.levelno, record.levelname = logging.DEBUG, "DEBUG"
            return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
        return True


logging.getLogger("aiokafka.producer.sender").addFilter(_CalmRetries())


class PartitionTaken(ConsistencyError):
    """Another worker has committed offsets of a partition that this worker believed to own."""


class NotCommitted(Exception):
    """A unit of work failed before its commit was requested, so nothing of it will ever be committed."""


class ValueTooLarge(Exception):
    """A value of a table is larger than its changelog takes."""

    def __init__(self, table: str, key: bytes, size_bytes: int) -> None:
        super().__init__(f"a value of table {table} has {size_bytes} bytes, more than {VALUE_BYTES}")
        self.table = table
        self.key = key


class SentBatch(NamedTuple):
    """A record batch that was handed to the producer.

    Attributes:
        records: number of records in it.
        stored: its metadata, once the broker has acknowledged it.
    """

    topic: str
    partition: int
    records: int
    stored: asyncio.Future[Any]


class Stored(NamedTuple):
    """The last record of a topic and partition that the broker has stored.

    Attributes:
        appended_ms: when, if it is the broker that stamps the records of the topic.
    """

    offset: int
    appended_ms: int | None


class BatchRefused(KafkaError):  # type: ignore[misc]
    """The broker did not store a record batch."""

    def __init__(self, batch: SentBatch, problem: str) -> None:
        super().__init__(
            f"a batch of {batch.records} records to {batch.topic}/{batch.partition} was not stored: {problem}"
        )
        self.batch = batch

    def __str__(self) -> str:
        return str(self.args[0])


class Packer:
    """Packs the outputs of one unit of work into as few record batches as they fit in.

    Args:
        producer: what the batches are for.
        codecs: by topic, how its batches are compressed, if not as the producer's others.
        timestamp_ms: of the records that have none of their own; now if it is not given.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        codecs: Mapping[str, str] = {},
        timestamp_ms: int | None = None,
    ) -> None:
        self._producer = producer
        self._codecs = codecs
        #: The timestamp of records that have none; now if none is given.
        self.timestamp_ms = round(time.time() * 1000) if timestamp_ms is None else timestamp_ms
        self._batches: dict[tuple[str, int], list[Any]] = {}
        #: The writes of each table that has any, once they are packed.
        self.changes: list[tuple[Any, list[Write]]] = []

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
        append, number, now_ms = batch._builder.append, batch._relative_offset, self.timestamp_ms
        rest = iter(records)
        while True:
            try:
                for key, value, headers, given_ms in rest:
                    timestamp_ms = now_ms if given_ms is None else given_ms
                    if append(number, timestamp_ms, key, value, headers) is None:
                        break
                    number += 1
                else:
                    break
            except UnicodeEncodeError:
                pass  # it needs a batch that takes any header names
            batch._relative_offset = number
            batch = self._begun_batch(where[0], timestamp_ms, key, value, headers)
            batches.append(batch)
            append, number = batch._builder.append, 1
        batch._relative_offset = number

    def pack_changes(self, unit: Unit) -> None:
        """Append the changelog records of a unit, which is done with.

        Raises:
            ValueTooLarge: a value is larger than a changelog takes.
        """
        self.changes = list(unit.changes())
        for table, writes in self.changes:
            topic: str = table.changelog_topic_name
            self.pack_writes(topic, unit.partition, writes)
            if max(batch.size() for batch in self._batches[topic, unit.partition]) > VALUE_BYTES:
                key, size = max(((key, len(value or b"")) for key, value, *_ in writes), key=itemgetter(1))
                raise ValueTooLarge(table.name, key, size)

    def _new_batch(self, topic: str) -> Any:
        codec = self._codecs.get(topic)
        return self._producer.create_batch() if codec is None else batch_of(self._producer, codec)

    def _begun_batch(self, topic: str, *record: Any) -> Any:
        """Return a batch that holds a record: its timestamp, key, value and headers."""
        batch = self._new_batch(topic)
        try:
            batch._builder.append(0, *record)
        except UnicodeEncodeError:
            batch = any_names_batch(self._producer)
            batch._builder.append(0, *record)
        return batch

    def pack_writes(self, topic: str, partition: int, writes: Sequence[Write]) -> None:
        """Append changelog records."""
        # without a step of the interpreter for each, but those that append it
        keys, values = map(itemgetter(0), writes), map(itemgetter(1), writes)
        self._append((topic, partition), zip(keys, values, repeat(NO_HEADERS), repeat(self.timestamp_ms)))

    async def send(self) -> list[SentBatch]:
        """Hand all batches to the producer, in order; the broker has stored none of them yet."""
        sent = []
        for (topic, partition), batches in self._batches.items():
            for batch in batches:
                if not batch.record_count():
                    continue  # its first record needed a batch with any names
                # closed, or a stray send() could append to it
                batch.close()
                stored = await self._producer.send_batch(batch, topic, partition=partition)
                stored.add_done_callback(_retrieved)
                sent.append(SentBatch(topic, partition, batch.record_count(), stored))
        return sent


def _retrieved(stored: asyncio.Future[Any]) -> None:
    """Take note of an exception that nobody may await any more; asyncio would log it."""
    if not stored.cancelled():
        stored.exception()


async def acknowledged(sent: Sequence[SentBatch]) -> dict[tuple[str, int], Stored]:
    """Wait until the broker has stored all batches.

    A batch that fails does not fail its transaction in aiokafka (``sender.py``, ``handle_response`` and
    ``_do_txn_commit``), and every later batch to the same partition is out of sequence.

    Returns: the last record of each topic and partition.

    Raises:
        BatchRefused: one was not stored, or the broker did not return its offset.
        ProducerFenced: another producer has the transactional id.
    """
    if sent:
        await asyncio.wait([batch.stored for batch in sent])
    failures = [batch.stored.exception() for batch in sent]
    for failure in failures:
        # whatever else failed: another producer has the transactional id, and must not be fenced
        if isinstance(failure, ProducerFenced):
            raise failure
    last: dict[tuple[str, int], Stored] = {}
    for batch, failure in zip(sent, failures, strict=True):
        if failure is not None:
            raise BatchRefused(batch, repr(failure)) from failure
        # DUPLICATE_SEQUENCE_NUMBER: stored by an earlier try, but the broker does not know where any more
        metadata = batch.stored.result()
        if metadata.offset < 0:
            raise BatchRefused(batch, "its offset is unknown")
        appended_ms = metadata.timestamp if metadata.timestamp_type else None
        last[batch.topic, batch.partition] = Stored(metadata.offset + batch.records - 1, appended_ms)
    return last


async def commit(
    producer: AIOKafkaProducer, group_id: str, partition: int, packer: Packer, offsets: Mapping[TP, int]
) -> None:
    """Commit a unit of work as a whole: changelogs, outputs and input offsets.

    The local stores are written last, so they are never ahead of the changelog. ``docs/engine.md`` lists
    what a crash leaves behind after each step.

    Args:
        packer: has the outputs and the changes of the unit.

    Raises:
        NotCommitted: a step before the request to commit failed; its cause says why.
        Exception: the outcome of the commit is unknown, or another producer has the transactional id.
    """
    try:
        # aiokafka sends a batch of a transaction again for as long as that takes
        async with asyncio.timeout(STORE_S):
            stored = await _store(producer, group_id, packer, offsets)
    except ProducerFenced:
        raise
    except TimeoutError:
        raise NotCommitted from KafkaTimeoutError(f"the broker did not store it within {STORE_S:g} s")
    except Exception as error:
        raise NotCommitted from error
    passed("commit.before")
    await producer.commit_transaction()
    passed("commit.after")
    passed("store.before")
    for table, writes in packer.changes:
        offset, appended_ms = stored[table.changelog_topic_name, partition]
        timestamp_ms = packer.timestamp_ms if appended_ms is None else appended_ms
        table.store.partition(partition).write(writes, offset, timestamp_ms)
    passed("store.after")


async def _store(
    producer: AIOKafkaProducer, group_id: str, packer: Packer, offsets: Mapping[TP, int]
) -> dict[tuple[str, int], Stored]:
    """Have the broker store all of a transaction; return the last record of each topic and partition."""
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
    return await acknowledged(sent)


async def abandon(producer: AIOKafkaProducer) -> None:
    """Close a producer without waiting for its batches; those that are not stored yet fail.

    aiokafka's own `stop` flushes first, which takes as long as the broker is away.
    """
    producer._closed = True
    accumulator = producer._message_accumulator
    accumulator.fail_all(KafkaError("the producer was abandoned"))
    for batch in chain(*accumulator._batches.values(), accumulator._pending_batches):
        _retrieved(batch._drain_waiter)  # nobody awaits it, and asyncio would log it
    sender = producer._sender
    if producer._txn_manager.transactional_id is None and sender.sender_task is not None:
        # aiokafka's own callback fails where there is no transaction
        sender.sender_task.remove_done_callback(sender._fail_all)
        sender.sender_task.add_done_callback(_retrieved)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(ABANDON_S):
            # the connections first: the sender waits for answers on them
            await producer.client.close()
            await sender.close()


def _report_slow(transactional_id: str) -> None:
    log.warning(
        "transactional id %s could not be opened for %g s: the broker cannot complete its last transaction, "
        "or its coordinator does not answer; the partitions of this worker wait for it",
        transactional_id,
        SLOW_OPEN_S,
    )


class PartitionTransactions(TransactionManager):
    """Opens a producer for each partition number that is assigned, and closes it when it is not.

    aiokafka speaks version 0 of the transaction protocol, which does not fence by group generation
    (KIP-447), hence one transactional id a partition: ``InitProducerId`` fences the former owner and ends
    what it left open.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.producers: dict[int, AIOKafkaProducer] = {}
        #: Transactional ids that are being opened.
        self.opening: set[str] = set()

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
        self._require_all_topics(numbers, assigned)
        await self._close_all()
        await asyncio.gather(*(self._open(number) for number in numbers))
        self._lanes.open(await self.consumer.stands(inputs))  # type: ignore[attr-defined]

    def _require_all_topics(self, numbers: set[int], assigned: set[TP]) -> None:
        """Refuse partitions whose tables could not be recovered, or of which nobody would read an input.

        Faust's assignor leaves a topic out that its metadata do not know (yet), with a warning. It would come
        back with the next rebalance only.
        """
        changelogs = [table.changelog_topic_name for table in self.app.tables.values()]
        topics = [*self._lanes.topics, *changelogs]
        missing = {TP(topic, number) for topic in topics for number in numbers} - assigned
        if missing:
            raise ConsistencyError(
                f"the group's leader does not know all topics: {sorted(missing)} are not assigned; they were "
                "deleted, or have just been created, or deployments that differ in TRACKER_TOPIC_PREFIX have "
                "the same TRACKER_APP_ID"
            )

    def _is_standby(self, tp: TP) -> bool:
        return self.app.assignor.is_standby(tp)

    async def reopen(self, number: int, stands: Mapping[str, int]) -> None:
        """Open a partition's producer anew, which aborts the transaction that the last one left.

        Args:
            stands: by topic, where the lane stands; it goes on only if the group does, too.

        Raises:
            PartitionTaken: another worker has committed meanwhile.
        """
        last = self.producers.pop(number, None)
        if last is not None:
            await abandon(last)
        expected = {TP(topic, number): offset for topic, offset in stands.items()}
        # A worker that was evicted without noticing must not fence the one that has its partition now. The
        # offsets of the last transaction may be missing yet: only opening the producer waits for its markers.
        await self._require_stands(number, expected, at_most=True)
        await self._open(number)
        await self._require_stands(number, expected)

    async def _require_stands(self, number: int, expected: Mapping[TP, int], at_most: bool = False) -> None:
        committed = await self.consumer.stands(list(expected))  # type: ignore[attr-defined]
        is_behind = all(committed[tp] <= expected[tp] for tp in expected)
        if committed != expected and not (at_most and is_behind):
            raise PartitionTaken(
                f"partition {number} was committed up to {committed} while its lane stood at {expected}: "
                "another worker has it"
            )

    async def _open(self, number: int) -> None:
        transactional_id = f"{self.app.conf.id}-{number}"
        producer = AIOKafkaProducer(
            bootstrap_servers=server_list(self.transport.url, 9092),
            client_id=f"{self.app.conf.broker_client_id}-{number}",
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            linger_ms=0,
            # Trap 19: aiokafka compresses lz4 at level 9, a fifth of the worker's CPU
            compression_type="zstd",
            max_batch_size=BATCH_BYTES,
            # Trap 9: 100 ms, the default, between tries while the previous transaction is completed
            retry_backoff_ms=10,
        )
        self.opening.add(transactional_id)
        slow = asyncio.get_running_loop().call_later(SLOW_OPEN_S, _report_slow, transactional_id)
        try:
            await producer.start()
        except BaseException:
            await abandon(producer)
            raise
        finally:
            slow.cancel()
            self.opening.discard(transactional_id)
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
