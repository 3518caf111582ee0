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
from .reference import ARRIVED, LATE_MS, CellKey

#: What counters mean, by family: the layout once more.
COHORTS = [("created", "sent"), ("created",), ("sent",)]
NAMED = dict(zip("bcs", COHORTS, strict=True))
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
        for name in counter_names(number):
            said[name] += n
    for name, n in cell.names.items():
        for family in NAMED[name[0]]:
            said[f"{family}.{KINDS[name[1]]} {name[3:]}"] += n
    # what is not stored follows from the rest
    for family in ("created", "sent"):
        said[f"{family}.arrived final"] += sum(said[f"{family}.{status}"] for status in ARRIVED)
    said["callbacks.applied"] = sum(said[f"entries.{status}"] for status in STATUSES) - said.pop(
        "uncalled", 0
    )
    said[f"late.{LATE_MS[0]}"] = said["callbacks.applied"] - sum(
        said[f"late.{late}"] for late in (*LATE_MS[1:], "later")
    )
    return said


def counter_names(number: int) -> list[str]:
    if number >= 1024:
        return [f"{name}.within {BOUNDS[number % 1024]}" for name in COHORTS[number // 1024 - 1]]
    family, of = divmod(number, 16)
    if family < 3:
        words = [*STATUSES, "arrived final", "ms", "arrived open", "skewed"]
        return [f"{name}.{words[of]}" for name in COHORTS[family]]
    if family == 3:
        return [f"entries.{STATUSES[of]}"]
    if family == 4:
        return [("uncalled", *(f"callbacks.{outcome}" for outcome in OUTCOMES[1:]))[of]]
    return [f"late.{('ms', *LATE_MS, 'later')[of]}"]


def listing(table: str, key: bytes, value: bytes) -> list[bytes]:
    """The index entries of a delivery; other tables have none."""
    if table != "deliveries":
        return []
    assert DELIVERIES.index is not None
    return [entry + key for entry in DELIVERIES.index(key, DELIVERIES.decode(value))]
