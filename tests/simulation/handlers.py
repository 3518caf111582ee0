"""The simulated application: small, and able to show every record that is lost, doubled or out of order.

Records of a partition are counted by key, and each count is emitted with the record's origin. Commands carry
a value of their own and may come again; then they change nothing, as the tracker's callbacks do.
"""

from __future__ import annotations

from typing import Any, Final

from streams.engine.batches import Batch
from streams.engine.formats import Format
from streams.engine.units import Unit
from tests.simulation.webhooks import OUTCOMES, Webhooks

__all__ = ["COMMANDS", "EVENTS", "FORMATS", "FORWARDS", "ORDERS", "REPEATED", "Handler"]

ORDERS: Final = "orders"
COMMANDS: Final = "commands"
EVENTS: Final = "events"
FORWARDS: Final = "forwards"
REPEATED: Final = "repeated"

NUMBERS: Final[Format[int]] = Format(
    encode=lambda n: b"%d" % n, decode=int, index=lambda key, n: (b"%04d" % n,), index_bytes=4
)
FORMATS: Final = {"counts": NUMBERS, "seen": NUMBERS}

LETTERS: Final = "letters"
#: The value of a record that cannot be processed.
POISON: Final = b"poison"

#: Counts of one key at which its row is deleted and counting begins anew.
FULL: Final = 6


class Handler:
    """Counts the records of a batch.

    Args:
        tables: the tables ``counts`` and ``seen`` of a worker.
        webhooks: the webhooks of a worker, if it sends any.
    """

    def __init__(self, tables: dict[str, Any], webhooks: Webhooks | None) -> None:
        self._counts, self._seen = tables["counts"], tables["seen"]
        self._webhooks = webhooks

    def __call__(self, batch: Batch, unit: Unit) -> None:
        """Apply a batch."""
        if self._webhooks is not None and batch.topic == OUTCOMES:
            self._webhooks.take(batch, unit)
            return
        self._count(batch, unit)
        if self._webhooks is not None and batch.topic == ORDERS:
            self._webhooks.enqueue(batch, unit)

    def _count(self, batch: Batch, unit: Unit) -> None:
        counts, seen = unit.table(self._counts), unit.table(self._seen)
        counts.load(record.key for record in batch.records if record.key is not None)
        for record in batch.records:
            assert record.key is not None and record.value is not None
            if record.value == POISON:
                raise ValueError("a record that cannot be processed")
            origin = b"%s/%d" % (batch.topic.encode(), record.offset)
            if batch.topic == COMMANDS:
                if seen.get(record.value) is not None:
                    unit.emit(REPEATED, record.key, origin)
                    continue
                seen.put(record.value, 1)
            count = (counts.get(record.key) or 0) + 1
            if count == FULL:
                counts.delete(record.key)
            else:
                counts.put(record.key, count)
            unit.emit(EVENTS, record.key, b"%s %d" % (origin, count))
            if record.offset % 5 == 0:
                unit.emit(FORWARDS, record.key, origin, partition=(unit.partition + 1) % unit.partitions)


def bury(batch: Batch, unit: Unit, error: Exception) -> None:
    """Write a record that cannot be processed to the dead letters."""
    for record in batch.records:
        unit.emit(LETTERS, record.key, b"%s/%d" % (batch.topic.encode(), record.offset))
