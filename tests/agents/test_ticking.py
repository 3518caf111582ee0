"""Rules of the ticker: partitions know how late it is, and no single clock can hurry them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from agents.ticking import Ticker
from streams.engine.calls import Calls
from streams.engine.units import Output
from tables.formats import HEAD, PENDING_STATS
from tests.agents.flowing import COUNTING, NOON, TABLES, Partition, Record, status

DAY_MS = 86_400_000
OFTEN = TABLES._replace(counting=COUNTING._replace(most_entries=0))


@dataclass
class Here:
    """A worker with one partition whose lane applies requests as soon as they are produced.

    Attributes:
        applied: the greatest timestamp of a callback that was applied.
        behind: where the lane has come to, if it lags.
    """

    partition: Partition = field(default_factory=lambda: Partition(tables=OFTEN))
    applied: int | None = None
    behind: int | None = None
    ticks: list[int] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    partitions: int = 1

    def held(self) -> frozenset[int]:
        return frozenset({0})

    def clock(self, partition: int, now: int) -> int:
        return now if self.behind is None else min(now, self.behind)

    def latest(self, topic: str) -> int | None:
        assert topic == "delivery.statuses"
        return self.applied

    def get(self, table: Any, partition: int, key: bytes) -> Any:
        stored = self.partition.stored.get(table.name, {}).get(key)
        return None if stored is None else table.format.decode(stored)

    async def produce(self, partition: int, records: list[Output]) -> None:
        for key, value, headers, at in records:
            assert at is not None
            self.ticks.append(at)
            self.partition.ask(Record(value, key, at, headers))
            self.calls.tell(self.partition.told)

    def say(self, at: int) -> Here:
        """Apply a callback that came at a time."""
        self.partition.say(status("SENT", f"m-{at}", timestamp=at, receipt=at))
        self.applied = max(at, self.applied or 0)
        return self

    async def tick(self, now: int) -> int:
        """Let the ticker look; return what time the partition knows."""
        ticker = Ticker(
            self,  # type: ignore[arg-type]
            COUNTING.pending_stats,
            "delivery.statuses",
            self.calls,
            self.produce,
        )
        await ticker.tick(now)
        return PENDING_STATS.decode(self.partition.stored["pending_stats"][HEAD]).time


@pytest.mark.parametrize(
    ("now", "applied", "behind", "time"),
    [
        (NOON + 5, NOON, None, NOON),  # nothing is known of what will come in between
        (NOON + 365 * DAY_MS, NOON, None, NOON),  # the worker's clock is wrong
        (NOON, NOON + 365 * DAY_MS, None, NOON),  # a producer's is
        (NOON + DAY_MS, NOON + DAY_MS, NOON - DAY_MS, NOON - DAY_MS),  # much waits still
    ],
)
async def test_no_single_clock_can_hurry_time(now: int, applied: int, behind: int | None, time: int) -> None:
    """It is as late as the worker's clock says, and a callback, and the lane has come to."""
    here = Here(behind=behind).say(applied)

    assert await here.tick(now) == time


async def test_time_is_told_when_something_has_changed_or_a_minute_has_gone_by() -> None:
    """What has changed is written and told of; of nothing, that time goes on is enough."""
    here = Here().say(NOON)
    for seconds, changes in ((0, False), (1, False), (2, True), (59, False), (60, False), (61, False)):
        if changes:
            here.say(NOON + seconds * 1_000)
        here.applied = NOON + seconds * 1_000
        await here.tick(NOON + seconds * 1_000)

    # the cells are written by each unit here; what is marked as changed is what the second tick tells
    assert here.ticks == [NOON, NOON + 2_000, NOON + 60_000]


async def test_a_worker_that_has_applied_nothing_tells_no_later_time() -> None:
    """It knows no clock but its own; but what has changed before it took over is written and told of."""
    here = Here(partition=Partition()).say(NOON)
    await here.tick(NOON)
    here.partition.say(status("READ", timestamp=NOON + 1, receipt=NOON + 1))
    here.applied = None

    assert await here.tick(NOON + 9 * DAY_MS) == NOON
    assert here.ticks == [NOON, NOON]
    assert len(here.partition.outputs["delivery.stats"]) == 4


async def test_time_goes_on_by_an_hour_at_most() -> None:
    """A clock that is wrong for a while does little harm."""
    here = Here().say(NOON)
    await here.tick(NOON)
    here.say(NOON + 365 * DAY_MS)

    assert await here.tick(NOON + 365 * DAY_MS) == NOON + 3_600_000


async def test_a_lane_whose_time_is_not_known_is_not_asked_for_ever() -> None:
    """It lags behind what it has never seen: its time stays, and each round ends."""
    here = Here().say(NOON)
    await here.tick(NOON)
    here.say(NOON + 5)
    here.behind = 0

    assert await here.tick(NOON + 5) == NOON
    assert len(here.ticks) == 2


async def test_it_is_told_until_all_is_gone_that_is_kept_no_longer() -> None:
    """One unit lets go of some thousand cells."""
    here = Here()
    here.partition.say(*(status("SENT", f"m-{n}", timestamp=NOON, provider=f"p-{n}") for n in range(3_000)))
    here.say(NOON + 100 * DAY_MS)

    await here.tick(NOON + 100 * DAY_MS)

    assert len(here.ticks) == 3


async def test_what_was_noted_does_not_pile_up_while_callbacks_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than comes between two ticks is told in further ticks at once."""
    monkeypatch.setattr("agents.publishing.MOST_TOLD", 1)
    here = Here().say(NOON)
    for hour in range(30):
        here.say(NOON + hour * 3_600_000)
    flowing = Partition(tables=TABLES, stored=here.partition.stored)
    ask = here.partition.ask

    def and_more(*records: Record) -> Partition:
        ask(*records)
        # some is pending again before the ticker looks
        return flowing.say(status("SENT", f"n-{len(here.ticks)}", timestamp=NOON, receipt=NOON))

    monkeypatch.setattr(here.partition, "ask", and_more)
    await here.tick(NOON)

    head = PENDING_STATS.decode(here.partition.stored["pending_stats"][HEAD])
    assert head.end > head.first
    assert 0 < head.untold_end - head.untold <= 16
