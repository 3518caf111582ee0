"""Make the topics of the catalogue, on the embedded broker or any other."""

import asyncio
import time
from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

#: How long a created topic may take until the broker that answers knows its leaders.
VISIBLE_WITHIN_S = 30.0


class TopicSpec(Protocol):
    """What is needed to know of a topic of the catalogue."""

    @property
    def name(self) -> str:
        """Its full name, prefix included."""

    @property
    def partitions(self) -> int:
        """How many it must have."""

    @property
    def config(self) -> Mapping[str, str]:
        """Kafka's own topic settings, such as `retention.ms`."""


class PartitionMismatch(Exception):
    """Topics are there with another partition count; `counts` has what each has and should have."""

    def __init__(self, counts: Mapping[str, tuple[int, int]]) -> None:
        each = ", ".join(f"{name} has {has}, not {wanted}" for name, (has, wanted) in sorted(counts.items()))
        super().__init__(
            f"partition counts must be equal, or keys and their tables come apart: {each}. "
            f"Set TRACKER_PARTITIONS to the count of the existing topics, or choose another "
            f"TRACKER_TOPIC_PREFIX together with another TRACKER_APP_ID, which names the changelogs."
        )
        self.counts = counts


class TopicsRefused(Exception):
    """The broker would not make topics; `reasons` has its words for each."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"topic {name}: {reason}" for name, reason in sorted(reasons.items())))
        self.reasons = reasons


async def create_topics(broker_url: str, specs: Iterable[TopicSpec], *, replication: int = 1) -> list[str]:
    """Make those topics that are not there yet; return their names once every partition has a leader.

    Args:
        broker_url: `kafka://host:port`, several with `;` between.
        specs: what there must be.
        replication: copies of each partition of a new topic.
    Raises:
        PartitionMismatch: a topic is there with another count; nothing was made.
        TopicsRefused: the broker refused some (too many copies, a bad setting).
    """
    wanted = {spec.name: spec for spec in specs}
    async with _connected(broker_url) as admin:
        there = await _partition_counts(admin, wanted)
        _require_equal_counts(there, wanted)
        missing = [spec for name, spec in wanted.items() if name not in there]
        await _create(admin, missing, replication)
        await _await_visible(admin, wanted)
    return [spec.name for spec in missing]


async def missing_topics(broker_url: str, specs: Iterable[TopicSpec]) -> list[str]:
    """Return the names of those topics that are not there.

    Raises:
        PartitionMismatch: a topic is there with another count.
    """
    wanted = {spec.name: spec for spec in specs}
    async with _connected(broker_url) as admin:
        there = await _partition_counts(admin, wanted)
    _require_equal_counts(there, wanted)
    return [name for name in wanted if name not in there]


@asynccontextmanager
async def _connected(broker_url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers(broker_url))
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


def bootstrap_servers(broker_url: str) -> list[str]:
    """Return the `host:port` pairs of a URL as Faust takes it."""
    return [url.rpartition("://")[2].rstrip("/") for url in broker_url.replace(";", ",").split(",")]


def _require_equal_counts(there: Mapping[str, int], wanted: Mapping[str, TopicSpec]) -> None:
    differing = {
        name: (count, wanted[name].partitions)
        for name, count in there.items()
        if count != wanted[name].partitions
    }
    if differing:
        raise PartitionMismatch(differing)


async def _create(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], replication: int) -> None:
    if not specs:
        return
    answer = await admin.create_topics(
        [NewTopic(spec.name, spec.partitions, replication, topic_configs=dict(spec.config)) for spec in specs]
    )
    # Another worker may have made one meanwhile; the counts are compared again once all are visible.
    harmless = {0, TopicAlreadyExistsError.errno}
    refused = {
        name: message or for_code(code).__name__
        for name, code, message in answer.topic_errors
        if code not in harmless
    }
    if refused:
        raise TopicsRefused(refused)


async def _await_visible(admin: AIOKafkaAdminClient, wanted: Mapping[str, TopicSpec]) -> None:
    """Metadata reach a broker a moment after the controller has made a topic."""
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while len(there := await _partition_counts(admin, wanted)) < len(wanted):
        if time.monotonic() > deadline:
            raise TopicsRefused({name: "has no leader" for name in wanted if name not in there})
        await asyncio.sleep(0.05)
    _require_equal_counts(there, wanted)


async def _partition_counts(admin: AIOKafkaAdminClient, names: Container[str]) -> dict[str, int]:
    """Return the partition count of those topics that are there, every partition led by a broker."""
    # Asked for all: to name one that is not there makes it, on brokers that create topics by themselves.
    described: list[dict[str, Any]] = await admin.describe_topics(None)
    led = {topic["topic"]: len(topic["partitions"]) for topic in described if _is_led(topic)}
    return {name: count for name, count in led.items() if name in names}


def _is_led(topic: Mapping[str, Any]) -> bool:
    return topic["error_code"] == 0 and all(p["error_code"] == 0 for p in topic["partitions"])
