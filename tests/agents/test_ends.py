"""Rules of stop and erase: what is gone stays gone, whatever comes when."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.reports import record_view
from streams.domain.statistics import CREATED_THEN, SENT_THEN, Key
from tests.agents.flowing import NOON, Partition, Record, record, request, status

PHONE = "+82100000001"
SECRET = "the recipient's words"


def stop(message_id: str = "m-1", **said: Any) -> Record:
    return record(message_id, type="stop", **said)


def erase(message_id: str = "m-1", **said: Any) -> Record:
    return record(message_id, type="erase", **said)


def applied(partition: Partition, one: Record) -> Partition:
    """Apply a record that may be of either topic."""
    is_request = one.value is not None and b'"type"' in one.value
    return partition.ask(one) if is_request else partition.say(one)


def total(partition: Partition) -> int:
    """How many deliveries the statistics count."""
    return partition.totals().total_messages


def test_a_stopped_message_is_gone_and_told_of() -> None:
    """Its last report goes out with the reason; nothing of it is kept but that it was stopped."""
    partition = Partition().ask(request(createdAt=NOON)).say(status("SENT", provider="solapi"))

    partition.ask(stop(reason="unsubscribed", receipt=NOON + 9))

    event = partition.events[-1].json
    assert (event["type"], event["reason"]) == ("tracking.stopped", "unsubscribed")
    assert event["currentStatus"] == "SENT"
    assert event["deliveryReport"]["phoneNumber"] == PHONE
    assert event["occurredAt"] == "2026-11-23T12:00:00.009Z"
    left = partition.delivery()
    assert (left.ended_at, left.history, left.request) == (NOON + 9, [], None)
    assert total(partition) == 0


def test_what_comes_after_a_stop_is_refused_and_counted() -> None:
    """A late callback, another track request, an erasure: none brings it back; a second stop repeats."""
    partition = Partition().say(status("SENT")).ask(stop())
    before = dict(partition.stored["deliveries"]), len(partition.events)

    partition.say(status("DELIVERED"))
    partition.ask(request(), erase(), stop())

    assert partition.counts == {"applied": 2, "refused": 3, "repeated": 1}
    assert (partition.stored["deliveries"], len(partition.events)) == before


def test_a_stop_may_come_first() -> None:
    """Nothing is told, for there was nothing; what is said later is refused."""
    partition = Partition().ask(stop()).say(status("SENT"))

    assert partition.events == []
    assert partition.counts == {"marked": 1, "refused": 1}
    assert total(partition) == 0


def test_an_erased_message_is_tracked_on_without_what_may_be_personal() -> None:
    """Recipient, metadata and free text of errors are gone, also when they are said again; statuses count."""
    error = {"code": "30003", "message": SECRET, "details": {"to": PHONE}}
    partition = Partition().ask(request(metadata={"name": SECRET}))
    partition.say(status("FAILED", provider="solapi", error=error, phoneNumber=PHONE))

    partition.ask(erase(receipt=NOON + 9))
    partition.say(status("DELIVERED", provider="next", phoneNumber=PHONE, metadata={"again": SECRET}))
    partition.ask(request(createdAt=NOON - 5, metadata={"name": SECRET}))

    stored = partition.stored["deliveries"][b"m-1"]
    assert PHONE.encode() not in stored
    assert SECRET.encode() not in stored
    after = partition.events[partition.types().index("tracking.erased") :]
    assert [event.json["type"] for event in after] == ["tracking.erased", "status.updated", "status.amended"]
    told = b"".join(event.value or b"" for event in after)
    assert PHONE.encode() not in told
    assert SECRET.encode() not in told
    view = record_view("m-1", partition.delivery())
    assert (view.current_status, view.erased, view.phone_number) == ("DELIVERED", True, None)
    assert view.delivery_report.attempts is not None
    assert [attempt.error.code for attempt in view.delivery_report.attempts if attempt.error] == ["30003"]
    assert total(partition) == 1


def test_erasing_twice_is_a_repetition() -> None:
    """The second request changes and tells nothing."""
    partition = Partition().say(status("SENT")).ask(erase(), erase())

    assert partition.counts == {"applied": 2, "repeated": 1}
    assert partition.types() == ["status.updated", "tracking.erased"]


SAYINGS = (
    lambda: request(createdAt=NOON, metadata={"name": SECRET}),
    lambda: request(createdAt=NOON, phoneNumber="+82100000000", templateId="other"),
    lambda: status("SENT", provider="a", timestamp=NOON + 1, phoneNumber=PHONE),
    lambda: status("FAILED", provider="a", timestamp=NOON + 2, error={"code": "1", "message": SECRET}),
    lambda: status("FAILED", provider="a", timestamp=NOON + 2, id="x", error={"code": "1", "message": "b"}),
)


@pytest.mark.parametrize("end", [stop, erase])
def test_an_end_leaves_the_same_whenever_it_comes(end: Any) -> None:
    """Before, among or after all that is said: the same record, the same count of deliveries."""
    left = set()
    for order in permutations([*SAYINGS, end]):
        partition = Partition()
        for make in order:
            applied(partition, make())
        delivery = partition.delivery()
        delivery.completed_at = None
        # kept as they came, and shown in the order of their times
        delivery.history.sort(key=lambda entry: (entry.precedence, entry.id or "", entry.at))
        delivery.attempts.sort(key=lambda attempt: str(attempt.name))
        left.add((msgspec.msgpack.encode(delivery), total(partition)))

    assert len(left) == 1


def transitions(partition: Partition) -> dict[Key, list[int]]:
    return {key: found.by_status for key, found in partition.activities().items() if any(found.by_status)}


@given(st.lists(st.sampled_from([*SAYINGS, stop, erase]), max_size=8), st.data())
def test_ends_make_no_difference_to_repetition_and_batches(makes: list[Any], data: st.DataObject) -> None:
    """The same in one unit of work or in many, and a second time nothing changes."""
    one_by_one, again = Partition(), Partition()
    for make in makes:
        applied(one_by_one, make())
        applied(again, make())
        if data.draw(st.booleans()):
            applied(again, make())

    assert one_by_one.stored.get("deliveries") == again.stored.get("deliveries")
    for family in (CREATED_THEN, SENT_THEN):
        assert one_by_one.cohorts(family) == again.cohorts(family)
    assert transitions(one_by_one) == transitions(again)
    assert one_by_one.types() == again.types()
