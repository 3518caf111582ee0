"""Read a `World` out of Kafka with a client and a consumer that are not the project's."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from .checker import World
from .decoding import read_cells, read_delivery
from .headers import read_headers
from .inputs import Raw

#: How many calls may fail because of an exception that a call before has left set.
LEFT_SET = 4
STREAMS = ("requests", "statuses")
TABLES = ("deliveries", "period_stats", "pending_stats")
TIMEOUT_S = 30.0
COORDINATOR_COMES = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


@dataclass(frozen=True)
class Names:
    """What one application's topics are called."""

    bootstrap: str
    app_id: str
    prefix: str
    partitions: int

    def input(self, stream: str) -> str:
        return f"{self.prefix}{stream}"

    def changelog(self, table: str) -> str:
        return f"{self.app_id}-{table}-changelog"

    @property
    def all(self) -> tuple[str, ...]:
        outputs = (f"{self.prefix}events", f"{self.prefix}dead-letters")
        tables = map(self.changelog, TABLES)
        return (*map(self.input, STREAMS), *outputs, *tables)


def read_world(names: Names) -> World:
    """Read everything that is committed."""
    logs = read_topics(names, *names.all)
    deliveries, period_stats, pending = (
        {p: replayed(log) for p, log in logs[names.changelog(table)].items()} for table in TABLES
    )
    cells = {
        p: read_cells(period_stats.get(p, {}), pending.get(p, {}))
        for p in period_stats.keys() | pending.keys()
    }
    return World(
        partitions=names.partitions,
        requests=logs[names.input("requests")],
        statuses=logs[names.input("statuses")],
        events={p: of_messages(log) for p, log in logs[f"{names.prefix}events"].items()},
        dead_letters=logs[f"{names.prefix}dead-letters"],
        deliveries={p: dict(read_delivery(*row) for row in by.items()) for p, by in deliveries.items()},
        cells={p: counts for p, (counts, _) in cells.items()},
        updated_at={p: at for p, (_, at) in cells.items()},
        committed=committed(names),
        hanging=hanging(names),
    )


def of_messages(events: list[Raw]) -> list[Raw]:
    """Leave out what workers tell of themselves, of providers and of webhooks."""
    others = (b'"workerId"', b'"figures"', b'"endpointId"')
    return [event for event in events if not any(name in (event.value or b"") for name in others)]


def consumer(names: Names, group: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": names.bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 20,
        }
    )


def read_topic(names: Names, topic: str) -> dict[int, list[Raw]]:
    """Return a topic's records by partition; partitions without one are left out."""
    return read_topics(names, topic)[topic]


def read_topics(names: Names, *topics: str) -> dict[str, dict[int, list[Raw]]]:
    """Return several topics at once."""
    whole = [TopicPartition(topic, p, OFFSET_BEGINNING) for topic in topics for p in range(names.partitions)]
    return read_from(names, whole)


def read_from(names: Names, positions: list[TopicPartition]) -> dict[str, dict[int, list[Raw]]]:
    """Return what is committed from these positions on, by topic and partition."""
    records: dict[str, dict[int, list[Raw]]] = {position.topic: {} for position in positions}
    for message in _messages_from(names, positions):
        found = raw(message, names.bootstrap)
        records[message.topic()].setdefault(message.partition(), []).append(found)
    return records


def count_records(names: Names, topic: str) -> int:
    """Return how many records of a topic are committed; none of them is kept."""
    whole = [TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(names.partitions)]
    return sum(1 for _ in _messages_from(names, whole))


def _messages_from(names: Names, positions: list[TopicPartition]) -> Iterator[Message]:
    reader = consumer(names, "checker")
    try:
        reader.assign(positions)
        ended: set[tuple[str, int]] = set()
        deadline = time.monotonic() + TIMEOUT_S
        while len(ended) < len(positions):
            if time.monotonic() > deadline:
                topics = sorted({position.topic for position in positions})
                raise TimeoutError(f"{topics} not read within {TIMEOUT_S} s")
            # it waits that long for so many, however few are left
            for message in reader.consume(10_000, 0.1):
                if message.error() is None:
                    deadline = time.monotonic() + TIMEOUT_S
                    yield message
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add((message.topic(), message.partition()))
                else:
                    raise RuntimeError(str(message.error()))
    finally:
        reader.close()


def raw(message: Message, bootstrap: str) -> Raw:
    place = (message.topic(), message.partition(), message.offset())
    rest = (message.timestamp()[1], message.key(), message.value())
    # confluent-kafka leaves an exception set for a name that is not UTF-8; this call or a later one raises it
    try:
        return Raw(*place, *rest, tuple(message.headers() or ()))
    except SystemError:
        pass
    for _ in range(LEFT_SET):
        try:
            return Raw(*place, *rest, read_headers(bootstrap, *place))
        except (SystemError, UnicodeDecodeError):
            pass
    raise RuntimeError(f"{place} cannot be read")


def replayed(changelog: list[Raw], until: int | None = None) -> dict[bytes, bytes]:
    """Return what a changelog's partition comes to at the offset `until`: tombstones are respected."""
    state = {r.key or b"": r.value for r in changelog if until is None or r.offset <= until}
    return {key: value for key, value in state.items() if value is not None}


def committed(names: Names) -> dict[tuple[str, int], int]:
    reader = consumer(names, names.app_id)
    try:
        asked = [TopicPartition(names.input(s), p) for s in STREAMS for p in range(names.partitions)]
        answers = _asked_until_known(reader, asked)
    finally:
        reader.close()
    found = {(tp.topic.removeprefix(names.prefix), tp.partition): tp.offset for tp in answers}
    return {place: offset for place, offset in found.items() if offset >= 0}


def _asked_until_known(reader: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    """Ask for the group's offsets; a broker that has just started may not have its coordinator yet."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return reader.committed(asked, timeout=TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() not in COORDINATOR_COMES or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def ends(names: Names, topics: tuple[str, ...], isolation: IsolationLevel) -> dict[tuple[str, int], int]:
    """Return the end of each partition: the last stable offset, or the high watermark."""
    admin = AdminClient({"bootstrap.servers": names.bootstrap, "log_level": 4})
    asked = {
        TopicPartition(topic, p): OffsetSpec.latest() for topic in topics for p in range(names.partitions)
    }
    answers: dict[TopicPartition, Future[Any]] = admin.list_offsets(
        asked, isolation_level=isolation, request_timeout=TIMEOUT_S
    )
    return {(tp.topic, tp.partition): answer.result().offset for tp, answer in answers.items()}


def members(names: Names) -> int:
    """Return how many members the group has, as its coordinator counts them."""
    admin = AdminClient({"bootstrap.servers": names.bootstrap, "log_level": 4})
    (asked,) = admin.describe_consumer_groups([names.app_id], request_timeout=TIMEOUT_S).values()
    return len(asked.result().members)


def hanging(names: Names) -> list[str]:
    """Return the partitions of which a part is hidden by a transaction that nobody ended."""
    stable = ends(names, names.all, IsolationLevel.READ_COMMITTED)
    written = ends(names, names.all, IsolationLevel.READ_UNCOMMITTED)
    return [f"{topic}/{p}" for (topic, p), end in written.items() if stable[topic, p] < end]


def caught_up(names: Names) -> bool:
    """Whether the group has committed every input; it need not have passed what is no record."""
    done = committed(names)  # before the ends: what is written meanwhile must not be overlooked
    topics = tuple(names.input(stream) for stream in STREAMS)
    written = ends(names, topics, IsolationLevel.READ_UNCOMMITTED)
    stable = ends(names, topics, IsolationLevel.READ_COMMITTED)
    for (topic, p), end in written.items():
        position = done.get((topic.removeprefix(names.prefix), p), 0)
        if position >= end:
            continue
        if stable[topic, p] < end or read_from(names, [TopicPartition(topic, p, position)])[topic]:
            return False
    return True
