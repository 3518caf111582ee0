"""Records whose timestamps cannot be get the stream time of their partition."""

import pytest
from faust.types import TP

from streams.engine.stream_time import StreamTime
from tests.engine.records import Record

TP_0, TP_1 = TP("statuses", 0), TP("statuses", 1)
NOW = 1_795_435_200_000


def restamped(time: StreamTime, tp: TP, *timestamps: int) -> list[int]:
    records = [Record(n, timestamp=timestamp) for n, timestamp in enumerate(timestamps)]
    found = time.restamp(tp, records)
    for before, after in zip(records, found, strict=True):
        same = ("offset", "key", "value", "headers")
        assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    return [record.timestamp for record in found]


@pytest.mark.parametrize(
    "timestamp", [-1, 0, NOW // 1000, NOW * 1000, NOW * 10**6, 946_684_799_999, 4_102_444_800_000, -(2**63)]
)
def test_a_timestamp_of_another_century_becomes_the_stream_time(timestamp: int) -> None:
    """The greatest one that was read before in the partition, also of an earlier poll."""
    time = StreamTime(lambda: NOW + 1_000)
    assert restamped(time, TP_0, NOW - 5, NOW - 9) == [NOW - 5, NOW - 9]

    assert restamped(time, TP_0, timestamp, NOW - 7, timestamp, NOW, timestamp) == [
        *(NOW - 5, NOW - 7, NOW - 5, NOW, NOW),
    ]
    assert restamped(time, TP_0, timestamp) == [NOW]


def test_until_a_partition_has_a_stream_time_the_clock_stands_for_it() -> None:
    """Each partition has its own."""
    time = StreamTime(lambda: NOW)
    restamped(time, TP_0, NOW - 5)

    assert restamped(time, TP_1, 0) == [NOW]
    assert restamped(time, TP_1, 0, NOW - 50, 0) == [NOW, NOW - 50, NOW - 50]


def test_possible_timestamps_stay_however_they_are_ordered() -> None:
    """Late records and clocks that are off by days are for the rules of event time."""
    time = StreamTime(lambda: NOW)
    some = [NOW, NOW - 40 * 86_400_000, NOW + 40 * 86_400_000, 946_684_800_000, 4_102_444_799_999]

    assert restamped(time, TP_0, *some) == some
    records = [Record(0, timestamp=NOW)]
    assert time.restamp(TP_0, records) is records
