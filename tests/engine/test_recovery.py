import logging
from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from streams.engine.batches import Batch, Seeks
from streams.engine.recovery import BatchRecovery
from tests.engine.records import Record

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
        recovery.in_recovery, recovery._seeks = in_recovery, Seeks()
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
