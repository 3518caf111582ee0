import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from prometheus_client import REGISTRY

from streams.engine.changelogs import LogId
from streams.engine.formats import Format
from streams.engine.store import DamagedStore, PartitionStore, open_store, retire_store
from streams.engine.table import TransactionalStore
from tests.engine.records import NUMBERS, Record

PLAIN = Format(encode=bytes, decode=bytes)


def everything(store: PartitionStore) -> tuple[list[tuple[bytes, bytes]], list[bytes], int | None]:
    return store.scan(b"", 1000), store.scan_index(b"", 1000), store.offset


def test_data_and_offset_are_there_after_reopening(tmp_path: Path) -> None:
    """close() flushes what was written without a write-ahead log."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"a", b"1", (), (b"0001",))], 41, 0)
    before = everything(store)
    store.close()

    assert everything(PartitionStore(tmp_path / "db", NUMBERS)) == before == ([(b"a", b"1")], [b"0001a"], 41)


def test_a_closed_store_can_be_opened_again_in_the_same_process(tmp_path: Path) -> None:
    """No iterator of a scan outlives it, or RocksDB would keep its lock."""
    for _ in range(3):
        store = PartitionStore(tmp_path / "db", NUMBERS)
        store.write([(b"a", b"1", (), (b"0001",))], 1, 0)
        everything(store)
        store.close()


def test_an_index_entry_moves_with_its_value(tmp_path: Path) -> None:
    """The old entry goes and the new one comes in the write that changes the value."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"a", b"1", (), (b"0001",)), (b"b", b"2", (), (b"0002",))], 1, 0)
    store.write([(b"a", b"3", (b"0001",), (b"0003",)), (b"b", None, (b"0002",), ())], 2, 0)

    assert everything(store) == ([(b"a", b"3")], [b"0003a"], 2)


def test_only_the_entries_that_change_are_touched(tmp_path: Path) -> None:
    """A key may be listed more than once; what stays is neither deleted nor written again."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"a", b"1", (), (b"0001", b"9001"))], 1, 0)
    store.write([(b"a", b"2", (b"0001", b"9001"), (b"0002", b"9001"))], 2, 0)

    assert everything(store) == ([(b"a", b"2")], [b"0002a", b"9001a"], 2)


def test_scans_go_on_after_where_they_ended(tmp_path: Path) -> None:
    """Pages of a scan neither repeat nor leave out a key, and end with the prefix."""
    store = PartitionStore(tmp_path / "db", PLAIN)
    keys = [b"m%02d" % n for n in range(7)]
    store.write([(key, b"x", (), ()) for key in (b"a", *keys, b"z")], 1, 0)

    first = store.scan(b"m", 4)
    second = store.scan(b"m", 4, after=first[-1][0])

    assert [key for key, _ in first + second] == keys


def test_an_offset_and_index_entries_are_no_data(tmp_path: Path) -> None:
    """A scan over all data stops before what the store keeps for itself."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"\xc3\xbf", b"1", (), (b"0001",))], 1, 0)

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
        live.write([(key, None if value is None else b"%d" % value, *listed)], offset, offset)
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
    store.write([(b"%03d" % n, b"%d" % n, (), (b"%03d" % n,)) for n in range(100)], 1, 0)

    rows = [store.rows(b"0", b"%03d" % end) for end in range(100)]
    listings = [store.listings(b"0", b"%03d" % end) for end in range(100)]
    others = [store.rows(b"0", b"9" * length) for length in range(1, 40)]

    assert [len(list(some)) for some in rows] == list(range(100))
    assert [len(list(some)) for some in listings] == list(range(100))
    assert {len(list(some)) for some in others} == {100}


def test_a_snapshot_shows_what_was_there_when_it_was_made(tmp_path: Path) -> None:
    """Values, keys in a range and listings in a range, whatever is written later; and nothing that is not."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.write([(b"%d" % n, b"%d" % n, (), (b"%04d" % n,)) for n in (1, 2, 3)], 1, 0)
    frozen = store.snapshot()
    rows, listings = store.rows(b"2", b"4"), store.listings(b"0002", b"0003")
    first, all_listed = store.rows(b"1", b"4"), store.listings(b"", b"9")
    store.write([(b"2", None, (b"0002",), ()), (b"4", b"4", (), (b"0004",))], 2, 0)

    assert (frozen.get(b"2"), frozen.get(b"4"), frozen.get(b"")) == (b"2", None, None)
    assert list(rows) == [(b"2", b"2"), (b"3", b"3")]
    assert next(first) == (b"1", b"1")
    assert list(listings) == [b"00022"]
    assert list(all_listed) == [b"00011", b"00022", b"00033"]


def test_a_store_records_its_log_and_the_time_of_its_last_record(tmp_path: Path) -> None:
    """Both are there after reopening; the time is that of the record at the offset."""
    store = PartitionStore(tmp_path / "db", NUMBERS)
    store.bind(LOG)
    store.write([(b"a", b"1", (), (b"0001",))], 41, 1_700_000_000_123)
    store.restore([Record(42, b"b", b"2", timestamp=5_000), Record(43, b"c", b"3", timestamp=6_000)], 44)
    store.restore([], 50)
    store.close()

    reopened = PartitionStore(tmp_path / "db", NUMBERS)
    assert (reopened.log, reopened.offset, reopened.timestamp_ms) == (LOG, 50, 6_000)
    assert reopened.scan(b"", 10) == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]


def test_a_topic_id_that_one_side_lacks_is_not_compared() -> None:
    """Brokers before 2.8 have none; everything else must be equal."""
    assert LOG.is_same(LOG._replace(topic_id=None))
    assert LOG._replace(topic_id=None).is_same(LOG)
    assert not LOG.is_same(LOG._replace(topic_id="another"))
    assert not LOG._replace(topic_id=None).is_same(LOG._replace(cluster="another"))
    assert not LOG.is_same(LOG._replace(partition=4))


LOG = LogId("cluster", "changelog", 3, "topic-id")
COUNT = 2_000
KEYS = [b"%05d" % n for n in range(COUNT)]

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a store with several blocks, in two files of RocksDB."""
    path = tmp_path_factory.mktemp("sound") / "db"
    for first in (0, COUNT // 2):
        store = PartitionStore(path, NUMBERS)
        store.bind(LOG)
        part = [(key, key, (), (key[1:],)) for key in KEYS[first : first + COUNT // 2]]
        store.write(part, first, first)
        store.close()
    return path


def table_file(path: Path) -> Path:
    return sorted(path.glob("*.sst"))[0]


def manifest(path: Path) -> Path:
    return next(path.glob("MANIFEST-*"))


def overwrite(file: Path, offset: int) -> None:
    """Change eight bytes at an offset, from the end if it is negative."""
    content = bytearray(file.read_bytes())
    at = offset % len(content)
    content[at : at + 8] = bytes(byte ^ 0xFF for byte in content[at : at + 8])
    file.write_bytes(content)


def cut(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])


def swap(first: Path, second: Path) -> None:
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def replaced_by_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"file")


def replaced(path: Path) -> None:
    emptied(path)
    (path / "000009.sst").write_bytes(b"foreign")
    (path / "readme.txt").write_bytes(b"foreign")


DAMAGE: dict[str, Damage] = {
    "a table file is cut": lambda path: cut(table_file(path), -100),
    "a table file is empty": lambda path: cut(table_file(path), 0),
    "a table file is gone": lambda path: table_file(path).unlink(),
    "table files are swapped": lambda path: swap(*sorted(path.glob("*.sst"))[:2]),
    "a first block has wrong bytes": lambda path: overwrite(table_file(path), 100),
    "a middle block has wrong bytes": lambda path: overwrite(
        table_file(path), table_file(path).stat().st_size // 2
    ),
    "an index block has wrong bytes": lambda path: overwrite(table_file(path), -1_500),
    "a footer has wrong bytes": lambda path: overwrite(table_file(path), -40),
    "CURRENT is gone": lambda path: (path / "CURRENT").unlink(),
    "CURRENT is garbage": lambda path: (path / "CURRENT").write_bytes(b"garbage\n") and None,
    "CURRENT names no file": lambda path: (path / "CURRENT").write_bytes(b"MANIFEST-999999\n") and None,
    "CURRENT is empty": lambda path: cut(path / "CURRENT", 0),
    "the manifest is gone": lambda path: manifest(path).unlink(),
    "the manifest lacks its end": lambda path: cut(manifest(path), -20),
    "the manifest is cut in half": lambda path: cut(manifest(path), manifest(path).stat().st_size // 2),
    "the manifest has wrong bytes": lambda path: overwrite(manifest(path), 60),
    "OPTIONS is garbage": lambda path: next(path.glob("OPTIONS-*")).write_bytes(b"garbage") and None,
    "IDENTITY is garbage": lambda path: (path / "IDENTITY").write_bytes(b"garbage") and None,
    "the configuration is garbage": lambda path: (
        (path / "rocksdict-config.json").write_bytes(b"garbage") and None
    ),
    "the directory is empty": emptied,
    "a file is in its place": replaced_by_a_file,
    "the directory has foreign files only": replaced,
    "there are foreign files": lambda path: (path / "999999.sst").write_bytes(b"foreign") and None,
}


def read_all(store: PartitionStore) -> tuple[list[tuple[bytes, bytes]], list[bytes], list[bytes | None], int]:
    """Read all rows and listings in each way that there is, and return them with the offset."""
    rows, listings = list(store.rows(b"", b"\xfe")), list(store.listings(b"", b"\xff"))
    assert store.scan(b"", COUNT * 2) == rows
    frozen = store.snapshot()
    values = list(store.read_many(KEYS))
    assert [frozen.get(key) for key in KEYS] == values
    return rows, listings, values, -1 if store.offset is None else store.offset


def rows_up_to(
    count: int, offset: int
) -> tuple[list[tuple[bytes, bytes]], list[bytes], list[bytes | None], int]:
    keys, missing = KEYS[:count], [None] * (COUNT - count)
    return [(key, key) for key in keys], [key[1:] + key for key in keys], [*keys, *missing], offset


#: What each offset stands for; a manifest that lacks its end names the files of an earlier offset.
RIGHT = (rows_up_to(COUNT, COUNT // 2), rows_up_to(COUNT // 2, 0), rows_up_to(0, -1))


@pytest.mark.parametrize("way", DAMAGE)
def test_a_damaged_store_is_right_or_rebuilt(tmp_path: Path, sound: Path, way: str) -> None:
    """No reader gets wrong rows or too few for the store's offset, and the second start is a good one."""
    path = tmp_path / "db"
    shutil.copytree(sound, path)
    DAMAGE[way](path)

    store = open_store(path, NUMBERS)
    with suppress(DamagedStore):
        assert read_all(store) in RIGHT
    store.close()
    store = open_store(path, NUMBERS)
    assert read_all(store) in RIGHT
    store.close()


READERS: dict[str, Callable[[PartitionStore], object]] = {
    "values": lambda store: store.read_many(KEYS),
    "scan": lambda store: store.scan(b"", COUNT),
    "rows": lambda store: list(store.rows(b"", b"\xfe")),
    "keys": lambda store: store.keys(b"", b"\xfe", COUNT),
    "snapshot": lambda store: list(map(store.snapshot().get, KEYS)),
    "restore": lambda store: store.restore([Record(COUNT, key, b"7") for key in KEYS], COUNT),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_block_is_an_error_for_whoever_reads_it(tmp_path: Path, sound: Path, reader: str) -> None:
    """RocksDB's iterators end at a damaged block as if it were the end (trap 28). Each error is reported."""
    path = tmp_path / "db"
    shutil.copytree(sound, path)
    overwrite(table_file(path), 100)
    store = open_store(path, NUMBERS)
    reported: list[DamagedStore] = []
    store.call_on_damage(reported.append)

    with pytest.raises(DamagedStore, match="checksum"):
        READERS[reader](store)

    assert len(reported) == 1
    store.close()


def test_a_damaged_index_is_an_error(tmp_path: Path, sound: Path) -> None:
    """Listings are entries like any other."""
    path = tmp_path / "db"
    shutil.copytree(sound, path)
    file = table_file(path)
    overwrite(file, file.stat().st_size * 2 // 3)
    store = open_store(path, NUMBERS)

    with pytest.raises(DamagedStore):
        store.scan_index(b"", COUNT)
    store.close()


def test_damage_found_while_reading_is_not_met_again_at_the_next_start(tmp_path: Path, sound: Path) -> None:
    """The store is marked, and whoever opens it next sets it aside, counts that and begins with none."""
    path = tmp_path / "db"
    shutil.copytree(sound, path)
    overwrite(table_file(path), 100)
    store = open_store(path, NUMBERS)
    with pytest.raises(DamagedStore):
        store.read_many(KEYS)
    store.close()
    before = rebuilt("damaged")

    assert open_store(path, NUMBERS).offset is None
    assert rebuilt("damaged") == before + 1
    assert (tmp_path / "db.aside").is_dir()


def rebuilt(reason: str) -> float:
    return REGISTRY.get_sample_value("tracker_rebuilt_stores_total", {"reason": reason}) or 0.0


def test_a_store_that_another_holds_is_no_damaged_one(tmp_path: Path) -> None:
    """RocksDB's lock is an error for the second, marked or not, and nothing is set aside."""
    path = tmp_path / "db"
    first = open_store(path, NUMBERS)
    for marked in (False, True):
        if marked:
            (path / "DAMAGED").write_text("found by the first")
        with pytest.raises(Exception, match="lock"):
            open_store(path, NUMBERS)
        assert [file.name for file in tmp_path.iterdir()] == ["db"]
    first.close()


async def test_damage_that_any_reader_meets_ends_the_worker(tmp_path: Path, sound: Path) -> None:
    """A view or a timer would answer with an error and go on; the table crashes the app itself."""
    shutil.copytree(sound, tmp_path / "numbers-3.db")
    overwrite(table_file(tmp_path / "numbers-3.db"), 100)
    crashes: list[BaseException] = []
    tasks: list[asyncio.Task[None]] = []

    async def crash(reason: BaseException) -> None:
        crashes.append(reason)

    app: Any = SimpleNamespace(
        conf=SimpleNamespace(tabledir=tmp_path),
        crash=crash,
        add_future=lambda doing: tasks.append(asyncio.create_task(doing)),
    )
    table: Any = SimpleNamespace(format=NUMBERS)
    stores = TransactionalStore("rocksdb://", app, table, table_name="numbers")

    with pytest.raises(DamagedStore) as raised:
        stores.partition(3).read_many(KEYS)
    await asyncio.gather(*tasks)

    assert crashes == [raised.value]
    await stores.on_stop()


async def test_a_reset_removes_damaged_and_kept_stores(tmp_path: Path) -> None:
    """Nothing of a table's local data remains, and no other table's is touched."""
    open_store(tmp_path / "numbers-3.db", NUMBERS).close()
    open_store(tmp_path / "others-3.db", NUMBERS).close()
    (tmp_path / "numbers-3.db" / "CURRENT").write_bytes(b"garbage")
    app: Any = SimpleNamespace(conf=SimpleNamespace(tabledir=tmp_path))
    table: Any = SimpleNamespace(format=NUMBERS)

    TransactionalStore("rocksdb://", app, table, table_name="numbers").reset_state()

    assert [path.name for path in tmp_path.iterdir()] == ["others-3.db"]


IO_ERRORS = (
    "IO error: No space left on device: While appending to file: /db/000009.sst: No space left on device",
    "IO error: While open a file for appending: /db/LOG: Permission denied",
    "IO error: While pread offset 0 len 4096: /db/000009.sst: Input/output error",
    "IO error: While lock file: /db/LOCK: Resource temporarily unavailable",
)


@pytest.mark.parametrize("text", IO_ERRORS)
def test_an_error_of_the_disk_is_no_damage(tmp_path: Path, text: str) -> None:
    """A full disk, a permission or a lock is raised as it is, and leaves no marker."""
    store = open_store(tmp_path / "db", NUMBERS)

    with pytest.raises(OSError, match="IO error"), store._guard:
        raise OSError(text)
    assert not (tmp_path / "db" / "DAMAGED").exists()
    store.close()


def test_one_copy_of_a_store_is_kept_at_most(tmp_path: Path) -> None:
    """What was set aside last replaces what was set aside before; removed stores leave nothing."""
    path = tmp_path / "db"
    for keep in (True, True, False):
        open_store(path, NUMBERS).close()
        (path / "mark").write_text(str(keep))
        retire_store(path, "damaged", "for the test", keep=keep)

    assert [file.name for file in tmp_path.iterdir()] == ["db.aside"]
