"""What is told of hours and days: once for many changes, once as final, and every correction."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.agents.flowing import COUNTING, NOON, TABLES, Partition, Record, record, status

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
GROUP = {"tenant": None, "channel": "sms", "provider": "a", "templateId": "x"}
SAID = {"provider": "a", "channel": "sms", "templateId": "x"}


def tick(at: int) -> Record:
    return record("tick-0", type="tick", receipt=at)


def sent(message_id: str, at: int, name: str = "SENT", receipt: int | None = None) -> Record:
    return status(name, message_id, timestamp=at, receipt=at if receipt is None else receipt, **SAID)


def told(partition: Partition) -> list[dict[str, Any]]:
    """What was told since the last time."""
    rows = partition.outputs.pop("delivery.stats", [])
    for row in rows:
        value = row.json
        key = [value[name] for name in ("granularity", "from", "tenant", "channel", "provider", "templateId")]
        assert json.loads(row.key or b"") == key
        assert (row.partition, value["partition"]) == (partition.number, partition.number)
    return sorted((row.json for row in rows), key=lambda row: row["granularity"], reverse=True)


@pytest.fixture(params=[0, 2_000])
def partition(request: pytest.FixtureRequest) -> Partition:
    """Cells that are written by each unit, or not before the tick: what is told is the same."""
    counting = COUNTING._replace(most_entries=request.param)
    return Partition(tables=TABLES._replace(counting=counting))


def test_what_has_changed_is_told_at_the_next_tick_once(partition: Partition) -> None:
    """Ten changes of one hour are one row of it, and one of its day; without a change there is none."""
    for n in range(10):
        partition.say(sent(f"m-{n}", NOON + n))
    assert told(partition) == []

    partition.ask(tick(NOON + 20))
    rows = told(partition)
    partition.ask(tick(NOON + 30))

    assert told(partition) == []
    assert [(row["granularity"], row["from"], row["to"]) for row in rows] == [
        ("hour", "2026-11-23T12:00:00.000Z", "2026-11-23T13:00:00.000Z"),
        ("day", "2026-11-23T00:00:00.000Z", "2026-11-24T00:00:00.000Z"),
    ]
    for row in rows:
        assert {name: row[name] for name in GROUP} == GROUP
        assert (row["created"]["messages"], row["created"]["byStatus"]["SENT"]) == (10, 10)
        assert row["sent"] == row["created"]
        assert (row["transitions"]["SENT"], row["callbacks"]["applied"]) == (10, 10)
        assert (row["final"], row["correction"]) == (False, False)


def test_a_row_has_what_adds_up(partition: Partition) -> None:
    """Sums and counts, so that the rows of all partitions give rates and averages."""
    partition.say(sent("m-1", NOON), sent("m-1", NOON + 700, "DELIVERED"), sent("m-2", NOON, "FAILED"))

    row = told(partition.ask(tick(NOON + 900)))[0]

    assert row["created"] | {"byStatus": None} == {
        "messages": 2,
        "byStatus": None,
        "arrived": 1,
        "arrivedFinal": 1,
        "clockSkew": 0,
        "byErrorCode": {"unknown": 1},
        "durationSum": 700,
        "durationCount": 1,
    }
    assert (row["sent"]["messages"], row["sent"]["arrived"]) == (1, 1)
    assert row["latenessSum"] == 0


def test_a_window_is_told_as_final_when_it_has_ended_for_long_enough(partition: Partition) -> None:
    """Four days after the end of the hour, and of the day; once each, though nothing has changed."""
    partition.say(sent("m-1", NOON)).ask(tick(NOON))
    told(partition)

    partition.ask(tick(NOON + HOUR_MS + 4 * DAY_MS - 1))
    assert told(partition) == []
    partition.ask(tick(NOON + HOUR_MS + 4 * DAY_MS))
    hours = told(partition)
    partition.ask(tick(NOON + 5 * DAY_MS))
    days = told(partition)
    partition.ask(tick(NOON + 6 * DAY_MS))

    assert told(partition) == []
    assert [(row["granularity"], row["final"], row["correction"]) for row in hours + days] == [
        ("hour", True, False),
        ("day", True, False),
    ]


def test_what_comes_after_that_is_a_correction(partition: Partition) -> None:
    """The row is whole, as it is now, and says that it was final before."""
    partition.say(sent("m-1", NOON)).ask(tick(NOON + 6 * DAY_MS))
    assert [(row["final"], row["correction"]) for row in told(partition)] == [(True, False)] * 2

    partition.say(sent("m-1", NOON + 5, "DELIVERED", NOON + 6 * DAY_MS)).ask(tick(NOON + 6 * DAY_MS))

    rows = told(partition)
    assert [(row["granularity"], row["final"], row["correction"]) for row in rows] == [
        ("hour", True, True),
        ("day", True, True),
    ]
    assert [(row["created"]["messages"], row["created"]["arrived"]) for row in rows] == [(1, 1)] * 2


def test_a_unit_tells_of_so_many_cells_and_the_next_tick_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is final is told of at once and once, also if it was to be told of later as changed."""
    monkeypatch.setattr("agents.publishing.MOST_TOLD", 1)
    partition = Partition(tables=TABLES._replace(counting=COUNTING._replace(most_entries=0)))
    for hour in range(4):
        partition.say(sent(f"m-{hour}", NOON + hour * HOUR_MS))
    later = NOON + 3 * HOUR_MS + 4 * DAY_MS
    times = [NOON, later, later, later, NOON + 5 * DAY_MS]

    ticks = [told(partition.ask(tick(at))) for at in times]

    hours = [
        sorted((row["from"][11:13], row["final"]) for row in rows if row["granularity"] == "hour")
        for rows in ticks
    ]
    assert hours == [
        [("12", False)],
        [("12", True), ("13", True), ("14", True)],
        [],
        [("15", False)],
        [("15", True)],
    ]
    assert not any(row["correction"] for rows in ticks for row in rows)


def test_what_was_noted_is_told_however_much_changes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick that folds much itself takes what was noted before all the same."""
    monkeypatch.setattr("agents.publishing.MOST_TOLD", 2)
    partition = Partition(tables=TABLES._replace(counting=COUNTING._replace(most_entries=0)))
    for hour in range(3):
        partition.say(sent(f"m-{hour}", NOON + hour * HOUR_MS))
    # these wait for the tick, which adds them up
    partition.flows["requests"].tables = TABLES
    waiting = Partition(tables=TABLES, stored=partition.stored)
    waiting.say(*(sent(f"n-{hour}", NOON - hour * HOUR_MS) for hour in range(1, 6)))

    rows = [told(waiting.ask(tick(NOON))) for _ in range(4)]

    hours = [sorted(row["from"][11:13] for row in some if row["granularity"] == "hour") for some in rows]
    assert hours == [["07", "08", "09", "10", "11", "12"], ["13"], ["14"], []]
