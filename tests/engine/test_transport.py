from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from faust.exceptions import ConsistencyError
from faust.types import TP

from streams.engine.batches import Batch
from streams.engine.stream_time import StreamTime
from streams.engine.transport import BatchConsumerThread, _checked
from tests.engine.records import Record

INPUT, OTHER = TP("input", 3), TP("input", 4)
NOW = 1_795_435_200_000


class Polls:
    """A consumer's thread without its consumer, over an assignment of which each position is set by hand."""

    def __init__(self) -> None:
        # without Faust's __init__, which wants a consumer: all that _batches looks at
        self.thread: Any = object.__new__(BatchConsumerThread)
        thread = self.thread
        thread.app = SimpleNamespace(lanes=SimpleNamespace(has_work=lambda: True, topics=("input",)))
        thread._covered = {INPUT: 10, OTHER: 20}
        thread._stream_time = StreamTime(lambda: NOW)
        self.states = {
            TopicPartition(*tp): SimpleNamespace(
                has_valid_position=True, position=position, lso=None, highwater=None
            )
            for tp, position in thread._covered.items()
        }

    def move(self, tp: TP, position: int) -> None:
        self.states[TopicPartition(*tp)].position = position

    def poll(self, active: set[TP], *offsets: int) -> list[tuple[TP, int, int, list[int]]]:
        """Return the batches of a poll that brought records of INPUT."""
        assignment = SimpleNamespace(tps=list(self.states), state_value=self.states.__getitem__)
        polled = {TopicPartition(*INPUT): [Record(offset) for offset in offsets]} if offsets else {}
        return [shape(batch) for batch in self.thread._batches(assignment, active, polled)]


def shape(batch: Batch) -> tuple[TP, int, int, list[int]]:
    return (
        TP(batch.topic, batch.partition),
        batch.start,
        batch.end,
        [record.offset for record in batch.records],
    )


def test_a_batch_covers_from_the_note_to_the_position() -> None:
    """Not from its first record to its last: offsets around them are passed without a record."""
    polls = Polls()
    polls.move(INPUT, 16)

    assert polls.poll({INPUT, OTHER}, 12, 14) == [(INPUT, 10, 16, [12, 14])]


def test_control_records_alone_make_a_batch_without_records() -> None:
    """The position passed them, which recovery and lanes must learn (trap 7)."""
    polls = Polls()
    polls.move(INPUT, 12)

    assert polls.poll({INPUT, OTHER}) == [(INPUT, 10, 12, [])]


def test_each_batch_begins_where_the_last_one_ended() -> None:
    """The note moves with the batch, and a position that stays makes none."""
    polls = Polls()
    polls.move(INPUT, 12)
    polls.poll({INPUT, OTHER}, 10, 11)
    assert polls.poll({INPUT, OTHER}) == []

    polls.move(INPUT, 15)

    assert polls.poll({INPUT, OTHER}, 12) == [(INPUT, 12, 15, [12])]


def test_inactive_partitions_make_no_batch_and_keep_their_note() -> None:
    """What a paused partition passed is told with its next batch."""
    polls = Polls()
    polls.move(INPUT, 12)
    assert polls.poll({OTHER}) == []

    polls.move(INPUT, 14)

    assert polls.poll({INPUT, OTHER}, 13) == [(INPUT, 10, 14, [13])]


def test_partitions_without_a_note_or_a_position_make_no_batch() -> None:
    """Nothing is said about offsets of which it is not known whether they were read."""
    polls = Polls()
    polls.move(INPUT, 12)
    polls.move(OTHER, 22)
    del polls.thread._covered[INPUT]
    polls.states[TopicPartition(*OTHER)].has_valid_position = False

    assert polls.poll({INPUT, OTHER}, 10) == []
    assert polls.thread._covered == {OTHER: 20}


def test_records_of_inputs_have_possible_timestamps() -> None:
    """Those of changelogs are the broker's, and stay as they are."""
    polls = Polls()
    polls.move(INPUT, 12)
    polled = {TopicPartition(*INPUT): [Record(10, timestamp=-1)]}
    assignment = SimpleNamespace(tps=list(polls.states), state_value=polls.states.__getitem__)

    (batch,) = polls.thread._batches(assignment, {INPUT}, polled)
    assert [record.timestamp for record in batch.records] == [NOW]

    polls.thread.app.lanes.topics = ()
    polls.move(INPUT, 14)
    (batch,) = polls.thread._batches(
        assignment, {INPUT}, {TopicPartition(*INPUT): [Record(12, timestamp=-1)]}
    )
    assert [record.timestamp for record in batch.records] == [-1]


@pytest.mark.parametrize(("position", "offsets"), [(8, ()), (8, (5, 6)), (10, (8, 9)), (15, (3, 11))])
def test_a_log_that_was_cut_below_the_position_stops_the_worker(
    position: int, offsets: tuple[int, ...]
) -> None:
    """aiokafka reads it from the beginning; what was written below the old position must not be skipped."""
    polls = Polls()
    polls.move(INPUT, position)

    with pytest.raises(ConsistencyError, match="input/3 was read up to offset 10"):
        polls.poll({INPUT, OTHER}, *offsets)


def test_records_that_expire_while_a_worker_is_behind_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """aiokafka reads on from the start of the log."""
    polls = Polls()
    polls.move(INPUT, 16)
    polls.states[TopicPartition(*INPUT)].was_reset = True

    assert polls.poll({INPUT, OTHER}, 14, 15) == [(INPUT, 10, 16, [14, 15])]
    assert "records 10 to 13 of input/3 expired" in caplog.text


def test_a_changelog_that_lost_records_stops_the_worker() -> None:
    """Its table could not be recovered."""
    polls = Polls()
    polls.move(OTHER, 30)
    polls.states[TopicPartition(*OTHER)].was_reset = True
    polls.thread.app.lanes.topics = ("another",)

    with pytest.raises(ConsistencyError, match="input/4 lost the offsets 20 to 29"):
        polls.poll({INPUT, OTHER})


def test_records_of_an_open_transaction_count_as_lag() -> None:
    """They cannot be read yet, but their timestamps are in the past already."""
    polls = Polls()
    for state in polls.states.values():
        state.lso = state.highwater = state.position
    polls.states[TopicPartition(*INPUT)].highwater += 1
    polls.poll({INPUT, OTHER})

    assert polls.thread.lagging == {INPUT}
    assert polls.thread.stable_ends == {INPUT: 10, OTHER: 20}


class Sought:
    """A consumer that only remembers where it was sought."""

    def __init__(self) -> None:
        self.positions: dict[TP, int] = {}

    def assignment(self) -> set[TP]:
        return {INPUT, OTHER}

    def seek(self, tp: TP, offset: int) -> None:
        self.positions[tp] = offset


def test_a_poll_that_straddled_a_rebalance_is_rewound() -> None:
    """What it drained is thrown away, so the next batch must not claim it."""
    polls, consumer = Polls(), Sought()
    del polls.thread._covered[OTHER]
    gone = TopicPartition("input", 9)
    drained = {TopicPartition(*INPUT): [Record(12)], TopicPartition(*OTHER): [Record(23)], gone: [Record(1)]}

    polls.thread._rewind(consumer, drained)

    assert consumer.positions == {INPUT: 10, OTHER: 23}


@pytest.mark.parametrize(("committed", "stand"), [(None, 5), (5, 5), (7, 7), (9, 9)])
def test_a_lane_stands_at_the_groups_offset_or_at_the_logs_start(committed: int | None, stand: int) -> None:
    """A group that has never committed begins with what the log still has."""
    assert _checked(TopicPartition(*INPUT), committed, 5, 9) == stand


def test_an_offset_beyond_the_log_stops_the_worker() -> None:
    """Else new records up to the old offset would be passed over in silence."""
    with pytest.raises(ConsistencyError, match="the log ends at 9"):
        _checked(TopicPartition(*INPUT), 10, 5, 9)


def test_records_that_expired_unread_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """They are gone; the worker goes on with what is there, and says so."""
    assert _checked(TopicPartition(*INPUT), 3, 5, 9) == 5
    assert "records 3 to 4 of input/3 expired" in caplog.text


class ClosedWriter:
    """A writer whose transport has just been closed, as uvloop has it."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("unable to perform operation; the handler is closed")

    def close(self) -> None: ...


async def test_a_write_on_a_closed_connection_is_a_connection_error() -> None:
    """aiokafka then connects again; any other error would end its fetcher for good (trap 29)."""
    connection = AIOKafkaConnection("127.0.0.1", 9)
    connection._writer, connection._versions = ClosedWriter(), {}
    connection._read_task = None

    with pytest.raises(KafkaConnectionError, match="the handler is closed"):
        connection.send(SimpleNamespace(prepare=lambda versions: Request()))
    assert not connection.connected()


class Request:
    def build_request_header(self, **fields: Any) -> Any:
        return self

    def encode(self) -> bytes:
        return b""
