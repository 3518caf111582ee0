"""How long windows are kept, and how their cells go."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from streams.domain.statistics import (
    CREATED_THEN,
    DAY,
    FULL,
    HOUR,
    MINUTE,
    PROVIDER,
    WHOLE,
    Cell,
    Key,
    Windows,
    sum_up,
    window_key,
)
from tables.formats import HEAD, PENDING_STATS, PERIOD_STATS, groups_row
from tests.agents.flowing import COUNTING, NOON, TABLES, Partition, Record, record, status

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MINUTES = NOON // 60_000
OFTEN = TABLES._replace(counting=COUNTING._replace(most_entries=0))


def tick(at: int) -> Record:
    return record("tick-0", type="tick", receipt=at)


def starts(partition: Partition) -> dict[bytes, set[int]]:
    """By granularity, which windows have any cell that is stored."""
    found: dict[bytes, set[int]] = {}
    for packed in partition.stored.get("period_stats", {}):
        key = Key.unpack(packed)
        found.setdefault(key.granularity, set()).add(key.start - MINUTES)
    return found


def test_windows_go_when_time_has_come() -> None:
    """Minutes after two days, by whole hours; hours after ninety, by whole days; days after two years."""
    partition = Partition(tables=OFTEN).say(status("SENT", timestamp=NOON, provider="a"))
    partition.say(status("SENT", "m-2", timestamp=NOON + HOUR_MS, receipt=NOON + HOUR_MS, provider="a"))
    minutes, hours, days = {0, 60}, {0, 60}, {-720}
    ever = {-MINUTES}

    for at, left in (
        (NOON + 2 * DAY_MS, (minutes, hours, days)),
        (NOON + 2 * DAY_MS + HOUR_MS, ({60}, hours, days)),
        (NOON + 90 * DAY_MS, (set(), hours, days)),
        (NOON + 90 * DAY_MS + 12 * HOUR_MS, (set(), set(), days)),
        (NOON + 731 * DAY_MS, (set(), set(), set())),
    ):
        partition.ask(tick(at))
        windows = zip((MINUTE, HOUR, DAY, b"a"), (*left, ever), strict=True)
        assert starts(partition) == {name: some for name, some in windows if some}
    assert partition.totals().total_messages == 2


def test_time_does_not_go_back() -> None:
    """A tick of an older time changes nothing."""
    partition = Partition(tables=OFTEN).say(status("SENT"))
    partition.ask(tick(NOON + 3 * DAY_MS))
    before = dict(partition.stored["pending_stats"])

    partition.ask(tick(NOON))

    assert partition.stored["pending_stats"] == before
    head = PENDING_STATS.decode(before[HEAD])
    assert (head.time, head.held) == (NOON + 3 * DAY_MS, Windows().held(NOON + 3 * DAY_MS))


def test_what_comes_too_late_counts_in_the_windows_that_are_left() -> None:
    """A callback of a minute that is kept no longer changes its hour, its day and all time."""
    partition = Partition(tables=OFTEN).say(status("SENT", timestamp=NOON, provider="a"))
    partition.ask(tick(NOON + 3 * DAY_MS))

    partition.say(
        status("DELIVERED", timestamp=NOON + 5, receipt=NOON + 3 * DAY_MS, provider="a"),
        status("SENT", "late", timestamp=NOON, receipt=NOON + 3 * DAY_MS, provider="a"),
    )

    assert starts(partition).keys() == {HOUR, DAY, b"a"}
    for key, found in partition.cohorts(CREATED_THEN).items():
        assert (key.granularity, sum(found.by_status), found.arrived) in {
            (granularity, 2, 1) for granularity in (HOUR, DAY, b"a")
        }


def test_cells_go_so_many_at_a_time() -> None:
    """One unit deletes a few thousand; the next tick goes on."""
    partition = Partition(tables=OFTEN)
    partition.say(*(status("SENT", f"m-{n}", timestamp=NOON, provider=f"p-{n}") for n in range(3_000)))
    rows = len(partition.stored["period_stats"])

    partition.ask(tick(NOON + 100 * DAY_MS))
    assert len(partition.stored["period_stats"]) == rows - 5_000
    partition.ask(tick(NOON + 100 * DAY_MS)).ask(tick(NOON + 100 * DAY_MS))

    assert starts(partition).keys() == {DAY, b"a"}


NAMES = ("tenant", "channel", "provider", "templateId")


def long_names(count: int, first: int = 0, names: Sequence[str] = NAMES) -> list[Record]:
    """Statuses that each are of a group of their own, with the longest names there can be."""

    def name(kind: str, number: int) -> str:
        # of four bytes each, and hard to compress
        chance = random.Random(f"{kind} {number}")
        return f"{number:06d}" + "".join(chr(chance.randrange(0x20000, 0x2A000)) for _ in range(250))

    return [
        status(
            "FAILED",
            f"m-{first + number}",
            timestamp=NOON,
            **{kind: name(kind, first + number) for kind in names},
        )
        for number in range(count)
    ]


def test_no_row_is_larger_than_a_broker_takes() -> None:
    """Whatever names producers choose; nothing is lost by it, and each changed cell is told of once."""
    partition = Partition()
    partition.say(*long_names(600))
    partition.say(*long_names(10, 600))
    partition.say(*(status("SENT", f"n-{n}", timestamp=NOON, provider=f"p-{n}") for n in range(3_000)))

    rows = partition.stored["pending_stats"]
    assert max(map(len, rows.values())) <= 1 << 20
    assert max(len(PENDING_STATS.decode(row).cells) for row in rows.values()) <= 1_000
    assert partition.totals().total_messages == 3_610
    for n in range(10):
        partition.ask(tick(NOON + n))
    told = [(row.json["granularity"], row.json["provider"]) for row in partition.outputs["delivery.stats"]]
    assert len(told) == len(set(told)) == 2 * 3_610


def test_what_is_added_up_at_once_counts_like_what_waits() -> None:
    """The same cells, be the changes too large to wait or not."""
    said = long_names(500, names=("tenant", "channel", "templateId"))
    at_once, waits = Partition().say(*said), Partition()
    for at in range(0, len(said), 100):
        waits.say(*said[at : at + 100])

    assert at_once.cells() == waits.cells()
    heads = [PENDING_STATS.decode(part.stored["pending_stats"][HEAD]) for part in (at_once, waits)]
    assert [head.end - head.first for head in heads] == [0, 5]


def grouped(number: int) -> dict[str, str]:
    """One of so many groups, of as many providers."""
    return {"provider": f"p-{number}", "templateId": f"t-{number}", "channel": "sms"}


@pytest.mark.parametrize("seed", range(4))
def test_groups_that_a_window_has_no_room_for_count_as_one(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `other`, whenever they come and go; so of each counter the groups add up to the whole."""
    monkeypatch.setattr("streams.domain.statistics.MOST_GROUPS", 5)
    chance = random.Random(seed)
    partition = Partition(
        tables=TABLES._replace(counting=COUNTING._replace(most_entries=chance.choice([0, 30])))
    )
    for number in range(300):
        message = chance.randrange(60)
        name = chance.choice(["QUEUED", "SENT", "DELIVERED", "FAILED", "READ"])
        at = NOON + chance.randrange(3) * 60_000
        # some messages change their group
        group = grouped(message % 20 if chance.random() < 0.9 else chance.randrange(20))
        partition.say(status(name, f"m-{message}", timestamp=at + number, receipt=at + number, **group))
    partition.ask(tick(NOON + HOUR_MS))

    windows: dict[tuple[bytes, int], dict[bytes, list[Cell]]] = {}
    for packed, value in partition.stored["period_stats"].items():
        key, cell = Key.unpack(packed), PERIOD_STATS.decode(value)
        assert min(cell.counts.values(), default=0) >= 0, (key, cell)
        windows.setdefault((key.granularity, key.start), {}).setdefault(key.level, []).append(cell)
    assert len(windows) >= 5
    for levels in windows.values():
        (whole,) = levels[WHOLE]
        for level in (PROVIDER, FULL):
            assert len(levels[level]) <= 6
            total = Cell()
            for cell in levels[level]:
                sum_up(total, cell)
            assert {number: n for number, n in total.counts.items() if n} == whole.counts


def test_what_says_how_many_groups_a_window_has_goes_with_the_window() -> None:
    """Those of all time stay."""
    partition = Partition(tables=OFTEN).say(status("SENT", timestamp=NOON, provider="a"))
    partition.ask(tick(NOON + 731 * DAY_MS))

    rows = [row for row in partition.stored["pending_stats"] if row.startswith(groups_row(b""))]
    assert rows == [groups_row(window_key(b"a", level, 0)) for level in (FULL, PROVIDER)]
