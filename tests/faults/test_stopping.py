"""A worker that is told to stop goes by itself, whatever it is at."""

from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster
from .logs import Names

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(120)]
#: A worker that has SIGTERM just when it asks where its lanes stand, and whose broker does not answer it.
ASKS = """
import asyncio, os, signal, sys
from streams.__main__ import main
from streams.engine.transport import BatchConsumerThread

async def ask(thread, partitions):
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.Event().wait()

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

        code = worker.wait(60)

    assert code == 0, worker.last_words()
    assert "Traceback" not in worker.log.read_text()
