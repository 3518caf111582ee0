"""Reading tables from outside of the lanes: what the web views ask."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from streams.engine.units import TableLike

__all__ = ["Reader"]

V = TypeVar("V")


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

    def get(self, table: TableLike[V], partition: int, key: bytes) -> V | None:
        """Return the stored value of `key`."""

    def scan(
        self, table: TableLike[V], partition: int, prefix: bytes, limit: int, after: bytes | None = None
    ) -> list[tuple[bytes, V]]:
        """Return up to `limit` keys that begin with `prefix`, in order, strictly after the key `after`."""

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
