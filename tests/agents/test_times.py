"""Rules of time: what expires, what is removed, and what is left of it."""

from __future__ import annotations

from typing import Any

import pytest

from streams.domain.reports import record_view
from streams.domain.times import iso
from tests.agents.flowing import NOON, Partition, Record, record, request, status

HOUR = 3_600_000
DAY = 24 * HOUR


def timer(kind: str, receipt: int, message_id: str = "m-1") -> Record:
    return record(message_id, receipt=receipt, type=kind)


def told(partition: Partition) -> list[tuple[str, str]]:
    return [(event.json["type"], event.json["reason"]) for event in partition.events]


def test_a_message_expires_when_it_is_due_and_not_before() -> None:
    """A request that comes a millisecond early changes nothing; a second one neither."""
    partition = (
        Partition().ask(request(createdAt=NOON)).say(status("SENT", provider="solapi", timestamp=NOON))
    )

    partition.ask(timer("expire", NOON + 72 * HOUR - 1))
    assert partition.delivery().status == "SENT"
    partition.ask(timer("expire", NOON + 72 * HOUR + 5), timer("expire", NOON + 72 * HOUR + 6))

    assert partition.counts == {"applied": 3, "repeated": 2}
    assert told(partition)[2:] == [
        ("status.updated", "progress"),
        ("tracking.expired", "timeout"),
        ("tracking.completed", "final"),
    ]
    event = partition.events[-2].json
    assert (event["previousStatus"], event["currentStatus"], event["source"]) == ("SENT", "EXPIRED", "system")
    assert event["occurredAt"] == "2026-11-26T12:00:00.000Z"
    entry = record_view("m-1", partition.delivery()).status_history[-1]
    assert (entry.id, entry.status, entry.timestamp) == ("expired", "EXPIRED", "2026-11-26T12:00:00.000Z")
    assert entry.received_at == "2026-11-26T12:00:00.005Z"


@pytest.mark.parametrize(
    ("asked", "waited"), [({"maxTrackingDuration": 1000}, 1000), ({}, 72 * HOUR)], ids=["own", "default"]
)
def test_a_request_may_say_how_long_to_wait(asked: dict[str, Any], waited: int) -> None:
    """Counted from its createdAt."""
    partition = Partition().ask(request(createdAt=NOON - 10, **asked))

    assert partition.delivery().due_at == partition.delivery().expires_at == NOON - 10 + waited


@pytest.mark.parametrize(
    ("scheduled", "begin"),
    [
        (NOON + 120 * HOUR, NOON + 120 * HOUR),
        ("2026-11-23T21:00:01+09:00", NOON + 1_000),
        (NOON - 11, NOON - 10),
        (0, NOON - 10),
    ],
)
def test_a_message_that_is_sent_later_is_waited_for_from_then_on(scheduled: int | str, begin: int) -> None:
    """One that is to be sent in five days must not expire after three."""
    partition = Partition().ask(request(createdAt=NOON - 10, scheduledAt=scheduled))
    partition.ask(timer("expire", begin + 72 * HOUR - 1))
    assert partition.delivery().status == "QUEUED"

    shown = record_view("m-1", partition.delivery())
    assert shown.expires_at == iso(begin + 72 * HOUR)
    assert shown.scheduled_at is not None
    partition.ask(timer("expire", begin + 72 * HOUR))
    assert partition.delivery().status == "EXPIRED"


def test_a_message_that_nobody_tracks_expires_too() -> None:
    """From its first event on, as long as one whose request does not say."""
    partition = Partition().say(status("SENT", timestamp=NOON - 10), status("SENDING", timestamp=NOON - 30))

    partition.ask(timer("expire", NOON - 30 + 72 * HOUR))

    assert partition.delivery().status == "EXPIRED"


@pytest.mark.parametrize("late", ["DELIVERED", "FAILED", "CLICKED"])
def test_what_comes_after_the_expiry_wins(late: str) -> None:
    """The message completes once; the attempt of the provider, not the expiry, speaks."""
    partition = Partition().ask(request(createdAt=NOON), timer("expire", NOON + 72 * HOUR))

    partition.say(status(late, provider="solapi", receipt=NOON + 80 * HOUR))

    assert partition.delivery().status == late
    assert told(partition)[-1] == ("status.updated", "progress")
    assert partition.types().count("tracking.completed") == 1


@pytest.mark.parametrize("final", ["DELIVERED", "FAILED", "CANCELLED", "EXPIRED"])
def test_what_is_final_does_not_expire(final: str) -> None:
    """A request that was on its way when the callback came changes nothing."""
    partition = Partition().ask(request(createdAt=NOON)).say(status(final, provider="solapi"))

    partition.ask(timer("expire", NOON + 99 * DAY))

    assert partition.counts["repeated"] == 1
    assert "tracking.expired" not in partition.types()


@pytest.mark.parametrize("kind", ["expire", "purge"])
@pytest.mark.parametrize("known", [True, False])
def test_what_is_stopped_or_unknown_is_due_for_nothing(kind: str, known: bool) -> None:
    """Neither is there anything to say of it, nor does a timer's request make it."""
    partition = Partition()
    if known:
        partition.say(status("DELIVERED")).ask(record("m-1", type="stop"))
    before = dict(partition.stored.get("deliveries", {})), partition.types()

    partition.ask(timer(kind, NOON + 29 * DAY))

    assert (partition.stored.get("deliveries", {}), partition.types()) == before


def test_a_final_record_is_removed_when_it_was_kept_for_long_enough() -> None:
    """Thirty days after its last change, and told of; it counts as before."""
    partition = Partition().ask(request()).say(status("DELIVERED", provider="solapi", receipt=NOON + 5))
    counted = partition.totals()
    assert counted.total_messages == 1

    partition.ask(timer("purge", NOON + 30 * DAY + 4))
    assert partition.delivery().status == "DELIVERED"
    partition.ask(timer("purge", NOON + 30 * DAY + 5))

    assert told(partition)[-1] == ("tracking.removed", "retention")
    assert partition.events[-1].json["deliveryReport"]["status"] == "DELIVERED"
    left = partition.delivery()
    assert (left.ended_at, left.history, left.request) == (NOON + 30 * DAY + 5, [], None)
    assert partition.totals() == counted
    assert b"+82100000001" not in partition.stored["deliveries"][b"m-1"]


def test_a_record_that_is_not_final_is_never_removed() -> None:
    """It expires first, and is kept from then on."""
    partition = Partition().say(status("SENT"))

    partition.ask(timer("purge", NOON + 99 * DAY), timer("expire", NOON + 99 * DAY))
    partition.ask(timer("purge", NOON + 128 * DAY))
    assert partition.delivery().status == "EXPIRED"
    partition.ask(timer("purge", NOON + 129 * DAY))

    assert partition.delivery().ended_at == NOON + 129 * DAY


def ended(how: str) -> tuple[Partition, int]:
    """A message of which a marker is left, and when that was made."""
    partition = Partition()
    if how == "erased":
        return partition.ask(record("m-1", type="erase")), NOON
    partition.say(status("DELIVERED"))
    if how == "stopped":
        return partition.ask(record("m-1", type="stop")), NOON
    return partition.ask(timer("purge", NOON + 30 * DAY)), NOON + 30 * DAY


@pytest.mark.parametrize("how", ["stopped", "removed"])
def test_what_is_said_of_what_is_gone_is_refused(how: str) -> None:
    """It must not come back as another message, and count twice."""
    partition, at = ended(how)
    before = dict(partition.stored["deliveries"]), len(partition.events)

    partition.say(status("CLICKED", receipt=at + DAY)).ask(request(receipt=at + DAY))

    assert partition.counts["refused"] == 2
    assert (partition.stored["deliveries"], len(partition.events)) == before


@pytest.mark.parametrize("how", ["stopped", "removed", "erased"])
def test_a_marker_is_forgotten_in_the_end(how: str) -> None:
    """Thirty days later nothing is left, and nothing is told; from then on the id is new."""
    partition, at = ended(how)
    events = len(partition.events)

    partition.ask(timer("purge", at + 30 * DAY - 1))
    assert partition.counts["repeated"] == 1
    partition.ask(timer("purge", at + 30 * DAY))

    assert (partition.counts["forgotten"], len(partition.events)) == (1, events)
    assert partition.stored["deliveries"] == {}
    partition.say(status("SENT", phoneNumber="+82100000001", receipt=at + 31 * DAY))
    assert partition.delivery().phone_number == "+82100000001"


def test_an_erased_message_expires_and_is_removed_like_others() -> None:
    """Without what is personal, as it is by then."""
    partition = Partition().ask(request(createdAt=NOON), record("m-1", type="erase"))

    partition.ask(timer("expire", NOON + 72 * HOUR))
    assert partition.delivery().due_at == NOON + 72 * HOUR + 30 * DAY
    partition.ask(timer("purge", NOON + 33 * DAY))

    assert partition.types()[-3:] == ["tracking.expired", "tracking.completed", "tracking.removed"]
    assert b"+82100000001" not in b"".join(event.value or b"" for event in partition.events[2:])


def test_a_timer_s_request_for_a_message_of_elsewhere_is_forwarded() -> None:
    """Like all that lies where it does not belong."""
    partition = Partition(number=1, partitions=1024)

    partition.ask(timer("purge", NOON), timer("expire", NOON))

    assert partition.counts == {"forwarded": 2}
