"""How a table's values are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Entries", "Format", "Write"]

V = TypeVar("V")

#: The sorted bytes under which a key is listed, each under another first byte.
Entries = tuple[bytes, ...]

#: One changed key: key, new value (None deletes), the index entries it had, those it has now.
Write = tuple[bytes, bytes | None, Entries, Entries]


@dataclass(frozen=True, slots=True)
class Format(Generic[V]):
    """The codec of a table, and the secondary indexes that are derived from its values.

    Args:
        encode: value to bytes, as they stand in RocksDB and in the changelog.
        decode: bytes to value.
        index: the entries under which a key is listed. Derived from the value alone, so never logged.
        index_bytes: width of every index entry.
    """

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]
    index: Callable[[bytes, V], Entries] | None = None
    index_bytes: int = 0
