"""A table that every process knows whole, whichever partitions it holds: its changelog, read and followed.

For small tables that lanes ask while they apply records: they must not wait for an answer from elsewhere.
What is known lags behind the table by the time that a commit takes to come here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.transport.drivers.aiokafka import server_list

from streams.engine.table import Table

__all__ = ["Mirror"]

V = TypeVar("V")

POLL_MS = 1_000
#: While it is not whole yet: then nothing more may come that the poll could wait for.
FIRST_POLL_MS = 20


class Mirror(Generic[V]):
    """Follows the changelog of a table.

    Args:
        take: gets each key that changes, with its value as it is now, None if it is there no longer.
    """

    def __init__(self, app: Any, table: Table[V], take: Callable[[bytes, V | None], None]) -> None:
        self._app = app
        self._table = table
        self._take = take
        #: Set once all is known that was there when it began.
        self.whole = asyncio.Event()

    async def follow(self) -> None:
        """Follow until the app stops."""
        topic = self._table.changelog_topic_name
        places = [TopicPartition(topic, number) for number in range(self._app.lanes.partitions)]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=server_list(self._app.transport.url, 9092),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            while not self._app.should_stop:
                if not self.whole.is_set():
                    await self._see_whether_whole(consumer, ends)
                wait_ms = POLL_MS if self.whole.is_set() else FIRST_POLL_MS
                for records in (await consumer.getmany(timeout_ms=wait_ms)).values():
                    self._take_all(records)
        finally:
            await consumer.stop()

    async def _see_whether_whole(self, consumer: Any, ends: dict[TopicPartition, int]) -> None:
        for place, end in ends.items():
            if await consumer.position(place) < end:
                return
        self.whole.set()

    def _take_all(self, records: list[Any]) -> None:
        decode = self._table.format.decode
        for record in records:
            self._take(record.key, None if record.value is None else decode(record.value))
