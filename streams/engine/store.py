"""One RocksDB for one partition of a table: data, index and changelog offset move together.

Layout, in raw bytes: data under its own key; ``FE "offset"`` holds the offset and the timestamp of the last
changelog record that the data contains, ``FE "log"`` the identity of the changelog partition;
``FF + index entry + key`` lists a key in the index. Every write is one
``WriteBatch`` with the offset in it, so what is on disk is always the state after exactly one
changelog offset. The write-ahead log is off for that reason: a crash loses the tail that was not flushed
yet, data and offset alike, and recovery reads it again from the changelog (Kafka Streams does the same,
``RocksDBStore.java``, ``setDisableWAL``).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
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

from streams.engine import metrics
from streams.engine.batches import Record
from streams.engine.changelogs import LogId
from streams.engine.formats import Entries, Format, Write

__all__ = ["DamagedStore", "PartitionStore", "Snapshot", "open_store", "retire_store"]

E = TypeVar("E")

log = logging.getLogger(__name__)

OFFSET = b"\xfeoffset"
LOG = b"\xfelog"
INDEX = b"\xff"

#: A file in the directory of a store that must not be used again; it contains the reason.
MARKER = "DAMAGED"
#: The timestamp of a record that has none, in Kafka's protocol.
NO_TIMESTAMP = -1

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


class DamagedStore(Exception):
    """The files of a store are damaged. `path` is its directory, `damage` is RocksDB's description."""

    def __init__(self, path: Path, damage: str) -> None:
        super().__init__(f"the store {path} is damaged: {damage}")
        self.path = path
        self.damage = damage


def _is_damage(error: BaseException) -> bool:
    """Distinguish damaged files from a full disk, missing permission or a lock held by another process."""
    text = str(error)
    if text.startswith("IO error"):
        return "No such file or directory" in text
    # "Invalid argument": the files were written under other options than ours
    return isinstance(error, Exception) and text.startswith(("Corruption", "Invalid argument"))


def _ignore(damaged: DamagedStore) -> None:
    """Report nothing."""


class _Guard:
    """Replaces RocksDB's error about damaged files by `DamagedStore`, and marks the directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.on_damage: Callable[[DamagedStore], None] = _ignore

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None and _is_damage(error):
            raise self._damaged(str(error)) from error

    def _damaged(self, damage: str) -> DamagedStore:
        damaged = DamagedStore(self._path, damage)
        try:
            (self._path / MARKER).write_text(damage)
        except OSError:
            log.exception("cannot mark %s; remove the directory before the next start", self._path)
        self.on_damage(damaged)
        return damaged


class Snapshot:
    """The values of a store as they were at one moment.

    An iterator shows that; rocksdict's own snapshots do not, when they are iterated over.
    """

    def __init__(self, db: Any, guard: _Guard) -> None:
        self._entries = db.iter()
        self._guard = guard

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""
        entries = self._entries
        with self._guard:
            entries.seek(key)
            if not entries.valid():
                # trap 28
                entries.status()
                return None
        found: bytes | None = entries.value() if entries.key() == key else None
        return found


class PartitionStore:
    """The stored half of one table partition."""

    def __init__(self, path: Path, format: Format[Any]) -> None:
        """Open the store, or create it.

        Raises:
            DamagedStore: its files cannot be used.
            Exception: RocksDB's, about the disk, permissions or the lock of another process.
        """
        self.path = path
        self._format = format
        self._writing = _without_log()
        self._guard = _Guard(path)
        #: Offset of the last changelog record that this store contains.
        self.offset: int | None = None
        #: Timestamp of that record, ms since the epoch.
        self.timestamp_ms = NO_TIMESTAMP
        #: The log that the offset is of.
        self.log: LogId | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise DamagedStore(path, "there is a file in the place of its directory") from error
        with self._guard:
            self._db: Any = Rdict(str(path), _options())
            try:
                self._load()
            except Exception:
                self._db.close()
                raise

    def _load(self) -> None:
        position, stored_log = self._db.get([OFFSET, LOG])
        if position is not None:
            # stores of earlier versions have no timestamp
            offset, _, timestamp = position.partition(b" ")
            self.offset, self.timestamp_ms = int(offset), int(timestamp or NO_TIMESTAMP)
        if stored_log is not None:
            self.log = LogId.decode(stored_log)

    def call_on_damage(self, report: Callable[[DamagedStore], None]) -> None:
        """Have `report` called when damage is found from now on, before the error is raised."""
        self._guard.on_damage = report

    def bind(self, log_id: LogId) -> None:
        """Record which log this store belongs to."""
        if log_id == self.log:
            return
        batch = WriteBatch(raw_mode=True)
        batch.put(LOG, log_id.encode())
        with self._guard:
            self._db.write(batch, self._writing)
        self.log = log_id

    def read_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the stored values of `keys`, in their order."""
        with self._guard:
            found: Sequence[bytes | None] = self._db.get(list(keys))
        return found

    def write(self, writes: Iterable[Write], offset: int, timestamp_ms: int) -> None:
        """Apply the changes of a unit of work.

        Args:
            writes: what the unit changed.
            offset: of the unit's last changelog record.
            timestamp_ms: of the same record, as the log has it.
        """
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
        put(OFFSET, b"%d %d" % (offset, timestamp_ms))
        with self._guard:
            self._db.write(batch, self._writing)
        self.offset, self.timestamp_ms = offset, timestamp_ms

    def restore(self, records: Sequence[Record], offset: int) -> None:
        """Apply changelog records up to `offset`; the index is derived again from their values."""
        latest = {record.key: record.value for record in records if record.key is not None}
        timestamp_ms = records[-1].timestamp if records else self.timestamp_ms
        self.write(self._as_writes(latest), offset, timestamp_ms)

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
        return list(islice(self.rows(first, min(_behind(prefix), OFFSET[:1])), limit))

    def keys(self, first: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return up to `limit` keys from `first` on, before `end`, in order."""
        return list(islice(self._keys(first, end), limit))

    def rows(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the entries from `first` on, before `end`, in order, as they are now.

        RocksDB keeps these, and its lock, as long as the iterator is there.
        """
        options, entries = self._iterator(end)
        return self._walk(options, entries, first, lambda: (entries.key(), entries.value()))

    def listings(self, first: bytes, end: bytes) -> Iterator[bytes]:
        """Iterate over the listings (entry + key) so, as they are now."""
        return (key[1:] for key in self._keys(INDEX + first, INDEX + end))

    def _keys(self, first: bytes, end: bytes) -> Iterator[bytes]:
        options, entries = self._iterator(end)
        return self._walk(options, entries, first, entries.key)

    def _iterator(self, end: bytes) -> tuple[ReadOptions, Any]:
        """Return an iterator that shows the data as they are now.

        Trap 24: without an end, one that finds too few goes on over all that was deleted behind it.
        """
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        return options, self._db.iter(options)

    def _walk(self, options: ReadOptions, entries: Any, first: bytes, read: Callable[[], E]) -> Iterator[E]:
        with self._guard:
            entries.seek(first)
            while entries.valid():
                yield read()
                entries.next()
            # Trap 28: an iterator that meets a damaged block ends as if there were no more entries
            entries.status()
        # Trap 25: rocksdict's iterator points to the end in its options, and does not keep them alive
        del options

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
        return Snapshot(self._db, self._guard)

    def close(self) -> None:
        """Flush and release the directory, so that another worker of this machine may open it.

        Damage that is found by the flush concerns whoever opens the store next.
        """
        self._guard.on_damage = _ignore
        with suppress(DamagedStore), self._guard:
            self._db.close()

    def destroy(self) -> None:
        """Remove everything that is stored here; the changelog still has it."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)


def open_store(path: Path, format: Format[Any]) -> PartitionStore:
    """Open a store; set one that is damaged aside and open an empty one in its place.

    Raises:
        Exception: RocksDB's, about the disk, permissions or the lock of another process.
    """
    try:
        return _open_unmarked(path, format)
    except DamagedStore as damaged:
        retire_store(path, "damaged", damaged.damage, keep=True)
    return PartitionStore(path, format)


def _open_unmarked(path: Path, format: Format[Any]) -> PartitionStore:
    marker = path / MARKER
    # opened first: that fails while the process that left the marker still has RocksDB's lock
    store = PartitionStore(path, format)
    if marker.exists():
        store.close()
        raise DamagedStore(path, marker.read_text(errors="replace"))
    return store


def _remove(path: Path) -> None:
    """Remove a directory, or a file that is in its place."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def retire_store(path: Path, reason: str, detail: str, *, keep: bool) -> None:
    """Take the directory of a closed store away, so that the store is rebuilt from its changelog.

    Args:
        reason: label of the metric, one word.
        detail: for the log.
        keep: whether to keep the directory, in place of one that was kept before.
    """
    # renamed first: a directory that is removed in part must not be opened again
    retired = path.with_name(path.name + (".aside" if keep else ".removed"))
    _remove(retired)
    path.rename(retired)
    if not keep:
        _remove(retired)
    kept = f"kept as {retired}" if keep else "removed"
    log.warning("the store %s is rebuilt from its changelog, the old files are %s: %s", path, kept, detail)
    metrics.REBUILT_STORES.labels(reason).inc()
