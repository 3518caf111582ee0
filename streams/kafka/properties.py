"""The configuration of the embedded broker: one node, small, and with Kafka's own semantics."""

from pathlib import Path

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


def render(log_dir: Path, port: int, controller_port: int) -> str:
    """Return the text of `server.properties`."""
    listener = f"PLAINTEXT://127.0.0.1:{port}"
    placed = {
        "listeners": f"{listener},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": listener,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        # A fixed voter list keeps the ports out of the formatted directory: the next start may choose others.
        "controller.quorum.voters": f"{NODE_ID}@127.0.0.1:{controller_port}",
        "log.dirs": log_dir,
    }
    return "".join(f"{name}={value}\n" for name, value in (placed | FIXED).items())
