"""One RocksDB for one partition of a table: data, index and changelog offset move together.

Layout, in raw bytes: data under its own key; ``FE "offset"`` holds the offset of the last changelog
record that the data contains; ``FF + index entry + key`` lists a key in the index. Every write is one
``WriteBatch`` with the offset in it, so what is on disk is always the state after exactly one
changelog offset. The write-ahead log is off for that reason: a crash loses the tail that was not flushed
yet, data and offset alike, and recovery reads it again from the changelog (Kafka Streams does the same,
``RocksDBStore.java``, ``setDisableWAL``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from streams.engine.batches import Record
from streams.engine.formats import Entries, Format, Write

__all__ = ["PartitionStore", "Snapshot"]

E = TypeVar("E")

OFFSET = b"\xfeoffset"
INDEX = b"\xff"

#: Shared by every store of the process: a cache and buffers per store would multiply by tables and
#: partitions. The buffers count as part of the cache, so the two together are bounded.
_cache = Cache(256 << 20)
_buffers = WriteBufferManager.new_write_buffer_manager_with_cache(128 << 20, False, _cache)


#: Deletions among so many entries in a row (the second of the first) that have a file compacted.
DELETIONS = (1024, 512, 0.0)


def _options() -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(_cache)
    table.set_bloom_filter(10, False)
    table.set_index_type(BlockBasedIndexType.binary_search())
    table.set_cache_index_and_filter_blocks(True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(32 << 20)
    options.set_write_buffer_manager(_buffers)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    # one lane writes, so the arenas for concurrent writers only scatter what it reads again
    options.set_allow_concurrent_memtable_write(False)
    # what was listed as due is deleted in order, and a scan would step over all of it again and again
    options.add_compact_on_deletion_collector_factory(*DELETIONS)
    return options


def _without_log() -> Any:
    options: Any = WriteOptions()
    # an attribute, though rocksdict's stub says that it is a method
    options.disable_wal = True
    return options


def _behind(prefix: bytes) -> bytes:
    """Return what comes after everything that begins with `prefix`."""
    whole = prefix.rstrip(b"\xff")
    return whole[:-1] + bytes([whole[-1] + 1]) if whole else b"\xff" * 16


def _before(end: bytes, iterate: Callable[[ReadOptions], Iterator[E]]) -> Iterator[E]:
    """Return an iterator that ends before a key and shows the data as they are now.

    Trap 24: without an end, one that finds too few goes on over all that was deleted behind it.
    """
    options = ReadOptions()
    options.set_iterate_upper_bound(end)
    return _keeping(options, iterate(options))


def _keeping(options: ReadOptions, entries: Iterator[E]) -> Iterator[E]:
    # Trap 25: rocksdict's iterator points to the end in its options, and does not keep them alive
    yield from entries
    del options


class Snapshot:
    """The values of a store as they were at one moment.

    An iterator shows that; rocksdict's own snapshots do not, when they are iterated over.
    """

    def __init__(self, db: Any) -> None:
        self._entries = db.iter()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        entries = self._entries
        entries.seek(key)
        found: bytes | None = entries.value() if entries.valid() and entries.key() == key else None
        return found


class PartitionStore:
    """The stored half of one table partition."""

    def __init__(self, path: Path, format: Format[Any]) -> None:
        self.path = path
        self._format = format
        self._writing = _without_log()
        path.mkdir(parents=True, exist_ok=True)
        self._db: Any = Rdict(str(path), _options())

    @property
    def offset(self) -> int | None:
        """Offset of the last changelog record that this store contains."""
        stored = self._db.get(OFFSET)
        return None if stored is None else int(stored)

    def read_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the stored values of `keys`, in their order."""
        found: Sequence[bytes | None] = self._db.get(list(keys))
        return found

    def write(self, writes: Iterable[Write], offset: int) -> None:
        """Apply what a unit of work changed, and the offset of its last changelog record."""
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value, was_listed, is_listed in writes:
            if value is None:
                delete(key)
            else:
                put(key, value)
            if was_listed != is_listed:
                for entry in was_listed:
                    if entry not in is_listed:
                        delete(INDEX + entry + key)
                for entry in is_listed:
                    if entry not in was_listed:
                        put(INDEX + entry + key, b"")
        put(OFFSET, b"%d" % offset)
        self._db.write(batch, self._writing)

    def restore(self, records: Iterable[Record], offset: int) -> None:
        """Apply changelog records; the index is derived again from their values."""
        latest = {record.key: record.value for record in records if record.key is not None}
        self.write(self._as_writes(latest), offset)

    def _as_writes(self, latest: dict[bytes, bytes | None]) -> Iterator[Write]:
        listed = self._listing()
        if listed is None:
            for key, value in latest.items():
                yield key, value, (), ()
            return
        for (key, value), before in zip(latest.items(), self.read_many(list(latest)), strict=True):
            yield key, value, listed(key, before), listed(key, value)

    def _listing(self) -> Callable[[bytes, bytes | None], Entries] | None:
        decode, index = self._format.decode, self._format.index
        if index is None:
            return None
        return lambda key, value: () if value is None else index(key, decode(value))

    def scan(self, prefix: bytes, limit: int, after: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """Return up to `limit` data entries whose keys begin with `prefix`, strictly after `after`."""
        first = prefix if after is None else after + b"\0"
        # an iterator shows the data as it was when it was made, and must not outlive this call:
        # RocksDB keeps its lock as long as one lives
        entries: Iterator[tuple[bytes, bytes]] = self._db.items(from_key=first)
        return [
            (key, value)
            for key, value in islice(entries, limit)
            if key.startswith(prefix) and key[:1] < OFFSET[:1]
        ]

    def keys(self, first: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return up to `limit` keys from `first` on, before `end`, in order."""
        return list(islice(self._keys(first, end), limit))

    def rows(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the entries from `first` on, before `end`, in order, as they are now.

        RocksDB keeps these, and its lock, as long as the iterator is there.
        """
        return _before(end, lambda options: self._db.items(from_key=first, read_opt=options))

    def listings(self, first: bytes, end: bytes) -> Iterator[bytes]:
        """Iterate over the listings (entry + key) so, as they are now."""
        return (key[1:] for key in self._keys(INDEX + first, INDEX + end))

    def _keys(self, first: bytes, end: bytes) -> Iterator[bytes]:
        return _before(end, lambda options: self._db.keys(from_key=first, read_opt=options))

    def scan_index(
        self, prefix: bytes, limit: int, after: bytes | None = None, before: bytes | None = None
    ) -> list[bytes]:
        """Return up to `limit` listings (entry + key) with a `prefix`, between `after` and `before`."""
        first = INDEX + (prefix if after is None else after + b"\0")
        end = INDEX + (_behind(prefix) if before is None else before)
        listings = islice(self._keys(first, end), limit)
        return [listing[1:] for listing in listings if listing.startswith(INDEX + prefix)]

    def snapshot(self) -> Snapshot:
        """Return the values as they are now; RocksDB keeps them, and its lock, until the snapshot goes."""
        return Snapshot(self._db)

    def close(self) -> None:
        """Flush and release the directory, so that another worker of this machine may open it."""
        self._db.close()

    def destroy(self) -> None:
        """Remove everything that is stored here; the changelog still has it."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
