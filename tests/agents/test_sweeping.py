"""Rules of the sweeper: all that is due is asked for, page by page, and nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from agents.sweeping import PAGE, Sweeper
from streams.engine.calls import Calls
from streams.engine.units import Output
from tables.formats import DELIVERIES
from tests.agents.flowing import NOON, TABLES, Partition, Record, listings, record, request, status

HOUR = 3_600_000
LATER = NOON + 1_000 * HOUR


@dataclass
class Here:
    """A worker with one partition whose lane applies requests as soon as they are produced.

    Attributes:
        pages: how many requests came at a time.
        deaf: whether the lane does nothing.
        behind: where the lane has come to, if it lags.
    """

    partition: Partition = field(default_factory=Partition)
    own: set[int] = field(default_factory=lambda: {0})
    pages: list[int] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    deaf: bool = False
    behind: int | None = None
    partitions: int = 1

    def held(self) -> frozenset[int]:
        return frozenset(self.own)

    def clock(self, partition: int, now: int) -> int:
        return now if self.behind is None else self.behind

    def scan_index(
        self,
        table: Any,
        partition: int,
        prefix: bytes,
        limit: int,
        after: bytes | None = None,
        before: bytes | None = None,
    ) -> list[tuple[bytes, bytes]]:
        stored = self.partition.stored.get("deliveries", {})
        return listings(stored, DELIVERIES, prefix, after, before)[:limit]

    async def produce(self, partition: int, records: list[Output]) -> None:
        assert partition == 0
        self.pages.append(len(records))
        if self.deaf:
            return
        for key, value, headers, at in records:
            assert key is not None
            assert at is not None
            self.partition.ask(Record(value, key, at, headers))
            self.calls.tell(self.partition.told)

    def sweeper(self) -> Sweeper:
        return Sweeper(self, TABLES.deliveries, self.calls, self.produce)  # type: ignore[arg-type]


def many(count: int, **said: Any) -> Partition:
    return Partition().ask(*(request(f"m-{n:05d}", createdAt=NOON, **said) for n in range(count)))


def statuses(partition: Partition) -> set[str]:
    return {DELIVERIES.decode(value).status for value in partition.stored["deliveries"].values()}


async def test_all_that_is_due_is_asked_for_in_pages() -> None:
    """Each page is committed before the next is asked for; nothing is asked for twice."""
    here = Here(many(2 * PAGE + 3))

    done = await here.sweeper().sweep(LATER)

    assert (done.expired, done.removed, done.complete) == (2 * PAGE + 3, 0, True)
    assert here.pages == [PAGE, PAGE, 3]
    assert statuses(here.partition) == {"EXPIRED"}
    assert here.partition.counts["repeated"] == 0


async def test_nothing_is_asked_for_before_its_time() -> None:
    """Of two messages the one that is due; a millisecond later the other."""
    here = Here(many(1))
    here.partition.ask(request("m-x", createdAt=NOON + 1))
    sweeper = here.sweeper()

    assert (await sweeper.sweep(NOON + 72 * HOUR - 1)).expired == 0
    assert (await sweeper.sweep(NOON + 72 * HOUR)).expired == 1
    assert (await sweeper.sweep(NOON + 72 * HOUR + 1)).expired == 1
    assert here.pages == [1, 1]


async def test_records_and_markers_are_removed_in_turn() -> None:
    """What expires today is removed a month later, and forgotten after another one."""
    here = Here(many(2))
    sweeper = here.sweeper()
    at = NOON + 72 * HOUR
    found = []
    for _ in range(3):
        done = await sweeper.sweep(at)
        found.append((done.expired, done.removed, len(here.partition.stored["deliveries"])))
        at += 720 * HOUR

    assert found == [(2, 0, 2), (0, 2, 2), (0, 0, 0)]


async def test_a_lane_that_lags_goes_by_what_it_has_come_to() -> None:
    """A callback that waits in Kafka is not too late."""
    here = Here(many(1), behind=NOON + 72 * HOUR - 1)
    sweeper = here.sweeper()

    assert (await sweeper.sweep(LATER)).expired == 0
    here.partition.say(status("DELIVERED", "m-00000", provider="solapi"))
    here.behind = None
    assert (await sweeper.sweep(NOON + 73 * HOUR)).expired == 0

    assert statuses(here.partition) == {"DELIVERED"}


async def test_a_sweep_that_has_no_more_time_says_that_more_is_due() -> None:
    """It ends between two pages, or does not begin while another one goes on."""
    here = Here(many(PAGE + 1))
    sweeper = here.sweeper()

    assert not (await sweeper.sweep(LATER, within_s=0.0)).complete
    async with sweeper._one:
        waited = await sweeper.sweep(LATER, within_s=0.01)
    assert (waited.expired, waited.complete, waited.partitions) == (0, False, {0})
    assert (await sweeper.sweep(LATER, within_s=60.0)).complete


async def test_partitions_take_turns() -> None:
    """A page of one, then a page of another: none waits until all of the other is done."""
    here = Here(many(PAGE + 1), own={0, 1}, partitions=2)
    turns: list[int] = []
    produce = here.produce

    async def take(partition: int, records: list[Output]) -> None:
        turns.append(partition)
        if partition == 1:
            here.calls.tell([(token, "repeated") for _, _, ((_, token),), _ in records])
        else:
            await produce(partition, records)

    await Sweeper(here, TABLES.deliveries, here.calls, take).sweep(LATER)  # type: ignore[arg-type]

    assert turns[:2] == [0, 1]


async def test_what_is_held_back_by_a_lag_is_still_due() -> None:
    """The sweep is not complete, though there was nothing to ask for."""
    done = await Here(many(1), behind=NOON).sweeper().sweep(LATER)

    assert (done.expired, done.complete) == (0, False)


async def test_a_partition_that_goes_ends_the_sweep() -> None:
    """It is somebody else's now; nothing more is asked for it."""
    here = Here(many(PAGE + 1))
    produce = here.produce

    async def and_goes(partition: int, records: list[Output]) -> None:
        await produce(partition, records)
        here.own.clear()

    done = await Sweeper(here, TABLES.deliveries, here.calls, and_goes).sweep(LATER)  # type: ignore[arg-type]

    assert (here.pages, done.complete) == ([PAGE], False)


async def test_a_lane_that_does_not_answer_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is passed over: the next sweep begins at the same place."""
    monkeypatch.setattr("agents.sweeping.ANSWER_S", 0.01)
    here = Here(many(2), deaf=True)
    sweeper = here.sweeper()

    assert not (await sweeper.sweep(LATER)).complete
    here.deaf = False
    assert (await sweeper.sweep(LATER)).expired == 2


async def test_what_comes_in_with_an_old_time_is_found_by_the_next_sweep() -> None:
    """Each begins with what is due the longest."""
    here = Here(many(1))
    sweeper = here.sweeper()
    await sweeper.sweep(LATER)

    here.partition.ask(request("m-old", createdAt=NOON - 9 * HOUR))

    assert (await sweeper.sweep(LATER)).expired == 1


async def test_the_request_of_a_timer_names_its_message_and_time() -> None:
    """A golden value: key, value and timestamp."""
    here = Here(many(1), deaf=True)
    produced: list[Output] = []

    async def take(partition: int, records: list[Output]) -> None:
        produced.extend(records)
        here.calls.tell([(token, "applied") for _, _, ((_, token),), _ in records])

    await Sweeper(here, TABLES.deliveries, here.calls, take).sweep(LATER)  # type: ignore[arg-type]

    ((key, value, _, at),) = produced
    assert (key, json.loads(value or b""), at) == (
        b"m-00000",
        {"type": "expire", "messageId": "m-00000"},
        LATER,
    )


def test_a_stop_is_no_timer_s(caplog: pytest.LogCaptureFixture) -> None:
    """What is stopped is due to be forgotten, not to expire."""
    partition = many(1).ask(record("m-00000", type="stop"))
    assert DELIVERIES.index is not None

    (entry,) = DELIVERIES.index(b"m-00000", partition.delivery("m-00000"))

    assert entry[:1] == b"\x81"
