"""Assignments of a group leader that does not know all topics."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from faust.exceptions import ConsistencyError
from faust.types import TP

from streams.engine.transactions import PartitionTransactions

INPUTS, CHANGELOG = ("requests", "statuses"), "counts-changelog"


def transactions() -> Any:
    """The transactions of an app with two inputs and a table."""
    app = SimpleNamespace(
        lanes=SimpleNamespace(topics=INPUTS),
        tables={"counts": SimpleNamespace(changelog_topic_name=CHANGELOG)},
        assignor=SimpleNamespace(is_standby=lambda tp: False),
    )
    transport: Any = SimpleNamespace(app=app)
    nobody: Any = None
    return PartitionTransactions(transport, consumer=nobody, producer=nobody)


@pytest.mark.parametrize("missing", [*INPUTS, CHANGELOG])
async def test_a_partition_without_one_of_its_topics_ends_the_worker(missing: str) -> None:
    """The topic may have been deleted and created again: the worker would be ready and never read it."""
    assigned = {TP(topic, 3) for topic in (*INPUTS, CHANGELOG)} - {TP(missing, 3)}

    with pytest.raises(ConsistencyError, match=missing):
        await transactions().on_rebalance(assigned, set(), set())
