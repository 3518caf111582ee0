"""Changelog partitions as the broker reports them: the identity, the end and the age of each log."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from faust.types import TP

__all__ = ["Changelogs", "LogId", "connected_changelogs"]

RETRY_S = 0.1
NO_ID = uuid.UUID(int=0)


class LogId(NamedTuple):
    """The identity of one partition's log.

    Attributes:
        cluster: the id of the Kafka cluster.
        topic_id: a topic that is deleted and created again gets another one; None before Kafka 2.8.
    """

    cluster: str | None
    topic: str
    partition: int
    topic_id: str | None

    def encode(self) -> bytes:
        """Return this identity as a store keeps it."""
        return json.dumps(self).encode()

    @classmethod
    def decode(cls, stored: bytes) -> LogId:
        """Return the identity that `encode` made."""
        return cls(*json.loads(stored))

    def is_same(self, other: LogId) -> bool:
        """Compare two identities; a topic id that one of them lacks is not compared."""
        if self.topic_id is None or other.topic_id is None:
            return self[:3] == other[:3]
        return self == other


class Changelogs(Protocol):
    """The identities, ends and ages of changelog partitions, as the broker reports them."""

    async def ids(self, partitions: Collection[TP]) -> Mapping[TP, LogId]:
        """Return the identity of each partition's log."""

    async def ends(self, partitions: Collection[TP]) -> Mapping[TP, int]:
        """Return the offset after the last acknowledged record of each partition, committed or not."""

    async def newer_than(self, timestamps_ms: Mapping[TP, int]) -> frozenset[TP]:
        """Return the partitions that hold a record with a later timestamp than the given one."""


@asynccontextmanager
async def connected_changelogs(bootstrap_servers: Any) -> AsyncIterator[Changelogs]:
    """Connect to the broker, outside of any group, for as long as the context lasts."""
    # read_uncommitted, the default: the markers of a former owner's last transaction may not be written yet
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        yield _Connected(consumer)
    finally:
        await consumer.stop()


class _Connected:
    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def ids(self, partitions: Collection[TP]) -> Mapping[TP, LogId]:
        topics = sorted({tp.topic for tp in partitions})
        while True:
            try:
                cluster, topic_ids = await self._topic_ids(topics)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return {tp: LogId(cluster, *tp, topic_ids[tp.topic]) for tp in partitions}

    async def _topic_ids(self, topics: list[str]) -> tuple[str | None, Mapping[str, str | None]]:
        client = self._consumer._client
        answer: Any = await client.send(client.get_random_node(), TopicIdsRequest(topics))
        for error_code, topic, *_ in answer.topics:
            # other errors are about leaders, not about the topic
            if for_code(error_code) is UnknownTopicOrPartitionError:
                raise UnknownTopicOrPartitionError(topic)
        return answer.cluster_id, {topic: _id_of(rest) for _, topic, *rest in answer.topics}

    async def ends(self, partitions: Collection[TP]) -> Mapping[TP, int]:
        ends = await self._consumer.end_offsets([TopicPartition(*tp) for tp in partitions])
        return {TP(*tp): end for tp, end in ends.items()}

    async def newer_than(self, timestamps_ms: Mapping[TP, int]) -> frozenset[TP]:
        wanted = {TopicPartition(*tp): timestamp_ms + 1 for tp, timestamp_ms in timestamps_ms.items()}
        found = await self._consumer.offsets_for_times(wanted)
        return frozenset(TP(*tp) for tp, first in found.items() if first is not None)


def _id_of(topic: list[Any]) -> str | None:
    # before version 10 a boolean stands in its place
    return str(topic[0]) if isinstance(topic[0], uuid.UUID) and topic[0] != NO_ID else None


class Uuid(AbstractType[uuid.UUID]):  # type: ignore[misc]
    """A UUID in Kafka's protocol: 16 bytes."""

    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        """Return the bytes of a UUID."""
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        """Read a UUID."""
        return uuid.UUID(bytes=data.read(16))


class MetadataResponse_v11(Response):  # type: ignore[misc]
    """Kafka's ``MetadataResponse.json``, version 11."""

    API_KEY = 3
    API_VERSION = 11
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class MetadataRequest_v11(RequestStruct):  # type: ignore[misc]
    """Kafka's ``MetadataRequest.json``, version 11, which brokers know since 2.8."""

    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 11
    RESPONSE_TYPE = MetadataResponse_v11
    SCHEMA = Schema(
        ("topics", CompactArray(("id", Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicIdsRequest(Request[MetadataRequest_v5 | MetadataRequest_v11]):  # type: ignore[misc]
    """Asks for topic ids, which aiokafka's own request of metadata does not know (KIP-516)."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        """Return the request in the version that the broker knows."""
        if request_struct_class is MetadataRequest_v5:
            return MetadataRequest_v5(self._topics, False)
        return MetadataRequest_v11([(NO_ID, topic, {}) for topic in self._topics], False, False, {})
