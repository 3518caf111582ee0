"""Statistics as cells that add up: of a minute, and of all time, per provider; and what is made of them.

A cell of a minute counts what happened then (each new history entry adds one). A cell of all time counts
where deliveries stand now, so a delivery that moves on takes one away from where it was. Both are exact,
however often and in whatever order callbacks come, for they change in the transaction that changes the
delivery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, Literal, TypeAlias

import msgspec

from streams.domain.delivery import UNKNOWN, Delivery
from streams.domain.statuses import CLICKED, DELIVERED, FAILED, NAMES, READ, SENT, Status
from streams.domain.times import iso

__all__ = [
    "Cell",
    "Counts",
    "DeliveryStats",
    "Standing",
    "Tally",
    "merge",
    "minute_key",
    "standing",
    "total_key",
    "totals",
]

MINUTE: Final = b"m"
TOTAL: Final = b"t"

MINUTE_MS: Final = 60_000
_LAST_MINUTE: Final = 2**32 - 1
_MINUTE_KEY: Final = Struct(">cI").pack

Counts: TypeAlias = list[int]
"""How many, by precedence of the status."""


class Cell(msgspec.Struct, array_like=True, gc=False):
    """One cell of the statistics, and how it is stored; cells of the same kind add up.

    Attributes:
        counts: by precedence of the status.
        duration_sum: of the times from sent to delivered, ms.
        duration_count: how many deliveries have such a time.
        updated_at: when a delivery of this cell last changed, ms; 0 in a cell of a minute.
    """

    version: Literal[1] = 1
    counts: Counts = msgspec.field(default_factory=lambda: [0] * len(NAMES))
    duration_sum: int = 0
    duration_count: int = 0
    updated_at: int = 0


class DeliveryStats(msgspec.Struct, rename="camel"):
    """What is answered about all messages; times in ms, rates in percent."""

    total_messages: int
    by_status: dict[Status, int]
    by_provider: dict[str, int]
    average_delivery_time: float
    delivery_rate: float
    failure_rate: float
    last_updated: str | None


Standing: TypeAlias = tuple[int, str, int | None]
"""Where a delivery counts among all: precedence, provider, ms from sent to delivered."""


def standing(delivery: Delivery) -> Standing:
    """Return where a delivery counts now."""
    times = delivery.times
    sent, delivered = times[SENT], times[DELIVERED]
    duration = None
    if sent is not None and delivered is not None:
        # clocks of different machines may tell that it arrived before it was sent
        duration = delivered - sent if delivered > sent else 0
    provider = delivery.named
    if provider is None:
        provider = UNKNOWN if delivery.request is None else delivery.request.provider
    return delivery.precedence, provider, duration


def minute_key(minute: int, provider: str) -> bytes:
    """Return the key of the cell of a minute since the epoch; those that do not fit as the nearest."""
    return _MINUTE_KEY(MINUTE, min(max(minute, 0), _LAST_MINUTE)) + provider.encode()


def total_key(provider: str) -> bytes:
    """Return the key of the cell of all time."""
    return TOTAL + provider.encode()


class Tally:
    """What a run of changes adds to the statistics, kept until it is written, each cell once."""

    __slots__ = ("_minutes", "_totals")

    def __init__(self) -> None:
        self._minutes: dict[tuple[int, str | None], Counts] = {}
        self._totals: dict[str, Cell] = {}

    def happened(self, at: int, provider: str | None, precedence: int) -> None:
        """Count a new history entry."""
        minute = at // MINUTE_MS, provider
        try:
            self._minutes[minute][precedence] += 1
        except KeyError:
            counts = self._minutes[minute] = [0] * len(NAMES)
            counts[precedence] = 1

    def moved(self, before: Standing | None, delivery: Delivery) -> None:
        """Count a delivery where it stands now, no longer where it stood before."""
        now = standing(delivery)
        precedence, provider, duration = now
        cell = self._totals.get(provider) or self._total(provider)
        if delivery.updated_at > cell.updated_at:
            cell.updated_at = delivery.updated_at
        if before == now:
            return
        cell.counts[precedence] += 1
        if duration is not None:
            cell.duration_sum += duration
            cell.duration_count += 1
        if before is not None:
            self.left(before)

    def left(self, before: Standing) -> None:
        """Count a delivery no longer."""
        precedence, provider, duration = before
        cell = self._totals.get(provider) or self._total(provider)
        cell.counts[precedence] -= 1
        if duration is not None:
            cell.duration_sum -= duration
            cell.duration_count -= 1

    def _total(self, provider: str) -> Cell:
        cell = self._totals[provider] = Cell()
        return cell

    def cells(self) -> Iterator[tuple[bytes, Cell]]:
        """Yield what is to be added to which cell; a key may come twice."""
        for (minute, provider), counts in self._minutes.items():
            yield minute_key(minute, UNKNOWN if provider is None else provider), Cell(counts=counts)
        for provider, cell in self._totals.items():
            yield total_key(provider), cell


def merge(cell: Cell, added: Cell) -> None:
    """Add a cell to another of the same kind."""
    cell.counts = [count + more for count, more in zip(cell.counts, added.counts, strict=True)]
    cell.duration_sum += added.duration_sum
    cell.duration_count += added.duration_count
    cell.updated_at = max(cell.updated_at, added.updated_at)


def totals(cells: Iterable[tuple[bytes, Cell]]) -> DeliveryStats:
    """Make the answer about all messages of the cells of all time, by key, of all partitions."""
    whole = Cell()
    by_provider: dict[str, int] = {}
    for key, cell in cells:
        merge(whole, cell)
        if count := sum(cell.counts):
            provider = key[len(TOTAL) :].decode()
            by_provider[provider] = by_provider.get(provider, 0) + count
    total = sum(whole.counts)
    arrived = whole.counts[DELIVERED] + whole.counts[READ] + whole.counts[CLICKED]
    return DeliveryStats(
        total,
        dict(zip(NAMES, whole.counts, strict=True)),
        dict(sorted(by_provider.items())),
        whole.duration_sum / whole.duration_count if whole.duration_count else 0,
        _percent(arrived, total),
        _percent(whole.counts[FAILED], total),
        iso(whole.updated_at) if total else None,
    )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0
