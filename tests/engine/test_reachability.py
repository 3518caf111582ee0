"""How long the group's coordinator has been silent, by a clock of our own."""

from __future__ import annotations

import asyncio

import pytest

from streams.engine.reachability import Reachability


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Coordinator:
    """Answers heartbeats as it is told to."""

    def __init__(self) -> None:
        self.answers = True

    async def _do_heartbeat(self) -> bool:
        return self.answers


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_there_is_no_silence_before_the_first_answer(clock: Clock) -> None:
    """A worker that has not joined its group yet has no session that could end."""
    reachability = Reachability(clock)
    clock.now += 60

    assert reachability.silence_s() == 0


def test_silence_begins_at_the_last_answered_heartbeat(clock: Clock) -> None:
    """Heartbeats that fail do not count, and their results are passed on."""
    reachability, coordinator = Reachability(clock), Coordinator()
    reachability.observe(coordinator)

    assert asyncio.run(coordinator._do_heartbeat())
    clock.now += 3
    coordinator.answers = False
    assert not asyncio.run(coordinator._do_heartbeat())
    clock.now += 4

    assert reachability.silence_s() == 7


def test_an_answer_ends_the_silence(clock: Clock) -> None:
    """So does a join: its answer came from the coordinator."""
    reachability = Reachability(clock)
    reachability.answered()
    clock.now += 30

    reachability.answered()

    assert reachability.silence_s() == 0
