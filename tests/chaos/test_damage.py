"""Each way to damage a store does so: RocksDB, or what is in it, is not what it was."""

import random
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from tests.faults.stores import OFFSET, read_store

from .damage import HARMS, any_store


def make_store(path: Path, value: bytes) -> None:
    store = Rdict(str(path), Options(raw_mode=True))
    for n in range(2_000):
        store[b"%06d" % n] = value * 100
    store[OFFSET] = b"7"
    store.flush()
    store.close()


@pytest.mark.parametrize("name", HARMS)
def test_a_damaged_store_is_not_what_it_was(tmp_path: Path, name: str) -> None:
    for number, value in enumerate((b"a", b"b")):
        make_store(tmp_path / f"deliveries-{number}.db", value)
    store = tmp_path / "deliveries-0.db"
    before = read_store(store)

    HARMS[name](store, random.Random(1))

    assert read_or_fail(store) != before


def read_or_fail(store: Path) -> object:
    try:
        return read_store(store)
    except Exception as error:
        return error


def test_a_store_without_files_is_not_chosen(tmp_path: Path) -> None:
    assert any_store(tmp_path, random.Random(1)) is None
