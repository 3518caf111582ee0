"""The engine under simulated faults; `python -m tests.simulation` runs more, or replays one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.runs import SCHEDULES

ROOT = Path(__file__).parents[2]


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own: the hashes of strings, and with them the order of sets, are its own.

    It takes both processors, so tests that run beside it on a broker go first.
    """
    command = ["nice", sys.executable, "-m", "tests.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.timeout(900)
def test_no_schedule_loses_doubles_or_stalls() -> None:
    """Inputs are applied exactly once, in order; tables equal changelogs; work goes on after the faults."""
    done = simulate("--seeds", f"{SCHEDULES[0]}..{SCHEDULES[-1]}")

    assert done.returncode == 0, done.stdout


def test_the_same_seed_makes_the_same_run() -> None:
    """A failing seed can be replayed: two processes agree in everything that happens."""
    first, second = (simulate("--trace", "--seeds", "3..6").stdout for _ in range(2))

    assert "seed 6: trace " in first
    assert first == second


def test_an_evicted_worker_does_not_fence_the_new_holder_of_its_partition() -> None:
    """A worker that is cut off for longer than its session, and then repeats a unit, ends; no other does."""
    done = simulate("--trace", "--seeds", "11767")

    assert done.returncode == 0, done.stdout
    crashes = [line for line in done.stdout.splitlines() if " crash " in line]
    assert len(crashes) == 1
    assert "worker1.1" in crashes[0]
    assert "PartitionTaken" in crashes[0]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", MUTATIONS)
def test_a_fault_of_the_engine_is_found(fault: str) -> None:
    """A fault that is put back makes a schedule fail that passes without it."""
    done = simulate("--seeds", "1..300", "--mutation", fault, "--first")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "seed " in done.stdout
