"""Read the headers of a record whose names are not UTF-8: no client returns such a record."""

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy as Batch
from aiokafka.structs import TopicPartition

Headers = tuple[tuple[str, bytes | None], ...]
LARGEST_BYTES = 32 * 2**20


class Text(bytearray):
    """Bytes that decode whatever they are, so that the same bytes can be had from the text again."""

    def __getitem__(self, part: Any) -> Any:
        found = super().__getitem__(part)
        return Text(found) if isinstance(part, slice) else found

    def decode(self, *_how: str) -> str:  # type: ignore[override]
        return bytes(self).decode("utf-8", "surrogateescape")


def read_headers(bootstrap: str, topic: str, partition: int, offset: int) -> Headers:
    """Return the headers of one record; bytes that are not UTF-8 are surrogates in their names."""
    return asyncio.run(_read(bootstrap, topic, partition, offset))


async def _read(bootstrap: str, topic: str, partition: int, offset: int) -> Headers:
    client = AIOKafkaClient(bootstrap_servers=bootstrap.split(","))
    await client.bootstrap()
    try:
        await client.set_topics([topic])
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        wanted = [(topic, [(partition, offset, LARGEST_BYTES)])]
        answer = await client.send(leader, FetchRequest(1_000, 1, LARGEST_BYTES, 0, wanted))
    finally:
        await client.close()
    ((_topic, ((*_about, data),)),) = answer.topics
    for record in records(bytes(data)):
        if record.offset == offset:
            return tuple(record.headers)
    raise LookupError(f"{topic}/{partition} has no record at {offset}")


def records(data: bytes) -> Iterator[Any]:
    """Yield the records of several batches, which may end within the last one."""
    while len(data) > 12:
        (size,) = struct.unpack_from(">i", data, 8)
        if len(data) < 12 + size:
            return
        batch = Batch(data[: 12 + size])
        iter(batch)  # uncompresses
        batch._buffer = Text(batch._buffer)
        yield from batch
        data = data[12 + size :]
