"""Reading tables from outside of the lanes: what the web views ask."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from streams.engine.formats import Format
from streams.engine.units import TableLike

__all__ = ["Reader", "Stored", "TableSnapshot"]

V = TypeVar("V")


class Stored(Protocol):
    """Bytes as they were at one moment."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""

    def scan(self, first: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return entries in order."""

    def scan_index(self, first: bytes, end: bytes, limit: int) -> list[bytes]:
        """Return listings (entry + key) in order."""


class TableSnapshot(Generic[V]):
    """One partition of a table as it was at one moment."""

    def __init__(self, stored: Stored, format: Format[V]) -> None:
        self._stored = stored
        self._format = format

    def get(self, key: bytes) -> V | None:
        """Return the value of `key`."""
        value = self._stored.get(key)
        return None if value is None else self._format.decode(value)

    def scan(self, first: bytes, end: bytes, limit: int) -> list[tuple[bytes, V]]:
        """Return entries in order."""
        decode = self._format.decode
        return [(key, decode(value)) for key, value in self._stored.scan(first, end, limit)]

    def scan_index(self, first: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return listings in order, each cut into entry and key."""
        width = self._format.index_bytes
        return [(listing[:width], listing[width:]) for listing in self._stored.scan_index(first, end, limit)]


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

    def snapshot(self, table: TableLike[V], partition: int) -> TableSnapshot[V]:
        """Return `table` as it is now, and stays whatever is written; not to be kept for long."""

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
