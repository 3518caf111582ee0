"""One worker, killed at any moment: what Kafka holds is what a sequential reading of the input gives."""

from pathlib import Path
from typing import Any

import pytest

from .logs import Names
from .runs import profile_from_env, seed_from_env, single_worker

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(1200)]
PARTITIONS = 4


@pytest.mark.parametrize("empties", [False, True], ids=["directory kept", "directory lost"])
def test_no_kill_loses_or_doubles_anything(kafka: Any, names: Any, tmp_path: Path, empties: bool) -> None:
    """SIGKILL at the steps of a commit and at random; stores and views are judged too."""
    profile, seed = profile_from_env(), seed_from_env()
    print(f"FAULTS_PROFILE={profile.name} FAULTS_SEED={seed}")
    topics = Names(kafka.bootstrap, names.app_id, names.prefix, PARTITIONS)

    result = single_worker(topics, tmp_path, seed, profile, print, empties=empties)

    print(result)
    assert result.ok, f"{result}\n{result.report}"
