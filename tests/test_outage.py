"""What a worker answers and writes while its broker is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.kafka.broker import EmbeddedKafka
from tests.faults.cluster import Cluster, until
from tests.test_system import fresh_names

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

SESSION_S = 2
#: Templates that aiokafka repeats during an outage, each once in ten seconds, and what it says once.
MOST_LINES = 30


def test_a_worker_is_not_ready_while_the_broker_is_gone(tmp_path: Path) -> None:
    """It says so after a session timeout, in a short log, and is ready again when the broker is back."""
    with EmbeddedKafka(tmp_path / "kafka", say=print) as broker:
        cluster = Cluster(fresh_names(broker.bootstrap), tmp_path, session_timeout_s=SESSION_S)
        with cluster:
            cluster.create_topics()
            worker = cluster.worker("w0")
            worker.start()
            cluster.await_ready(worker)
            lines = len(worker.log.read_text().splitlines())

            broker.stop()
            until(lambda: worker.get("/ready")[0] == 503, 20, "it has noticed")
            _, problem = worker.get("/ready")
            # one that suppresses nothing writes 120 lines a second
            until(lambda: "more like this" in worker.last_words(), 30, "lines are suppressed")
            written = worker.log.read_text().splitlines()[lines:]
            broker.start()
            until(worker.ready, 60, "ready again")

        assert "the broker has not answered for" in problem["detail"]
        assert len(written) < MOST_LINES, "\n".join(written)
