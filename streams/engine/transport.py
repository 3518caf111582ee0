"""Batch transport: one event a poll and partition instead of two asyncio tasks a record.

Runs in two threads. The consumer's thread owns the positions, so whatever says which offsets a batch
covers is noted there, in the same step as the seek or the fetch that it describes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.group import LeaveGroupRequest
from faust.exceptions import ConsistencyError
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.engine import metrics
from streams.engine.batches import Batch, Record
from streams.engine.parsing import as_parsed
from streams.engine.stream_time import StreamTime
from streams.engine.transactions import PartitionTransactions

__all__ = ["BatchConsumer", "Transport"]

log = logging.getLogger(__name__)

#: How long the broker may hold a fetch that finds nothing. Trap 18: aiokafka has one fetch per broker in
#: flight, and one that asks for idle partitions only holds up the busy ones; Faust fixes it at 1,500 ms.
FETCH_WAIT_MS = 20
#: How long to wait when no partition may be polled, seconds.
FULL_S = 0.005
#: How long the broker may take to hear that a worker leaves in the middle of a rebalance, seconds.
GOODBYE_S = 3.0
#: How long a poll waits for records, seconds; then control records that were passed are reported.
POLL_S = 0.1


EXPIRED = "records %d to %d of %s/%d expired before they were read: retention is shorter than the outage"

_await_reset = TopicPartitionState.await_reset


def _note_reset(state: Any, strategy: int) -> None:
    """Note that a position was reset: the broker no longer has that offset. aiokafka passes that over."""
    state.was_reset = state.has_valid_position
    _await_reset(state, strategy)


TopicPartitionState.await_reset = _note_reset


def _take_reset(state: Any) -> bool:
    """Return whether a position was reset since the last call."""
    was_reset: bool = getattr(state, "was_reset", False)
    state.was_reset = False
    return was_reset


_send = AIOKafkaConnection.send


def _send_or_close(connection: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Any:
    """Send a request on one of aiokafka's connections.

    Trap 29: uvloop raises RuntimeError when a transport has just been closed. aiokafka expects OSError only,
    and its fetcher ends: the worker stays in its group and reads nothing any more.
    """
    try:
        return _send(connection, request, expect_response)
    except RuntimeError as error:
        if isinstance(error, KafkaError):
            raise
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"connection to {connection.host}:{connection.port}: {error}") from error


AIOKafkaConnection.send = _send_or_close


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread; keeps the note of where each partition's coverage begins."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._covered: dict[TP, int] = {}
        self._stream_time = StreamTime(lambda: time.time_ns() // 1_000_000)
        #: partitions that have more than was polled; replaced as a whole, for other threads read it
        self.lagging: frozenset[TP] = frozenset()
        #: up to where each partition can be read, None: not known yet; replaced as a whole, likewise
        self.stable_ends: Mapping[TP, int | None] = {}

    async def on_start(self) -> None:
        """Start the consumer; records that wait for a full lane must not hold up fetches for the others.

        aiokafka asks a broker for nothing while any partition's records lie unread for less than this.
        """
        await super().on_start()
        consumer = self._ensure_consumer()
        consumer._fetcher._prefetch_backoff = 0.0
        self.app.reachability.observe(consumer._coordinator)  # type: ignore[attr-defined]

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._key_deserializer = as_parsed
        return consumer

    def _assignment(self, consumer: AIOKafkaConsumer) -> Any | None:
        subscription = consumer._subscription.subscription
        return subscription.assignment if subscription else None

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Any:
        assignment = self._assignment(consumer)
        if assignment is None:
            return []
        for tp in assignment.tps:
            state = assignment.state_value(tp)
            if state.has_valid_position:
                self._covered.setdefault(ensure_TP(tp), state.position)
        polled = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        if self._assignment(consumer) is not assignment:
            self._rewind(consumer, polled)
            return []
        return self._batches(assignment, active_partitions, polled)

    def _rewind(self, consumer: AIOKafkaConsumer, polled: Mapping[TopicPartition, list[Any]]) -> None:
        """Undo a poll that began before a rebalance and drained records of the new assignment.

        Its records are thrown away, so a position that was sought meanwhile must not stay behind them: the
        next batch would claim them.
        """
        assigned = consumer.assignment()
        for tp, records in polled.items():
            if tp in assigned:
                consumer.seek(tp, self._covered.get(ensure_TP(tp), records[0].offset))

    def _batches(
        self, assignment: Any, active: set[TP], polled: Mapping[TopicPartition, list[Any]]
    ) -> list[Batch]:
        """Make a batch for each partition whose position moved, records or not.

        Trap 7: control records at a log's end are never delivered, yet the position passes them. An
        empty batch says so to recovery (which waits for the end) and to the lane (which commits it).
        """
        batches = []
        waiting = False
        states = {ensure_TP(tp): assignment.state_value(tp) for tp in assignment.tps}
        for tp, state in states.items():
            start = self._covered.get(tp)
            if tp not in active or start is None or not state.has_valid_position:
                continue
            end = state.position
            records: Sequence[Record] = polled.get(TopicPartition(*tp), [])
            _require_same_log(tp, start, end, records)
            if _take_reset(state):
                self._report_expired(tp, start, records[0].offset if records else end)
            if records and tp.topic in self.app.lanes.topics:  # type: ignore[attr-defined]
                records = self._stream_time.restamp(tp, records)
            if end > start:
                batches.append(Batch(tp.topic, tp.partition, start, end, records))
                self._covered[tp] = end
            waiting = waiting or (state.lso is not None and state.lso > end)
        self.lagging = frozenset(tp for tp, state in states.items() if _lags(state))
        self.stable_ends = {tp: state.lso for tp, state in states.items()}
        if not batches and waiting and not self.app.lanes.has_work():  # type: ignore[attr-defined]
            metrics.EMPTY_POLLS.inc()
        return batches

    def _report_expired(self, tp: TP, start: int, first: int) -> None:
        """Report records that expired while this worker was behind; a changelog must not lose any.

        Raises:
            ConsistencyError: they are of a changelog.
        """
        if first <= start:
            return
        if tp.topic not in self.app.lanes.topics:  # type: ignore[attr-defined]
            raise ConsistencyError(f"{tp.topic}/{tp.partition} lost the offsets {start} to {first - 1}")
        log.error(EXPIRED, start, first - 1, tp.topic, tp.partition)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Forget all coverage notes: every position of this generation is sought or fetched anew."""
        self._covered.clear()
        self.lagging = frozenset(assigned)
        self.stable_ends = {}
        # heartbeats of this generation begin now
        self.app.reachability.answered()  # type: ignore[attr-defined]
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_thread_stop(self) -> None:
        """Leave the group, be it in the middle of a rebalance.

        Trap 26: aiokafka ends a rebalance before it leaves. But what the worker does about one may be to ask
        this thread, and the broker may wait for a member that has died until its session is over.
        """
        if self._consumer is not None and self._consumer._coordinator is not None:
            await self._leave_rebalance(self._consumer)
        await super().on_thread_stop()

    async def _leave_rebalance(self, consumer: AIOKafkaConsumer) -> None:
        coordinator = consumer._coordinator
        while not coordinator._coordination_task.done():
            # more than once, for it hands the first on to a task of its own that it happens to wait for
            coordinator._coordination_task.cancel()
            await asyncio.wait([coordinator._coordination_task], timeout=0.1)
        is_rebalancing = coordinator._heartbeat_task is None and coordinator.member_id
        if is_rebalancing and coordinator.coordinator_id is not None:
            # aiokafka would not leave what it has not joined, though the broker counts on it already, and the
            # broker answers nothing else on the coordinator's connection while it holds a request to join
            request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await consumer._client.send(coordinator.coordinator_id, request)
            coordinator.reset_generation()

    def _crash(self, reason: BaseException) -> None:
        """Take note in this thread's own loop that the app has crashed (trap 27)."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self.thread_loop.call_soon_threadsafe(super()._crash, reason)

    async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Have this thread do something; whoever asks when it stops is cancelled."""
        if self.should_stop:
            raise asyncio.CancelledError("the consumer's thread has stopped")
        return await super().call_thread(fun, *args, **kwargs)

    def close(self) -> None:
        """Leave the consumer to its thread, which closes it when it stops.

        Trap 27: Faust asks for this at a rebalance of a worker that stops, and closes the connections in the
        worker's loop instead of theirs. libuv's loops are not made for that: now and then it ends in SIGSEGV.
        """

    async def _seek_wait(self, consumer: AIOKafkaConsumer, partitions: Mapping[TP, int]) -> None:
        self._covered.update({ensure_TP(tp): offset for tp, offset in partitions.items()})
        await super()._seek_wait(consumer, partitions)

    async def seek_noted(self, offsets: Mapping[TP, int]) -> None:
        """Seek the partitions that are still ours, each seek and its note in one step."""
        await self.call_thread(self._seek_noted, offsets)

    async def _seek_noted(self, offsets: Mapping[TP, int]) -> None:
        # Trap 15: in the consumer's thread, or a poll between seek and note is covered from the wrong offset
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        for tp, offset in offsets.items():
            topic_partition = TopicPartition(tp.topic, tp.partition)
            if topic_partition in assigned:
                consumer.seek(topic_partition, offset)
                self._covered[tp] = offset

    async def stands(self, partitions: Iterable[TP]) -> Mapping[TP, int]:
        """Return the group's committed offset of each partition, or its log's start if there is none."""
        stands: Mapping[TP, int] = await self.call_thread(self._stands, list(partitions))
        return stands

    async def _stands(self, partitions: list[TP]) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        tps = [TopicPartition(tp.topic, tp.partition) for tp in partitions]
        committed = await asyncio.gather(*(consumer.committed(tp) for tp in tps))
        first, end = await asyncio.gather(consumer.beginning_offsets(tps), consumer.end_offsets(tps))
        return {
            ensure_TP(tp): _checked(tp, offset, first[tp], end[tp])
            for tp, offset in zip(tps, committed, strict=True)
        }

    async def log_ends(self, partitions: Iterable[TP]) -> Mapping[TP, int]:
        """Return the log end of each partition, as the broker says now."""
        ends: Mapping[TP, int] = await self.call_thread(self._ensure_consumer().end_offsets, list(partitions))
        return ends


def _lags(state: Any) -> bool:
    """Whether a partition has more than its position, or might have.

    Records of a transaction that is still open count: their timestamps are in the past already.
    """
    # what nobody has told yet may be anything
    return not state.has_valid_position or state.highwater is None or state.highwater > state.position


def _require_same_log(tp: TP, start: int, end: int, records: Sequence[Any]) -> None:
    """Refuse to read on in a log that was cut below the position: aiokafka then reads it from the beginning.

    Raises:
        ConsistencyError: naming the partition. At the next start, `_checked` compares the group's offset.
    """
    if end < start or (records and records[0].offset < start):
        first = records[0].offset if records else end
        raise ConsistencyError(
            f"{tp.topic}/{tp.partition} was read up to offset {start}, but the broker no longer has that "
            f"offset and was read from {first} on: the log was truncated, or the topic was recreated"
        )


def _checked(tp: TopicPartition, committed: int | None, first: int, end: int) -> int:
    """Return where a lane stands, if that is a place in the log."""
    if committed is None:
        return first
    if committed > end:
        raise ConsistencyError(
            f"the group's offset of {tp.topic}/{tp.partition} is {committed}, but the log ends at {end}: the "
            "broker has lost acknowledged records, or the topic was recreated. To go on, stop all workers "
            "and have the partition read again, which counts nothing twice: kafka-consumer-groups.sh "
            f"--bootstrap-server … --group <app id> --topic {tp.topic}:{tp.partition} --reset-offsets "
            "--to-earliest --execute"
        )
    if committed < first:
        log.error(EXPIRED, committed, first - 1, tp.topic, tp.partition)
        return first
    return committed


class BatchConsumer(driver.Consumer):
    """Faust's consumer, polling batches and leaving all offsets to the transactions."""

    _thread: BatchConsumerThread
    consumer_stopped_errors = driver.Consumer.consumer_stopped_errors

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def stands(self, partitions: Iterable[TP]) -> Mapping[TP, int]:
        """Return where each input partition's lane begins; ask after fencing only."""
        return await self._thread.stands(partitions)

    def lagging(self) -> frozenset[TP]:
        """Return the partitions that had more than the last poll has brought."""
        return self._thread.lagging

    def stable_ends(self) -> Mapping[TP, int | None]:
        """Return up to where each partition can be read, as the last fetch said; None: no fetch has yet."""
        return self._thread.stable_ends

    async def seek_noted(self, offsets: Mapping[TP, int]) -> None:
        """Seek, and note the coverage in the same step."""
        await self._thread.seek_noted(offsets)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the log ends. Trap 8: Faust's exactly-once mode asks for the last stable offset, which is
        None until something was fetched. The producers are fenced already: no transaction is open."""
        return await self._thread.log_ends(partitions)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek the input partitions to where their lanes stand, and open the lanes.

        Faust asks for this when recovery is complete. A recovery of an earlier generation may still come to
        its end while a new one begins: it must not open lanes whose tables are not recovered yet.
        """
        lanes: Any = self.app.lanes  # type: ignore[attr-defined]
        recovered = self.app.tables.recovery.completing  # type: ignore[attr-defined]
        for gate in lanes.gates:
            await gate.wait()
        stands = lanes.stands()
        await self._thread.seek_noted(stands)
        lanes.begin(recovered)
        return dict(stands)

    def _new_offset(self, tp: TP) -> None:
        """Trap 11: Faust must not commit offsets on its timer, they move inside the transactions."""

    async def _drain_messages(self, fetcher: Any) -> None:
        """Poll until stopped. Replaces Faust's loop over single records."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await asyncio.sleep(0)
                await self._poll()
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _poll(self) -> None:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        # Trap 2: read before the poll and compared after it, or the records of a poll that straddles a
        # rebalance pass as records of the new generation
        generation = self.app.consumer_generation_id
        active = self.app.lanes.with_room(self._get_active_partitions())  # type: ignore[attr-defined]
        if not active:
            await self.sleep(FULL_S)
            return
        batches: list[Batch] = await self._getmany(active, POLL_S) or []  # type: ignore[assignment]
        for batch in batches:
            # Trap 5: by generation only; app.rebalancing stays true for a while after records flow again
            if not self.flow_active or generation != self.app.consumer_generation_id:
                return  # Trap 13: a hole, which the coverage rule finds and heals
            await self._unless_suspended(self.callback(self._message(batch, generation)))
        self.app.lanes.polls += 1  # type: ignore[attr-defined]

    async def _unless_suspended(self, delivery: Awaitable[Any]) -> None:
        """Trap 3: a delivery blocked on flow control must not outlive a rebalance; Faust's race."""
        await self.wait_first(delivery, self.suspend_flow.wait())

    def _message(self, batch: Batch, generation: int) -> ConsumerMessage:
        tp = TP(batch.topic, batch.partition)
        return ConsumerMessage(
            batch.topic,
            batch.partition,
            batch.end - 1,
            time.time(),
            0,
            None,
            None,
            cast(Any, batch),  # BatchSchema hands it on as it is
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave out Faust's stall detector: it watches acks, which the lanes do not make."""


class Transport(driver.Transport):
    """aiokafka as Faust drives it, in batches and with one fenced producer per partition."""

    Consumer = BatchConsumer
    TransactionManager = PartitionTransactions
