"""Where Kafka's default partitioner lays a key."""

from __future__ import annotations

from struct import Struct
from typing import Final

__all__ = ["murmur2", "partition_of"]

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_WORDS: Final = tuple(Struct(f"<{count}I") for count in range(65))


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of `key`, as Java's and aiokafka's producers choose it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(key: bytes) -> int:
    """Return Kafka's 32-bit murmur2 of `key`, unsigned.

    Source: Apache Kafka, org.apache.kafka.common.utils.Utils.murmur2. Written anew because
    aiokafka's goes byte by byte and takes about twice as long, for each new message.
    """
    length = len(key)
    count = length >> 2
    words = _WORDS[count] if count < len(_WORDS) else Struct(f"<{count}I")
    hashed = _SEED ^ length
    for word in words.unpack_from(key):
        word = word * _M & _MASK
        hashed = (hashed * _M ^ (word ^ word >> 24) * _M) & _MASK
    if rest := key[count << 2 :]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    return hashed ^ hashed >> 15
