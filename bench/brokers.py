"""The broker that is measured on, its topics, and what the benchmark puts into them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from confluent_kafka import Consumer, TopicPartition

from streams.demo.places import Place
from streams.demo.producing import Packer, bootstrap_servers, fill, open_producer, quiet_kafka_clients
from streams.demo.traffic import NO_FAULTS, Arrangement, Sample, Tally, Traffic, generate
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.topics import create_topics

PARTITIONS = 4
CALLBACKS_PER_MESSAGE = 3.27
"""What traffic without faults comes to: QUEUED, SENT, DELIVERED or FAILED, then some READ and CLICKED."""

HOUR_S = 3600
SCATTERED_MEAN_DELIVERY_S = 600.0
ANSWER_S = 15.0


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """The URL of TRACKER_BROKER_URL's broker, else of an embedded one for as long as this lasts."""
    given = os.environ.get("TRACKER_BROKER_URL")
    if given:
        yield given
        return
    with EmbeddedKafka() as embedded:
        yield embedded.url


def fresh_place(name: str) -> Place:
    """Topics and a group that nobody has used."""
    unique = f"bench-{name}-{time.time_ns() // 1_000_000}"
    return Place(app_id=unique, topic_prefix=f"{unique}.", partitions=PARTITIONS)


def same_topics(place: Place, name: str) -> Place:
    """A fresh group on the same topics."""
    return replace(place, app_id=f"{place.app_id}-{name}")


def callbacks(count: int, arrangement: Arrangement, *, over_s: float = HOUR_S) -> Iterable[Sample]:
    """Well-formed callbacks without track requests; scattered: over `over_s` seconds of traffic."""
    per_second = count / CALLBACKS_PER_MESSAGE / over_s
    traffic = Traffic(
        messages=None,
        messages_per_second=per_second,
        start_ms=int((time.time() - 2 * over_s - 20 * SCATTERED_MEAN_DELIVERY_S) * 1000),
        arrangement=arrangement,
        mean_delivery_s=SCATTERED_MEAN_DELIVERY_S,
        tracked=False,
        faults=NO_FAULTS,
    )
    return islice(generate(traffic, Tally()), count)


def make_topics(url: str, place: Place) -> None:
    """Create the catalogue's topics for `place`."""
    asyncio.run(create_topics(url, place.topics()))


def fill_topics(url: str, place: Place, samples: Iterable[Sample], *, config: Mapping[str, str] = {}) -> int:
    """Create the topics and produce `samples`; returns how many records.

    Args:
        config: what the topics have otherwise than in the catalogue.
    """
    quiet_kafka_clients()

    async def produce() -> int:
        topics = [topic._replace(config={**topic.config, **config}) for topic in place.topics()]
        await create_topics(url, topics)
        async with open_producer(bootstrap_servers(url)) as producer:
            return await fill(Packer(producer, place.inputs, place.partitions), samples)

    return asyncio.run(produce())


def committed(url: str, group: str, topics: Iterable[str], partitions: int) -> int:
    """The sum of a group's committed offsets."""
    places = [TopicPartition(topic, number) for topic in topics for number in range(partitions)]
    consumer = Consumer({"bootstrap.servers": bootstrap_servers(url), "group.id": group})
    try:
        return sum(max(0, place.offset) for place in consumer.committed(places, timeout=ANSWER_S))
    finally:
        consumer.close()


def log_length(url: str, topic: str, partitions: int) -> int:
    """Offsets between a topic's start and its end; markers of transactions count too."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers(url), "group.id": "bench"})
    try:
        total = 0
        for number in range(partitions):
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_S)
            total += high - low
        return total
    finally:
        consumer.close()
