"""The checker must see what it is there to see: every kind of damage, and none where there is none."""

import copy
import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from .checker import FORWARDED_FROM, Report, World, check
from .inputs import Raw
from .reference import Expected, expect
from .traffic import traffic

PARTITIONS = 3
START_MS = 1_764_000_000_000

Damage = Callable[[World], None]


def logs_of(seed: int) -> dict[str, dict[int, list[Raw]]]:
    """The input topics after hostile traffic, the copies of misplaced records behind it."""
    logs: dict[str, dict[int, list[Raw]]] = {
        stream: {p: [] for p in range(PARTITIONS)} for stream in ("requests", "statuses")
    }
    for sent in traffic(seed, 60, PARTITIONS, START_MS):
        log = logs[sent.stream][sent.partition]
        raw = Raw(
            f"delivery.{sent.stream}", sent.partition, len(log), sent.at, sent.key, sent.value, sent.headers
        )
        log.append(raw)
    for p in range(PARTITIONS):
        for source, forward in expected_at(logs, p).forwarded.items():
            log = logs[forward.raw.topic.removeprefix("delivery.")][forward.partition]
            headers = (*forward.raw.headers, (FORWARDED_FROM, source.encode()))
            place = {
                "partition": forward.partition,
                "offset": len(log),
                "key": forward.key,
                "headers": headers,
            }
            log.append(replace(forward.raw, **place))
    return logs


def expected_at(logs: dict[str, dict[int, list[Raw]]], p: int) -> Expected:
    return expect(p, PARTITIONS, logs["requests"][p], logs["statuses"][p])


def events_of(p: int, expected: Expected) -> list[Raw]:
    events = []
    for message_id, log in expected.events.items():
        for event in log:
            headers = tuple((name, value.encode()) for name, value in event["headers"].items())
            value = json.dumps(event["value"]).encode()
            events.append(
                Raw("delivery.events", p, len(events), START_MS, message_id.encode(), value, headers)
            )
    return events


def letters_of(p: int, expected: Expected) -> list[Raw]:
    letters = []
    for letter_id, (code, raw) in expected.dead.items():
        ours = {
            "__connect.errors.topic": raw.topic,
            "__connect.errors.partition": str(raw.partition),
            "__connect.errors.offset": str(raw.offset),
            "__connect.errors.exception.class.name": "any",
            "__connect.errors.exception.message": "any",
            "tracker-error-code": code,
            "tracker-dead-letter-id": letter_id,
        }
        headers = (*raw.headers, *((name, value.encode()) for name, value in ours.items()))
        letters.append(replace(raw, topic="delivery.dead-letters", offset=len(letters), headers=headers))
    return letters


@pytest.fixture(scope="module")
def undamaged() -> World:
    logs = logs_of(seed=8)
    expected = {p: expected_at(logs, p) for p in range(PARTITIONS)}
    return World(
        partitions=PARTITIONS,
        requests=logs["requests"],
        statuses=logs["statuses"],
        events={p: events_of(p, e) for p, e in expected.items()},
        dead_letters={p: letters_of(p, e) for p, e in expected.items()},
        deliveries={p: e.records for p, e in expected.items()},
        cells={p: e.cells for p, e in expected.items()},
        updated_at={p: e.updated_at for p, e in expected.items()},
        committed={(stream, p): len(log) for stream, by in logs.items() for p, log in by.items()},
    )


@pytest.fixture
def world(undamaged: World) -> World:
    return copy.deepcopy(undamaged)


def past_of(world: World, p: int) -> dict[str, list[dict[str, object]]]:
    return expect(p, PARTITIONS, world.requests[p], world.statuses[p]).past


def drop_an_event(world: World) -> None:
    del world.events[1][5]


def double_an_event(world: World) -> None:
    world.events[1].append(world.events[1][5])


def alter_an_event(world: World) -> None:
    event = world.events[1][5]
    value = json.loads(event.value or b"")
    value["deliveryReport"]["attempts"][0]["attemptedAt"] = "2026-01-01T00:00:00.000Z"
    world.events[1][5] = replace(event, value=json.dumps(value).encode())


def alter_a_header(world: World) -> None:
    event = world.events[1][5]
    world.events[1][5] = replace(event, headers=event.headers[:-1])


def invent_an_event(world: World) -> None:
    event = world.events[1][5]
    value = {**json.loads(event.value or b""), "id": "statuses-1-999999-0"}
    world.events[1].append(replace(event, value=json.dumps(value).encode()))


def swap_events(world: World) -> None:
    """Exchange a message's first two events that come of different inputs of one topic."""
    events = world.events[1]
    for n, (left, right) in enumerate(itertools.pairwise(events)):
        ids = [json.loads(event.value or b"")["id"].split("-") for event in (left, right)]
        if left.key == right.key and ids[0][0] == ids[1][0] and ids[0][2] != ids[1][2]:
            events[n : n + 2] = [right, left]
            return
    raise AssertionError("no message with two events")


def stale_record(world: World) -> None:
    message_id, states = next(iter(past_of(world, 2).items()))
    world.deliveries[2][message_id] = states[-1]


def wrong_record(world: World) -> None:
    next(iter(world.deliveries[2].values()))["updatedAt"] = "2026-01-01T00:00:00.000Z"


def drop_a_record(world: World) -> None:
    world.deliveries[2].popitem()


def extra_record(world: World) -> None:
    world.deliveries[2]["m-unknown"] = {"messageId": "m-unknown"}


def cell_off_by_one(world: World) -> None:
    cell = next(iter(world.cells[0].values()))
    cell[next(iter(cell))] += 1


def last_change_lost(world: World) -> None:
    world.updated_at[0] -= 1


def some_dead_letters(world: World) -> list[Raw]:
    return next(letters for letters in world.dead_letters.values() if letters)


def drop_a_dead_letter(world: World) -> None:
    del some_dead_letters(world)[0]


def double_a_dead_letter(world: World) -> None:
    letters = some_dead_letters(world)
    letters.append(letters[0])


def alter_a_dead_letter(world: World) -> None:
    letters = some_dead_letters(world)
    letters[0] = replace(letters[0], value=b"cut")


def drop_a_copy(world: World) -> None:
    del world.statuses[1][-1]


def double_a_copy(world: World) -> None:
    copied = world.statuses[1][-1]
    world.statuses[1].append(replace(copied, offset=copied.offset + 1))
    world.committed["statuses", 1] += 1


def absent_partition(world: World) -> None:
    del world.events[2]


def absent_changelog(world: World) -> None:
    del world.deliveries[2]


def commit_short(world: World) -> None:
    world.committed["statuses", 2] -= 1


def open_transaction(world: World) -> None:
    world.hanging.append("delivery.events/0")


# The seven kinds of damage first, then its cousins.
DAMAGE: tuple[tuple[Damage, str], ...] = (
    (drop_an_event, "lost"),
    (double_an_event, "doubled"),
    (alter_an_event, "altered"),
    (stale_record, "records_stale"),
    (cell_off_by_one, "cells_wrong"),
    (drop_a_dead_letter, "dead_missing"),
    (absent_partition, "partitions_absent"),
    (alter_a_header, "altered"),
    (invent_an_event, "phantom"),
    (swap_events, "misordered"),
    (wrong_record, "records_wrong"),
    (drop_a_record, "records_missing"),
    (extra_record, "records_extra"),
    (last_change_lost, "cells_wrong"),
    (double_a_dead_letter, "dead_doubled"),
    (alter_a_dead_letter, "dead_altered"),
    (drop_a_copy, "forwards_missing"),
    (double_a_copy, "forwards_doubled"),
    (absent_changelog, "partitions_absent"),
    (commit_short, "invalid"),
    (open_transaction, "invalid"),
)


def test_nothing_is_reported_on_the_undamaged(world: World) -> None:
    """A right world passes, whatever the traffic had in it."""
    report = check(world)

    assert report.faults() == {}
    assert report.consumed == sum(len(log) for by in (world.requests, world.statuses) for log in by.values())


def test_the_undamaged_holds_every_outcome(world: World) -> None:
    """A checker that is only shown easy traffic proves nothing."""
    outcomes = {
        outcome
        for p in range(PARTITIONS)
        for outcome in expect(p, PARTITIONS, world.requests[p], world.statuses[p]).outcomes.values()
    }

    assert outcomes == {"applied", "amended", "repeated", "refused", "marked", "forwarded", "dead-lettered"}


@pytest.mark.parametrize(("damage", "kind"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_damage_is_reported(world: World, damage: Damage, kind: str) -> None:
    """Each injected damage is named, and named as what it is."""
    damage(world)

    report: Report = check(world)

    assert kind in report.faults(), str(report)


def test_topics_may_interleave_in_any_order(world: World) -> None:
    """Kafka does not say whether a request or a status was first: the events do."""
    for p in range(PARTITIONS):
        expected = expect(p, PARTITIONS, world.requests[p], world.statuses[p])
        requests_last = {
            message_id: sorted(
                {event["id"].rpartition("-")[0] for event in log},
                key=lambda i: (i.startswith("requests"), int(i.rpartition("-")[2])),
            )
            for message_id, log in expected.events.items()
        }
        other = expect(p, PARTITIONS, world.requests[p], world.statuses[p], requests_last)
        world.events[p] = events_of(p, other)
        world.deliveries[p] = other.records
        world.cells[p], world.updated_at[p] = other.cells, other.updated_at

    assert check(world).faults() == {}
