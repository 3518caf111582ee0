"""A worker that is told to stop goes by itself, whatever it is at."""

import signal
from pathlib import Path
from typing import Any

import pytest

from .cluster import READY_S, Cluster, Worker, until
from .logs import Names, members

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(120)]

#: What these workers are made of, each with something that takes as long as the test needs.
HEAD = """
import asyncio, sys, time
from aiokafka.client import AIOKafkaClient
from streams.__main__ import main
from streams.engine.hosting import StreamApp
from streams.engine.lanes import Lanes
from streams.engine.transactions import PartitionTransactions
from streams.engine.transport import BatchConsumerThread

def say(what):
    print(what, file=sys.__stderr__, flush=True)
"""
TAIL = """
sys.argv = ["streams", "worker"]
main()
"""
#: The broker does not tell it where its lanes stand, and it is busy when it gives that up: the consumer's
#: thread is already closing when it hears of it.
ASKS = """
async def ask(thread, partitions):
    say("in a rebalance")
    await asyncio.Event().wait()

async def busy(*args):
    try:
        await on_rebalance(*args)
    finally:
        time.sleep(1)

on_rebalance, PartitionTransactions.on_rebalance = PartitionTransactions.on_rebalance, busy
BatchConsumerThread._stands = ask
"""
#: It asks where its lanes stand when the consumer's thread takes no more questions, and when it has ended.
ASKS_LATE = """
async def late(thread, partitions):
    say("in a rebalance")
    while not thread.method_queue.should_stop:
        await asyncio.sleep(0)
    return await stands(thread, partitions)

stands, BatchConsumerThread.stands = BatchConsumerThread.stands, late
"""
ASKS_TOO_LATE = ASKS_LATE.replace("method_queue.should_stop", "thread_loop.is_closed()")
#: Its lanes end when it has heard of a rebalance.
WAITS = """
rebalanced = asyncio.Event()

def told(app):
    on_rebalance(app)
    rebalanced.set()

async def wait(lanes):
    say("stopping")
    await rebalanced.wait()
    await stop(lanes)

async def checked(client):
    if client._loop is not asyncio.get_running_loop():
        say("closed in a loop of others")
    await close(client)

on_rebalance, StreamApp._on_rebalance_when_stopped = StreamApp._on_rebalance_when_stopped, told
stop, Lanes.stop = Lanes.stop, wait
close, AIOKafkaClient.close = AIOKafkaClient.close, checked
"""
#: It cannot open its lanes.
FAILS = """
async def fail(transactions, *args):
    raise RuntimeError("on purpose")

PartitionTransactions.on_rebalance = fail
"""


@pytest.mark.parametrize("question", [ASKS, ASKS_LATE, ASKS_TOO_LATE], ids=["asked", "late", "too late"])
def test_a_stop_in_the_middle_of_a_rebalance_ends_the_worker(
    kafka: Any, names: Any, tmp_path: Path, question: str
) -> None:
    """What the rebalance still asks of the consumer is given up, and the group is left."""
    with _cluster(kafka, names, tmp_path) as cluster:
        worker = cluster.worker("w0")
        worker.program = ["-c", HEAD + question + TAIL]
        worker.start()
        until(lambda: _says(worker, "in a rebalance"), READY_S, "a rebalance")
        _await_listening(worker)

        worker.terminate()

        assert members(cluster.names) == 0
    assert not _says(worker, "Traceback")


def test_a_rebalance_in_the_middle_of_a_stop_leaves_the_consumer_to_its_thread(
    kafka: Any, names: Any, tmp_path: Path
) -> None:
    """Connections are closed in the loop that they belong to, and whoever joined has the group for itself."""
    with _cluster(kafka, names, tmp_path) as cluster:
        leaving, joining = cluster.worker("w0"), cluster.worker("w1")
        leaving.program = ["-c", HEAD + WAITS + TAIL]
        leaving.start()
        cluster.await_ready(leaving)

        def join() -> None:
            until(lambda: _says(leaving, "stopping"), READY_S, "a worker that stops")
            joining.start()
            _await_listening(joining)

        leaving.terminate(meanwhile=join)

        assert members(cluster.names) == 1
        cluster.await_ready(joining)
    assert not _says(leaving, "closed in a loop of others")
    assert not _says(leaving, "Traceback")


def test_a_stop_does_not_wait_for_members_that_do_not_answer(kafka: Any, names: Any, tmp_path: Path) -> None:
    """While a rebalance waits for one of its members the others can leave, be they new or not."""
    with _cluster(kafka, names, tmp_path) as cluster:
        old, hung, new = (cluster.worker(name) for name in ("w0", "w1", "w2"))
        for worker in (old, hung):
            worker.start()
        for worker in (old, hung):
            cluster.await_ready(worker)
        hung.send(signal.SIGSTOP)
        new.start()
        _await_listening(new)
        until(lambda: old.get("/ready")[0] == 503 and members(cluster.names) == 3, READY_S, "a rebalance")

        old.terminate()
        new.terminate()

        assert members(cluster.names) == 1
    assert not _says(old, "Traceback")
    assert not _says(new, "Traceback")


def test_a_crash_is_told_to_the_consumer_in_its_own_thread(kafka: Any, names: Any, tmp_path: Path) -> None:
    """In its debug mode uvloop says what it cannot be asked by another thread."""
    with _cluster(kafka, names, tmp_path) as cluster:
        worker = cluster.worker("w0")
        worker.program = ["-X", "dev", "-c", HEAD + FAILS + TAIL]
        worker.start()

        assert worker.wait(READY_S) == 1
        assert members(cluster.names) == 0
    assert _says(worker, "RuntimeError: on purpose")
    assert not _says(worker, "Non-thread-safe operation")


def _cluster(kafka: Any, names: Any, directory: Path) -> Cluster:
    """Return one whose members, if they do not leave, are missed later than any of these tests ends."""
    topics = Names(kafka.bootstrap, names.app_id, names.prefix, 4)
    cluster = Cluster(topics, directory, session_timeout_s=100)
    cluster.create_topics()
    return cluster


def _await_listening(worker: Worker) -> None:
    until(lambda: worker.get("/live")[0] == 200, READY_S, "a worker that listens")


def _says(worker: Worker, what: str) -> bool:
    return what in worker.log.read_text()
