"""Record batches whose headers have any names.

A forwarded record and a dead letter have the headers of their original, and no broker checks that a name is
UTF-8. Parsing turns other bytes into surrogates (``surrogateescape``); here they become the same bytes again.
"""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from streams.engine.compression import CODECS, is_transactional

__all__ = ["any_names_batch"]


class _Name(str):
    """A name that is encoded as the bytes that it was decoded from."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        return super().encode(encoding, "surrogateescape")


class _Builder(_DefaultRecordBatchBuilderPy):  # type: ignore[misc]
    """aiokafka's builder in Python; the one in C refuses surrogates."""

    def append(self, offset: int, timestamp: int, key: Any, value: Any, headers: Any) -> Any:
        return super().append(offset, timestamp, key, value, [(_Name(name), data) for name, data in headers])


class _Batch(BatchBuilder):  # type: ignore[misc]
    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        # aiokafka's own asserts that the builder is the one in C
        self._builder.set_producer_state(producer_id, producer_epoch, base_sequence)


def any_names_batch(producer: AIOKafkaProducer) -> BatchBuilder:
    """Return an empty batch of this producer, without compression, for records with any header names."""
    size, codec = producer._message_accumulator._batch_size, CODECS["none"]
    batch = _Batch(size, codec)
    batch._builder = _Builder(2, codec, is_transactional(producer), -1, -1, 0, size)
    return batch
