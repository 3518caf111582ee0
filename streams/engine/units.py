"""The unit of work: what one lane changes in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from streams.engine.calls import CALL_HEADER
from streams.engine.formats import Entries, Format, Write

__all__ = ["NO_HEADERS", "Headers", "Output", "ReadMany", "ScanKeys", "Spend", "TableLike", "Unit", "View"]

V = TypeVar("V")
G = TypeVar("G")

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

#: Reads up to so many keys of one partition of a table, from one on, before another, in order.
ScanKeys = Callable[[TableLike[Any], bytes, bytes, int], list[bytes]]


def _no_keys(table: TableLike[Any], first: bytes, end: bytes, limit: int) -> list[bytes]:
    return []


#: Writes what the handlers of a unit have gathered, in steps.
Spend = Callable[[G, "Unit"], Iterator[None]]

#: From here on lie the keys that the store keeps for itself (offset and index).
RESERVED = b"\xfe"


#: Values that a view keeps decoded. Beyond, what changed is encoded and let go: a unit of thousands of live
#: objects falls out of the processor's cache, which costs more than to decode the few that come again.
LIVE_VALUES = 512


class View(Generic[V]):
    """A table as one unit of work sees it: its own writes over what is stored.

    `get` returns the live object, so a handler may change it in place and `put` it back. However often a
    key is put, it is written once.
    """

    __slots__ = ("_before", "_changed", "_format", "_index", "_read", "_settled", "_values")

    def __init__(self, format: Format[V], read: Callable[[Sequence[bytes]], Sequence[bytes | None]]) -> None:
        self._format = format
        self._index = format.index
        self._read = read
        self._values: dict[bytes, V | None] = {}
        self._changed: dict[bytes, None] = {}
        # the index entries that a key had when it was first read
        self._before: dict[bytes, Entries] = {}
        self._settled: dict[bytes, Write] = {}

    def load(self, keys: Iterable[bytes]) -> None:
        """Read the keys that this unit has not seen yet, all at once."""
        values, settled = self._values, self._settled
        missing = [key for key in dict.fromkeys(keys) if key not in values]
        if settled:
            for key in missing:
                if key in settled:
                    written = settled[key][1]
                    values[key] = None if written is None else self._format.decode(written)
            missing = [key for key in missing if key not in settled]
        if missing:
            self._load_stored(missing)

    def _load_stored(self, keys: list[bytes]) -> None:
        values, before = self._values, self._before
        decode, index = self._format.decode, self._index
        for key, stored in zip(keys, self._read(keys), strict=True):
            if stored is None:
                values[key] = None
                continue
            value = values[key] = decode(stored)
            if index is not None:
                # now, for a handler may change the value in place
                before[key] = index(key, value)

    def get(self, key: bytes) -> V | None:
        """Return the value of `key`, None when there is none."""
        try:
            return self._values[key]
        except KeyError:
            self.load((key,))
            return self._values[key]

    def put(self, key: bytes, value: V) -> None:
        """Store `value` under `key`."""
        # what was there matters only for what it was listed under
        if self._index is not None and key not in self._values:
            self.load((key,))
        self._values[key] = value
        self._changed[key] = None

    def put_new(self, key: bytes, value: V) -> None:
        """Store `value` under a key that the table is known not to have: that need not be read."""
        self._values[key] = value
        self._changed[key] = None

    def delete(self, key: bytes) -> None:
        """Remove `key`."""
        if key not in self._values:
            self.load((key,))
        self._values[key] = None
        self._changed[key] = None

    def settle(self) -> None:
        """Encode what changed, and let the live objects go when there are many."""
        if len(self._values) > LIVE_VALUES:
            self._settle()

    def _settle(self) -> None:
        encode, index = self._format.encode, self._index
        values, before, settled = self._values, self._before, self._settled
        if self._changed and (last := max(self._changed)) >= RESERVED:
            raise ValueError(f"table key {last!r} begins with a byte that the store keeps for itself")
        for key in self._changed:
            value = values[key]
            was_listed = before.get(key, ())
            if value is None:
                settled[key] = (key, None, was_listed, ())
            else:
                is_listed = () if index is None else index(key, value)
                settled[key] = (key, encode(value), was_listed, is_listed)
        values.clear()
        self._changed.clear()

    def writes(self) -> list[Write]:
        """Return what changed, in the order of the first change of each key; the view is done with."""
        self._settle()
        return list(self._settled.values())


class Unit:
    """All that the handlers of one unit of work read, write, emit and count; nothing is awaited."""

    __slots__ = (
        "__weakref__",
        "_gathered",
        "_read",
        "_scan",
        "_views",
        "counts",
        "notes",
        "outputs",
        "partition",
        "partitions",
        "told",
    )

    def __init__(
        self, partition: int, partitions: int, read_many: ReadMany, scan_keys: ScanKeys = _no_keys
    ) -> None:
        self.partition = partition
        self.partitions = partitions
        self.counts: dict[str, int] = {}
        self.outputs: dict[tuple[str, int], list[Output]] = {}
        self.told: list[tuple[bytes, str]] = []
        self.notes: dict[str, dict[Hashable, Any]] = {}
        self._read = read_many
        self._scan = scan_keys
        self._views: dict[str, tuple[TableLike[Any], View[Any]]] = {}
        self._gathered: dict[Callable[[], Any], tuple[Any, Spend[Any]]] = {}

    def table(self, table: TableLike[V]) -> View[V]:
        """Return this unit's view of `table`."""
        known = self._views.get(table.name)
        if known is None:
            # a closure over the unit would make a cycle, and the collector is off: all that the unit
            # read and emitted would stay
            view = View(table.format, partial(self._read, table))
            known = self._views[table.name] = (table, view)
        return known[1]

    def stored_keys(self, table: TableLike[Any], first: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return up to `limit` keys from `first` on, before `end`, as they are stored: before this unit."""
        return self._scan(table, first, end, limit)

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

    def emitter(self, topic: str) -> Callable[[Output], None]:
        """Return what `emit` does for one topic and this unit's partition number, bare: for many outputs.

        Good until the outputs are taken, so within one call of a handler.
        """
        return self.outputs.setdefault((topic, self.partition), []).append

    def gathered(self, make: Callable[[], G], spend: Spend[G]) -> G:
        """Return what all handlers gather in the course of the unit, made at the first call.

        Args:
            spend: called once with it and the unit, before the changes are handed over; in steps, between
                which others may have their turn.
        """
        known = self._gathered.get(make)
        if known is None:
            known = self._gathered[make] = (make(), spend)
        gathered: G = known[0]
        return gathered

    def take_outputs(self) -> dict[tuple[str, int], list[Output]]:
        """Hand over what was emitted since the last time, by topic and partition."""
        outputs, self.outputs = self.outputs, {}
        return outputs

    def settle(self) -> None:
        """Let go of live objects between two batches of the unit."""
        for _, view in self._views.values():
            view.settle()

    def count(self, outcome: str, n: int = 1) -> None:
        """Count what became of `n` records."""
        self.counts[outcome] = self.counts.get(outcome, 0) + n

    def tell(self, headers: Sequence[tuple[str, bytes]], outcome: str) -> None:
        """Let who waits for a record with these headers know what became of it, once that is true."""
        for name, token in headers:
            if name == CALL_HEADER:
                self.told.append((token, outcome))

    def noted(self, listener: str) -> dict[Any, Any]:
        """Return what those who listen are let know once it is true, by what it is of; the last counts."""
        return self.notes.setdefault(listener, {})

    def finish(self) -> Iterator[None]:
        """Spend what was gathered, in steps: it may be more work than the loop should wait for."""
        while self._gathered:
            _, (gathered, spend) = self._gathered.popitem()
            yield from spend(gathered, self)

    def changes(self) -> list[tuple[TableLike[Any], list[Write]]]:
        """Return the writes of each table that has any; the unit is done with."""
        for _ in self.finish():
            pass
        return [(table, writes) for table, view in self._views.values() if (writes := view.writes())]
