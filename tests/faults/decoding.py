"""What the project's formats say of its stored bytes, in the reference's form."""

import json
from collections import Counter
from collections.abc import Mapping

import msgspec

from streams.domain.histogram import BOUNDS
from streams.domain.reports import record_view
from streams.domain.statistics import Cell, Key
from tables.formats import DELIVERIES
from tests.agents.flowing import EVERYTHING, counted

from .inputs import STATUSES, Json
from .reference import LATE_MS, CellKey

#: What counters mean, by family: the layout once more.
COHORTS = {0: "created", 4096: "sent"}
KINDS = {"f": "for", "p": "by"}
OUTCOMES = ("applied", "unapplied", "unapplied", "contradictory", "deadLettered")


def read_delivery(key: bytes, value: bytes) -> tuple[str, Json]:
    message_id, delivery = key.decode(), DELIVERIES.decode(value)
    if not delivery.history:
        return message_id, {"stopped": delivery.ended_at is not None, "erased": delivery.erased}
    return message_id, json.loads(msgspec.json.encode(record_view(message_id, delivery)))


def read_cells(
    cells: Mapping[bytes, bytes], pending: Mapping[bytes, bytes]
) -> tuple[dict[CellKey, Counter[str]], int]:
    """What each cell counts with what is pending, and when anything last changed."""
    read = counted(cells, pending)
    updated_at = read[EVERYTHING].updated_at if EVERYTHING in read else 0
    return {cell_key(key): count_names(cell) for key, cell in read.items()}, updated_at


def cell_key(key: Key) -> CellKey:
    return key.granularity.decode(), key.level.decode(), key.start, key.group


def count_names(cell: Cell) -> Counter[str]:
    """What a cell counts, in words; callbacks that changed nothing as one, for which it was is not told."""
    said: Counter[str] = Counter()
    for number, n in cell.counts.items():
        said[counter_name(number)] += n
    for name, n in cell.names.items():
        family = "created" if name[0] == "c" else "sent"
        said[f"{family}.{KINDS[name[1]]} {name[3:]}"] += n
    return said


def counter_name(number: int) -> str:
    family, of = number & ~4095, number & 4095
    if family in COHORTS:
        name = COHORTS[family]
        plain = dict(enumerate([*STATUSES, "arrived", "ms"]))
        return f"{name}.{plain[of]}" if of in plain else f"{name}.within {BOUNDS[of - 16]}"
    if of < 16:
        return f"entries.{STATUSES[of]}"
    if of < 32:
        return f"callbacks.{OUTCOMES[of - 16]}"
    return f"late.{('ms', *LATE_MS, 'later')[of - 32]}"


def listing(table: str, key: bytes, value: bytes) -> list[bytes]:
    """The index entries of a delivery; other tables have none."""
    if table != "deliveries":
        return []
    assert DELIVERIES.index is not None
    return [entry + key for entry in DELIVERIES.index(key, DELIVERIES.decode(value))]
