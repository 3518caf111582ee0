import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from faust.types import TP
from hypothesis import given, settings

from streams.engine import lanes as module
from streams.engine.batches import SEEK_AGAIN_S, Batch
from streams.engine.collector import Collector
from streams.engine.lanes import Lane, Lanes, StoreFailed
from streams.engine.transactions import NotCommitted, Packer
from streams.engine.units import Unit
from tests.engine.records import Record

TOPICS = ("input", "other")


class Clock:
    """The time as lanes see it, which a test may move on."""

    skew = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.skew


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLOCK, "skew", 0.0)
    monkeypatch.setattr(module, "time", CLOCK)
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    monkeypatch.setattr(module, "RETRY_S", 0.0)


class Worker:
    """What a lane sees of its worker, in memory: notes commits and seeks; commits may be held up or fail."""

    def __init__(self, unit_records: int = 1000) -> None:
        self.unit_records = unit_records
        self.topics = TOPICS
        self.idle_s = 0.0
        self.polls = 0
        self.is_open = True
        self.turn = asyncio.Lock()
        self.current = 1
        self.failure: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.asked = 0
        #: what the handler got since the last commit: topic, start, end, offsets
        self.parts: list[tuple[str, int, int, list[int]]] = []
        #: of each commit: the offsets by topic, the parts
        self.commits: list[tuple[dict[str, int], list[tuple[str, int, int, list[int]]]]] = []
        self.counted: list[Unit] = []
        self.seeks: list[tuple[TP, int]] = []
        self.crashes: list[BaseException] = []
        #: inputs that have more on the broker
        self.unfetched: set[TP] = set()
        #: those of which no fetch has been answered
        self.unread: set[TP] = set()
        self.reopened = 0
        #: records written to the dead letters, each with its error
        self.buried: list[tuple[int, Exception]] = []

    def handle(self, batch: Batch, unit: Unit) -> None:
        offsets = [record.offset for record in batch.records]
        self.parts.append((batch.topic, batch.start, batch.end, offsets))

    def generation(self) -> int:
        return self.current

    def unit(self, number: int) -> Unit:
        return Unit(number, 8, lambda table, keys: [None] * len(keys))

    def packer(self, number: int) -> Packer:
        return Packer(cast(Any, None))

    async def commit(self, unit: Unit, packer: Packer, offsets: Mapping[TP, int]) -> None:
        self.asked += 1
        await self.go_on.wait()
        if self.failure is not None:
            raise self.failure
        self.commits.append(({tp.topic: end for tp, end in offsets.items()}, self.parts))
        self.parts = []

    def committed(self, unit: Unit) -> None:
        self.counted.append(unit)

    def has_more(self, tp: TP, reach: int) -> bool:
        return tp in self.unfetched

    def is_unread(self, tp: TP) -> bool:
        return tp in self.unread

    async def reopen(self, number: int, stands: Mapping[str, int]) -> None:
        self.reopened += 1

    def write_dead_letter(self, batch: Batch, unit: Unit, error: Exception) -> None:
        self.buried.append((batch.records[0].offset, error))

    async def seek(self, tp: TP, offset: int) -> None:
        self.seeks.append((tp, offset))

    async def crash(self, error: BaseException) -> None:
        self.is_open = False
        self.crashes.append(error)

    def lane(self, **stands: int) -> Lane:
        lane = Lane(3, cast(Lanes, self))
        lane.open(stands or {"input": 0})
        return lane

    def put(self, lane: Lane, batch: Batch, generation: int | None = None) -> None:
        lane.put((batch, self.current if generation is None else generation, self.handle))

    def handled(self, topic: str = "input") -> list[int]:
        """The offsets of the committed records of a topic."""
        parts = [part for _, parts in self.commits for part in parts]
        return [offset for name, _, _, offsets in parts if name == topic for offset in offsets]

    def ends(self, topic: str = "input") -> list[int]:
        return [offsets[topic] for offsets, _ in self.commits if topic in offsets]


def batch(start: int, end: int, topic: str = "input", records: list[int] | None = None) -> Batch:
    """A batch with a record at each offset, unless others are given."""
    offsets = range(start, end) if records is None else records
    return Batch(topic, 3, start, end, [Record(offset, topic=topic, partition=3) for offset in offsets])


async def settle() -> None:
    """Let the lanes do all that they can do without us."""
    for _ in range(50):
        await asyncio.sleep(0)


async def pass_time(seconds: float) -> None:
    """Advance the clock, and let lanes that wait for an input look at it."""
    CLOCK.skew += seconds
    await asyncio.sleep(2 * module.ALIGN_S)
    await settle()


async def end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def worker() -> Worker:
    return Worker()


@pytest.fixture
async def lane(worker: Worker) -> AsyncIterator[Lane]:
    lane = worker.lane()
    yield lane
    await end(lane.task)


async def test_a_redelivery_is_neither_handled_nor_committed(worker: Worker, lane: Lane) -> None:
    """A batch that ends at the stand or before is dropped, also when it comes with new ones in one unit."""
    worker.put(lane, batch(0, 10))
    await settle()
    worker.put(lane, batch(0, 10))
    await settle()
    worker.put(lane, batch(10, 12))
    worker.put(lane, batch(10, 12))
    await settle()

    assert worker.ends() == [10, 12]
    assert worker.handled() == list(range(12))


async def test_of_an_overlap_the_new_part_is_handled(worker: Worker, lane: Lane) -> None:
    """A batch around the stand is applied from the stand on."""
    worker.put(lane, batch(0, 10))
    worker.put(lane, batch(5, 15))
    await settle()
    worker.put(lane, batch(12, 18))
    await settle()

    assert worker.ends() == [15, 18]
    assert worker.handled() == list(range(18))


async def test_offsets_without_records_are_committed(worker: Worker, lane: Lane) -> None:
    """Control records are passed without a record, and the committed offset passes them."""
    worker.put(lane, batch(0, 4, records=[]))
    await settle()

    assert worker.commits == [({"input": 4}, [("input", 0, 4, [])])]
    assert lane.stands == {"input": 4}


async def test_a_hole_is_sought_back_once_for_a_stand(worker: Worker, lane: Lane) -> None:
    """Batches behind a hole are dropped; those polled before the seek took effect ask for no other seek."""
    worker.put(lane, batch(0, 10))
    worker.put(lane, batch(12, 14))
    await settle()
    worker.put(lane, batch(14, 20))
    await settle()
    assert worker.seeks == [(TP("input", 3), 10)]

    worker.put(lane, batch(10, 20))
    worker.put(lane, batch(25, 30))
    await settle()

    assert worker.seeks == [(TP("input", 3), 10), (TP("input", 3), 20)]
    assert worker.handled() == list(range(20))


async def test_a_hole_that_stays_is_sought_again(
    worker: Worker, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SEEK_AGAIN_S the seek counts as lost, too."""
    worker.put(lane, batch(5, 10))
    await settle()
    monkeypatch.setattr(CLOCK, "skew", SEEK_AGAIN_S - 1.0)
    worker.put(lane, batch(10, 11))
    await settle()
    assert len(worker.seeks) == 1

    monkeypatch.setattr(CLOCK, "skew", SEEK_AGAIN_S)
    worker.put(lane, batch(11, 12))
    await settle()

    assert worker.seeks == [(TP("input", 3), 0)] * 2
    assert worker.commits == []


async def test_opening_forgets_what_was_sought(worker: Worker, lane: Lane) -> None:
    """In a new generation the same hole is sought at once: the assignment undid the seek."""
    worker.put(lane, batch(5, 10))
    await settle()
    worker.current += 1
    lane.open({"input": 0})
    worker.put(lane, batch(5, 10))
    await settle()

    assert worker.seeks == [(TP("input", 3), 0)] * 2


async def test_batches_of_another_generation_are_dropped(worker: Worker, lane: Lane) -> None:
    """They are neither handled nor taken for holes, whatever they cover."""
    worker.put(lane, batch(0, 10), generation=0)
    worker.put(lane, batch(20, 30), generation=0)
    worker.put(lane, batch(0, 2), generation=2)
    worker.put(lane, batch(0, 5))
    await settle()

    assert worker.commits == [({"input": 5}, [("input", 0, 5, [0, 1, 2, 3, 4])])]
    assert worker.seeks == []
    assert lane.queued == 0


async def test_a_topic_without_a_stand_is_dropped(worker: Worker, lane: Lane) -> None:
    """A lane does not guess where it stands."""
    worker.put(lane, batch(0, 5, topic="other"))
    await settle()

    assert not worker.commits
    assert not worker.seeks


async def test_a_large_batch_is_cut_into_units() -> None:
    """No unit is larger than unit_records, and together the units cover the batch in order."""
    worker = Worker(unit_records=4)
    lane = worker.lane()
    worker.put(lane, batch(0, 3))
    worker.put(lane, batch(3, 13))
    await settle()
    await end(lane.task)

    sizes = [sum(len(offsets) for *_, offsets in parts) for _, parts in worker.commits]
    assert worker.ends() == [4, 8, 12, 13]
    assert sizes == [4, 4, 4, 1]
    assert worker.handled() == list(range(13))
    assert lane.queued == 0


async def test_what_waits_becomes_one_unit() -> None:
    """Batches of both topics that came while a commit was under way share the next transaction."""
    worker = Worker()
    lane = worker.lane(input=0, other=100)
    worker.go_on.clear()
    worker.put(lane, batch(0, 1))
    await settle()
    worker.put(lane, batch(1, 4))
    worker.put(lane, batch(100, 103, topic="other"))
    worker.put(lane, batch(4, 6))
    worker.go_on.set()
    await settle()
    await end(lane.task)

    assert [offsets for offsets, _ in worker.commits] == [{"input": 1}, {"input": 6, "other": 103}]
    second = [part[:3] for part in worker.commits[1][1]]
    assert second == [("input", 1, 6), ("other", 100, 103)]
    assert len(worker.counted) == 2


async def test_a_failed_commit_stops_the_worker(worker: Worker, lane: Lane) -> None:
    """Its outcome is unknown: it is not tried again, later batches are not applied, the stand stays."""
    worker.failure = RuntimeError("fenced")
    worker.go_on.clear()
    worker.put(lane, batch(0, 5))
    await settle()
    worker.put(lane, batch(5, 9))
    worker.go_on.set()
    await settle()
    worker.put(lane, batch(0, 5))
    await settle()

    assert worker.crashes == [worker.failure]
    assert worker.asked == 1
    assert worker.parts == [("input", 0, 5, [0, 1, 2, 3, 4])]
    assert lane.stands == {"input": 0}
    assert worker.counted == []
    assert lane.task.done()
    assert not lane.busy


class Poison:
    """A handler that fails at one offset, the first so many times."""

    def __init__(self, worker: Worker, offset: int, times: int) -> None:
        self.worker = worker
        self.offset = offset
        self.times = times

    def handle(self, batch: Batch, unit: Unit) -> None:
        if any(record.offset == self.offset for record in batch.records) and self.times > 0:
            if len(batch) == 1:
                self.times -= 1
            raise ValueError("cannot be processed")
        self.worker.handle(batch, unit)


async def test_a_record_that_cannot_be_processed_goes_to_the_dead_letters(
    worker: Worker, lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    """After three failures of its own; all other records are applied once, in order."""
    poison = Poison(worker, offset=5, times=100)
    lane.put((batch(0, 12), worker.current, poison.handle))
    await settle()

    assert [offset for offset, _ in worker.buried] == [5]
    assert str(worker.buried[0][1]) == "cannot be processed"
    assert caplog.text.count("cannot be processed (failure") == 3
    assert worker.handled() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert worker.ends()[-1] == 12
    assert worker.crashes == []
    assert lane.trouble is None


async def test_a_failure_that_passes_costs_no_record(worker: Worker, lane: Lane) -> None:
    """Twice in vain, then it is applied."""
    poison = Poison(worker, offset=5, times=2)
    lane.put((batch(0, 12), worker.current, poison.handle))
    await settle()

    assert worker.buried == []
    assert worker.handled() == list(range(12))


async def test_the_log_names_a_record_and_not_what_is_in_it(
    worker: Worker, lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception's words may quote a recipient."""
    lane.put((batch(7, 8), worker.current, Poison(worker, offset=7, times=1).handle))
    lane.open({"input": 7})
    await settle()

    assert "offset 7 of input/3" in caplog.text
    assert "ValueError" in caplog.text
    assert "cannot be processed: " not in caplog.text.replace("(failure 1 of 3): ValueError", "")


async def test_a_record_without_dead_letters_stops_the_worker(worker: Worker, lane: Lane) -> None:
    """It is not passed over, and nothing of its unit is committed."""
    failure = ValueError("nowhere to go")

    def refuse(batch: Batch, unit: Unit, error: Exception) -> None:
        raise failure

    worker.write_dead_letter = refuse  # type: ignore[method-assign]
    lane.put((batch(0, 5), worker.current, Poison(worker, offset=2, times=100).handle))
    await settle()

    assert worker.crashes == [failure]
    assert worker.handled() == [0, 1]
    assert not worker.turn.locked()


async def test_a_store_that_cannot_be_read_stops_the_worker(worker: Worker, lane: Lane) -> None:
    """No record is to blame, so none goes to the dead letters."""

    def fail(batch: Batch, unit: Unit) -> None:
        raise StoreFailed

    lane.put((batch(0, 5), worker.current, fail))
    await settle()

    assert [type(error) for error in worker.crashes] == [StoreFailed]
    assert worker.buried == []


async def test_a_refused_transaction_is_repeated_with_another_producer(worker: Worker, lane: Lane) -> None:
    """Nothing of it was committed; what came meanwhile follows it."""
    worker.failure = NotCommitted()
    worker.put(lane, batch(0, 5))
    await settle()
    worker.put(lane, batch(5, 9))
    assert (worker.commits, lane.stands) == ([], {"input": 0})
    assert lane.trouble is not None
    worker.failure, worker.parts = None, []
    await settle()

    assert worker.reopened >= 1
    assert worker.handled() == list(range(9))
    assert worker.crashes == []
    assert lane.trouble is None


async def test_a_refused_transaction_is_left_to_the_next_owner(worker: Worker, lane: Lane) -> None:
    """A rebalance during the pause opens another producer itself, and drops what waits."""
    worker.failure = NotCommitted()
    worker.put(lane, batch(0, 5))
    for _ in range(8):
        await asyncio.sleep(0)
    worker.is_open, worker.failure = False, None
    await settle()
    reopened = worker.reopened
    await settle()

    assert worker.reopened == reopened
    assert (worker.commits, lane.queued) == ([], 0)


async def test_an_input_that_has_more_on_the_broker_is_waited_for(worker: Worker) -> None:
    """What it brings may have been produced earlier; so much is waited, and no longer."""
    worker.idle_s = 5.0
    worker.unfetched = {TP("other", 3)}
    lane = worker.lane(input=0, other=0)
    worker.put(lane, batch(0, 2))
    await settle()
    assert worker.commits == []

    worker.put(lane, batch(0, 1, topic="other"))
    await pass_time(0.0)
    await end(lane.task)
    assert worker.ends() == [2]
    assert worker.ends("other") == [1]


async def test_the_first_fetch_of_an_input_is_waited_for_longer(worker: Worker) -> None:
    """After a start it may be slow, and what it brings may be the oldest of all."""
    worker.idle_s = 0.1
    worker.unfetched = worker.unread = {TP("other", 3)}
    lane = worker.lane(input=0, other=0)
    worker.put(lane, batch(0, 2))
    await settle()
    await pass_time(5.0)
    assert worker.commits == []

    worker.polls += module.ALIGN_POLLS
    await pass_time(module.UNREAD_S)
    await end(lane.task)
    assert worker.ends() == [2]


async def test_an_input_is_waited_for_in_vain_once(worker: Worker) -> None:
    """Until it brings something, the others go on without it."""
    worker.idle_s = 5.0
    worker.unfetched = {TP("other", 3)}
    lane = worker.lane(input=0, other=0)
    worker.put(lane, batch(0, 2))
    await settle()
    await pass_time(5.0)
    # a worker that was busy has not even polled
    assert worker.ends() == []
    worker.polls += module.ALIGN_POLLS
    await pass_time(0.0)
    worker.put(lane, batch(2, 3))
    await settle()
    await end(lane.task)

    assert worker.ends() == [2, 3]


async def test_a_lane_that_waited_for_its_turn_through_a_rebalance_drops_its_work(
    worker: Worker, lane: Lane
) -> None:
    """What it took stood on the old generation's stands; what came since is applied on the new ones."""
    async with worker.turn:
        worker.put(lane, batch(0, 5))
        await settle()
        assert not lane.queued
        worker.current += 1
        lane.open({"input": 2})
        worker.put(lane, batch(2, 7))
        await settle()
    await settle()

    assert worker.commits == [({"input": 7}, [("input", 2, 7, [2, 3, 4, 5, 6])])]


async def test_a_lane_that_waited_for_its_turn_while_lanes_closed_drops_its_work(
    worker: Worker, lane: Lane
) -> None:
    """Between revoke and assign the generation is still the old one, yet nothing may begin."""
    async with worker.turn:
        worker.put(lane, batch(0, 5))
        await settle()
        worker.is_open = False
    await settle()

    assert not worker.parts
    assert not worker.commits
    assert not lane.busy


def is_record(offset: int) -> bool:
    """Of the offsets of the log some are control records."""
    return offset % 5 != 3


class Poller:
    """A consumer of one endless topic: reads on from its position and goes where it is sought."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.position = 0
        self.polled: list[Batch] = []

    def poll(self, count: int) -> Batch:
        start, self.position = self.position, self.position + count
        records = [offset for offset in range(start, self.position) if is_record(offset)]
        self.polled.append(batch(start, self.position, self.topic, records))
        return self.polled[-1]


class Chaos(Worker):
    """A worker whose polls are delivered, lost, repeated or of another generation."""

    def __init__(self, unit_records: int) -> None:
        super().__init__(unit_records)
        self.pollers = {topic: Poller(topic) for topic in TOPICS}

    async def seek(self, tp: TP, offset: int) -> None:
        await super().seek(tp, offset)
        self.pollers[tp.topic].position = offset

    def step(self, lane: Lane, topic: str, what: str, count: int) -> None:
        poller = self.pollers[topic]
        if what == "repeat":
            for again in poller.polled[-count:]:
                self.put(lane, again)
        elif what == "stale":
            self.put(lane, poller.poll(count), generation=0)
        elif what == "rebalance":
            self.current += 1
            lane.open(lane.stands)
            for other in self.pollers.values():
                other.position = lane.stands[other.topic]
        else:
            polled = poller.poll(count)
            if what == "deliver":
                self.put(lane, polled)


async def catch_up(worker: Chaos, lane: Lane, poller: Poller) -> None:
    """Poll on in order, as the log grows: what was lost is found."""
    target = max([0, *(polled.end for polled in poller.polled)])
    for _ in range(40):
        if lane.stands[poller.topic] >= target:
            return
        CLOCK.skew += SEEK_AGAIN_S
        worker.step(lane, poller.topic, "deliver", 100)
        await settle()
    pytest.fail(f"{poller.topic} stands at {lane.stands[poller.topic]}, behind {target}")


def check_commits(worker: Worker, topic: str) -> int:
    """Return where the commits of a topic ended, each of which handled what lies after the last one."""
    stand = 0
    for offsets, parts in worker.commits:
        if topic in offsets:
            handled = [offset for name, _, _, part in parts if name == topic for offset in part]
            assert offsets[topic] > stand
            assert handled == [offset for offset in range(stand, offsets[topic]) if is_record(offset)]
            stand = offsets[topic]
    return stand


steps = st.tuples(
    st.sampled_from(TOPICS),
    st.sampled_from(["deliver", "deliver", "lose", "repeat", "stale", "rebalance"]),
    st.integers(1, 12),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(todo=st.lists(steps, max_size=30), unit_records=st.integers(1, 20))
async def test_whatever_is_delivered_commits_cover_the_log_once(
    todo: list[tuple[str, str, int, bool]], unit_records: int
) -> None:
    """Losses, repetitions, overlaps and rebalances in any mixture: each commit begins where the last one
    ended, and has handled exactly the records up to its offset, in order (I4)."""
    worker = Chaos(unit_records)
    lane = worker.lane(input=0, other=0)
    for topic, what, count, pause in todo:
        if what == "rebalance":
            await settle()  # lanes are closed first, which awaits commits
        worker.step(lane, topic, what, count)
        if pause:
            await settle()
    for poller in worker.pollers.values():
        await catch_up(worker, lane, poller)
    await end(lane.task)

    assert worker.crashes == []
    for topic in TOPICS:
        assert lane.stands[topic] == check_commits(worker, topic)


class HeldLanes(Lanes):
    """Real lanes, whose commits end when they may."""

    def __init__(self, unit_records: int = 1000) -> None:
        self.stub = SimpleNamespace(
            consumer_generation_id=1, crashes=[], consumer=SimpleNamespace(stable_ends=dict)
        )
        self.stub.crash = self._note
        super().__init__(self.stub, TOPICS, 8, unit_records)
        self.go_on = asyncio.Event()
        self.done: list[Mapping[TP, int]] = []

    async def _note(self, error: BaseException) -> None:
        self.stub.crashes.append(error)

    def packer(self, number: int) -> Packer:
        return Packer(cast(Any, None))

    async def commit(self, unit: Unit, packer: Packer, offsets: Mapping[TP, int]) -> None:
        await self.go_on.wait()
        self.done.append(offsets)

    async def poll(self, polled: Batch, handler: Callable[[Batch, Unit], None] | None = None) -> None:
        message = SimpleNamespace(generation_id=self.generation())
        await self.submit(
            SimpleNamespace(value=polled, message=message), handler or (lambda batch, unit: None)
        )


@pytest.fixture
def _leave_the_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker switches the collector off for good; the tests of others want it."""
    monkeypatch.setattr(Collector, "take_over", lambda self: None)
    yield


@pytest.fixture
async def lanes(_leave_the_collector: None) -> AsyncIterator[HeldLanes]:
    lanes = HeldLanes()
    lanes.open({TP("input", 3): 0, TP("input", 4): 0})
    lanes.begin(1)
    tasks = [lane.task for lane in lanes._lanes.values()]
    yield lanes
    await end(*tasks)


async def test_closing_awaits_the_commit_in_flight_and_drops_what_is_queued(lanes: HeldLanes) -> None:
    """After close() no commit moves an offset, and nothing is begun (trap 1); a late batch is refused
    (trap 12)."""
    await lanes.poll(batch(0, 5))
    await settle()
    await lanes.poll(batch(5, 9))
    closing = asyncio.create_task(lanes.close())
    await asyncio.sleep(0.01)
    await lanes.poll(batch(5, 9))
    assert not closing.done()
    assert lanes._lanes[3].queued == 0
    assert lanes.done == []

    lanes.go_on.set()
    await closing
    await settle()

    assert lanes.done == [{TP("input", 3): 5}]
    assert lanes.stands() == {TP("input", 3): 5, TP("input", 4): 0}
    assert not lanes.has_work()
    assert lanes.numbers() == frozenset()


async def test_what_a_unit_notes_is_told_once_it_is_true_if_it_is_anything(lanes: HeldLanes) -> None:
    """Who listens hears of a unit after its commit, and nothing of one that noted nothing after all."""
    told: list[tuple[int, dict[Hashable, Any]]] = []
    lanes.listen("due", lambda partition, what: told.append((partition, dict(what))))

    def note(batch: Batch, unit: Unit) -> None:
        noted = unit.noted("due")
        if batch.start:
            noted["queue"] = batch.start

    await lanes.poll(batch(0, 5), note)
    await settle()
    await lanes.poll(batch(5, 9), note)
    await settle()
    assert (told, lanes.done) == ([], [])

    lanes.go_on.set()
    await settle()

    assert lanes.done == [{TP("input", 3): 5}, {TP("input", 3): 9}]
    assert told == [(3, {"queue": 5})]


async def test_closing_gives_up_on_a_commit_that_does_not_end(lanes: HeldLanes) -> None:
    """Its outcome is unknown, so the worker must not go on."""
    lanes.closing_s = 0.02
    await lanes.poll(batch(0, 5))
    await settle()

    with pytest.raises(TimeoutError, match="did not end within"):
        await asyncio.wait_for(lanes.close(), 0.4)


async def test_closing_does_not_wait_for_idle_or_ended_lanes(lanes: HeldLanes) -> None:
    """A lane that has failed is done, and nothing is in flight in the others."""

    def fail(batch: Batch, unit: Unit) -> None:
        raise StoreFailed

    await lanes.poll(batch(0, 5), fail)
    await settle()

    assert len(lanes.stub.crashes) == 1
    await asyncio.wait_for(lanes.close(), 0.3)


async def test_lanes_of_lost_partitions_end_and_kept_ones_stand_where_they_are_told(lanes: HeldLanes) -> None:
    """Opening a generation makes, keeps and ends lanes as the assignment says."""
    lost = lanes._lanes[4].task
    lanes.open({TP("input", 3): 7, TP("other", 3): 2, TP("input", 5): 1})
    await end(lanes._lanes[5].task)

    assert lanes.stands() == {TP("input", 3): 7, TP("other", 3): 2, TP("input", 5): 1}
    assert lost.cancelled()


async def test_only_inputs_whose_queue_is_full_are_left_out_of_the_polls(
    lanes: HeldLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changelogs of the same number and all other inputs are polled on (trap 20)."""
    monkeypatch.setattr(module, "QUEUE_RECORDS", 10)
    lanes.unit_records = 4
    partitions = [TP("input", 3), TP("other", 3), TP("changelog", 3), TP("input", 4), TP("input", 6)]
    await lanes.poll(batch(0, 1))
    await settle()
    await lanes.poll(batch(1, 10))
    assert lanes.with_room(partitions) == set(partitions)

    await lanes.poll(batch(10, 11))
    assert lanes.with_room(partitions) == set(partitions) - {TP("input", 3)}

    lanes.go_on.set()
    await lanes.close()
    assert lanes.with_room(partitions) == set(partitions)


async def test_few_large_records_fill_a_queue(lanes: HeldLanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by bytes, not only by the number of records."""
    monkeypatch.setattr(module, "QUEUE_BYTES", 1000)
    await lanes.poll(batch(0, 1))
    await settle()
    large = [Record(offset, value=bytes(600), topic="input", partition=3) for offset in (1, 2)]
    await lanes.poll(Batch("input", 3, 1, 2, large[:1]))
    assert lanes.with_room([TP("input", 3)]) == {TP("input", 3)}

    await lanes.poll(Batch("input", 3, 2, 3, large[1:]))
    assert lanes.with_room([TP("input", 3)]) == set()


async def test_a_lane_has_room_for_two_units(lanes: HeldLanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or large units would wait for polls."""
    monkeypatch.setattr(module, "QUEUE_RECORDS", 10)
    lanes.unit_records = 8
    await lanes.poll(batch(0, 1))
    await settle()
    await lanes.poll(batch(1, 16))
    assert lanes.with_room([TP("input", 3)]) == {TP("input", 3)}

    await lanes.poll(batch(16, 17))
    assert lanes.with_room([TP("input", 3)]) == set()


async def test_lanes_lag_when_more_waits_than_the_next_unit_takes(lanes: HeldLanes) -> None:
    """Be it in one lane only."""
    lanes.unit_records = 8
    await lanes.poll(batch(0, 1))
    await settle()
    await lanes.poll(batch(1, 9))
    assert not lanes.lag()

    await lanes.poll(batch(9, 10))
    assert lanes.lag()


async def test_lanes_begin_when_their_own_generation_is_recovered(lanes: HeldLanes) -> None:
    """A recovery of an older generation that ends late opens nothing, and none opens closed lanes."""
    lanes.go_on.set()
    await lanes.close()
    lanes.begin(1)
    assert not lanes.is_open

    lanes.stub.consumer_generation_id = 2
    lanes.open({TP("input", 3): 0})
    lanes.begin(1)
    await lanes.poll(batch(0, 5))
    assert not lanes.is_open
    assert not lanes.has_work()

    lanes.begin(2)
    await lanes.poll(batch(0, 5))
    await settle()
    assert lanes.done == [{TP("input", 3): 5}]


async def test_stopped_lanes_stay_closed(lanes: HeldLanes) -> None:
    """A rebalance that is still under way when the worker stops opens nothing."""
    await lanes.stop()
    lanes.open({TP("input", 3): 0, TP("input", 5): 0})
    lanes.begin(1)

    assert not lanes.is_open
    assert set(lanes._lanes) == {3, 4}


async def test_a_rebalance_ends_the_pause_of_a_lane(
    worker: Worker, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waited is dropped, and the next generation is applied at once."""
    monkeypatch.setattr(module, "RETRY_S", 3600.0)
    worker.failure = NotCommitted()
    worker.put(lane, batch(0, 5))
    await settle()
    worker.current += 1
    worker.failure, worker.parts = None, []
    lane.open({"input": 2})
    worker.put(lane, batch(2, 7))
    await settle()

    assert worker.handled() == [2, 3, 4, 5, 6]
    assert worker.reopened == 0


async def test_a_rebalance_forgets_the_failures_of_a_record(worker: Worker, lane: Lane) -> None:
    """It is polled again, and has its three failures once more."""
    poison = Poison(worker, offset=0, times=2)
    lane.put((batch(0, 1), worker.current, poison.handle))
    await settle()
    assert worker.handled() == [0]

    worker.current += 1
    lane.open({"input": 0})
    lane.put((batch(0, 1), worker.current, Poison(worker, offset=0, times=2).handle))
    await settle()
    assert worker.handled() == [0, 0]
    assert worker.buried == []


async def test_a_transaction_that_takes_long_is_reported(lanes: HeldLanes) -> None:
    """Whatever it waits for, somebody must see it."""
    await lanes.poll(batch(0, 5))
    await settle()
    assert lanes.troubles() == []

    CLOCK.skew += 20
    assert lanes.troubles() == ["a transaction of partition 3 has taken 20 s"]
    lanes.go_on.set()
    await settle()
    assert lanes.troubles() == []
