"""How a table's values are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Format", "Write"]

V = TypeVar("V")

#: One changed key: key, new value (None deletes), the index entry it had, the one it has now.
Write = tuple[bytes, bytes | None, bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class Format(Generic[V]):
    """The codec of a table, and the one secondary index that is derived from its values.

    Args:
        encode: value to bytes, as they stand in RocksDB and in the changelog.
        decode: bytes to value.
        index: the sorted bytes under which a key is listed, or None for a key that is not listed.
            Derived from the value alone, so it is never logged.
        index_bytes: width of every index entry.
    """

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]
    index: Callable[[bytes, V], bytes | None] | None = None
    index_bytes: int = 0
