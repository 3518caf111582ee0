"""Topics as they are on a broker, the embedded one or any other: finding, making and altering them."""

import asyncio
import time
from collections.abc import AsyncIterator, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from streams.kafka.configs import alter_configs, read_configs

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

    @property
    def role(self) -> str:
        """Its use by a worker; an "input" or a "changelog" must have exactly its partitions."""


class FoundTopic(NamedTuple):
    """A topic as it is.

    Attributes:
        partitions: how many it has.
        replication: replicas of the partition that has the fewest.
        config: all its settings, Kafka's defaults included; None when they may not be read.
    """

    partitions: int
    replication: int
    config: Mapping[str, str] | None


class PartitionMismatch(Exception):
    """Topics are there with another partition count; `counts` has what each has and should have.

    Args:
        counts: by topic, of those that differ.
        common: the number of partitions that all existing topics have, if it is one number.
    """

    def __init__(self, counts: Mapping[str, tuple[int, int]], common: int | None = None) -> None:
        each = ", ".join(f"{name} has {has}, not {wanted}" for name, (has, wanted) in sorted(counts.items()))
        super().__init__(
            f"partition counts must be equal, or keys and their tables come apart: {each}. "
            + (_ADDED if common is None else f"Set TRACKER_PARTITIONS={common}, as it is everywhere.")
        )
        self.counts = counts


#: Kafka cannot take partitions away, and rows of tables do not move to another partition.
_ADDED = (
    "Added partitions cannot be removed: choose a new TRACKER_TOPIC_PREFIX and a new TRACKER_APP_ID, and "
    'produce the inputs again (docs/your-own-broker.md, "Partitions")'
)


class TopicsRefused(Exception):
    """The broker would not make or alter topics; `reasons` has its words for each."""

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
        there = {name: len(parts) for name, parts in (await _partitions(admin, wanted)).items()}
    _require_equal_counts(there, wanted)
    return [name for name in wanted if name not in there]


async def found_topics(broker_url: str, names: Container[str]) -> dict[str, FoundTopic]:
    """Return those of the named topics that are there, with their settings."""
    async with _connected(broker_url) as admin:
        partitions = await _partitions(admin, names)
        configs = await read_configs(admin, partitions)
    return {
        name: FoundTopic(len(parts), min(len(part["replicas"]) for part in parts), configs.get(name))
        for name, parts in partitions.items()
    }


async def alter_topics(broker_url: str, changes: Mapping[str, Mapping[str, str]]) -> None:
    """Set settings of topics, by topic and name of the setting; all other settings stay as they are.

    Raises:
        TopicsRefused: the broker did not alter some; the others are altered.
    """
    async with _connected(broker_url) as admin:
        refused = await alter_configs(admin, changes)
        await _await_altered(admin, {name: changes[name] for name in changes if name not in refused})
    if refused:
        raise TopicsRefused(refused)


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
        if count < wanted[name].partitions
        or (count > wanted[name].partitions and wanted[name].role in ("input", "changelog"))
    }
    if differing:
        counts = {count for name, count in there.items() if wanted[name].role != "clock"}
        raise PartitionMismatch(differing, counts.pop() if len(counts) == 1 else None)


def created_config(spec: TopicSpec, replication: int) -> dict[str, str]:
    """Return the settings that a topic is created with."""
    # not the cluster's default: 1 loses what one broker acknowledged, and 2 refuses all with one replica
    return {"min.insync.replicas": str(safe_insync(replication)), **spec.config}


def safe_insync(replication: int) -> int:
    """Return the replicas that must have a record: one broker of two or more may be down."""
    return max(1, min(2, replication - 1))


async def _create(admin: AIOKafkaAdminClient, specs: Sequence[TopicSpec], replication: int) -> None:
    if not specs:
        return
    answer = await admin.create_topics(
        [
            NewTopic(spec.name, spec.partitions, replication, topic_configs=created_config(spec, replication))
            for spec in specs
        ]
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


async def _await_altered(admin: AIOKafkaAdminClient, changes: Mapping[str, Mapping[str, str]]) -> None:
    """The controller's answer comes before other brokers know the new settings."""
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while changes and time.monotonic() < deadline:
        configs = await read_configs(admin, changes)
        if all(values.items() <= (configs[name] or values).items() for name, values in changes.items()):
            return
        await asyncio.sleep(0.05)


async def _partition_counts(admin: AIOKafkaAdminClient, names: Container[str]) -> dict[str, int]:
    """Return the partition count of those topics that are there, every partition led by a broker."""
    found = await _partitions(admin, names)
    return {
        name: len(parts) for name, parts in found.items() if all(part["error_code"] == 0 for part in parts)
    }


async def _partitions(
    admin: AIOKafkaAdminClient, names: Container[str]
) -> dict[str, list[Mapping[str, Any]]]:
    # Asked for all: to name one that is not there makes it, on brokers that create topics by themselves.
    described: list[dict[str, Any]] = await admin.describe_topics(None)
    return {
        topic["topic"]: topic["partitions"]
        for topic in described
        if topic["topic"] in names and topic["error_code"] == 0
    }
