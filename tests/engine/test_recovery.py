import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.exceptions import ConsistencyError
from faust.types import TP

from streams.engine.batches import Batch, Seeks
from streams.engine.changelogs import Changelogs, LogId
from streams.engine.recovery import BatchRecovery
from streams.engine.store import PartitionStore
from streams.engine.table import TransactionalStore
from tests.engine.records import NUMBERS, Record

ACTIVE, STANDBY = TP("changelog", 3), TP("changelog", 4)


class Restored:
    """Stores that note what recovery writes, and a consumer that notes where it is sought."""

    def __init__(self, *, in_recovery: bool = True) -> None:
        self.writes: list[tuple[int, list[int], int]] = []
        self.seeks: list[Mapping[TP, int]] = []
        consumer = SimpleNamespace(seek_noted=self._seek)
        table = SimpleNamespace(store=SimpleNamespace(partition=self._store))
        # without Faust's __init__, which wants an app: all that _apply looks at
        self.recovery: Any = object.__new__(BatchRecovery)
        recovery = self.recovery
        recovery.app = SimpleNamespace(consumer_generation_id=7, consumer=consumer)
        recovery.tables = SimpleNamespace(standbys_ready=True)
        recovery.log = logging.getLogger(__name__)
        recovery.in_recovery, recovery._seeks, recovery._holes = in_recovery, Seeks(), {}
        recovery.active_tps, recovery.standby_tps = {ACTIVE}, {STANDBY}
        recovery.active_offsets, recovery.standby_offsets = Counter({ACTIVE: 9}), Counter({STANDBY: 9})
        recovery.active_highwaters = Counter({ACTIVE: 99})
        recovery.standby_highwaters = Counter({STANDBY: 99})
        recovery.tp_to_table = {ACTIVE: table, STANDBY: table}

    async def _seek(self, offsets: Mapping[TP, int]) -> None:
        self.seeks.append(offsets)

    def _store(self, number: int) -> Any:
        def restore(records: list[Record], offset: int) -> None:
            self.writes.append((number, [record.offset for record in records], offset))

        return SimpleNamespace(restore=restore)

    async def apply(self, start: int, end: int, *offsets: int, tp: TP = ACTIVE, generation: int = 7) -> None:
        records = [Record(offset, topic=tp.topic, partition=tp.partition) for offset in offsets]
        await self.recovery._apply(Batch(tp.topic, tp.partition, start, end, records), generation)

    @property
    def offsets(self) -> tuple[int, int]:
        return self.recovery.active_offsets[ACTIVE], self.recovery.standby_offsets[STANDBY]


async def test_a_batch_is_restored_from_the_stand_on() -> None:
    """The stand is the offset after the last that the store holds; the store's offset is the batch's last."""
    restored = Restored()
    await restored.apply(8, 15, 8, 9, 10, 13)

    assert restored.writes == [(3, [10, 13], 14)]
    assert restored.offsets == (14, 9)


async def test_a_hole_in_a_changelog_is_sought_back() -> None:
    """Neither the store nor the offset passes a hole, or the store would pass for complete (trap 14)."""
    restored = Restored()
    await restored.apply(11, 15, 11, 12)

    assert restored.seeks == [{ACTIVE: 10}]
    assert restored.writes == []
    assert restored.offsets == (9, 9)


async def test_a_hole_in_a_changelog_is_sought_once() -> None:
    """What was polled before the seek took effect asks for no other."""
    restored = Restored()
    await restored.apply(11, 15, 11)
    await restored.apply(15, 20, 15)
    await restored.apply(10, 20, 10, 11, 15)
    await restored.apply(22, 25, 22)

    assert restored.seeks == [{ACTIVE: 10}, {ACTIVE: 20}]


async def test_a_hole_before_the_end_of_a_changelog_is_sought_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No later batch would show it if what was sought is lost once more; recovery would wait for ever."""
    monkeypatch.setattr("streams.engine.batches.SEEK_AGAIN_S", 0.0)
    restored = Restored()
    await restored.apply(11, 15, 11, 12)
    await restored.recovery.look_again()
    assert restored.seeks == [{ACTIVE: 10}] * 2

    await restored.apply(10, 15, 10, 11, 12)
    await restored.recovery.look_again()

    assert restored.seeks == [{ACTIVE: 10}] * 2


async def test_a_redelivered_changelog_batch_is_ignored() -> None:
    """What the store holds is not written again, and its offset does not fall back."""
    restored = Restored()
    await restored.apply(5, 10, 5, 9)
    await restored.apply(5, 8, 5)

    assert not restored.writes
    assert not restored.seeks
    assert restored.offsets == (9, 9)


async def test_after_recovery_only_standbys_are_fed() -> None:
    """Of an active partition the lane is the only writer; its changelog is not applied again (trap 6)."""
    restored = Restored(in_recovery=False)
    await restored.apply(10, 12, 10, 11)
    await restored.apply(10, 12, 10, 11, tp=STANDBY)

    assert restored.writes == [(4, [10, 11], 11)]
    assert restored.seeks == []
    assert restored.offsets == (9, 11)


async def test_a_batch_without_records_moves_the_offset() -> None:
    """Control records at a changelog's end are never delivered; recovery must not wait for them (trap 7)."""
    restored = Restored()
    await restored.apply(10, 12)

    assert restored.writes == [(3, [], 11)]
    assert restored.offsets == (11, 9)


async def test_changelog_batches_of_another_generation_are_ignored() -> None:
    """The store that they were polled for may have been given away."""
    restored = Restored()
    await restored.apply(10, 12, 10, 11, generation=6)
    await restored.apply(20, 22, 20, generation=6)

    assert not restored.writes
    assert not restored.seeks


async def test_a_partition_that_is_not_tracked_is_ignored() -> None:
    """Faust applied such records to another table; it keeps the offsets of partitions that are gone."""
    restored = Restored()
    restored.recovery.active_offsets[TP("changelog", 5)] = 9
    restored.recovery.standby_offsets[TP("changelog", 5)] = 9
    await restored.apply(10, 12, 10, 11, tp=TP("changelog", 5))

    assert not restored.writes
    assert not restored.seeks


async def test_nothing_is_applied_before_the_stand_is_known() -> None:
    """The store is new and recovery has not asked yet where the log begins."""
    restored = Restored()
    restored.recovery.active_offsets[ACTIVE] = None
    await restored.apply(0, 2, 0, 1)

    assert not restored.writes
    assert not restored.seeks


DAY_MS = 86_400_000
#: Of the changelogs of these tests.
DELETE_RETENTION_MS = 7 * DAY_MS
NOON = 1_700_000_000_000


class Reported:
    """What a broker reports about a log whose records are known."""

    def __init__(self, records: Sequence[Record], end: int, topic_id: str | None) -> None:
        self._records = records
        self._end = end
        self._topic_id = topic_id

    async def ids(self, partitions: Collection[TP]) -> Mapping[TP, LogId]:
        return {tp: LogId("cluster", *tp, self._topic_id) for tp in partitions}

    async def ends(self, partitions: Collection[TP]) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, self._end)

    async def newer_than(self, timestamps_ms: Mapping[TP, int]) -> frozenset[TP]:
        newest = max((record.timestamp for record in self._records), default=-1)
        return frozenset(tp for tp, timestamp_ms in timestamps_ms.items() if newest > timestamp_ms)


class Log:
    """A changelog: the records that compaction has left, and what the broker reports about it."""

    def __init__(
        self,
        records: Sequence[Record],
        end: int,
        topic_id: str | None = "topic-1",
        changelogs: Changelogs | None = None,
    ) -> None:
        self.records = records
        self.end = end
        self.changelogs = changelogs or Reported(records, end, topic_id)


class Worker:
    """The stores of one worker's directory, and a recovery that brings a partition of them up to a log."""

    def __init__(self, directory: Path, tp: TP = ACTIVE) -> None:
        self.tp = tp
        app: Any = SimpleNamespace(
            conf=SimpleNamespace(tabledir=directory), delete_retention_ms=DELETE_RETENTION_MS
        )
        table: Any = SimpleNamespace(format=NUMBERS)
        self.stores = TransactionalStore("rocksdb://", app, table, table_name="numbers")
        table.store = self.stores
        self.recovery: Any = object.__new__(BatchRecovery)
        self.recovery.app, self.recovery.tp_to_table = app, {tp: table}
        self.recovery.log = logging.getLogger(__name__)

    @property
    def store(self) -> PartitionStore:
        return self.stores.partition(self.tp.partition)

    async def recover(self, log: Log) -> int:
        """Recover, close the stores, and return how many records were read."""

        @asynccontextmanager
        async def connected() -> AsyncIterator[Changelogs]:
            yield log.changelogs

        self.recovery._changelogs = connected
        # as Faust has it before it asks
        offsets: Any = Counter({self.tp: self.stores.persisted_offset(self.tp)})
        consumer = SimpleNamespace(earliest_offsets=self._earliest)
        await self.recovery._build_offsets(consumer, {self.tp}, offsets, "active")
        rest = [record for record in log.records if record.offset > offsets[self.tp]]
        self.store.restore(rest, log.end - 1)
        return len(rest)

    async def _earliest(self, *tps: TP) -> Mapping[TP, int]:
        return dict.fromkeys(tps, 0)

    def rows(self) -> list[tuple[bytes, bytes]]:
        return self.store.scan(b"", 100)

    def listings(self) -> list[bytes]:
        return self.store.scan_index(b"", 100)


def record(offset: int, key: bytes, value: bytes | None, day: float) -> Record:
    """Return a changelog record that was written some days after noon."""
    return Record(offset, key, value, timestamp=NOON + round(day * DAY_MS))


@pytest.mark.parametrize("tp", [ACTIVE, STANDBY], ids=["active", "standby"])
async def test_a_store_left_behind_gets_no_deleted_rows_back(tmp_path: Path, tp: TP) -> None:
    """An old directory comes to the rows of an empty one, though the tombstone in between is gone (I2)."""
    old, new = Worker(tmp_path / "old", tp), Worker(tmp_path / "new", tp)
    await old.recover(Log([record(10, b"a", b"1", 0)], 11))
    # offset 11 deleted "a", and was compacted away with it
    compacted = Log([record(20, b"b", b"2", 4)], 22)

    assert await old.recover(compacted) == await new.recover(compacted) == 1
    assert old.rows() == new.rows() == [(b"b", b"2")]
    assert old.listings() == new.listings() == [b"0002b"]


async def test_a_store_within_half_the_tombstones_time_is_continued(tmp_path: Path) -> None:
    """What it lacks is read from its own offset on."""
    worker = Worker(tmp_path)
    await worker.recover(Log([record(10, b"a", b"1", 0)], 11))
    log = Log([record(10, b"a", b"1", 0), record(11, b"b", b"2", 3.5)], 12)

    assert await worker.recover(log) == 1
    assert worker.rows() == [(b"a", b"1"), (b"b", b"2")]


async def test_a_store_that_follows_does_not_age(tmp_path: Path) -> None:
    """It may follow for months, one restart after another, and is never read from the log's start."""
    worker = Worker(tmp_path)
    records: list[Record] = []
    for day in range(0, 60, 3):
        records.append(record(day, b"%d" % day, b"1", day))
        assert await worker.recover(Log(records, day + 1)) == 1


async def test_a_quiet_log_does_not_age_its_store(tmp_path: Path) -> None:
    """No record for weeks, and then the marker of a transaction only: nothing to rebuild."""
    worker = Worker(tmp_path)
    records = [record(10, b"a", b"1", 0)]
    await worker.recover(Log(records, 12))

    assert await worker.recover(Log(records, 12)) == 0
    assert await worker.recover(Log(records, 13)) == 0


async def test_a_store_at_the_logs_end_does_not_age(tmp_path: Path) -> None:
    """It lacks no record, whatever the timestamps of those that it has."""
    worker = Worker(tmp_path)
    log = Log([record(10, b"a", b"1", 90), record(11, b"b", b"2", 0)], 12)
    await worker.recover(log)

    assert await worker.recover(log) == 0


async def test_a_topic_made_anew_is_read_from_its_start(tmp_path: Path) -> None:
    """The store of the deleted topic is set aside, though the new log is longer than its offset."""
    worker = Worker(tmp_path)
    await worker.recover(Log([record(3, b"a", b"1", 0)], 4))
    anew = Log([record(1, b"b", b"2", 0.1), record(9, b"c", b"3", 0.1)], 10, topic_id="topic-2")

    assert await worker.recover(anew) == 2
    assert worker.rows() == [(b"b", b"2"), (b"c", b"3")]
    assert (tmp_path / "numbers-3.db.aside").is_dir()


async def test_a_shorter_topic_made_anew_is_read_from_its_start(tmp_path: Path) -> None:
    """Another log cannot have lost what this store contains."""
    worker = Worker(tmp_path)
    await worker.recover(Log([record(30, b"a", b"1", 0)], 31))

    assert await worker.recover(Log([record(1, b"b", b"2", 0.1)], 2, topic_id="topic-2")) == 1


async def test_a_broker_that_learns_topic_ids_keeps_the_stores(tmp_path: Path) -> None:
    """The id is recorded once it is known, and compared from then on."""
    worker = Worker(tmp_path)
    records = [record(10, b"a", b"1", 0)]
    assert await worker.recover(Log(records, 11, topic_id=None)) == 1
    assert await worker.recover(Log(records, 11, topic_id="topic-1")) == 0
    assert await worker.recover(Log(records, 11, topic_id=None)) == 0
    assert await worker.recover(Log(records, 11, topic_id="topic-2")) == 1


async def test_a_store_of_an_earlier_version_is_rebuilt_once(tmp_path: Path) -> None:
    """It has neither an identity nor a timestamp, so nothing about it can be verified."""
    worker = Worker(tmp_path)
    worker.store.restore([record(10, b"gone", b"1", 0)], 10)
    log = Log([record(11, b"a", b"1", 0)], 12)

    assert await worker.recover(log) == 1
    assert worker.rows() == [(b"a", b"1")]
    assert await worker.recover(log) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["numbers-3.db"]


@pytest.mark.parametrize(("stored", "end"), [(7, 5), (5, 5), (1, 0), (0, 0)])
async def test_a_store_ahead_of_its_log_stops_the_worker(tmp_path: Path, stored: int, end: int) -> None:
    """The broker lost what it had acknowledged. No row is guessed; the error names the directory."""
    worker = Worker(tmp_path)
    await worker.recover(Log([record(stored, b"a", b"1", 0)], stored + 1))

    with pytest.raises(ConsistencyError, match=r"lost acknowledged records[\s\S]*numbers-3\.db"):
        await worker.recover(Log([], end))
    assert worker.rows() == [(b"a", b"1")]


async def test_a_store_that_was_replaced_forgets_the_offset_of_the_former(tmp_path: Path) -> None:
    """Faust keeps the offset of an earlier generation for a partition whose store is empty now."""
    worker = Worker(tmp_path)
    log = Log([record(10, b"a", b"1", 0)], 11)
    await worker.recover(log)
    worker.stores.renew(3, "damaged", "for the test", keep=False)
    worker.stores.persisted_offset = lambda tp: 10  # type: ignore[method-assign]

    assert await worker.recover(log) == 1
