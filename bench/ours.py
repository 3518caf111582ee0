"""One worker over callbacks that lie ready: exactly once, with records, statistics and events."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.brokers import committed
from streams.demo.places import Place
from streams.demo.readings import Metrics, all_ready, fetch_metrics
from streams.demo.workers import WorkerProcess, web_port, worker_environment

READY_S = 180.0
STALLED_S = 60.0
LOOK_EVERY_S = 0.25


class BenchFailed(Exception):
    """A measurement could not be made; the text says why."""


@dataclass(frozen=True)
class Measured:
    """What one worker did."""

    records: int
    seconds: float
    units: int
    peak_bytes: int | None
    cpu_s: float | None
    """Processor time, without the start: what another load on the machine disturbs least."""
    gc_ratio: float
    empty_polls: int

    @property
    def rate(self) -> float:
        return self.records / self.seconds


@contextlib.contextmanager
def worker(
    url: str,
    place: Place,
    *,
    processes: int = 1,
    data_dir: Path | None = None,
    environment: Mapping[str, str] = {},
) -> Iterator[WorkerProcess]:
    """A running worker, gone afterwards; its tables in `data_dir`, else in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="delivery-tracker-bench-") as name:
        process = WorkerProcess(
            {
                **worker_environment(
                    broker_url=url,
                    app_id=place.app_id,
                    topic_prefix=place.topic_prefix,
                    partitions=place.partitions,
                    data_dir=data_dir or Path(name) / "data",
                    web_port=web_port(0, processes),
                    processes=processes,
                ),
                **environment,
            },
            Path(name) / "worker.log",
        )
        process.start()
        try:
            yield process
        finally:
            process.stop()


def until_ready(process: WorkerProcess, look: Callable[[], None] = lambda: None) -> None:
    """Wait until it holds all its partitions."""
    deadline = time.monotonic() + READY_S
    while not all_ready(process.urls):
        require(process)
        look()
        if time.monotonic() > deadline:
            raise BenchFailed(f"the worker was not ready within {READY_S:.0f} s:\n{process.last_words()}")
        time.sleep(0.05)


def until_processed(
    process: WorkerProcess, expected: int, look: Callable[[Metrics], None] = lambda metrics: None
) -> Metrics:
    """Wait until that many records are committed; looks seldom, for the sake of what is measured."""
    moved_at, last = time.monotonic(), 0
    while True:
        require(process)
        metrics = fetch_metrics(process.urls) or Metrics()
        look(metrics)
        if metrics.consumed >= expected:
            return metrics
        if metrics.consumed > last:
            moved_at, last = time.monotonic(), metrics.consumed
        if time.monotonic() - moved_at > STALLED_S:
            raise BenchFailed(
                f"nothing was committed for {STALLED_S:.0f} s, at {last:,} of {expected:,}:\n"
                f"{process.last_words()}"
            )
        time.sleep(LOOK_EVERY_S)


def require(process: WorkerProcess) -> None:
    """Raises BenchFailed when the worker has ended."""
    if not process.alive:
        raise BenchFailed(f"the worker has ended:\n{process.last_words()}")


def measure(
    url: str, place: Place, expected: int, *, unit_records: int | None = None, processes: int = 1
) -> Measured:
    """Let a new group process what lies in the topics of `place`."""
    environment = {} if unit_records is None else {"TRACKER_UNIT_RECORDS": str(unit_records)}
    with worker(url, place, processes=processes, environment=environment) as process:
        idle_s: list[float] = [0.0]

        def look(metrics: Metrics) -> None:
            if not metrics.first_unit_s:
                idle_s[0] = process.cpu_s() or 0.0

        metrics = until_processed(process, expected, look)
        # a worker's own requests lie in the other one
        offsets = committed(url, place.app_id, [place.inputs["statuses"]], place.partitions)
        if not metrics.consumed == offsets == expected:
            raise BenchFailed(
                f"{expected:,} callbacks, {metrics.consumed:,} counted, offsets committed up to {offsets:,}"
            )
        return measured(process, metrics, idle_s[0])


def measured(process: WorkerProcess, metrics: Metrics, idle_s: float) -> Measured:
    """The figures of a worker that has done its work and still runs."""
    return Measured(
        records=metrics.consumed,
        seconds=metrics.elapsed_s,
        units=metrics.units,
        peak_bytes=process.peak_bytes(),
        cpu_s=None if (used_s := process.cpu_s()) is None else used_s - idle_s,
        gc_ratio=metrics.gc_s / metrics.elapsed_s,
        empty_polls=metrics.empty_polls,
    )
