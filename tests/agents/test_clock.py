"""When this machine's clock is believed."""

from __future__ import annotations

import logging

import pytest
from aiokafka.errors import KafkaTimeoutError

from agents.clock import EVERY_S, MOST_OFF_MS, Clock
from tests.agents.flowing import NOON

DAY_MS = 86_400_000


class World:
    """Three clocks: this machine's, the broker's, and one that is never set; whether a broker answers."""

    def __init__(self, off_ms: int = 0) -> None:
        self.ours, self.broker, self.passed = NOON + off_ms, NOON, 0.0
        self.asked = 0
        self.is_away = False
        self.clock = Clock(lambda: self.ours, lambda: self.passed, self.ask)

    async def ask(self) -> int:
        self.asked += 1
        if self.is_away:
            raise KafkaTimeoutError
        return self.broker

    def passes(self, seconds: float) -> None:
        self.ours += round(seconds * 1000)
        self.broker += round(seconds * 1000)
        self.passed += seconds


async def test_timestamps_follow_the_broker_while_the_clocks_differ() -> None:
    """A broker refuses records from the future, and removes those that look old."""
    world = World()
    assert world.clock.corrected() == world.ours
    await world.clock.agreed()
    world.ours += 40 * DAY_MS

    assert world.clock.corrected() == world.broker


async def test_a_clock_that_agrees_with_the_broker_s_is_believed() -> None:
    """Within five minutes; and compared but once a minute."""
    for off_ms in (0, MOST_OFF_MS, -MOST_OFF_MS):
        world = World(off_ms)
        for _ in range(12):
            assert await world.clock.agreed() == world.ours
            world.passes(5)
        assert world.asked == 1
        assert await world.clock.agreed() == world.ours
        assert world.asked == 2
        assert world.clock.offset_ms == off_ms


@pytest.mark.parametrize("off_ms", [30 * DAY_MS, MOST_OFF_MS + 1, -MOST_OFF_MS - 1, -40 * DAY_MS])
async def test_a_clock_that_is_wrong_is_not_believed_until_it_is_right(
    off_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Be it ahead or behind, for however long; that is logged now and then."""
    world = World(off_ms)
    with caplog.at_level(logging.WARNING):
        for _ in range(720):
            assert await world.clock.agreed() is None
            world.passes(5)
        assert world.clock.offset_ms == off_ms
        assert len(caplog.records) == 6
        world.ours -= off_ms
        assert await world.clock.agreed() == world.ours
        assert "agrees" in caplog.records[-1].getMessage()


async def test_a_jump_between_two_comparisons_is_noticed() -> None:
    """At once, for the clock that is never set says how much time has passed; and when it is over."""
    world = World()
    assert await world.clock.agreed() == NOON
    world.passes(5)
    world.ours += 30 * DAY_MS
    assert await world.clock.agreed() is None
    world.ours -= 30 * DAY_MS
    assert await world.clock.agreed() == world.ours


async def test_a_machine_that_slept_is_believed_as_soon_as_the_broker_agrees() -> None:
    """The clock that is never set stood still meanwhile."""
    world = World()
    assert await world.clock.agreed() == NOON
    world.ours += DAY_MS
    world.broker += DAY_MS
    assert await world.clock.agreed() == world.ours


async def test_without_a_broker_nothing_is_known_until_it_answered_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Later what it said last holds on; that it does not answer is logged now and then."""
    world = World()
    world.is_away = True
    for _ in range(120):
        assert await world.clock.agreed() is None
        world.passes(5)
    assert len(caplog.records) == 1
    assert world.clock.offset_ms is None
    world.is_away = False
    assert await world.clock.agreed() == world.ours
    world.is_away = True
    world.passes(10 * EVERY_S)
    assert await world.clock.agreed() == world.ours
    world.ours += 30 * DAY_MS
    assert await world.clock.agreed() is None
