"""Three workers that come, go, hang and die: Kafka holds what a sequential reading of the input gives."""

from pathlib import Path
from typing import Any

import pytest

from .logs import Names
from .runs import profile_from_env, seed_from_env, three_workers

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(1200)]
PARTITIONS = 4


@pytest.mark.parametrize("standbys", [0, 1], ids=["no standbys", "standbys"])
def test_no_fault_of_workers_loses_or_doubles_anything(
    kafka: Any, names: Any, tmp_path: Path, standbys: int
) -> None:
    """SIGKILL, SIGTERM, a suspension beyond the session timeout, joins and leaves, all under load."""
    profile, seed = profile_from_env(), seed_from_env()
    print(f"FAULTS_PROFILE={profile.name} FAULTS_SEED={seed}")
    topics = Names(kafka.bootstrap, names.app_id, names.prefix, PARTITIONS)

    result = three_workers(topics, tmp_path, seed, profile, print, standbys)

    print(result)
    assert result.ok, f"{result}\n{result.report}"
