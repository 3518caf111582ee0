"""The records of a fetch, as aiokafka's parser makes them.

A header's name is a string in Kafka's protocol, but no broker checks its bytes, and librdkafka and others
write any. aiokafka's parser decodes it strictly, in the midst of a batch, so one such record would end each
worker that reads it. Here a batch with such a name is parsed again by aiokafka's parser in Python, and the
bytes that are not UTF-8 become surrogates (``surrogateescape``), from which `header_names.any_names_batch`
makes the same bytes again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, SupportsIndex

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

__all__ = ["FetchedRecords", "ParsedRecords", "as_parsed"]

log = logging.getLogger(__name__)

#: Size of the values of one fetch and partition that are parsed; a larger batch is parsed alone.
PARSED_BYTES = 4 << 20


class _LenientBytes(bytearray):
    """Bytes of which each part can be decoded: what is not UTF-8 becomes surrogates."""

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return _LenientBytes(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> str:
        return super().decode(encoding, "surrogateescape")


def _parsed_leniently(raw: bytes, number: int) -> list[Any]:
    """Return the records of batch `number`, counted from 0."""
    slices = _MemoryRecordsPy(raw)
    for _ in range(number):
        slices._cache_next()
    batch = _DefaultRecordBatchPy(slices._next_slice)
    batch._maybe_uncompress()
    batch._buffer = _LenientBytes(batch._buffer)
    return list(batch)


class _Batch:
    """A record batch whose records can be parsed whatever the names of their headers are."""

    def __init__(self, batch: Any, fetched: FetchedRecords, number: int) -> None:
        self._batch = batch
        self._fetched = fetched
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        # aiokafka looks at the one record of a control batch so
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            records = list(self._batch)
        except UnicodeDecodeError:
            records = _parsed_leniently(self._fetched.raw, self._number)
        self._fetched.parsed_bytes += sum([len(record.value or b"") for record in records])
        return iter(records)


class FetchedRecords:
    """The record batches of one partition in a fetch: aiokafka's `MemoryRecords` with any header names.

    A fetch is bounded in compressed bytes, which may be a thousandth of what they unpack to. So the batches
    end early when those that were parsed are large; aiokafka then fetches the next ones once more.

    Attributes:
        raw: all batches.
        parsed_bytes: size of the values that were parsed so far.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.parsed_bytes = 0
        self._batches = MemoryRecords(raw)
        self._number = -1

    def size_in_bytes(self) -> int:
        """Return the size of all batches, compressed as they are."""
        size: int = self._batches.size_in_bytes()
        return size

    def has_next(self) -> bool:
        """Whether there is another batch that is parsed now."""
        has_next: bool = self._batches.has_next()
        return has_next and self.parsed_bytes < PARSED_BYTES

    def next_batch(self) -> Any:
        """Return the next batch."""
        self._number += 1
        return _Batch(self._batches.next_batch(), self, self._number)


class ParsedRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Hands on the parser's own records.

    aiokafka copies each into a dataclass of twelve fields, through two more calls: 3 µs a record, as much as
    all that is done to decode it. A batch has the topic and the partition, and its records the rest.
    """

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:
        return record

    def __iter__(self) -> Iterator[Any]:
        return iter(self._records_iterator)

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        except Exception:
            log.exception(
                "%s/%d cannot be read on from offset %d",
                self._tp.topic,
                self._tp.partition,
                self.next_fetch_offset,
            )
            raise


def as_parsed(value: Any) -> Any:
    """Mark, as its deserializer, a consumer whose records are wanted as they were parsed."""
    return value


def _records(tp: Any, records: Any, aborted: Any, offset: int, key_deserializer: Any, *rest: Any) -> Any:
    chosen = ParsedRecords if key_deserializer is as_parsed else _PartitionRecords
    return chosen(tp, records, aborted, offset, key_deserializer, *rest)


# aiokafka has no seam here; consumers that are not marked get what they always got
_PartitionRecords = fetcher.PartitionRecords
fetcher.PartitionRecords = _records
fetcher.MemoryRecords = FetchedRecords
