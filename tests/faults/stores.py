"""Compare the workers' RocksDB directories with the changelogs, once the workers are gone."""

from collections.abc import Iterator
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from . import logs
from .decoding import listing
from .inputs import Raw
from .logs import Names

OFFSET = b"\xfeoffset"
INDEX = b"\xff"
TABLES = ("deliveries", "period_stats")


def wrong_stores(names: Names, directories: list[Path]) -> list[str]:
    """Judge every store that a worker left, those of partitions that it lost long ago too.

    Each must hold exactly what the changelog came to at the offset that the store itself names, and for every
    partition one must hold all of it. No compaction may have run: the fault topics are young.
    """
    wrong: list[str] = []
    for table in TABLES:
        changelog = logs.read_topic(names, names.changelog(table))
        for partition in range(names.partitions):
            records = changelog.get(partition, [])
            paths = [p for d in directories for p in sorted(d.rglob(f"{table}-{partition}.db"))]
            wrong += judge_partition(table, records, paths)
            if records and not any(stored_offset(path) >= records[-1].offset for path in paths):
                wrong.append(f"{table}/{partition}: no store has caught up with the changelog")
    return wrong


def judge_partition(table: str, records: list[Raw], paths: list[Path]) -> Iterator[str]:
    for path in paths:
        stored = read_store(path)
        until = int(stored.pop(OFFSET, b"-1"))
        entries = {key for key in stored if key.startswith(INDEX)}
        data = {key: value for key, value in stored.items() if key not in entries}
        if data != replayed(records, until):
            yield f"{path}: differs from its changelog at offset {until}"
        if entries != {INDEX + entry for key, value in data.items() for entry in listing(table, key, value)}:
            yield f"{path}: the index does not list each record exactly once"


def replayed(records: list[Raw], until: int) -> dict[bytes, bytes]:
    state = {record.key or b"": record.value for record in records if record.offset <= until}
    return {key: value for key, value in state.items() if value is not None}


def read_store(path: Path) -> dict[bytes, bytes]:
    store = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
    try:
        return dict(store.items())
    finally:
        store.close()


def stored_offset(path: Path) -> int:
    return int(read_store(path).get(OFFSET, b"-1"))
