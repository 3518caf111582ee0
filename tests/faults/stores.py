"""Compare the workers' RocksDB directories with the changelogs, once the workers are gone."""

from collections.abc import Iterator
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from . import logs
from .decoding import listing
from .inputs import Raw
from .logs import TABLES, Names

OFFSET = b"\xfeoffset"
LOG = b"\xfelog"
INDEX = b"\xff"


def wrong_stores(names: Names, directory: Path) -> list[str]:
    """Judge every store that a worker left, those of partitions that it lost long ago too.

    Each must hold exactly what the changelog came to at the offset that the store itself names, and for every
    partition one must hold all of it. No compaction may have run: the fault topics are young.
    """
    wrong: list[str] = []
    changelogs = logs.read_topics(names, *map(names.changelog, TABLES))
    for table in TABLES:
        for partition in range(names.partitions):
            records = changelogs[names.changelog(table)].get(partition, [])
            stores = {path: read_store(path) for path in sorted(directory.rglob(f"{table}-{partition}.db"))}
            for path, stored in stores.items():
                wrong += [f"{path}: {what}" for what in judge_store(table, records, stored)]
            if records and not any(offset_of(stored) >= records[-1].offset for stored in stores.values()):
                wrong.append(f"{table}/{partition}: no store has caught up with the changelog")
    return wrong


def judge_store(table: str, records: list[Raw], stored: dict[bytes, bytes]) -> Iterator[str]:
    until = offset_of(stored)
    listed = {key for key in stored if key.startswith(INDEX)}
    data = {key: value for key, value in stored.items() if key not in {OFFSET, LOG, *listed}}
    if data != logs.replayed(records, until):
        yield f"differs from its changelog at offset {until}"
    if listed != {INDEX + entry for key, value in data.items() for entry in listing(table, key, value)}:
        yield "the index does not list each record exactly once"


def offset_of(stored: dict[bytes, bytes]) -> int:
    return int(stored.get(OFFSET, b"-1").split()[0])


def read_store(path: Path) -> dict[bytes, bytes]:
    store = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
    try:
        return dict(store.items())
    finally:
        store.close()
