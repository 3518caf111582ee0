"""Reading tables from outside of the lanes: what the web views ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from streams.engine.formats import Format
from streams.engine.units import TableLike

__all__ = ["Listings", "Reader", "Rows", "TableSnapshot"]

V = TypeVar("V")


class Values(Protocol):
    """Bytes by key, as they were at one moment."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""


class TableSnapshot(Generic[V]):
    """One partition of a table as it was at one moment."""

    def __init__(self, stored: Values, format: Format[V]) -> None:
        self._stored = stored
        self._format = format

    def get(self, key: bytes) -> V | None:
        """Return the value of `key`."""
        value = self._stored.get(key)
        return None if value is None else self._format.decode(value)


class Rows(Generic[V]):
    """Rows of one partition of a table, in order, as they were at one moment."""

    def __init__(self, stored: Iterator[tuple[bytes, bytes]], format: Format[V]) -> None:
        self._stored = stored
        self._format = format

    def take(self, limit: int) -> list[tuple[bytes, V]]:
        """Return the next ones; when there are fewer than `limit`, these are the last."""
        decode = self._format.decode
        return [(key, decode(value)) for key, value in islice(self._stored, limit)]


class Listings:
    """Entries of the index of one partition of a table, in order, as they were at one moment."""

    def __init__(self, stored: Iterator[bytes], format: Format[Any]) -> None:
        self._stored = stored
        self._width = format.index_bytes

    def take(self, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the next ones, each cut into entry and key; fewer than `limit` are the last."""
        width = self._width
        return [(listing[:width], listing[width:]) for listing in islice(self._stored, limit)]


class Reader(Protocol):
    """The tables of this worker's partitions, and who holds the others.

    An answer is true for a partition only if `held` names it before and after the reading.
    """

    @property
    def partitions(self) -> int:
        """Number of partitions of each table."""

    def held(self) -> frozenset[int]:
        """Return the partitions that this worker may answer for: its own, recovered and open."""

    def holder(self, partition: int) -> str | None:
        """Return the base URL of the worker that holds `partition`, as far as this one knows."""

    def ready(self) -> tuple[bool, str]:
        """Return whether all partitions assigned to this worker are open, and if not, why."""

    def clock(self, partition: int, now: int) -> int:
        """Return `now`, or if this worker lags behind the inputs of `partition`, how far it has come; ms."""

    def latest(self, topic: str) -> int | None:
        """Return the timestamp of a topic's records that most lanes here have come to; ms, None: of none."""

    def get(self, table: TableLike[V], partition: int, key: bytes) -> V | None:
        """Return the stored value of `key`."""

    def get_many(self, table: TableLike[V], partition: int, keys: Sequence[bytes]) -> list[V | None]:
        """Return the stored values of some keys, in their order."""

    def snapshot(self, table: TableLike[V], partition: int) -> TableSnapshot[V]:
        """Return `table` as it is now, and stays whatever is written; not to be kept for long."""

    def rows(self, table: TableLike[V], partition: int, first: bytes, end: bytes) -> Rows[V]:
        """Return the rows from a key on, before another, likewise."""

    def listings(self, table: TableLike[Any], partition: int, first: bytes, end: bytes) -> Listings:
        """Return the entries of the index from one on, before another, likewise."""

    def scan_index(
        self,
        table: TableLike[Any],
        partition: int,
        prefix: bytes,
        limit: int,
        after: bytes | None = None,
        before: bytes | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """Return up to `limit` pairs of index entry and key, in order, between `after` and `before`."""
