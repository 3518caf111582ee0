from itertools import pairwise
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from streams.engine.formats import Format
from streams.engine.store import PartitionStore
from tests.engine.records import NUMBERS, Record

PLAIN = Format(encode=bytes, decode=bytes)


def everything(store: PartitionStore) -> tuple[list[tuple[bytes, bytes]], list[bytes], int | None]:
    return store.scan(b"", 1000), store.scan_index(b"", 1000), store.offset


def test_data_and_offset_are_there_after_reopening(tmp_path: Path) -> None:
    """close() flushes what was written without a write-ahead log."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"a", b"1", (), (b"0001",))], 41)
    before = everything(store)
    store.close()

    assert everything(PartitionStore(tmp_path / "db", NUMBERS)) == before == ([(b"a", b"1")], [b"0001a"], 41)


def test_a_closed_store_can_be_opened_again_in_the_same_process(tmp_path: Path) -> None:
    """No iterator of a scan outlives it, or RocksDB would keep its lock."""
    for _ in range(3):
        store = PartitionStore(tmp_path / "db", NUMBERS)
        store.write([(b"a", b"1", (), (b"0001",))], 1)
        everything(store)
        store.close()


def test_an_index_entry_moves_with_its_value(tmp_path: Path) -> None:
    """The old entry goes and the new one comes in the write that changes the value."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"a", b"1", (), (b"0001",)), (b"b", b"2", (), (b"0002",))], 1)
    store.write([(b"a", b"3", (b"0001",), (b"0003",)), (b"b", None, (b"0002",), ())], 2)

    assert everything(store) == ([(b"a", b"3")], [b"0003a"], 2)


def test_only_the_entries_that_change_are_touched(tmp_path: Path) -> None:
    """A key may be listed more than once; what stays is neither deleted nor written again."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"a", b"1", (), (b"0001", b"9001"))], 1)
    store.write([(b"a", b"2", (b"0001", b"9001"), (b"0002", b"9001"))], 2)

    assert everything(store) == ([(b"a", b"2")], [b"0002a", b"9001a"], 2)


def test_scans_go_on_after_where_they_ended(tmp_path: Path) -> None:
    """Pages of a scan neither repeat nor leave out a key, and end with the prefix."""
    store = PartitionStore(tmp_path / "db", PLAIN)
    keys = [b"m%02d" % n for n in range(7)]
    store.write([(key, b"x", (), ()) for key in (b"a", *keys, b"z")], 1)

    first = store.scan(b"m", 4)
    second = store.scan(b"m", 4, after=first[-1][0])

    assert [key for key, _ in first + second] == keys


def test_an_offset_and_index_entries_are_no_data(tmp_path: Path) -> None:
    """A scan over all data stops before what the store keeps for itself."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"\xc3\xbf", b"1", (), (b"0001",))], 1)

    assert store.scan(b"", 10) == [(b"\xc3\xbf", b"1")]


logged = st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.one_of(st.none(), st.integers(0, 99)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=st.lists(logged, min_size=1, max_size=20), cuts=st.sets(st.integers(1, 19)))
def test_restoring_gives_what_the_units_wrote(
    tmp_path_factory: object, log: list[tuple[bytes, int | None]], cuts: set[int]
) -> None:
    """Data, index and offset after recovery equal those of the lane, however the changelog is cut (I2)."""
    directory: Path = tmp_path_factory.mktemp("stores")  # type: ignore[attr-defined]
    live, restored = (PartitionStore(directory / name, NUMBERS) for name in ("live", "restored"))
    values: dict[bytes, int | None] = {}
    for offset, (key, value) in enumerate(log):
        before = values.get(key)
        listed = [() if n is None else (b"%04d" % n,) for n in (before, value)]
        live.write([(key, None if value is None else b"%d" % value, *listed)], offset)
        values[key] = value
    records = [Record(n, key, None if value is None else b"%d" % value) for n, (key, value) in enumerate(log)]
    bounds = sorted({0, *(cut for cut in cuts if cut < len(log)), len(log)})
    for first, end in pairwise(bounds):
        restored.restore(records[first:end], end - 1)

    assert everything(restored) == everything(live)
    for store in (live, restored):
        store.destroy()


def test_ranges_end_where_they_were_told_to_however_many_there_are(tmp_path: Path) -> None:
    """Each has an end of its own, which must stay what it was as long as the range is read."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"%03d" % n, b"%d" % n, (), (b"%03d" % n,)) for n in range(100)], 1)

    rows = [store.rows(b"0", b"%03d" % end) for end in range(100)]
    listings = [store.listings(b"0", b"%03d" % end) for end in range(100)]
    others = [store.rows(b"0", b"9" * length) for length in range(1, 40)]

    assert [len(list(some)) for some in rows] == list(range(100))
    assert [len(list(some)) for some in listings] == list(range(100))
    assert {len(list(some)) for some in others} == {100}


def test_a_snapshot_shows_what_was_there_when_it_was_made(tmp_path: Path) -> None:
    """Values, keys in a range and listings in a range, whatever is written later; and nothing that is not."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"%d" % n, b"%d" % n, (), (b"%04d" % n,)) for n in (1, 2, 3)], 1)
    frozen = store.snapshot()
    rows, listings = store.rows(b"2", b"4"), store.listings(b"0002", b"0003")
    first, all_listed = store.rows(b"1", b"4"), store.listings(b"", b"9")
    store.write([(b"2", None, (b"0002",), ()), (b"4", b"4", (), (b"0004",))], 2)

    assert (frozen.get(b"2"), frozen.get(b"4"), frozen.get(b"")) == (b"2", None, None)
    assert list(rows) == [(b"2", b"2"), (b"3", b"3")]
    assert next(first) == (b"1", b"1")
    assert list(listings) == [b"00022"]
    assert list(all_listed) == [b"00011", b"00022", b"00033"]
