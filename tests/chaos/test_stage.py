"""Workers that end by themselves are started again, and the reason is kept."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cluster import Cluster, Worker
from tests.faults.logs import Names

from .stage import LONGEST_RESTART_S, RESTART_S, YOUNG_S, Stage

NOBODY: Any = None


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stage(tmp_path: Path, clock: Clock) -> Iterator[Stage]:
    with Cluster(Names("127.0.0.1:1", "app", "p.", 1), tmp_path) as cluster:
        yield Stage(NOBODY, cluster, NOBODY, random.Random(1), NOBODY, now=clock)


@pytest.fixture
def worker(stage: Stage) -> Worker:
    """One that ends at once."""
    made = stage.cluster.worker("w0")
    made.program = ("-c", "raise ValueError('on purpose')")
    made.start()
    made.wait(30)
    return made


def pauses(stage: Stage, worker: Worker, clock: Clock, count: int) -> list[float]:
    """Return how long after each end the worker was started again."""
    found = []
    for _ in range(count):
        starts, ended = worker.starts, clock.now
        while worker.starts == starts:
            stage.supervise()
            clock.now += 0.5
        found.append(clock.now - 0.5 - ended)
        worker.wait(30)
        clock.now = ended + found[-1]
    return found


def test_a_worker_that_ends_soon_after_each_start_waits_longer(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    assert pauses(stage, worker, clock, 5) == [RESTART_S, 2, 4, LONGEST_RESTART_S, LONGEST_RESTART_S]


def test_a_worker_that_ran_for_a_while_is_started_soon(stage: Stage, worker: Worker, clock: Clock) -> None:
    pauses(stage, worker, clock, 3)
    clock.now += YOUNG_S

    assert pauses(stage, worker, clock, 1) == [RESTART_S]


def test_the_reason_is_the_first_exception_since_the_start(
    stage: Stage, worker: Worker, clock: Clock
) -> None:
    pauses(stage, worker, clock, 1)

    assert stage.own_exits == ["w0: exit code 1, ValueError: on purpose"]


def test_a_worker_that_a_fault_keeps_away_is_left_alone(stage: Stage, worker: Worker, clock: Clock) -> None:
    with stage.away(worker):
        for _ in range(20):
            stage.supervise()
            clock.now += 1
        assert worker.starts == 1
    assert worker.starts == 2
    assert stage.own_exits == []
