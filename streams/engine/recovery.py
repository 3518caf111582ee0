"""Recovery and standbys: changelogs are read in batches, each one WriteBatch with its offset.

Faust's `Recovery` stays in charge of what is read when; the loop that applies what was read is ours.
Faust's swallows every exception, applies records of partitions it does not track to another table, and
takes a hole for a complete log (``faust/tables/recovery.py``, ``_slurp_changelogs``).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from faust.exceptions import ConsistencyError
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery, ServiceStopped
from faust.transport.drivers.aiokafka import server_list
from faust.types import TP
from mode import Service

from streams.engine import metrics
from streams.engine.batches import HOLE, Batch, Seeks, uncovered
from streams.engine.changelogs import Changelogs, LogId, connected_changelogs
from streams.engine.store import PartitionStore

__all__ = ["BatchRecovery", "BatchTableManager"]

E_TRUNCATED = """\
The changelog {topic}/{partition} begins at offset {first}, but the local store contains it only up to \
{stored}: what lies between is gone from Kafka. Remove the directory {path} to rebuild the partition from \
what the changelog still holds, and check that the topic's cleanup.policy is compact only."""

E_AHEAD = """\
The local store {path} contains the changelog {topic}/{partition} up to offset {stored}, but the log ends at \
{end}: the broker has lost acknowledged records, by an unclean leader election or because its disk was \
restored from an older copy. Restore the records on the broker. To accept the loss, stop all workers, \
remove the directory {name} of each of them, and start the workers: the partition is rebuilt from what the \
changelog still holds."""


class BatchRecovery(Recovery):
    """Applies changelog batches under the coverage rule, and crashes rather than guesses."""

    #: The generation in which recovery was last complete, or is just about to be.
    completing: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._seeks = Seeks()
        #: By partition, the last batch that came behind a hole.
        self._holes: dict[TP, Batch] = {}

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Let the lanes begin, then seek once more to what was reached.

        Faust clears its queues when flow is resumed, and a batch that was polled a moment before would be
        missed only when the next one comes, which may take long.
        """
        self.completing = generation_id
        await super().on_recovery_completed(generation_id)
        if generation_id == self.app.consumer_generation_id:
            stands = self.app.lanes.stands()  # type: ignore[attr-defined]
            known = {tp: self.standby_offsets[tp] for tp in self.standby_tps}
            standbys = {tp: 0 if offset is None else offset + 1 for tp, offset in known.items()}
            await self.app.consumer.seek_noted({**stands, **standbys})  # type: ignore[attr-defined]

    async def _wait(self, coro: Any, timeout: Any = None) -> None:
        """Crash when the broker does not answer in time.

        mode reports a timeout as "stopped", on which Faust ends its recovery loop in silence: the worker
        would hold its partitions and do nothing.
        """
        try:
            await super()._wait(coro, timeout=timeout)
        except ServiceStopped:
            if self.should_stop:
                raise
            raise TimeoutError(f"recovery: the broker did not answer within {timeout} s") from None

    def _set_recovery_started(self) -> None:
        # Faust clears this at the top of its own loop; left set, a second recovery would end at once
        self.signal_recovery_end.clear()
        self._seeks.forget()
        self._holes.clear()
        super()._set_recovery_started()

    @Service.task
    async def _slurp_changelogs(self) -> None:
        queue = self.tables.changelog_queue
        while not self.should_stop:
            try:
                event = await asyncio.wait_for(queue.get(), timeout=1.0)
            except TimeoutError:
                await self.look_again()
                continue
            try:
                await self._apply(event.value, event.message.generation_id)
            except Exception as error:
                self.log.exception("recovery failed, the worker stops")
                await self.app.crash(error)
                return

    async def look_again(self) -> None:
        """Seek back to known holes, which no later batch may reveal; end the recovery if it is complete."""
        for tp, batch in list(self._holes.items()):
            applied = self._applied(tp)
            if applied is None or batch.end <= applied + 1:
                del self._holes[tp]
            else:
                await self._heal(batch, applied + 1)
        self._end_when_complete()

    def _applied(self, tp: TP) -> int | None:
        offsets = self._offsets_of(tp)
        # the last applied offset; None before recovery has asked where the log begins
        return None if offsets is None else offsets.get(tp)

    async def _apply(self, batch: Batch, generation: int) -> None:
        tp = TP(batch.topic, batch.partition)
        offsets = self._offsets_of(tp)
        if offsets is None or generation != self.app.consumer_generation_id:
            return
        applied = offsets.get(tp)
        if applied is None:
            return
        rest = uncovered(batch, applied + 1)
        if isinstance(rest, Batch):
            self._restore(tp, rest)
            offsets[tp] = batch.end - 1
        elif rest == HOLE:
            self._holes[tp] = batch
            await self._heal(batch, applied + 1)
        self._end_when_complete()

    def _offsets_of(self, tp: TP) -> Counter[TP] | None:
        if tp in self.active_tps:
            # Trap 6: with recovery_buffer_size=1 Faust goes on applying our own writes after recovery
            return self.active_offsets if self.in_recovery else None
        return self.standby_offsets if tp in self.standby_tps else None

    def _restore(self, tp: TP, batch: Batch) -> None:
        table: Any = self.tp_to_table[tp]
        table.store.partition(tp.partition).restore(batch.records, batch.end - 1)
        metrics.RESTORED.inc(len(batch))

    async def _heal(self, batch: Batch, stand: int) -> None:
        """Trap 14: never move the persisted offset over a hole, the store would pass for complete."""
        tp = TP(batch.topic, batch.partition)
        if not self._seeks.is_due(tp, stand, time.monotonic()):
            return
        metrics.CHANGELOG_HOLES.inc()
        self.log.info("hole in the changelog before %r, seeking back to %d", batch, stand)
        await self.app.consumer.seek_noted({tp: stand})  # type: ignore[attr-defined]

    def _end_when_complete(self) -> None:
        if self.in_recovery and not self.need_recovery():
            self._set_recovery_ended()
            self.signal_recovery_end.set()
        if not self.tables.standbys_ready and not self.standby_remaining_total():
            self.tables.on_standbys_ready()

    def standby_remaining(self) -> Counter[TP]:
        """Return the changes that each standby lacks (Faust's fails while an offset is unknown)."""
        return Counter(
            {
                tp: max(0, highwater - (-1 if self.standby_offsets[tp] is None else self.standby_offsets[tp]))
                for tp, highwater in self.standby_highwaters.items()
                if highwater is not None
            }
        )

    async def _build_offsets(self, consumer: Any, tps: set[TP], destination: Counter[TP], title: str) -> None:
        await self._verify(tps)
        for tp in tps:
            # Faust keeps the offset of an earlier generation when a store is empty
            store = self._store_of(tp)
            destination[tp] = None if store is None else store.offset  # type: ignore[assignment]
        stored = {tp: destination[tp] for tp in tps}
        await super()._build_offsets(consumer, tps, destination, title)
        for tp in tps:
            if stored[tp] is not None and destination[tp] > stored[tp]:
                raise ConsistencyError(self._truncated(tp, destination[tp] + 1, stored[tp]))

    async def _verify(self, tps: set[TP]) -> None:
        """Rebuild the stores that belong to another log, or that their log can no longer bring up to date.

        Raises:
            ConsistencyError: the log ends before the store.
        """
        stores = {tp: store for tp in tps if (store := self._store_of(tp)) is not None}
        if not stores:
            return
        async with self._changelogs() as changelogs:
            ids, ends = await changelogs.ids(stores), await changelogs.ends(stores)
            aged = await changelogs.newer_than(self._useful_until(stores, ends))
        for tp, store in stores.items():
            # a rebalance may have closed it meanwhile
            if self._store_of(tp) is store:
                self._judge(tp, store, ids[tp], ends[tp], is_aged=tp in aged)

    def _store_of(self, tp: TP) -> PartitionStore | None:
        table: Any = self.tp_to_table[tp]
        store: PartitionStore | None = table.store.opened(tp.partition)
        return store

    def _changelogs(self) -> AbstractAsyncContextManager[Changelogs]:
        return connected_changelogs(server_list(self.app.transport.url, 9092))

    def _useful_until(self, stores: Mapping[TP, PartitionStore], ends: Mapping[TP, int]) -> Mapping[TP, int]:
        """Return the timestamp, ms, after which the log may lack deletions that a store lacks as well.

        Kafka keeps a tombstone for at least ``delete.retention.ms``. A store behind a tombstone that is gone
        would keep the row for ever. Timestamps of the log are compared with each other, never with a clock.
        Half of the time is left for the delay between a record and the compaction behind it. A store that
        lacks no record does not age.
        """
        limit_ms = self.app.delete_retention_ms // 2  # type: ignore[attr-defined]
        return {
            tp: store.timestamp_ms + limit_ms
            for tp, store in stores.items()
            if store.offset is not None and store.offset + 1 < ends[tp]
        }

    def _judge(self, tp: TP, store: PartitionStore, log_id: LogId, end: int, *, is_aged: bool) -> None:
        table: Any = self.tp_to_table[tp]
        renew = partial(table.store.renew, tp.partition)
        offset = store.offset
        if offset is None:
            pass
        elif store.log is None:
            detail = "an earlier version wrote it, without the identity of its log"
            store = renew("unidentified", detail, keep=False)
        elif not store.log.is_same(log_id):
            # kept: it may be all that is left of the other log
            store = renew("foreign", f"it belongs to {store.log}, the changelog is {log_id}", keep=True)
        elif offset >= end:
            raise ConsistencyError(self._ahead(tp, store, end))
        elif is_aged:
            detail = f"the log is more than half of delete.retention.ms newer than offset {offset}"
            store = renew("aged", detail, keep=False)
        if store.log is None or log_id.topic_id is not None:
            store.bind(log_id)

    def _ahead(self, tp: TP, store: PartitionStore, end: int) -> str:
        path = store.path
        return E_AHEAD.format(
            topic=tp.topic, partition=tp.partition, stored=store.offset, end=end, path=path, name=path.name
        )

    def _truncated(self, tp: TP, first: int, stored: int) -> str:
        table: Any = self.tp_to_table[tp]
        path = table.store.partition(tp.partition).path
        return E_TRUNCATED.format(
            topic=tp.topic, partition=tp.partition, first=first, stored=stored, path=path
        )

    def flush_buffers(self) -> None:
        """Nothing waits: each batch is applied as it comes."""


class BatchTableManager(TableManager):
    """Faust's table manager with our recovery."""

    @property
    def recovery(self) -> BatchRecovery:
        """The recovery service of this worker's tables."""
        if self._recovery is None:
            self._recovery = BatchRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery  # type: ignore[return-value]
