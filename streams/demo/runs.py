"""One run of the demonstration: broker, topics, worker, traffic, and a check that the numbers add up."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from streams.demo import summaries
from streams.demo.places import Place, place_of
from streams.demo.producing import Packer, bootstrap_servers, fill, open_producer, play, quiet_kafka_clients
from streams.demo.readings import EventCounts, Lags, fetch_json
from streams.demo.receiving import Receiver, receiver, webhook_environment
from streams.demo.screens import Board, Screen
from streams.demo.stops import Stopped, Stopper, in_thread
from streams.demo.traffic import DEFAULT_SEED, Sample, Tally, Traffic, generate
from streams.demo.watching import DemoFailed, Watcher
from streams.demo.workers import WorkerProcess, web_port, worker_environment
from streams.kafka.broker import EmbeddedKafka
from streams.kafka.errors import EmbeddedKafkaError
from streams.kafka.topics import PartitionMismatch, TopicsRefused, create_topics
from streams.settings import Settings

IN_MEMORY = 100_000
"""Messages whose records are generated while the broker starts; of more, while they are produced."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    settings: Settings
    own_broker: bool = True
    messages: int | None = None
    rate: float = 200.0
    exits: bool = False
    seed: int = DEFAULT_SEED
    keep: bool = False


@dataclass
class Run:
    """What producing, watching and showing share."""

    options: Options
    screen: Screen
    started_at: float
    directory: Path
    stopper: Stopper
    place: Place
    worker: WorkerProcess
    tally: Tally = field(default_factory=Tally)
    board: Board = field(default_factory=Board)

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self.screen.say(text)

    def show(self) -> None:
        """Show how things stand now."""
        self.board.elapsed_s = time.monotonic() - self.started_at
        self.screen.show(self.board)

    def notify_produced(self, count: int) -> None:
        """Note how many records are produced so far."""
        self.board.produced = count
        if self.options.exits:
            self.show()


async def demonstrate(options: Options, screen: Screen, started_at: float) -> None:
    """Run it to its end: the last message with `exits`, else a signal.

    Raises:
        DemoFailed: something broke or does not add up; the worker's log is left where the text says.
    """
    quiet_kafka_clients()
    directory = Path(tempfile.mkdtemp(prefix="delivery-tracker-demo-"))
    run = _new_run(options, screen, started_at, directory)
    try:
        with run.stopper.on_signals():
            async with contextlib.AsyncExitStack() as stack:
                await _run(run, stack)
    except Stopped:
        run.say("stopped")
    except (DemoFailed, EmbeddedKafkaError, PartitionMismatch, TopicsRefused) as error:
        raise DemoFailed(f"{error}\nlogs are in {directory}") from error
    if options.keep:
        run.say(f"kept: {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)


def _new_run(options: Options, screen: Screen, started_at: float, directory: Path) -> Run:
    worker = WorkerProcess({}, directory / "worker.log")
    return Run(options, screen, started_at, directory, Stopper(), place_of(options.settings), worker)


async def _run(run: Run, stack: contextlib.AsyncExitStack) -> None:
    options, place, settings = run.options, run.place, run.options.settings
    generating = in_thread(lambda: _prepared(options, run.tally))
    broker_url = await _broker(run, stack)
    await run.stopper.wait(create_topics(broker_url, place.topics(), replication=settings.replication))
    bootstrap = bootstrap_servers(broker_url)
    packer = Packer(await stack.enter_async_context(open_producer(bootstrap)), place.inputs, place.partitions)
    lags = await stack.enter_async_context(
        Lags(bootstrap, place.app_id, place.inputs.values(), place.partitions)
    )
    run.worker.environment = webhook_environment() | worker_environment(
        broker_url=broker_url,
        app_id=place.app_id,
        topic_prefix=place.topic_prefix,
        partitions=place.partitions,
        data_dir=run.directory / "data",
        web_bind=settings.web_bind,
        web_port=web_port(settings.web_port, settings.processes),
        processes=settings.processes,
    )
    stack.push_async_callback(_stop_worker, run)
    samples = await run.stopper.wait(generating)
    if options.exits:
        await _fill_and_process(run, packer, lags, samples)
    else:
        await _play(run, packer, lags, EventCounts(bootstrap, place.events, place.partitions))


async def _broker(run: Run, stack: contextlib.AsyncExitStack) -> str:
    """The broker that was named, or an embedded one that lasts as long as the run."""
    if not run.options.own_broker:
        run.say(f"broker: {run.options.settings.broker_url}")
        return run.options.settings.broker_url
    broker = EmbeddedKafka(run.directory / "kafka", say=run.say)
    run.say("starting an embedded Kafka broker")
    stack.push_async_callback(_stop_broker, broker)
    await run.stopper.wait(in_thread(broker.start))
    run.say(f"broker: {broker.url} after {time.monotonic() - run.started_at:.1f} s")
    return broker.url


def _prepared(options: Options, tally: Tally) -> Iterable[Sample]:
    """The records that a run with an end is filled with, ready-made if they fit into memory."""
    if not options.exits:
        return ()
    samples = generate(_traffic(options).ending_now(), tally)
    return list(samples) if (options.messages or 0) <= IN_MEMORY else samples


def _traffic(options: Options) -> Traffic:
    traffic = Traffic(options.messages, options.rate, seed=options.seed)
    if options.settings.partitions == 1:  # nothing can lie on a wrong one
        traffic = replace(traffic, faults=replace(traffic.faults, misplaced=0.0))
    return traffic


async def _stop_broker(broker: EmbeddedKafka) -> None:
    await in_thread(broker.stop)


async def _stop_worker(run: Run) -> None:
    await in_thread(run.worker.stop)


async def _fill_and_process(run: Run, packer: Packer, lags: Lags, samples: Iterable[Sample]) -> None:
    """Produce everything first, then let the worker at it, and compare."""
    await run.stopper.wait(fill(packer, samples, run.notify_produced))
    run.board.expected = run.tally.consumed
    run.say(f"produced {run.tally.records:,} records of {run.tally.messages:,} messages; starting the worker")
    run.worker.start()
    watcher = _watcher(run, lags)
    await watcher.until_ready()
    metrics = await watcher.until_processed(run.tally.consumed)
    stats = await run.stopper.wait(in_thread(lambda: fetch_json(f"{run.worker.url}/v1/stats")))
    sample = await run.stopper.wait(
        in_thread(lambda: fetch_json(f"{run.worker.url}/v1/messages/{run.tally.sample_id}"))
    )
    run.say(summaries.summary(run.tally, metrics, stats, sample))
    differences = summaries.differences(run.tally, metrics, stats)
    if differences:
        raise DemoFailed("it does not add up:\n" + "\n".join(differences))
    run.say(f"all of it adds up, {time.monotonic() - run.started_at:.1f} s in all")


async def _play(run: Run, packer: Packer, lags: Lags, events: EventCounts) -> None:
    """Produce at a steady rate and show what becomes of it, until someone stops it."""
    async with receiver(run.say) as taking:
        await _play_to(run, packer, lags, events, taking)


async def _play_to(run: Run, packer: Packer, lags: Lags, events: EventCounts, taking: Receiver) -> None:
    traffic = replace(_traffic(run.options), start_ms=time.time_ns() // 1_000_000)
    run.worker.start()
    playing = asyncio.ensure_future(play(packer, generate(traffic, run.tally), run.notify_produced))
    counting = asyncio.ensure_future(events.run())
    watcher = _watcher(run, lags, events)
    try:
        await watcher.until_ready()
        endpoint_id = await run.stopper.wait(in_thread(lambda: taking.register(run.worker.url)))
        where = summaries.where_to_look(run.worker.url, run.place, traffic.message_id(0), endpoint_id)
        run.say(where)
        while True:
            run.board.webhooks, run.board.refused = taking.taken, taking.refused
            await watcher.look()
            for task in (playing, counting):
                if task.done() and (error := task.exception()) is not None:
                    raise DemoFailed(f"could not go on: {error!r}") from error
            await run.stopper.sleep(watcher.pause_s)
    finally:
        for task in (playing, counting):
            task.cancel()
        await asyncio.gather(playing, counting, return_exceptions=True)


def _watcher(run: Run, lags: Lags, events: EventCounts | None = None) -> Watcher:
    return Watcher(run.worker, lags, run.stopper, run.screen, run.board, run.started_at, events)
