import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from streams.kafka import cli, probe
from streams.kafka.cluster import EmbeddedCluster, nodes_of
from streams.kafka.errors import OtherCluster
from streams.kafka.properties import Listener, Node, render
from streams.kafka.topics import create_topics

ROOT = Path(__file__).parents[2]
TOPIC = SimpleNamespace(name="copied", partitions=2, config={})


def said(node, port=1000):
    return dict(line.split("=", 1) for line in render(Path("logs"), port, node).splitlines())


def leave_data(directory, *nodes):
    for node in nodes:
        (directory / node).mkdir(exist_ok=True)
        (directory / node / "server.properties").touch()


def test_one_of_three_copies_may_fail():
    """Topics, offsets and transactions are acknowledged by two of three brokers."""
    settings = said(Node(2, controller_ports=(1, 2, 3)))

    factors = {value for name, value in settings.items() if name.endswith("replication.factor")}
    in_sync = {value for name, value in settings.items() if name.endswith(("min.isr", "min.insync.replicas"))}
    assert (factors, in_sync) == ({"3"}, {"2"})
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:1,2@127.0.0.1:2,3@127.0.0.1:3"
    assert settings["node.id"] == "2"


def test_a_further_listener_refers_clients_to_its_advertised_port():
    """So a proxy in front of a broker stays in front of it."""
    settings = said(Node(1, (9,), listeners={"PROXIED": Listener(2000, advertised=3000)}))

    assert "PROXIED://127.0.0.1:2000" in settings["listeners"]
    assert "PROXIED://127.0.0.1:3000" in settings["advertised.listeners"]
    assert "PROXIED:PLAINTEXT" in settings["listener.security.protocol.map"]


def test_every_address_is_a_loopback_one():
    """Nothing of an embedded broker can be reached from another machine."""
    settings = said(Node(1, (1, 2, 3), listeners={"PROXIED": Listener(4, 5)}))

    for name in ("listeners", "advertised.listeners"):
        assert all("://127.0.0.1:" in address for address in settings[name].split(","))


@pytest.mark.parametrize(("nodes", "count"), [((), 0), (("",), 1), (("node-1", "node-2", "node-3"), 3)])
def test_a_directory_tells_how_many_nodes_it_is_of(tmp_path, nodes, count):
    """`kafka up` without --nodes starts what was there before."""
    leave_data(tmp_path, *nodes)

    assert nodes_of(tmp_path) == count
    assert len(EmbeddedCluster(tmp_path).brokers) == max(1, count)


def test_a_directory_of_another_cluster_is_refused_with_a_way_out(tmp_path):
    """Topics with one copy do not become topics with three."""
    leave_data(tmp_path, "")

    with pytest.raises(OtherCluster, match=r"a cluster of 1, not of 3\. Choose another --dir"):
        EmbeddedCluster(tmp_path, nodes=3)


def test_ports_follow_the_first_one(monkeypatch):
    """The usual ones are taken together or not at all."""
    assert cli._ports(2000, 3) == [2000, 2001, 2002]
    assert cli._ports(0, 3) == []
    monkeypatch.setattr(cli, "is_free", lambda port: True)
    assert cli._ports(None, 3) == [9092, 9093, 9094]
    monkeypatch.setattr(cli, "is_free", lambda port: port != 9093)
    assert cli._ports(None, 3) == []


@pytest.mark.kafka
async def test_a_cluster_outlives_one_of_its_brokers_and_takes_it_back(tmp_path):
    """What two of three have is acknowledged, and `up` starts the missing one where the others expect it."""
    data = tmp_path / "kafka"

    def run(*arguments):
        # a process of its own, which the brokers outlive
        command = [sys.executable, "-m", "streams.kafka.cli", *arguments, "--dir", data]
        ran = subprocess.run(command, cwd=ROOT, timeout=90, stdout=subprocess.PIPE, text=True, check=False)
        return ran.returncode, ran.stdout.splitlines()

    try:
        code, lines = run("up", "--nodes", "3", "--port", "0")
        assert code == 0 and "TRACKER_REPLICATION=3" in lines[-2]
        url = lines[-1]
        await create_topics(url, [TOPIC], replication=3)
        cluster = EmbeddedCluster(data)
        os.kill(cluster.statuses()[0].pid, signal.SIGKILL)
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap.split(","), acks="all") as producer:
            await producer.send_and_wait("copied", b"value", partition=0)

        code, lines = run("status")
        assert code == 1 and lines[0].startswith("node 1: does not run") and lines[-1] == url
        assert run("up")[1][-1] == url
        assert run("status")[0] == 0
        assert await copies(cluster, "copied") == {3}
    finally:
        stopped = run("down")
    assert stopped[1][0].startswith("Stopped (pid ")
    assert not any(probe.serves(broker.port) for broker in cluster.brokers)
    assert run("reset")[0] == 0 and not data.exists()


async def copies(cluster, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap.split(","))
    await admin.start()
    try:
        (described,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return {len(partition["replicas"]) for partition in described["partitions"]}
