"""How long windows are kept, and how their cells go."""

from __future__ import annotations

from streams.domain.statistics import CREATED_THEN, DAY, HOUR, MINUTE, Key, Windows
from tables.formats import HEAD, PENDING_STATS
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
