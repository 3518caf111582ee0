"""Logs that end before where the group stands: what is written after that must not be lost in silence.

The checker reads logs from their beginning, so these have a judgement of their own: each message that is
produced after the cut has its event, or the workers say what they wait for.
"""

import contextlib
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer
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

#: Makes the log of STREAM shorter than the group's position, with the stage's help.
Cut = Callable[[Stage], None]


def play_cut(brokers: Brokers, directory: Path, seed: int, name: str, say: Say) -> Round:
    """Try one cut on an application of its own."""
    prepare, cut = CUTS[name]
    unique = f"chaos-{uuid.uuid4().hex[:8]}"
    names = Names(brokers.cluster.bootstrap, unique, f"{unique}.", PARTITIONS)
    cluster = Cluster(names, directory, replication=brokers.cluster.replication)
    trial, began = Trial(name, {}), time.monotonic()
    played = Round(seed, [trial])
    brokers.heal()
    with cluster, contextlib.closing(Progress(names)) as progress:
        stage = Stage(brokers, cluster, Load(names, seed, 1.0), random.Random(seed), progress)
        try:
            prepare(stage)
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
    cut(stage)
    produce(stage.names, "after", AFTER)
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


#: By name: what prepares the topics, and the cut.
CUTS: dict[str, tuple[Cut, Cut]] = {
    "input topic deleted and recreated": (_nothing, recreate),
    "log truncated by an unclean election": (two_copies, truncate),
}


def cuts_for(nodes: int) -> Iterator[str]:
    for name, (prepare, _cut) in CUTS.items():
        if nodes >= 3 or prepare is _nothing:
            yield name
