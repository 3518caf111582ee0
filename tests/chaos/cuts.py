"""Logs that end before the group's offset: records that are produced afterwards must not be lost in silence.

The checker reads logs from their beginning, so these cuts have a judgement of their own: each message that is
produced after the cut has its event. Where workers refuse the log, its refusal names the remedy, which is
applied first.
"""

import contextlib
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.topics import placed
from tests.faults.cluster import Cluster, FaultRunError
from tests.faults.load import Load
from tests.faults.logs import Names, read_topic

from .rounds import Round, Trial, forget_topics
from .stage import PARTITIONS, WORKERS, Brokers, Progress, Say, Stage, Stalled

BEFORE, AFTER = 400, 200
WITHIN_S = 90.0
GONE_S = 30.0
STREAM = "statuses"

#: What a worker that refuses such a log says.
REFUSAL = "but the log ends at"

Act = Callable[[Stage], None]


@dataclass(frozen=True)
class Cut:
    """One way to make the log of STREAM shorter than the group's offset.

    Attributes:
        prepare: comes before the topics are created.
        is_refused: whether the workers stop until an operator applies the remedy.
    """

    prepare: Act
    cut: Act
    nodes: int = 1
    is_refused: bool = False


def play_cut(brokers: Brokers, directory: Path, seed: int, name: str, say: Say) -> Round:
    """Try one cut on an application of its own."""
    cut = CUTS[name]
    unique = f"chaos-{uuid.uuid4().hex[:8]}"
    names = Names(brokers.cluster.bootstrap, unique, f"{unique}.", PARTITIONS)
    cluster = Cluster(names, directory, replication=brokers.cluster.replication)
    trial, began = Trial(name, {}), time.monotonic()
    played = Round(seed, [trial])
    brokers.heal()
    with cluster, contextlib.closing(Progress(names)) as progress:
        stage = Stage(brokers, cluster, Load(names, seed, 1.0), random.Random(seed), progress)
        try:
            cut.prepare(stage)
            cluster.create_topics()
            _try(stage, cut, trial)
        except (Stalled, FaultRunError, KafkaException) as error:
            trial.problem = str(error)
        finally:
            brokers.heal()
    trial.own_exits = stage.own_exits
    played.seconds = time.monotonic() - began
    say(f"      {name}: {trial.problem or f'recovered after {trial.recovered_after_s:.1f} s'}")
    forget_topics(brokers, names)
    return played


def _try(stage: Stage, cut: Cut, trial: Trial) -> None:
    for name in WORKERS:
        stage.worker(name).start()
    produce(stage.names, "before", BEFORE)
    stage.until(lambda: not _without_event(stage.names, "before", BEFORE), WITHIN_S, "events before the cut")
    cut.cut(stage)
    produce(stage.names, "after", AFTER)
    if cut.is_refused:
        refusals = stage.own_exits
        stage.until(lambda: any(REFUSAL in why for why in refusals), WITHIN_S, f"a worker's '{REFUSAL}'")
        read_again(stage)
    since = time.monotonic()
    try:
        stage.until(lambda: not _without_event(stage.names, "after", AFTER), WITHIN_S, "events after the cut")
        trial.recovered_after_s = time.monotonic() - since
    except Stalled:
        missing = _without_event(stage.names, "after", AFTER)
        trial.problem = f"{len(missing)} of {AFTER} without an event; {stage.diagnosis()}"
        ready = all(worker.ready() for worker in stage.cluster.alive)
        if ready:  # nobody would ever look for them
            trial.lost = sorted(missing)


def produce(names: Names, prefix: str, count: int, **settings: Any) -> None:
    """Produce a status for each of so many messages."""
    producer = Producer({"bootstrap.servers": names.bootstrap, "log_level": 0, **settings})
    for n in range(count):
        message_id = f"{prefix}-{n}"
        value = json.dumps({"messageId": message_id, "status": "SENT"}).encode()
        producer.produce(names.input(STREAM), value=value, key=message_id.encode())
    if producer.flush(60):
        raise FaultRunError(f"the statuses {prefix} could not be produced")


def _without_event(names: Names, prefix: str, count: int) -> set[str]:
    log = read_topic(names, f"{names.prefix}events")
    told = {(record.key or b"").decode() for records in log.values() for record in records}
    return {f"{prefix}-{n}" for n in range(count)} - told


def _nothing(_stage: Stage) -> None:
    """The topics are made as always."""


def recreate(stage: Stage) -> None:
    """Delete the topic under the workers, and make it again."""
    admin = AdminClient({"bootstrap.servers": stage.names.bootstrap, "log_level": 0})
    topic = stage.names.input(STREAM)
    admin.delete_topics([topic], request_timeout=GONE_S)[topic].result()
    stage.until(lambda: topic not in admin.list_topics(timeout=10).topics, GONE_S, "the topic gone")
    stage.cluster.create_topics()


def two_copies(stage: Stage) -> None:
    """Make the topic with two copies, on nodes 1 and 2, of which one may lead that lacks the end."""
    admin = AdminClient({"bootstrap.servers": stage.names.bootstrap, "log_level": 0})
    topic = stage.names.input(STREAM)
    (config,) = (one.config for one in placed(stage.names.prefix, PARTITIONS) if one.name == topic)
    unclean = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    made = NewTopic(topic, PARTITIONS, replica_assignment=[[1, 2]] * PARTITIONS, config={**config, **unclean})
    admin.create_topics([made], request_timeout=GONE_S)[topic].result()


def truncate(stage: Stage) -> None:
    """Let a broker lead that was away for the last records; the group has processed them."""
    first, second, _third = stage.nodes
    stage.brokers.kill(second)
    produce(stage.names, "cut", BEFORE)
    stage.until(lambda: not _without_event(stage.names, "cut", BEFORE), WITHIN_S, "events to be cut")
    stage.brokers.kill(first)
    second.start()
    stage.until(lambda: _leaders(stage) == {2}, WITHIN_S, "an unclean leader")
    first.start()


def _leaders(stage: Stage) -> set[int]:
    return {p.leader for p in stage.topics()[stage.names.input(STREAM)].partitions.values()}


def read_again(stage: Stage) -> None:
    """Apply the remedy: stop all workers, and reset the group's offsets to the beginning."""
    workers = list(stage.cluster.workers.values())
    with stage.away(*workers):
        for worker in workers:
            worker.kill()
        stage.until(lambda: _reset(stage.names), WITHIN_S, "the group's offsets reset")


def _reset(names: Names) -> bool:
    """Return whether the broker took the offsets: not while the group has members."""
    group = Consumer({"bootstrap.servers": names.bootstrap, "group.id": names.app_id, "log_level": 0})
    try:
        beginning = [TopicPartition(names.input(STREAM), p, 0) for p in range(names.partitions)]
        group.commit(offsets=beginning, asynchronous=False)
    except KafkaException:
        return False
    finally:
        group.close()
    return True


CUTS: dict[str, Cut] = {
    "input topic deleted and recreated": Cut(_nothing, recreate),
    "log truncated by an unclean election": Cut(two_copies, truncate, nodes=3, is_refused=True),
}


def cuts_for(nodes: int) -> Iterator[str]:
    """Yield the names of the cuts that so many brokers allow."""
    return (name for name, cut in CUTS.items() if cut.nodes <= nodes)
