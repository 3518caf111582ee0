"""A few faults of `make chaos` on one broker: nothing lost, doubled or wrong, and the group goes on."""

from pathlib import Path

import pytest

from tests.faults.runs import seed_from_env

from .catalogue import CATALOGUE
from .rounds import play
from .stage import Brokers

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(240)]

SHORT = ("broker killed and started again", "records of 1 MB", "poison")


def test_a_broker_dies_and_records_are_odd_under_load(tmp_path: Path) -> None:
    """The longer runs are `make chaos`."""
    seed = seed_from_env()
    print(f"FAULTS_SEED={seed}")
    with Brokers(1) as brokers:
        kinds = [CATALOGUE[name] for name in SHORT]
        played = play(brokers, tmp_path, seed, kinds, lambda _faults: True, print)
    print(played)

    assert played.clean, str(played)
    assert [trial.kind for trial in played.trials] == list(SHORT)
