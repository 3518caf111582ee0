"""A broker in memory behind aiokafka's real producers: it checks sequences and answers scripted errors."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.memory_records import MemoryRecords

OUT_OF_ORDER_SEQUENCE = 45
Place = tuple[str, int]


class Cluster:
    """What a client's metadata say: one node leads every partition, unless it leads none."""

    leader = 1

    def leader_for_partition(self, tp: Any) -> int:
        return self.leader

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(8))

    def available_partitions_for_topic(self, topic: str) -> set[int]:
        return self.partitions_for_topic(topic)


class Broker:
    """Answers the requests of producers; each producer gets a producer id of its own.

    Attributes:
        logs: keys of the records of each partition that a `read_committed` consumer sees.
        offsets: the group's committed offsets.
        refusals: by topic, error codes for its next batches.
    """

    _client_id = "test"

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.logs: dict[Place, list[bytes]] = defaultdict(list)
        self.offsets: dict[Place, int] = {}
        self.refusals: dict[str, list[int]] = defaultdict(list)
        self.ended: list[bool] = []
        self._ids = 0
        self._sequences: dict[tuple[int, Place], int] = {}
        self._open: list[tuple[Place, list[bytes]]] = []
        self._pending: dict[Place, int] = {}
        self._stored: dict[Place, int] = defaultdict(int)

    async def producer(self, **options: Any) -> AIOKafkaProducer:
        """Return a producer that is started."""
        made = self.make(**options)
        await made.start()
        return made

    def make(self, **options: Any) -> AIOKafkaProducer:
        """Return a producer of this broker."""
        producer = AIOKafkaProducer(
            bootstrap_servers="nowhere:1", linger_ms=0, retry_backoff_ms=1, enable_idempotence=True, **options
        )
        producer._metadata = producer._message_accumulator._cluster = self.cluster
        producer.client = producer._sender.client = self
        return producer

    async def send(self, node: int, request: Any, group: Any = None) -> Any:
        await asyncio.sleep(0)
        return getattr(self, f"_{type(request).__name__}")(request)

    def _InitProducerIdRequest(self, request: Any) -> Any:
        self._ids += 1
        self._open, self._pending = [], {}
        return SimpleNamespace(error_code=0, producer_id=self._ids, producer_epoch=0)

    def _AddPartitionsToTxnRequest(self, request: Any) -> Any:
        return SimpleNamespace(errors=[(topic, [(n, 0) for n in ns]) for topic, ns in request._topics])

    def _AddOffsetsToTxnRequest(self, request: Any) -> Any:
        return SimpleNamespace(error_code=0)

    def _TxnOffsetCommitRequest(self, request: Any) -> Any:
        self._pending = {(topic, n): offset for topic, ns in request._topics for n, offset, _ in ns}
        return SimpleNamespace(errors=[(topic, [(n, 0) for n, _, _ in ns]) for topic, ns in request._topics])

    def _EndTxnRequest(self, request: Any) -> Any:
        is_commit = bool(request._transaction_result)
        self.ended.append(is_commit)
        if is_commit:
            for place, keys in self._open:
                self.logs[place] += keys
            self.offsets.update(self._pending)
        self._open, self._pending = [], {}
        return SimpleNamespace(error_code=0)

    def _ProduceRequest(self, request: Any) -> Any:
        answers = [
            (topic, [self._produce(topic, n, raw) for n, raw in parts]) for topic, parts in request._topics
        ]
        return SimpleNamespace(topics=answers, API_VERSION=3)

    def _produce(self, topic: str, partition: int, raw: Any) -> tuple[int, int, int, int]:
        place = topic, partition
        batch = MemoryRecords(bytes(raw)).next_batch()
        first, is_transactional = batch.base_sequence, batch.is_transactional
        expected = self._sequences.get((batch.producer_id, place), 0)
        keys = [record.key for record in batch]
        if self.refusals[topic]:
            return partition, self.refusals[topic].pop(0), -1, -1
        if first != expected:
            return partition, OUT_OF_ORDER_SEQUENCE, -1, -1
        self._sequences[batch.producer_id, place] = first + len(keys)
        offset, self._stored[place] = self._stored[place], self._stored[place] + len(keys)
        if is_transactional:
            self._open.append((place, keys))
        else:
            self.logs[place] += keys
        return partition, 0, offset, -1

    async def bootstrap(self) -> None: ...

    async def close(self) -> None: ...

    async def coordinator_lookup(self, *args: Any) -> int:
        return 1

    async def ready(self, *args: Any, **options: Any) -> bool:
        return True

    def force_metadata_update(self) -> asyncio.Future[bool]:
        updated = asyncio.get_running_loop().create_future()
        updated.set_result(True)
        return updated

    async def _wait_on_metadata(self, topic: str) -> set[int]:
        return self.cluster.partitions_for_topic(topic)

    async def _maybe_wait_metadata(self) -> None: ...

    def get_random_node(self) -> int:
        return 1
