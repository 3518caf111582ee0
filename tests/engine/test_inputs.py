"""In which order a lane takes the queued records of its input topics."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from streams.engine.batches import Batch
from streams.engine.inputs import InputQueue, Inputs, Room
from streams.engine.units import Unit
from tests.engine.records import Record

TOPICS = ("requests", "statuses")
EVERYTHING = Room(10_000, 1 << 30)
START = {"requests": 0, "statuses": 0}
Applied = tuple[str, bytes | None, int]


def handle(batch: Batch, unit: Unit) -> None: ...


def record(offset: int, timestamp: int, key: bytes = b"k", size: int = 1) -> Record:
    return Record(offset, key, bytes(size), timestamp=timestamp)


def queued(**records: list[Record]) -> Inputs:
    inputs = Inputs(3, TOPICS)
    for topic, each in records.items():
        inputs.put((Batch(topic, 3, 0, each[-1].offset + 1, each), 1, handle))
    return inputs


def take(
    inputs: Inputs, room: Room = EVERYTHING, positions: dict[str, int] = START, lacking: str = ""
) -> list[Batch]:
    taken = inputs.take(1, positions, room, lambda queue: queue.topic == lacking)
    return [batch for batch, _ in taken.parts]


def applied(batches: list[Batch]) -> list[Applied]:
    """Topic, key and timestamp of each record, in the order in which they are applied."""
    return [(batch.topic, record.key, record.timestamp) for batch in batches for record in batch.records]


def test_the_lowest_timestamp_is_taken_first() -> None:
    """Of one key, whichever topic it comes from."""
    inputs = queued(requests=[record(0, 10), record(1, 30)], statuses=[record(0, 20), record(1, 40)])

    assert [timestamp for _, _, timestamp in applied(take(inputs))] == [10, 20, 30, 40]


def test_of_equal_timestamps_those_of_the_first_topic_are_taken_first() -> None:
    """A request comes before the status that was produced in the same millisecond."""
    inputs = queued(statuses=[record(0, 10)], requests=[record(0, 10)])

    assert [topic for topic, _, _ in applied(take(inputs))] == ["requests", "statuses"]


def test_records_of_other_keys_share_a_batch() -> None:
    """Handlers are much faster with many records at a time, and keys do not depend on each other."""
    inputs = queued(
        requests=[record(n, 20 * n, b"%d" % n) for n in range(50)],
        statuses=[record(n, 20 * n + 10, b"%d" % n) for n in range(50)],
    )

    assert [(batch.topic, len(batch)) for batch in take(inputs)] == [("requests", 50), ("statuses", 50)]


def test_nothing_is_taken_beyond_the_end_of_a_lacking_topic() -> None:
    """Its next record may have a lower timestamp than all that waits."""
    inputs = queued(requests=[record(0, 10)], statuses=[record(0, 5), record(1, 20)])

    assert [timestamp for _, _, timestamp in applied(take(inputs, lacking="requests"))] == [5, 10]
    assert [
        timestamp for _, _, timestamp in applied(take(inputs, positions={"requests": 1, "statuses": 1}))
    ] == [20]


def test_a_unit_has_room_in_bytes() -> None:
    """And one larger record gets a unit of its own."""
    inputs = queued(statuses=[record(n, n, size=100) for n in range(10)])
    sizes = []
    position = 0
    while batches := take(inputs, Room(1000, 350), {"requests": 0, "statuses": position}):
        sizes.append(sum(len(batch) for batch in batches))
        position = batches[-1].end
    huge = queued(statuses=[record(0, 0, size=1000)])

    assert sizes == [3, 3, 3, 1]
    assert len(applied(take(huge, Room(1000, 350)))) == 1


def test_offsets_without_records_are_taken_in_order() -> None:
    """The position passes control records of one topic while the other one has records."""
    inputs = Inputs(3, TOPICS)
    inputs.put((Batch("requests", 3, 0, 4, []), 1, handle))
    inputs.put((Batch("requests", 3, 4, 6, [record(4, 10)]), 1, handle))
    inputs.put((Batch("requests", 3, 6, 9, []), 1, handle))
    inputs.put((Batch("statuses", 3, 0, 2, [record(1, 20)]), 1, handle))
    batches = take(inputs)

    assert [(batch.topic, batch.start, batch.end) for batch in batches] == [
        ("requests", 0, 9),
        ("statuses", 0, 2),
    ]
    assert inputs.is_empty


def test_parts_that_are_put_back_are_taken_again_in_order() -> None:
    """A unit that fails leaves the queues as they were."""
    inputs = queued(requests=[record(0, 10), record(1, 30)], statuses=[record(0, 20), record(1, 40)])
    taken = inputs.take(1, START, EVERYTHING, lambda queue: False)
    inputs.put_back(taken.parts, 1)

    assert inputs.records == 4
    assert [timestamp for _, _, timestamp in applied(take(inputs))] == [10, 20, 30, 40]


def merged(requests: list[Record], statuses: list[Record]) -> list[Applied]:
    """What a Kafka Streams task does: one record at a time, of the topic whose first one is the oldest."""
    sources = {"requests": list(requests), "statuses": list(statuses)}
    order = []
    while any(sources.values()):
        topic = min((t for t in TOPICS if sources[t]), key=lambda t: sources[t][0].timestamp)
        first = sources[topic].pop(0)
        order.append((topic, first.key, first.timestamp))
    return order


streams = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([b"a", b"b", b"c"])), min_size=1, max_size=30
)


@given(streams, streams, st.integers(1, 7), st.integers(1, 40))
def test_every_key_sees_the_order_of_timestamps(
    requests: list[tuple[int, bytes]], statuses: list[tuple[int, bytes]], cut: int, most: int
) -> None:
    """However the records were polled, whatever a unit takes, also when timestamps go back within a topic."""
    given_records = {
        topic: [record(n, timestamp, key) for n, (timestamp, key) in enumerate(each)]
        for topic, each in zip(TOPICS, (requests, statuses), strict=True)
    }
    inputs = Inputs(3, TOPICS)
    for topic, records in given_records.items():
        for batch in Batch(topic, 3, 0, len(records), records).cut(cut):
            inputs.put((batch, 1, handle))
    positions, order = dict(START), list[Applied]()
    while batches := take(inputs, Room(most, 1 << 30), positions):
        assert sum(len(batch) for batch in batches) <= most
        for batch in batches:
            assert batch.start == positions[batch.topic]
            positions[batch.topic] = batch.end
        order += applied(batches)

    expected = merged(given_records["requests"], given_records["statuses"])
    for key in (b"a", b"b", b"c"):
        assert [each for each in order if each[1] == key] == [each for each in expected if each[1] == key]
    assert positions == {topic: len(records) for topic, records in given_records.items()}


def test_a_queue_counts_what_it_holds() -> None:
    """Records and bytes, whatever is put, taken and dropped."""
    queue = InputQueue("statuses", 1)
    queue.put(
        (Batch("statuses", 3, 0, 2, [record(0, 0, size=10), replace(record(1, 0), value=None)]), 1, handle)
    )
    assert (queue.records, queue.size_bytes, queue.reach) == (2, 10, 2)

    queue.put_back(queue.pop())
    queue.clear()
    assert (queue.records, queue.size_bytes, queue.reach) == (0, 0, 2)
