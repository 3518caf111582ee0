"""What is odd is either refused or kept, and never ends a worker: the handlers, without a broker."""

import random

import pytest

from tests.faults.checker import check
from tests.faults.memory import PARTITIONS, START_MS, Logs

from .poison import KINDS, Poison


def test_there_are_forty_kinds_and_more() -> None:
    assert len({(one.stream, one.key, one.value, str(one.headers)) for one in KINDS}) == len(KINDS) > 40


@pytest.mark.parametrize("one", KINDS, ids=[one.name for one in KINDS])
def test_handlers_and_reference_agree_on(one: Poison) -> None:
    logs = Logs(random.Random(1))
    for partition in range(PARTITIONS):
        logs.append(f"delivery.{one.stream}", partition, START_MS, one.key, one.value, one.headers or ())

    logs.run(())

    report = check(logs.world())
    assert report.faults() == {}, str(report)
