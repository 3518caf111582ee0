from collections import deque

import hypothesis.strategies as st
from hypothesis import given

from streams.engine.batches import HOLE, Batch, uncovered
from tests.engine.records import Record


def batch(start: int, end: int, *offsets: int) -> Batch:
    return Batch("input", 0, start, end, [Record(offset) for offset in offsets])


def shape(part: Batch) -> tuple[int, int, list[int]]:
    return part.start, part.end, [record.offset for record in part.records]


def test_a_batch_that_was_applied_is_dropped() -> None:
    """A batch that ends at or before the stand is a redelivery."""
    assert uncovered(batch(0, 10, 3, 7), 10) is None


def test_a_batch_that_begins_after_the_stand_is_a_hole() -> None:
    """What lies between the stand and the batch was lost on its way."""
    assert uncovered(batch(11, 20, 11), 10) == HOLE


def test_a_batch_around_the_stand_is_applied_from_it() -> None:
    """Records below the stand were applied already."""
    rest = uncovered(batch(5, 20, 5, 9, 10, 19), 10)

    assert isinstance(rest, Batch)
    assert shape(rest) == (10, 20, [10, 19])


def test_a_batch_without_records_still_covers() -> None:
    """Control records are passed without a record, and the stand passes them too."""
    rest = uncovered(batch(8, 12), 8)

    assert isinstance(rest, Batch)
    assert shape(rest) == (8, 12, [])


def test_the_parts_of_a_cut_batch_cover_it_without_gap() -> None:
    """A large batch is cut into contiguous ones; the last keeps what trails its records."""
    parts = batch(0, 12, 1, 2, 5, 6, 9).cut(2)

    assert [shape(part) for part in parts] == [(0, 5, [1, 2]), (5, 9, [5, 6]), (9, 12, [9])]


def test_a_small_batch_is_not_cut() -> None:
    """A batch within the limit is its own only part."""
    assert [shape(part) for part in batch(0, 3, 0, 1).cut(2)] == [(0, 3, [0, 1])]


@given(
    gaps=st.lists(st.integers(1, 4), min_size=1, max_size=40),
    deliveries=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=60),
    limit=st.integers(1, 7),
)
def test_whatever_is_delivered_each_record_is_applied_once_and_in_order(
    gaps: list[int], deliveries: list[tuple[int, int]], limit: int
) -> None:
    """Redeliveries, overlaps and losses in any mixture, cured by seeking back, leave the log itself (I4)."""
    log = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    end = log[-1] + 1
    stand, applied, covered = 0, [], []
    queue = deque(deliveries)
    while stand < end:
        # when no more disorder is asked for, the log is read on from the stand
        start, length = queue.popleft() if queue else (stand, 30)
        poll = batch(start, start + length, *(o for o in log if start <= o < start + length))
        rest = uncovered(poll, stand)
        if not isinstance(rest, Batch):
            continue
        for part in rest.cut(limit):
            covered.append((part.start, part.end))
            applied += [record.offset for record in part.records]
            stand = part.end

    assert applied == log
    assert [start for start, _ in covered] == [0, *(end for _, end in covered[:-1])]


def test_a_batch_is_split_where_a_unit_is_full() -> None:
    """What does not fit into the unit stays one batch, so that it is not applied in crumbs later."""
    first, rest = batch(0, 12, 1, 2, 5, 6, 9).split(2)

    assert rest is not None
    assert (shape(first), shape(rest)) == ((0, 5, [1, 2]), (5, 12, [5, 6, 9]))
    assert batch(0, 3, 0, 1).split(2)[1] is None
