"""The time by the broker's clock: when it appends a record to a topic that is stamped by it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiokafka import AIOKafkaProducer

__all__ = ["NotStamped", "broker_time"]

TIMEOUT_MS: Final = 5_000
LONGEST_S: Final = 20.0
APPENDED: Final = 1
"""Kafka's number for timestamps that the broker gives (LogAppendTime)."""


class NotStamped(Exception):
    """The topic keeps the timestamps that producers give; `topic` needs LogAppendTime."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic} needs message.timestamp.type=LogAppendTime")
        self.topic = topic


async def broker_time(servers: list[str] | str, topic: str) -> int:
    """Return the time by the clock of the broker that leads the first partition of a topic; ms.

    A producer of its own, so that nothing else suffers when it fails.

    Raises:
        KafkaError, TimeoutError: no broker answers, or it refuses the record.
        NotStamped: the topic does not have the broker's timestamps.
    """
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks=1, request_timeout_ms=TIMEOUT_MS)
    async with asyncio.timeout(LONGEST_S):
        try:
            await producer.start()
            appended: Any = await producer.send_and_wait(topic, b"", partition=0)
        finally:
            await producer.stop()
    if appended.timestamp_type != APPENDED:
        raise NotStamped(topic)
    return int(appended.timestamp)
