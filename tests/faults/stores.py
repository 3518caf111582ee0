"""Compare the workers' RocksDB directories with the changelogs, once the workers are gone."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from . import logs
from .decoding import listing
from .inputs import Raw
from .logs import TABLES, Names

OFFSET = b"\xfeoffset"
LOG = b"\xfelog"
INDEX = b"\xff"


def wrong_stores(
    names: Names, directory: Path, unsure: Container[Path] = (), tables: Sequence[str] = TABLES
) -> list[str]:
    """Judge every store that a worker left, those of partitions that it lost long ago too.

    Each must hold exactly what the changelog came to at the offset that the store itself names, and for every
    partition one must hold all of it. No compaction may have run: the fault topics are young.

    Args:
        unsure: stores that were damaged, or whose changelog was compacted: they are judged only if they claim
            to have caught up, and may be broken in blocks that nothing has read since.
        tables: which to judge; the index is judged of those that the reference knows.
    """
    wrong: list[str] = []
    changelogs = logs.read_topics(names, *map(names.changelog, tables))
    for table in tables:
        for partition in range(names.partitions):
            records = changelogs[names.changelog(table)].get(partition, [])
            paths = sorted(directory.rglob(f"{table}-{partition}.db"))
            stores = {path: read_store(path, path in unsure) for path in paths}
            for path, stored in stores.items():
                if path not in unsure or has_caught_up(stored, records):
                    wrong += [f"{path}: {what}" for what in judge_store(table, records, stored)]
            is_broken = any(not stored for path, stored in stores.items() if path in unsure)
            if records and not is_broken and not any(has_caught_up(s, records) for s in stores.values()):
                wrong.append(f"{table}/{partition}: no store has caught up with the changelog")
    return wrong


def judge_store(table: str, records: list[Raw], stored: dict[bytes, bytes]) -> Iterator[str]:
    until = offset_of(stored)
    listed = {key for key in stored if key.startswith(INDEX)}
    data = {key: value for key, value in stored.items() if key not in {OFFSET, LOG, *listed}}
    if data != logs.replayed(records, until):
        yield f"differs from its changelog at offset {until}"
    if table in TABLES and listed != {
        INDEX + entry for key, value in data.items() for entry in listing(table, key, value)
    }:
        yield "the index does not list each record exactly once"


def offset_of(stored: dict[bytes, bytes]) -> int:
    return int(stored.get(OFFSET, b"-1").split()[0])


def has_caught_up(stored: dict[bytes, bytes], records: list[Raw]) -> bool:
    return bool(records) and offset_of(stored) >= records[-1].offset


def read_store(path: Path, may_be_broken: bool = False) -> dict[bytes, bytes]:
    """Return what a store holds; nothing if it may be, and is, broken."""
    try:
        store = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
    except Exception:  # rocksdict raises no other
        if may_be_broken:
            return {}
        raise
    try:
        return dict(store.items())
    finally:
        store.close()
