"""Table partitions of a simulated machine: in memory, or in RocksDB in a share of the runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from streams.engine.formats import Format, Write
from streams.engine.store import PartitionStore

__all__ = ["Directory", "MemoryStore", "Stores", "Table"]

#: Writes that memory keeps beside what is flushed.
UNFLUSHED = 20


class MemoryStore:
    """What `PartitionStore` is to the engine, without a disk: a crash loses a tail of unflushed writes."""

    def __init__(self, format: Format[Any]) -> None:
        self.rows: dict[bytes, bytes] = {}
        self._format = format
        self.offset: int | None = None
        self.timestamp_ms = -1
        self.log: Any = None
        self.path = Path("memory")
        self._flushed: tuple[dict[bytes, bytes], int | None, int] = ({}, None, -1)
        self._tail: list[tuple[list[Write], int, int]] = []

    def read_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of keys."""
        return [self.rows.get(key) for key in keys]

    def bind(self, log: Any) -> None:
        """Record which log this store belongs to."""
        self.log = log

    def write(self, writes: Iterable[Write], offset: int, timestamp_ms: int) -> None:
        """Apply writes and the offset together."""
        self._tail.append((list(writes), offset, timestamp_ms))
        self._apply(*self._tail[-1])
        if len(self._tail) > UNFLUSHED:
            self.close()

    def _apply(self, writes: list[Write], offset: int, timestamp_ms: int) -> None:
        for key, value, *_ in writes:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.offset, self.timestamp_ms = offset, timestamp_ms

    def restore(self, records: Sequence[Any], offset: int) -> None:
        """Apply changelog records."""
        timestamp_ms = records[-1].timestamp if records else self.timestamp_ms
        self.write([(record.key, record.value, (), ()) for record in records], offset, timestamp_ms)

    def keys(self, first: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return keys from `first` on, before `end`."""
        return sorted(key for key in self.rows if first <= key < end)[:limit]

    def listings(self, first: bytes, end: bytes) -> Iterator[bytes]:
        """Iterate over the listings of the index from one on, before another."""
        decode, index = self._format.decode, self._format.index
        assert index is not None
        listed = sorted(
            entry + key for key, value in self.rows.items() for entry in index(key, decode(value))
        )
        return (listing for listing in listed if first <= listing < end)

    def scan_index(self, prefix: bytes, limit: int, after: bytes | None, before: bytes | None) -> list[bytes]:
        """Return listings by prefix, between two others."""
        first = prefix if after is None else after + b"\0"
        end = prefix + b"\xff" * 64 if before is None else before
        return list(islice(self.listings(first, end), limit))

    def close(self) -> None:
        """Flush."""
        self._flushed, self._tail = (dict(self.rows), self.offset, self.timestamp_ms), []

    def crash(self, chance: Random) -> None:
        """Lose what was not flushed: any tail of the writes, none of them in part."""
        tail, self._tail = self._tail, []
        rows, self.offset, self.timestamp_ms = self._flushed
        self.rows = dict(rows)
        for write in tail[: chance.randint(0, len(tail))]:
            self._apply(*write)
        self.close()


class Directory:
    """The data directory of a machine; it survives the processes that use it.

    Args:
        path: where RocksDB keeps the stores; None: they are kept in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._memory: dict[tuple[str, int], MemoryStore] = {}

    def open(self, table: str, number: int, format: Format[Any]) -> Any:
        """Open a table partition."""
        if self._path is None:
            return self._memory.setdefault((table, number), MemoryStore(format))
        return PartitionStore(self._path / f"{table}-{number}.db", format)

    def remove(self, table: str, number: int) -> None:
        """Remove a closed table partition."""
        if self._path is None:
            del self._memory[table, number]
        else:
            shutil.rmtree(self._path / f"{table}-{number}.db")

    def crash(self, chance: Random) -> None:
        """Lose what was not flushed."""
        for store in self._memory.values():
            store.crash(chance)


class Stores:
    """What `TransactionalStore` is to the engine."""

    def __init__(self, directory: Directory, table: str, format: Format[Any]) -> None:
        self._directory = directory
        self._table = table
        self._format = format
        self._open: dict[int, Any] = {}

    def partition(self, number: int) -> Any:
        """Return the store of a partition, opened when it is not yet."""
        if number not in self._open:
            self._open[number] = self._directory.open(self._table, number, self._format)
        return self._open[number]

    def opened(self, number: int) -> Any:
        """Return the store of a partition if it is open."""
        return self._open.get(number)

    def renew(self, number: int, reason: str, detail: str, *, keep: bool) -> Any:
        """Replace the store of a partition by an empty one."""
        self._open.pop(number).close()
        self._directory.remove(self._table, number)
        return self.partition(number)

    def all_open(self) -> Iterator[tuple[int, Any]]:
        """Iterate over the open partitions."""
        yield from self._open.items()

    def close(self, keep: Callable[[int], bool] = lambda number: False) -> None:
        """Close the partitions but those to keep."""
        for number in [number for number in self._open if not keep(number)]:
            self._open.pop(number).close()


class Table:
    """What a Faust table is to the engine."""

    recovery_buffer_size = 1000

    def __init__(self, name: str, format: Format[Any], directory: Directory) -> None:
        self.name = name
        self.format = format
        self.changelog_topic_name = f"{name}-changelog"
        self.store = Stores(directory, name, format)

    def persisted_offset(self, tp: Any) -> int | None:
        """Return the offset of the last changelog record that is stored."""
        offset: int | None = self.store.partition(tp.partition).offset
        return offset
