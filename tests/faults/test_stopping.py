"""A worker that is told to stop goes by itself, whatever it is at."""

from pathlib import Path
from typing import Any

import pytest

from .cluster import READY_S, Cluster, until
from .logs import Names

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(120)]
#: A worker whose broker does not tell it where its lanes stand, and that is busy when it gives that up: the
#: consumer's thread is already closing when it hears of it.
ASKS = """
import asyncio, sys, time
from streams.__main__ import main
from streams.engine.transactions import PartitionTransactions
from streams.engine.transport import BatchConsumerThread

async def ask(thread, partitions):
    print("asks", file=sys.__stderr__, flush=True)
    await asyncio.Event().wait()

async def busy(*args):
    try:
        await on_rebalance(*args)
    finally:
        time.sleep(1)

on_rebalance, PartitionTransactions.on_rebalance = PartitionTransactions.on_rebalance, busy
BatchConsumerThread._stands = ask
sys.argv = ["streams", "worker"]
main()
"""


def test_a_stop_in_the_middle_of_a_rebalance_ends_the_worker(kafka: Any, names: Any, tmp_path: Path) -> None:
    """What the rebalance still asks of the consumer is given up, and the group is left in good order."""
    topics = Names(kafka.bootstrap, names.app_id, names.prefix, 4)
    with Cluster(topics, tmp_path) as cluster:
        cluster.create_topics()
        worker = cluster.worker("w0")
        worker.program = ["-c", ASKS]
        worker.start()
        until(
            lambda: "asks" in worker.log.read_text() and worker.get("/live")[0] == 200, READY_S, "a question"
        )

        worker.terminate()

    assert "Traceback" not in worker.log.read_text()
