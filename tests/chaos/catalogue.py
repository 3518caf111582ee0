"""Every kind of fault: how it is brought about, and from when its recovery counts.

A fault is a function of the stage. It does the harm, ends it, and returns what it did, in a few words. The
recovery counts from its end, unless it has itself waited for that (`Stage.recover`).
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streams.engine.failpoints import NAMES as FAILPOINTS
from tests.faults.cluster import EXIT_S, READY_S
from tests.faults.logs import TABLES
from tests.faults.traffic import HUGE_BYTES

from . import damage, poison
from .stage import BROKER_STOP_S, WORKERS, Stage

Act = Callable[[Stage], str]

HOUR_S, DAY_S = 3_600, 86_400
SUSPENDED_S = 15.0
#: So long a topic refuses what it is sent.
REFUSED_S = 10.0
ALL_DOWN_S = 70.0
TWO_DOWN_S = 15.0
SILENT_S = 15.0
#: Beyond the timeouts of requests.
SILENT_LONG_S = 45.0
WRONG_CLOCK_S = 20.0
#: As far as clocks may differ without harm, were it not for a topic that takes less.
AHEAD_S = 4


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        share: how often it comes, compared with others.
        nodes: the fewest brokers that it needs.
        possible: "", or why it cannot be done on this machine.
    """

    name: str
    act: Act
    share: int = 1
    nodes: int = 1
    possible: Callable[[], str] = lambda: ""


CATALOGUE: dict[str, Kind] = {}


def kind(
    name: str, share: int = 1, nodes: int = 1, possible: Callable[[], str] = lambda: ""
) -> Callable[[Act], Act]:
    def enter(act: Act) -> Act:
        CATALOGUE[name] = Kind(name, act, share, nodes, possible)
        return act

    return enter


# Workers


@kind("worker killed", share=10)
def worker_killed(stage: Stage) -> str:
    return _kill_worker(stage, emptied=False)


@kind("worker killed, directory lost")
def worker_lost(stage: Stage) -> str:
    return _kill_worker(stage, emptied=True)


def _kill_worker(stage: Stage, emptied: bool) -> str:
    worker, since = stage.any_worker(), time.monotonic()
    with stage.away(worker):
        worker.kill()
        if emptied:
            worker.empty()
        stage.pause(stage.rng.uniform(0, 2))  # what its supervisor takes
    stage.recover(since)
    return worker.name


@kind("worker killed within a commit", share=4)
def worker_killed_in_commit(stage: Stage) -> str:
    """SIGKILL between two steps of a transaction."""
    worker, point = stage.any_worker(), stage.rng.choice(FAILPOINTS)
    with stage.away(worker):
        worker.kill()
        worker.start(f"{point}:{stage.rng.randrange(1, 20)}")
        stage.until(lambda: not worker.alive, READY_S, f"{worker.name} killed at {point}")
        since = time.monotonic()
    stage.recover(since)
    return f"{worker.name} at {point}"


@kind("all workers killed")
def all_workers_killed(stage: Stage) -> str:
    workers, since = [stage.cluster.workers[name] for name in WORKERS], time.monotonic()
    with stage.away(*workers):
        for worker in workers:
            worker.send(signal.SIGKILL)
        for worker in workers:
            worker.wait(EXIT_S)
    stage.recover(since)
    return "at once"


@kind("worker suspended for 15 s", share=2)
def worker_suspended(stage: Stage) -> str:
    """Beyond its session, so that the group goes on without it."""
    worker, since = stage.any_worker(), time.monotonic()
    worker.send(signal.SIGSTOP)
    try:
        stage.recover(since)
        stage.pause(SUSPENDED_S - (time.monotonic() - since))
    finally:
        worker.send(signal.SIGCONT)
        worker.suspended = True
    return worker.name


@kind("worker restarted", share=6)
def worker_restarted(stage: Stage) -> str:
    worker, since = stage.any_worker(), time.monotonic()
    with stage.away(worker):
        stage.terminate(worker)
    stage.recover(since)
    return worker.name


@kind("worker joins and leaves", share=2)
def worker_joins(stage: Stage) -> str:
    extra, since = stage.worker("w3"), time.monotonic()
    extra.start()
    stage.recover(since)
    try:
        stage.pause(stage.rng.uniform(2, 6))
        stage.terminate(extra)
    finally:
        extra.kill()
        del stage.cluster.workers[extra.name]
    return extra.name


@kind("webhook sender killed", share=10)
def sender_killed(stage: Stage) -> str:
    worker = stage.any_worker()
    return f"{worker.name}'s" if worker.alive and worker.kill_sender() else f"{worker.name} had none"


# Clocks


def _wrong_clock(name: str, ahead_s: int) -> None:
    @kind(name)
    def wrong_clock(stage: Stage) -> str:
        worker = stage.any_worker()
        worker.set_clock(ahead_s)
        try:
            stage.pause(WRONG_CLOCK_S)
        finally:
            worker.set_clock(0)
        return worker.name


_wrong_clock("clock 2 h ahead for 20 s", 2 * HOUR_S)
_wrong_clock("clock 2 h behind for 20 s", -2 * HOUR_S)
_wrong_clock("clock 40 d ahead for 20 s", 40 * DAY_S)
_wrong_clock("clock 40 d behind for 20 s", -40 * DAY_S)


# Brokers


@kind("broker killed, one of three", share=4, nodes=3)
def broker_killed(stage: Stage) -> str:
    """The group must go on while it is away, and then it comes back."""
    node, since = stage.any_node(), time.monotonic()
    stage.brokers.kill(node)
    try:
        stage.recover(since)
        stage.pause(stage.rng.uniform(0, 10))
    finally:
        node.start()
    return f"node {node.node.id}"


@kind("broker killed and started again", share=4)
def broker_crashed(stage: Stage) -> str:
    node = stage.any_node()
    stage.brokers.kill(node)
    node.start()
    return f"node {node.node.id}"


@kind("broker suspended for 15 s", share=2)
def broker_suspended(stage: Stage) -> str:
    node = stage.any_node()
    stage.brokers.signal(node, signal.SIGSTOP)
    try:
        stage.pause(SUSPENDED_S)
    finally:
        stage.brokers.signal(node, signal.SIGCONT)
    return f"node {node.node.id}"


@kind("brokers restarted one by one", nodes=3)
def brokers_rolled(stage: Stage) -> str:
    for node in stage.nodes:
        node.stop(BROKER_STOP_S)
        node.start()
        stage.until(lambda: _in_sync(stage), READY_S, "all copies in sync")
    return f"{len(stage.nodes)} nodes"


def _in_sync(stage: Stage) -> bool:
    topics = stage.topics()
    return all(len(p.isrs) == len(p.replicas) for topic in topics.values() for p in topic.partitions.values())


@kind("two of three brokers down for 15 s", nodes=3)
def two_brokers_down(stage: Stage) -> str:
    """Too few copies: nothing can be written."""
    nodes = stage.rng.sample(stage.nodes, 2)
    stage.brokers.kill(*nodes)
    try:
        stage.pause(TWO_DOWN_S)
    finally:
        stage.brokers.cluster.start()
    return ", ".join(f"node {node.node.id}" for node in nodes)


@kind("all brokers down for 70 s")
def all_brokers_down(stage: Stage) -> str:
    stage.brokers.kill(*stage.nodes)
    try:
        stage.pause(ALL_DOWN_S)
    finally:
        stage.brokers.cluster.start()
    return f"{len(stage.nodes)}"


# Network


@kind("connections cut", share=24)
def connections_cut(stage: Stage) -> str:
    """Several times, each at a random moment of what the worker does."""
    name = stage.rng.choice(WORKERS)
    cuts = 0
    for _ in range(5):
        stage.pause(stage.rng.uniform(0, 0.5))
        cuts += sum(stage.brokers.network.cut(proxy) for proxy in stage.brokers.proxies[name])
    return f"{name}, {cuts} ends"


@kind("slow network for 15 s", share=2)
def network_slow(stage: Stage) -> str:
    name, delay_s = stage.rng.choice(WORKERS), stage.rng.choice((0.05, 0.2, 0.5))
    with _links(stage, name):
        for proxy in stage.brokers.proxies[name]:
            proxy.delay_s = delay_s
        stage.pause(SILENT_S)
    return f"{name}, {delay_s:g} s"


@kind("silent network for 15 s", share=2)
def network_silent(stage: Stage) -> str:
    return _silence(stage, SILENT_S)


@kind("silent network for 45 s")
def network_silent_long(stage: Stage) -> str:
    return _silence(stage, SILENT_LONG_S)


def _silence(stage: Stage, seconds: float) -> str:
    """Packets vanish, and no connection ends."""
    name = stage.rng.choice(WORKERS)
    with _links(stage, name):
        for proxy in stage.brokers.proxies[name]:
            proxy.silent = True
        stage.pause(seconds)
    stage.cluster.workers[name].suspended = True  # it may find itself fenced
    return name


@kind("one broker out of a worker's reach for 20 s", share=2, nodes=3)
def broker_unreachable(stage: Stage) -> str:
    name, number = stage.rng.choice(WORKERS), stage.rng.randrange(len(stage.nodes))
    proxy = stage.brokers.proxies[name][number]
    with _links(stage, name):
        proxy.refusing = True
        stage.brokers.network.cut(proxy)
        stage.pause(20)
    return f"{name}, node {number + 1}"


@contextlib.contextmanager
def _links(stage: Stage, name: str) -> Iterator[None]:
    """See that a worker's links pass again at the end of the block."""
    try:
        yield
    finally:
        for proxy in stage.brokers.proxies[name]:
            proxy.heal()


# Refusals


def _refusal(name: str, topics: Callable[[Stage], list[str]], **settings: object) -> None:
    @kind(name)
    def refused(stage: Stage) -> str:
        with stage.topic_settings(topics(stage), **settings):
            stage.pause(REFUSED_S)
        return f"{REFUSED_S:g} s"


def _refusal_by_time(name: str, topics: Callable[[Stage], list[str]]) -> None:
    """Workers' clocks are ahead by more than the topics take.

    A limit to the past (message.timestamp.before.max.ms) that refuses what is a moment old also refuses the
    markers that end transactions, and their coordinator does not try those again.
    """

    @kind(name)
    def refused(stage: Stage) -> str:
        workers = [stage.cluster.workers[worker] for worker in WORKERS]
        with stage.topic_settings(topics(stage), message_timestamp_after_max_ms=AHEAD_S * 500):
            for worker in workers:
                worker.set_clock(AHEAD_S)
            try:
                stage.pause(REFUSED_S)
            finally:
                for worker in workers:
                    worker.set_clock(0)
        return f"{REFUSED_S:g} s"


def _topic(name: str) -> Callable[[Stage], list[str]]:
    return lambda stage: [f"{stage.names.prefix}{name}"]


def _changelogs(*tables: str) -> Callable[[Stage], list[str]]:
    return lambda stage: [stage.names.changelog(table) for table in tables]


_refusal("events refused: size", _topic("events"), max_message_bytes=100)
_refusal("dead letters refused: size", _topic("dead-letters"), max_message_bytes=100)
_refusal("webhook outcomes refused: size", _topic("webhooks"), max_message_bytes=10)
_refusal("changelog refused: size", _changelogs("deliveries"), max_message_bytes=100)
_refusal("pending statistics refused: size", _changelogs("pending_stats"), max_message_bytes=100)
_refusal_by_time("events refused: timestamp", _topic("events"))
_refusal_by_time("changelogs refused: timestamp", _changelogs(*TABLES))
_refusal("too few copies of events", _topic("events"), min_insync_replicas=4)


# Records


@kind("header names that are not UTF-8", share=10)
def headers_invalid(stage: Stage) -> str:
    count = poison.produce_with_invalid_headers(stage.names, stage.rng)
    return f"{count} records"


@kind("records of 1 MB", share=8)
def records_of_1_mb(stage: Stage) -> str:
    return _large(stage, 10**6)


@kind("records of 10 MB", share=6)
def records_of_10_mb(stage: Stage) -> str:
    stage.huge += stage.names.partitions
    return _large(stage, HUGE_BYTES)


def _large(stage: Stage, size: int) -> str:
    noise = stage.rng.randbytes(size)
    stage.produce([("statuses", p, b"large", noise, None) for p in range(stage.names.partitions)])
    return f"{stage.names.partitions} records"


@kind("poison", share=12)
def poisoned(stage: Stage) -> str:
    """One record of each of the kinds, anywhere."""
    records = poison.records(stage.rng, stage.names.partitions)
    stage.produce(records)
    return f"{len(records)} records"


# Stores


def _damage(name: str, harm: damage.Harm) -> None:
    @kind(f"store damaged: {name}")
    def damaged(stage: Stage) -> str:
        worker = stage.any_worker()
        with stage.away(worker):
            worker.send(signal.SIGTERM)  # a clean end has the stores on the disk
            worker.wait(EXIT_S)
            harmed = damage.any_store(worker.data_dir, stage.rng)
            if harmed is None:
                return f"{worker.name} had none"
            harm(harmed, stage.rng)
            stage.unsure.paths.add(harmed)
            since = time.monotonic()
        stage.recover(since)
        return f"{worker.name}: {harmed.name}"


for _name, _harm in damage.HARMS.items():
    _damage(_name, _harm)


@kind("changelogs compacted while a worker was away")
def changelogs_compacted(stage: Stage) -> str:
    """Longer than tombstones live, so that what it has not seen deleted is deleted without a trace."""
    worker = stage.any_worker()
    stage.unsure.all = True
    eager = {
        "min_cleanable_dirty_ratio": "0.001",
        "delete_retention_ms": 1,
        "segment_ms": 1_000,
        "max_compaction_lag_ms": 1,
    }
    changelogs = [stage.names.changelog(table) for table in damage.TABLES]
    with stage.away(worker), stage.topic_settings(changelogs, **eager):
        worker.kill()
        stage.pause(30)
    return worker.name


def _no_mounts() -> str:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "a small disk takes root's mount"
    return damage.cannot_mount()


@kind("disk full for 15 s", possible=_no_mounts)
def disk_full(stage: Stage) -> str:
    worker = stage.any_worker()
    with stage.away(worker):
        worker.kill()
        stage.mount_small_disk(worker.data_dir, 64)
    stage.cluster.await_ready(worker)
    filler = worker.data_dir / "filler"
    damage.fill(filler)
    try:
        stage.pause(SUSPENDED_S)
    finally:
        filler.unlink(missing_ok=True)
    return worker.name
