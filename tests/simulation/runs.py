"""Run many schedules, or replay one.

    python -m tests.simulation                        the 2,000 schedules of the test
    python -m tests.simulation --seeds 1..50000       others
    python -m tests.simulation --seeds 4711 --trace   one, with all that happens in it

A failing seed fails again in the same way: the same build and the same seed make the same trace.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from tests.simulation.mutations import MUTATIONS
from tests.simulation.simulation import Result, run

__all__ = ["SCHEDULES", "Summary", "main", "run_all"]

#: The seeds that every test run tries.
SCHEDULES = range(1, 2_001)
#: Seeds that a process runs before it reports.
CHUNK = 20
PROGRESS_S = 5.0


@dataclass
class Summary:
    """The results of many runs."""

    runs: int = 0
    records: int = 0
    virtual_s: float = 0.0
    restarts: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Add one."""
        self.runs += 1
        self.records += result.records
        self.virtual_s += result.seconds
        self.restarts += result.restarts
        self.faults += result.faults
        if result.problem is not None:
            self.failures.append(result)

    def __str__(self) -> str:
        faults = ", ".join(f"{count:,} × {kind}" for kind, count in sorted(self.faults.items()))
        return (
            f"{self.runs:,} schedules, {len(self.failures)} failed; {self.records:,} input records, "
            f"{self.virtual_s / 3600:.1f} h of virtual time, {self.restarts:,} restarts of workers\n"
            f"faults: {faults}"
        )


def _run_chunk(seeds: range) -> list[Result]:
    return [run(seed) for seed in seeds]


def _begin() -> None:
    gc.collect()
    gc.freeze()


def run_all(seeds: range, processes: int) -> Iterator[Result]:
    """Run schedules on several processors; in the order in which they end."""
    chunks = [seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK)]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin) as pool:
        try:
            for future in as_completed([pool.submit(_run_chunk, chunk) for chunk in chunks]):
                yield from future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line asks for; exit with 1 when a schedule failed."""
    _hash_always_alike()
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=_seeds, default=SCHEDULES, metavar="FIRST..LAST", help="inclusive")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one a processor")
    parser.add_argument("--trace", action="store_true", help="print all that happens, and its hash")
    parser.add_argument("--mutation", choices=MUTATIONS, help="put this fault into the engine first")
    parser.add_argument("--first", action="store_true", help="end at the first failure")
    options = parser.parse_args(arguments)
    if options.mutation:
        # for good: it ends with this process; the reference keeps the patches from being undone
        mutation = MUTATIONS[options.mutation]()
        mutation.__enter__()
    if options.trace:
        results: Iterable[Result] = (run(seed, shown=True) for seed in options.seeds)
    else:
        results = run_all(options.seeds, options.processes)
    summary = Summary()
    for result in _with_progress(results, len(options.seeds)):
        summary.add(result)
        if result.problem is not None:
            print(f"seed {result.seed}: {result.problem}", flush=True)
        if options.first and summary.failures:
            break
        if options.trace:
            print(f"seed {result.seed}: trace {result.trace}")
    print(summary, flush=True)
    for failure in summary.failures[:5]:
        print(f"replay: python -m tests.simulation --trace --seeds {failure.seed}")
    sys.exit(1 if summary.failures else 0)


def _hash_always_alike() -> None:
    """Start over with the same hashes of strings in every process: the order of sets follows them."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def _with_progress(results: Iterable[Result], total: int) -> Iterator[Result]:
    began = said = time.monotonic()
    for count, result in enumerate(results, 1):
        yield result
        if (now := time.monotonic()) - said > PROGRESS_S:
            said = now
            pace = count / (now - began)
            print(f"{count:,} of {total:,}, {pace:.0f} a second", file=sys.stderr, flush=True)
