"""The unit of work: what one lane changes in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from streams.engine.formats import Format, Write

__all__ = ["NO_HEADERS", "Headers", "Output", "ReadMany", "TableLike", "Unit", "View"]

V = TypeVar("V")
T_co = TypeVar("T_co", covariant=True)

#: a list, as aiokafka's batch builder insists on one
Headers = list[tuple[str, bytes]]
NO_HEADERS: Headers = []
#: key, value, headers, timestamp in ms (None: the time of sending)
Output = tuple[bytes | None, bytes | None, Headers, int | None]


class TableLike(Protocol[V]):
    """What a unit needs of a table: its name and its format."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def format(self) -> Format[V]: ...  # noqa: D102


#: Reads the stored bytes of some keys of one partition of a table, None for a key that is not there.
ReadMany = Callable[[TableLike[Any], Sequence[bytes]], Sequence[bytes | None]]

#: First bytes that the store keeps for itself (offset and index); no key may begin with them.
RESERVED = (0xFE, 0xFF)


class View(Generic[V]):
    """A table as one unit of work sees it: its own writes over what is stored.

    `get` returns the live object, so a handler may change it in place and `put` it back; it is encoded
    once, at the commit, however often it was put.
    """

    __slots__ = ("_before", "_changed", "_format", "_read", "_values")

    def __init__(self, format: Format[V], read: Callable[[Sequence[bytes]], Sequence[bytes | None]]) -> None:
        self._format = format
        self._read = read
        self._values: dict[bytes, V | None] = {}
        self._before: dict[bytes, bytes | None] = {}
        self._changed: dict[bytes, None] = {}

    def load(self, keys: Iterable[bytes]) -> None:
        """Read the keys that this unit has not seen yet, all at once."""
        values = self._values
        missing = [key for key in dict.fromkeys(keys) if key not in values]
        if not missing:
            return
        decode, index = self._format.decode, self._format.index
        for key, stored in zip(missing, self._read(missing), strict=True):
            if stored is None:
                values[key] = None
                continue
            value = values[key] = decode(stored)
            if index is not None:
                # now, for a handler may change the value in place
                self._before[key] = index(key, value)

    def get(self, key: bytes) -> V | None:
        """Return the value of `key`, None when there is none."""
        try:
            return self._values[key]
        except KeyError:
            self.load((key,))
            return self._values[key]

    def put(self, key: bytes, value: V) -> None:
        """Store `value` under `key`."""
        self.get(key)
        self._values[key] = value
        self._changed[key] = None

    def delete(self, key: bytes) -> None:
        """Remove `key`."""
        self.get(key)
        self._values[key] = None
        self._changed[key] = None

    def writes(self) -> list[Write]:
        """Return what changed, in the order of the first change of each key."""
        encode, index = self._format.encode, self._format.index
        values, before = self._values, self._before
        writes: list[Write] = []
        for key in self._changed:
            if key[:1] and key[0] in RESERVED:
                raise ValueError(f"table key {key!r} begins with a byte that the store keeps for itself")
            value = values[key]
            if value is None:
                writes.append((key, None, before.get(key), None))
            else:
                listed = index(key, value) if index is not None else None
                writes.append((key, encode(value), before.get(key), listed))
        return writes


class Unit:
    """All that the handlers of one unit of work read, write, emit and count; nothing is awaited."""

    __slots__ = ("__weakref__", "_read", "_views", "counts", "outputs", "partition", "partitions")

    def __init__(self, partition: int, partitions: int, read_many: ReadMany) -> None:
        self.partition = partition
        self.partitions = partitions
        self.counts: dict[str, int] = {}
        self.outputs: dict[tuple[str, int], list[Output]] = {}
        self._read = read_many
        self._views: dict[str, tuple[TableLike[Any], View[Any]]] = {}

    def table(self, table: TableLike[V]) -> View[V]:
        """Return this unit's view of `table`."""
        known = self._views.get(table.name)
        if known is None:
            # a closure over the unit would make a cycle, and the collector is off: all that the unit
            # read and emitted would stay
            view = View(table.format, partial(self._read, table))
            known = self._views[table.name] = (table, view)
        return known[1]

    def emit(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = NO_HEADERS,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """Send a record with the commit, to this unit's partition number unless another is given."""
        where = (topic, self.partition if partition is None else partition)
        outputs = self.outputs.get(where)
        if outputs is None:
            outputs = self.outputs[where] = []
        outputs.append((key, value, headers, timestamp_ms))

    def count(self, outcome: str, n: int = 1) -> None:
        """Count what became of `n` records."""
        self.counts[outcome] = self.counts.get(outcome, 0) + n

    def changes(self) -> list[tuple[TableLike[Any], list[Write]]]:
        """Return the writes of each table that has any."""
        return [(table, writes) for table, view in self._views.values() if (writes := view.writes())]
