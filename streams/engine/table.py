"""Faust tables that only units of work write."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import faust
from faust.stores.base import SerializedStore
from faust.types import TP

from streams.engine.formats import Format
from streams.engine.schema import BatchSchema
from streams.engine.store import DamagedStore, PartitionStore, open_store, retire_store

__all__ = ["Table", "TransactionalStore"]

V = TypeVar("V")


class TransactionalStore(SerializedStore):  # type: ignore[type-arg]
    """The stores of a table's partitions on this worker, behind Faust's store interface."""

    table: Table[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: dict[int, PartitionStore] = {}

    def partition(self, number: int) -> PartitionStore:
        """Return the store of partition `number`, opened when it is not yet."""
        store = self._open.get(number)
        if store is None:
            store = self._open[number] = open_store(self._path(number), self.table.format)
            store.call_on_damage(self._crash_app)
        return store

    def _crash_app(self, damaged: DamagedStore) -> None:
        # whoever reads may be a view or a timer, which would answer with an error and go on
        self.app.add_future(self.app.crash(damaged))  # type: ignore[attr-defined]

    def renew(self, number: int, reason: str, detail: str, *, keep: bool) -> PartitionStore:
        """Replace the store of partition `number` by an empty one; see `store.retire_store`."""
        store = self._open.pop(number)
        store.close()
        retire_store(store.path, reason, detail, keep=keep)
        return self.partition(number)

    def _path(self, number: int) -> Path:
        return Path(self.app.conf.tabledir) / f"{self.table_name}-{number}.db"

    def opened(self, number: int) -> PartitionStore | None:
        """Return the store of partition `number` if it is open."""
        return self._open.get(number)

    def persisted_offset(self, tp: TP) -> int | None:
        """Return the offset of the last changelog record that is stored."""
        return self.partition(tp.partition).offset

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Close what is no longer ours; partitions are opened when recovery first asks for them."""
        topic = self.table.changelog_topic_name
        ours = {tp.partition for tp in assigned if tp.topic == topic}
        for number in set(self._open) - ours:
            self._open.pop(number).close()

    async def on_stop(self) -> None:
        """Flush and close every partition."""
        while self._open:
            self._open.popitem()[1].close()

    def reset_state(self) -> None:
        """Remove the local data of every partition (Faust's ``reset`` command).

        Raises:
            Exception: RocksDB's, when a running worker holds a partition.
        """
        tables = Path(self.app.conf.tabledir)
        for path in sorted(tables.glob(f"{self.table_name}-*.db")):
            open_store(path, self.table.format).destroy()
        for path in sorted(tables.glob(f"{self.table_name}-*.db.aside")):
            shutil.rmtree(path)

    async def backup_partition(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: the changelog is the backup."""
        raise NotImplementedError("the changelog is the backup of a table partition")

    def restore_backup(self, *args: Any, **kwargs: Any) -> None:
        """Refuse, as `backup_partition`."""
        raise NotImplementedError("the changelog is the backup of a table partition")

    def _written_by_units(self, *args: Any) -> NoReturn:
        raise TypeError(f"table {self.table_name} is written by units of work only")

    def apply_changelog_batch(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: recovery applies whole batches, see ``recovery.py``."""
        if any(args[0]):
            self._written_by_units()

    _set = _del = _clear = _written_by_units  # type: ignore[assignment]

    def _get(self, key: bytes) -> bytes | None:
        found = (store.read_many([key])[0] for store in self._open.values())
        return next((value for value in found if value is not None), None)

    def _contains(self, key: bytes) -> bool:
        return self._get(key) is not None

    def _iteritems(self) -> Iterator[tuple[bytes, bytes]]:
        for store in self._open.values():
            page = store.scan(b"", 1000)
            while page:
                yield from page
                page = store.scan(b"", 1000, after=page[-1][0])

    def _iterkeys(self) -> Iterator[bytes]:
        return (key for key, _ in self._iteritems())

    def _itervalues(self) -> Iterator[bytes | None]:
        return (value for _, value in self._iteritems())

    def _size(self) -> int:
        return sum(1 for _ in self._iteritems())


class Table(faust.Table, Generic[V]):  # type: ignore[type-arg]
    """A changelog table with a `Format`; declared with ``app.Table(name, format=…, partitions=…)``."""

    def __init__(self, app: Any, *, format: Format[V], **kwargs: Any) -> None:
        self.format = format
        super().__init__(app, schema=BatchSchema(), **kwargs)

    def _new_store(self) -> TransactionalStore:
        return TransactionalStore("rocksdb://", self.app, self, table_name=self.name, loop=self.loop)

    @property
    def store(self) -> TransactionalStore:
        """The stores of this worker's partitions."""
        data: TransactionalStore = self.data  # type: ignore[assignment]
        return data

    def on_key_set(self, key: Any, value: Any) -> None:
        """Refuse: a write outside of a unit of work would not be part of its transaction."""
        raise TypeError(f"table {self.name} is written by units of work only")

    def on_key_del(self, key: Any) -> None:
        """Refuse, as `on_key_set`."""
        raise TypeError(f"table {self.name} is written by units of work only")
