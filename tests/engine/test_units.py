import gc
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from streams.engine.formats import Format
from streams.engine.units import Unit
from tests.engine.records import NUMBERS, Table

COUNTS = Table("counts", NUMBERS)
LISTS = Table("lists", Format(encode=bytes, decode=lambda stored: list(stored)))


class Stored:
    """What is stored, and which keys were asked for."""

    def __init__(self, **values: bytes) -> None:
        self.values = {key.encode(): value for key, value in values.items()}
        self.asked: list[list[bytes]] = []

    def read_many(self, table: Any, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked.append(list(keys))
        return [self.values.get(key) for key in keys]

    def unit(self) -> Unit:
        return Unit(3, 8, self.read_many)


def test_a_view_reads_all_keys_at_once_and_none_twice() -> None:
    """load() asks for what the unit has not seen, in one call."""
    stored = Stored(a=b"1")
    view = stored.unit().table(COUNTS)

    view.load([b"a", b"b", b"a"])
    view.load([b"b", b"c"])

    assert (view.get(b"a"), view.get(b"b"), view.get(b"c")) == (1, None, None)
    assert stored.asked == [[b"a", b"b"], [b"c"]]


def test_a_view_sees_its_own_writes() -> None:
    """What was put or deleted in the unit is what the unit reads."""
    view = Stored(a=b"1").unit().table(COUNTS)

    view.put(b"b", 7)
    view.delete(b"a")

    assert (view.get(b"a"), view.get(b"b")) == (None, 7)


def test_a_key_that_is_put_often_is_written_once() -> None:
    """Five changes of a key in a unit cost one changelog record, with the last value."""
    unit = Stored().unit()
    for n in range(5):
        unit.table(COUNTS).put(b"a", n)

    assert unit.changes() == [(COUNTS, [(b"a", b"4", (), (b"0004",))])]


def test_what_is_known_to_be_new_is_written_without_being_read() -> None:
    """And is seen by the unit like anything else that it has put."""
    stored = Stored()
    unit = stored.unit()
    unit.table(COUNTS).put_new(b"a", 7)

    assert unit.table(COUNTS).get(b"a") == 7
    assert unit.changes() == [(COUNTS, [(b"a", b"7", (), (b"0007",))])]
    assert stored.asked == []


def test_an_object_changed_in_place_is_written_as_it_is_at_the_commit() -> None:
    """get() hands out the live object; it is encoded when the unit ends."""
    unit = Stored(a=b"\x01").unit()
    view = unit.table(LISTS)
    value = view.get(b"a")
    assert value is not None
    view.put(b"a", value)

    value.append(2)

    assert unit.changes() == [(LISTS, [(b"a", b"\x01\x02", (), ())])]


def test_a_write_knows_the_index_entry_that_it_replaces() -> None:
    """The entry is derived when the value is read, before a handler can change it."""
    unit = Stored(a=b"1", b=b"2").unit()
    unit.table(COUNTS).put(b"a", 5)
    unit.table(COUNTS).delete(b"b")

    assert unit.changes() == [(COUNTS, [(b"a", b"5", (b"0001",), (b"0005",)), (b"b", None, (b"0002",), ())])]


def test_a_unit_that_only_reads_changes_nothing() -> None:
    """Reading leaves no write behind."""
    unit = Stored(a=b"1").unit()
    unit.table(COUNTS).get(b"a")

    assert unit.changes() == []


@pytest.mark.parametrize("key", [b"\xfeoffset", b"\xff"])
def test_a_key_that_the_store_keeps_for_itself_is_refused(key: bytes) -> None:
    """No value may be mistaken for the offset or an index entry."""
    unit = Stored().unit()
    unit.table(COUNTS).put(key, 1)

    with pytest.raises(ValueError, match="keeps for itself"):
        unit.changes()


def test_outputs_go_to_the_partition_of_the_unit_unless_another_is_given() -> None:
    """Outputs are grouped by where they go, in the order in which they were emitted."""
    unit = Stored().unit()
    unit.emit("events", b"a", b"1")
    unit.emit("events", b"b", b"2", [("h", b"x")], timestamp_ms=5)
    unit.emit("events", b"c", b"3", partition=6)

    assert unit.outputs == {
        ("events", 3): [(b"a", b"1", [], None), (b"b", b"2", [("h", b"x")], 5)],
        ("events", 6): [(b"c", b"3", [], None)],
    }


def test_outcomes_add_up() -> None:
    """Each handler of the unit counts into the same sums."""
    unit = Stored().unit()
    unit.count("applied", 2)
    unit.count("applied")

    assert unit.counts == {"applied": 3}


def test_a_unit_makes_no_cycle() -> None:
    """What a unit read and emitted goes with its last reference: the cyclic collector is off in a worker."""
    unit = Stored(a=b"1").unit()
    unit.table(COUNTS).put(b"b", 2)
    unit.emit("events", b"a", b"1")
    gone = weakref.ref(unit)
    gc.disable()
    try:
        del unit
        assert gone() is None
    finally:
        gc.enable()


def test_what_a_unit_gathers_is_spent_once_before_its_changes() -> None:
    """Handlers add to one thing all through the unit; in steps, what it comes to gets among the changes."""
    unit = Stored(a=b"1").unit()

    def spend(gathered: list[int], into: Unit) -> Iterator[None]:
        for n in gathered:
            into.table(COUNTS).put(b"b", n + (into.table(COUNTS).get(b"b") or 0))
            yield

    for n in (1, 2, 3):
        unit.gathered(list[int], spend).append(n)

    assert len(list(unit.finish())) == 3
    assert list(unit.finish()) == []
    assert unit.changes() == [(COUNTS, [(b"b", b"6", (), (b"0006",))])]
