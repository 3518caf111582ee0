"""Whatever is said of a message, in any order, again, and in batches of any size: one record, one count."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.domain.delivery import Callback, Track
from streams.domain.reports import record_view
from streams.domain.statistics import CREATED_THEN, SENT_THEN
from streams.domain.statuses import NOTHING
from tests.agents.flowing import NOON, Partition, Record, record
from tests.domain.law import law
from tests.domain.sayings import histories

Said = tuple[Callback | Track, int]
ENDS = {"stop": record("m-1", type="stop"), "erase": record("m-1", type="erase")}


def as_record(what: Callback | Track, receipt: int) -> Record:
    """Write what is said as a producer would."""
    said = {name: value for name, value in msgspec.to_builtins(what).items() if value is not None}
    if said.get("metadata"):
        said["metadata"] = {key: json.loads(text) for key, text in what.metadata.items()}  # type: ignore[union-attr]
    error = said.get("error")
    if error and error.get("details"):
        error["details"] = json.loads(error["details"])
    for name in ("timestamp", "sentAt", "deliveredAt", "readAt", "clickedAt", "failedAt", "createdAt"):
        if said.get(name) == 0:
            said[name] = "1970-01-01T00:00:00Z"
    return Record(json.dumps(said).encode(), b"m-1", receipt)


def is_request(one: Record) -> bool:
    return b'"type"' in (one.value or b"")


def applied(records: list[Record], cuts: set[int]) -> Partition:
    """Apply records in this order: those of one topic that follow each other share a batch unless cut."""
    partition = Partition()
    bounds = [0, *(n for n in range(1, len(records)) if n in cuts or differ(records, n)), len(records)]
    for first, end in pairwise(bounds):
        batch = records[first:end]
        if batch:
            (partition.ask if is_request(batch[0]) else partition.say)(*batch)
    return partition


def differ(records: list[Record], n: int) -> bool:
    return is_request(records[n]) != is_request(records[n - 1])


def come_to(partition: Partition) -> tuple[Any, Any, Any]:
    """The record as it is shown, or its marker; how deliveries stand; what happened when."""
    delivery = partition.delivery()
    shown: Any = (delivery.ended_at, delivery.erased)
    if delivery.precedence != NOTHING:
        shown = json.loads(msgspec.json.encode(record_view("m-1", delivery)))
    transitions = {key: found.by_status for key, found in partition.activities().items()}
    stand = [partition.cohorts(family) for family in (CREATED_THEN, SENT_THEN)]
    return shown, (partition.totals(), stand), {key: n for key, n in transitions.items() if any(n)}


@settings(max_examples=800, deadline=None)
@given(histories(), st.sets(st.sampled_from(("stop", "erase"))), st.data())
def test_any_order_any_repetition_and_any_batches(
    said: list[Said], ends: set[str], data: st.DataObject
) -> None:
    """The same record and the same counts; without an end the record is what the law says."""
    said = said[: 8 - len(ends)]
    records = [as_record(*one) for one in said] + [ENDS[end] for end in sorted(ends)]
    again = data.draw(st.permutations([*records, *data.draw(st.lists(st.sampled_from(records), max_size=4))]))
    cuts = data.draw(st.sets(st.integers(1, 11)))

    one, other = applied(records, set(range(12))), applied(again, cuts)

    if "stop" not in ends:
        assert come_to(one) == come_to(other)
    else:
        # what happened until it was stopped has happened, and depends on when that was
        assert come_to(one)[:2] == come_to(other)[:2]
    if not ends:
        shown, (stand, _), _ = come_to(other)
        expected = law(said)
        assert shown["currentStatus"] == expected["status"]
        assert (stand.total_messages, stand.by_status[expected["status"]]) == (1, 1)


@settings(max_examples=500, deadline=None)
@given(histories(), st.sets(st.sampled_from(("stop", "erase"))), st.sets(st.integers(1, 11)), st.data())
def test_batches_are_invisible(said: list[Said], ends: set[str], cuts: set[int], data: st.DataObject) -> None:
    """In one order of arrival the same events with the same ids, and the same bytes in the tables."""
    records = [as_record(*one) for one in said] + [ENDS[end] for end in ends]
    order = data.draw(st.permutations(records))

    one, other = applied(order, set()), applied(order, cuts)

    assert [(event.key, event.value, event.headers) for event in one.events] == [
        (event.key, event.value, event.headers) for event in other.events
    ]
    assert (one.stored["deliveries"], one.counts) == (other.stored["deliveries"], other.counts)
    assert one.cells() == other.cells()
    ids = [event.json["id"] for event in one.events]
    assert len(ids) == len(set(ids))


def test_receipts_and_times_are_written_as_they_are_meant() -> None:
    """The writer of this page loses nothing on the way: what is read again is what was said."""
    what = Callback("m-1", "SENT", timestamp=0, metadata={"a": '"x"'}, delivered_at=NOON)

    written = json.loads(as_record(what, NOON).value or b"")

    assert written == {
        "messageId": "m-1",
        "status": "SENT",
        "timestamp": "1970-01-01T00:00:00Z",
        "metadata": {"a": "x"},
        "deliveredAt": NOON,
    }
