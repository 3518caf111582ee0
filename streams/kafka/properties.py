"""The configuration of an embedded broker: small, alone or in a cluster, and with Kafka's own semantics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

NODE_ID = 1
#: 16 bytes in URL-safe base64 without padding, as Kafka's format asks for: 22 characters, the last of AQgw.
CLUSTER_ID = "delivery-tracker-one-A"

#: The largest record: the 10 MB callback that becomes a dead letter, with room for batches around it.
MESSAGE_MAX_BYTES = 17 * 2**20

#: All that does not depend on where the broker runs; docker-compose.yml repeats it.
FIXED = {
    "process.roles": "broker,controller",
    "node.id": NODE_ID,
    "controller.listener.names": "CONTROLLER",
    # Topics are made from the catalogue; a typo must fail, not make a topic.
    "auto.create.topics.enable": "false",
    # One node holds every replica there is.
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # 50 partitions each by default: most of the time of the first join and the first transaction.
    "offsets.topic.num.partitions": 8,
    "transaction.state.log.num.partitions": 8,
    "share.coordinator.state.topic.num.partitions": 2,
    # A group forms soon, yet with the processes that start together in it; faults in tests may use sessions
    # shorter than the 6 s that Kafka allows.
    "group.initial.rebalance.delay.ms": 300,
    "group.min.session.timeout.ms": 1000,
    "message.max.bytes": MESSAGE_MAX_BYTES,
    "replica.fetch.max.bytes": MESSAGE_MAX_BYTES,
    "socket.request.max.bytes": 6 * MESSAGE_MAX_BYTES,
    # Compaction shows within a second; its buffer is 128 MiB by default, a quarter of this heap.
    "log.cleaner.backoff.ms": 500,
    "log.cleaner.dedupe.buffer.size": 32 * 2**20,
    # Indexes are sparse files of 10 MiB by default, and with the first page of each comes all that the disk
    # reads ahead: where that is megabytes, so many zeros for two files a partition. This is enough for
    # segments of 85 MiB and more.
    "log.index.size.max.bytes": 256 * 2**10,
    # Two cores are shared with what is measured or tested.
    "num.network.threads": 2,
    "num.io.threads": 4,
}


#: Copies of a partition, where there are as many nodes.
MOST_REPLICAS = 3


class Listener(NamedTuple):
    """A further listener on 127.0.0.1: clients that come by it are referred to `advertised` again."""

    port: int
    advertised: int


@dataclass(frozen=True, slots=True)
class Node:
    """One node, which is a broker and a controller at once.

    Attributes:
        id: from 1 on.
        controller_ports: of all nodes in the order of their ids; () for a node that is alone and may choose.
        heap_mb: the greatest size of its Java heap, MiB.
        listeners: further ones, by name.
    """

    id: int = NODE_ID
    controller_ports: tuple[int, ...] = ()
    heap_mb: int = 512
    listeners: Mapping[str, Listener] = field(default_factory=dict)


ALONE = Node()


def render(log_dir: Path, port: int, node: Node) -> str:
    """Return the text of `server.properties`."""
    own = {"PLAINTEXT": Listener(port, port), **node.listeners}
    controller_port = node.controller_ports[node.id - 1]
    voters = enumerate(node.controller_ports, start=1)
    placed = {
        "node.id": node.id,
        "listeners": _addresses(
            {**{name: at.port for name, at in own.items()}, "CONTROLLER": controller_port}
        ),
        "advertised.listeners": _addresses({name: at.advertised for name, at in own.items()}),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in (*own, "CONTROLLER")),
        # A fixed voter list keeps the ports out of the formatted directory: the next start may choose others.
        "controller.quorum.voters": ",".join(f"{id_}@127.0.0.1:{at}" for id_, at in voters),
        "log.dirs": log_dir,
    }
    every = FIXED | replication(len(node.controller_ports)) | placed
    return "".join(f"{name}={value}\n" for name, value in every.items())


def replication(nodes: int) -> dict[str, int]:
    """Return the settings of a cluster of so many nodes: with three of them any one may fail."""
    replicas = min(nodes, MOST_REPLICAS)
    in_sync = max(1, replicas - 1)
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
