"""The catalogue of topics: what each holds, under which key, and how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from streams.domain.webhooks import Attempted
from streams.messages import Event, StatsRow, StatusCallback, Stream, TrackRequest

__all__ = [
    "CATALOGUE",
    "DEAD_LETTER_BYTES",
    "DELETE_RETENTION_MS",
    "TABLES",
    "Names",
    "PlacedTopic",
    "Role",
    "TopicSpec",
    "changelogs",
    "clock_topic",
    "co_partitioned",
    "names",
    "outputs",
    "placed",
]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
INPUT_BYTES: Final = 16 * 1024 * 1024
#: How long a changelog keeps that a row was deleted. A store that was left behind for more than half of it is
#: rebuilt from the log's start.
DELETE_RETENTION_MS: Final = 7 * DAY_MS
#: Room for the headers that a dead letter has beside those of its original.
DEAD_LETTER_BYTES: Final = 1024 * 1024

Role = Literal["input", "output", "dead letters", "changelog", "clock"]
"""What a worker does with a topic: which of its settings matter follows from it."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic.

    Attributes:
        name: without the prefix.
        key: what its records are keyed by.
        value: type of its values; bytes where they are kept as they came.
        holds: what it holds, in one line.
        config: the broker's settings for it.
        co_partitioned: whether lanes read it: all such topics have the same partitions, assigned together.
        role: what a worker does with it.
    """

    name: str
    key: str
    value: type
    holds: str
    config: Mapping[str, str]
    co_partitioned: bool = False
    role: Role = "output"


class PlacedTopic(NamedTuple):
    """A topic of the catalogue with its full name and its partitions, as it is created."""

    name: str
    partitions: int
    config: Mapping[str, str]
    role: Role


class Names(NamedTuple):
    """Full names of the topics of one prefix."""

    requests: str
    statuses: str
    events: str
    dead_letters: str
    stats: str
    webhooks: str

    @property
    def inputs(self) -> dict[Stream, str]:
        """Those that lanes read, by what an input is called in ids."""
        return {"requests": self.requests, "statuses": self.statuses, "webhooks": self.webhooks}


def _kept(days: int, largest_bytes: int) -> Mapping[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(days * DAY_MS),
        "max.message.bytes": str(largest_bytes),
        "message.timestamp.type": "CreateTime",
    }


CATALOGUE: Final = (
    TopicSpec(
        "requests",
        "messageId",
        TrackRequest,
        "requests to track, stop or erase a message",
        _kept(7, INPUT_BYTES),
        co_partitioned=True,
        role="input",
    ),
    TopicSpec(
        "statuses",
        "messageId",
        StatusCallback,
        "what providers and others say about a message",
        _kept(7, INPUT_BYTES),
        co_partitioned=True,
        role="input",
    ),
    TopicSpec(
        "events",
        "messageId",
        Event,
        "what became of each message, in order per message; read it with isolation.level=read_committed",
        _kept(7, INPUT_BYTES),
    ),
    TopicSpec(
        "dead-letters",
        "of the original",
        bytes,
        "input records that cannot be read, untouched, with headers that say why",
        _kept(30, INPUT_BYTES + DEAD_LETTER_BYTES),
        role="dead letters",
    ),
    TopicSpec(
        "stats",
        "window and group",
        StatsRow,
        "what each partition counts of each hour and day, by tenant, channel, provider and template",
        {"cleanup.policy": "compact", "max.message.bytes": str(INPUT_BYTES)},
    ),
    TopicSpec(
        "webhooks",
        "messageId",
        Attempted,
        "between workers: what came of the attempts to deliver webhooks",
        _kept(7, INPUT_BYTES),
        co_partitioned=True,
        role="input",
    ),
)


def names(prefix: str) -> Names:
    """Return the full names of all topics."""
    return Names(*(prefix + topic.name for topic in CATALOGUE))


def co_partitioned(prefix: str) -> tuple[str, ...]:
    """Return the full names of the topics that lanes read."""
    return tuple(prefix + topic.name for topic in CATALOGUE if topic.co_partitioned)


def outputs(prefix: str) -> tuple[str, ...]:
    """Return the full names of the topics that others read."""
    return tuple(prefix + topic.name for topic in CATALOGUE if topic.role in ("output", "dead letters"))


TABLES: Final = (
    "deliveries",
    "endpoints",
    "pending_stats",
    "period_stats",
    "provider_health",
    "webhook_events",
    "webhook_queues",
    "webhook_sendings",
)
"""The tables, each of which Kafka holds in a changelog."""


def changelogs(app_id: str, partitions: int) -> list[PlacedTopic]:
    """Return the tables' changelogs as they are created; Faust gives them their names.

    Made before a worker joins its group: an assignor whose metadata lacks a changelog leaves it out of the
    assignment, and the table would not be recovered.
    """
    config = {
        "cleanup.policy": "compact",
        "max.message.bytes": str(INPUT_BYTES),
        # what was erased goes with the next compaction, and the newest segment is never compacted
        "segment.ms": str(DAY_MS),
        "max.compaction.lag.ms": str(DAY_MS),
        "delete.retention.ms": str(DELETE_RETENTION_MS),
        # the age of a store is judged by these timestamps, so they are of the brokers' clocks
        "message.timestamp.type": "LogAppendTime",
    }
    return [PlacedTopic(f"{app_id}-{table}-changelog", partitions, config, "changelog") for table in TABLES]


def clock_topic(app_id: str) -> PlacedTopic:
    """Return the topic that workers learn the broker's time from: it stamps what they write there.

    Made like the changelogs, before a worker joins its group.
    """
    config = {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(HOUR_MS),
        "segment.ms": str(HOUR_MS),
    }
    return PlacedTopic(f"{app_id}-clock", 1, config, "clock")


def placed(prefix: str, partitions: int) -> list[PlacedTopic]:
    """Return all topics as they are created."""
    return [PlacedTopic(prefix + topic.name, partitions, topic.config, topic.role) for topic in CATALOGUE]
