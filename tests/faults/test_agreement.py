"""The handlers and the reference must read the law alike; no broker, so that many seeds are cheap."""

import random

import pytest

from .checker import check
from .memory import PARTITIONS, START_MS, Logs
from .traffic import traffic


@pytest.mark.parametrize("seed", range(4))
def test_handlers_and_reference_agree(seed: int) -> None:
    """On hostile traffic, in units of any size and any interleaving, both say the same, byte for byte."""
    logs = Logs(random.Random(seed))

    logs.run(traffic(seed, 150, PARTITIONS, START_MS))

    report = check(logs.world())
    assert report.faults() == {}, str(report)
    assert report.consumed > 500
