"""The time by the clock of a real broker."""

from __future__ import annotations

import time

import pytest
from aiokafka.errors import KafkaError

from streams.engine.broker_time import NotStamped, broker_time
from streams.kafka.topics import create_topics
from streams.topics import PlacedTopic, clock_topic
from tests.conftest import Broker, Names

pytestmark = pytest.mark.kafka


async def test_the_broker_says_when_it_appended_a_record(kafka: Broker, names: Names) -> None:
    """Whatever the producer's clock says; here both are of one machine."""
    topic = clock_topic(names.app_id)
    await create_topics(kafka.url, [topic])
    before_ms = time.time_ns() // 1_000_000
    said = await broker_time(kafka.bootstrap, topic.name)
    after_ms = time.time_ns() // 1_000_000

    assert before_ms - 1_000 <= said <= after_ms + 1_000


async def test_a_topic_with_the_producers_times_tells_nothing(kafka: Broker, names: Names) -> None:
    """That would compare a clock with itself."""
    topic = PlacedTopic(names.topic("own-times"), 1, {}, "clock")
    await create_topics(kafka.url, [topic])
    with pytest.raises(NotStamped, match=topic.name):
        await broker_time(kafka.bootstrap, topic.name)


async def test_without_a_broker_there_is_no_time() -> None:
    """It is asked for again later."""
    with pytest.raises(KafkaError):
        await broker_time("127.0.0.1:1", "any")
