"""``python -m tests.faults.run --seeds 1..10 --profile full``: one line a run, exit 1 if any is not clean."""

import argparse
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from streams.kafka.broker import EmbeddedKafka

from .logs import Names
from .runs import FULL, SHORT, Profile, Result, Say, single_worker, three_workers

PARTITIONS = 4

Run = Callable[[Names, Path, int, Profile, Say], Result]


def emptied_worker(names: Names, directory: Path, seed: int, profile: Profile, say: Say) -> Result:
    return single_worker(names, directory, seed, profile, say, empties=True)


def standby_workers(names: Names, directory: Path, seed: int, profile: Profile, say: Say) -> Result:
    return three_workers(names, directory, seed, profile, say, standbys=1)


RUNS: dict[str, Run] = {
    "single": single_worker,
    "emptied": emptied_worker,
    "cluster": three_workers,
    "standby": standby_workers,
}


def main(arguments: list[str]) -> int:
    chosen = _parse(arguments)
    profile = {"short": SHORT, "full": FULL}[chosen.profile]
    failed = 0
    with ExitStack() as stack:
        url = chosen.broker or stack.enter_context(EmbeddedKafka(say=print)).url
        for seed in chosen.seeds:
            for kind in chosen.kinds:
                failed += not _run(kind, url, seed, profile, chosen.verbose)
    return 1 if failed else 0


def _run(kind: str, url: str, seed: int, profile: Profile, verbose: bool) -> bool:
    unique = f"faults-{uuid.uuid4().hex[:8]}"
    names = Names(url.removeprefix("kafka://"), unique, f"{unique}.", PARTITIONS)
    directory = Path(tempfile.mkdtemp(prefix=f"{unique}-"))
    try:
        result = RUNS[kind](names, directory, seed, profile, print if verbose else lambda _line: None)
    except Exception as error:  # the other seeds are still worth their runs
        print(f"{kind} seed {seed}: FAILED, see {directory}: {error!r}", flush=True)
        return False
    print(result if result.ok else f"{result}\n{result.report}\nlogs: {directory}", flush=True)
    if result.ok:
        shutil.rmtree(directory)
    return result.ok


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run")
    parser.add_argument("--seeds", type=_seeds, default=range(1, 2), help="one, or a range: 1..10")
    parser.add_argument("--profile", choices=("short", "full"), default="short")
    parser.add_argument("--kinds", nargs="+", choices=tuple(RUNS), default=tuple(RUNS))
    parser.add_argument("--broker", help="kafka://host:port; an embedded one when not given")
    parser.add_argument("--verbose", action="store_true", help="say each fault")
    return parser.parse_args(arguments)


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
