"""delivery.events as kafkajs reads it, where there is Node: the client that does not know zstd."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.conftest import Broker
from tests.faults.cluster import Cluster
from tests.test_system import fresh_names

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

HERE = Path(__file__).parent
MESSAGES = [f"kafkajs-{number}" for number in range(20)]
READ_S = 60


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with npm's packages, as they are locked."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no Node here")
    where = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json", "consumer.mjs"):
        shutil.copy(HERE / name, where)
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit"], cwd=where, check=True, capture_output=True
    )
    return where


async def request(cluster: Cluster) -> None:
    """Produce a track request for each message."""
    async with AIOKafkaProducer(bootstrap_servers=cluster.names.bootstrap) as producer:
        for message in MESSAGES:
            value = {
                "type": "track",
                "messageId": message,
                "phoneNumber": "+8210",
                "templateId": "t",
                "provider": "kt",
            }
            await producer.send(
                f"{cluster.names.prefix}requests", json.dumps(value).encode(), key=message.encode()
            )


def consumed(node: Path, cluster: Cluster, codec: str | None) -> subprocess.CompletedProcess[str]:
    topic = f"{cluster.names.prefix}events"
    command = ["node", "consumer.mjs", cluster.names.bootstrap, topic, str(len(MESSAGES))]
    return subprocess.run(
        [*command, *([codec] if codec else [])],
        cwd=node,
        capture_output=True,
        text=True,
        timeout=READ_S,
        check=False,
    )


@pytest.mark.parametrize(("compression", "codec"), [("gzip", None), ("zstd", "zstd")])
def test_kafkajs_reads_events(
    compression: str, codec: str | None, node: Path, kafka: Broker, tmp_path: Path
) -> None:
    """With gzip as it is, otherwise with the codec of the recipe, and not without."""
    extra = {"TRACKER_COMPRESSION": compression}
    with Cluster(fresh_names(kafka.bootstrap), tmp_path, extra=extra) as cluster:
        cluster.create_topics()
        worker = cluster.worker("w0")
        worker.start()
        cluster.await_ready(worker)
        asyncio.run(request(cluster))

        done = consumed(node, cluster, codec)
        refused = consumed(node, cluster, None) if codec else None

    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(f"{message} QUEUED" for message in MESSAGES)
    assert refused is None or f"{compression.upper()} compression not implemented" in refused.stderr


def test_the_recipe_of_the_docs_is_the_one_that_is_tested() -> None:
    """Whoever copies the codec from the docs has what was tried."""
    docs = (HERE.parents[1] / "docs/your-own-broker.md").read_text()
    (codec,) = [line for line in docs.splitlines() if line.startswith("CompressionCodecs[")]

    assert codec in (HERE / "consumer.mjs").read_text()
