"""``python -m tests.chaos``: faults of all kinds under load, for minutes; exit 1 if anything went wrong.

Three workers share the work on one broker or three, which run on 127.0.0.1 and end with this process.
"""

import argparse
import itertools
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from streams.kafka.errors import EmbeddedKafkaError
from tests.faults.runs import seed_from_env

from .catalogue import CATALOGUE, Kind
from .cuts import CUTS, cuts_for, play_cut
from .rounds import RECORDS_PER_SECOND, Round, play, schedule
from .stage import STALL_S, Brokers
from .tables import table, write_json

#: An application is judged after so many faults, and another takes its place.
ROUND_FAULTS = 50
TABLE_WIDTH = 120


def main(arguments: list[str]) -> int:
    chosen = _parse(arguments)
    if chosen.list:
        print(*CATALOGUE, *CUTS, sep="\n")
        return 0
    kinds = list(_possible(chosen))
    count = len(kinds) + sum(_is_chosen(name, chosen) for name in cuts_for(chosen.nodes))
    if not count:
        sys.exit("no kind of fault has such a name: see --list")
    print(f"seed {chosen.seed}, {count} kinds of faults, {chosen.nodes} broker(s)", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves every block, and shows the table
    rounds: list[Round] = []
    try:
        with Brokers(chosen.nodes, say=_say) as brokers:
            for played in _rounds(brokers, chosen, kinds):
                rounds.append(played)
    except KeyboardInterrupt:
        print("interrupted")
    except EmbeddedKafkaError as error:
        sys.exit(str(error))
    return max(_conclude(rounds, chosen), _simulate(chosen.schedules))


def _simulate(schedules: int) -> int:
    """Run so many schedules of the simulation; return its exit code."""
    if not schedules:
        return 0
    command = [sys.executable, "-m", "tests.simulation", "--seeds", f"1..{schedules}"]
    return subprocess.run(command, check=False).returncode


def _possible(chosen: argparse.Namespace) -> Iterator[Kind]:
    for kind in CATALOGUE.values():
        if not _is_chosen(kind.name, chosen):
            continue
        if kind.nodes > chosen.nodes:
            print(f"left out: {kind.name}, which needs {kind.nodes} brokers")
        elif reason := kind.possible():
            print(f"left out: {kind.name}: {reason}")
        else:
            yield kind


def _rounds(brokers: Brokers, chosen: argparse.Namespace, kinds: list[Kind]) -> Iterator[Round]:
    """Play rounds until the time is over; with --each, one of every kind."""
    limits = Limits(time.monotonic() + 60 * chosen.minutes, chosen.faults)
    for number, plan in enumerate(_plans(chosen, kinds)):
        seed = chosen.seed * 1_000 + number
        directory = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
        _say(f"round {number + 1}, seed {seed}")
        if isinstance(plan, str):
            played = play_cut(brokers, directory, seed, plan, _say)
        else:
            played = play(brokers, directory, seed, plan, limits.go_on, _say, chosen.rate, chosen.patience)
        _say(str(played) if played.clean else f"{played}\n  workers' logs: {directory}")
        if played.clean:
            shutil.rmtree(directory, ignore_errors=True)
        yield played
        limits.faults_left -= len(played.trials)
        if not limits.go_on(0):
            return


@dataclass
class Limits:
    """Until when faults begin, of time.monotonic, and how many more there may be."""

    deadline: float
    faults_left: int

    def go_on(self, faults: int) -> bool:
        """Return whether another fault may begin after so many of the present round."""
        return time.monotonic() < self.deadline and faults < self.faults_left


def _plans(chosen: argparse.Namespace, kinds: list[Kind]) -> Iterator[list[Kind] | str]:
    """Yield what rounds are of: several faults, or one cut of a log."""
    cuts = [name for name in cuts_for(chosen.nodes) if _is_chosen(name, chosen)]
    if chosen.each:
        yield from ([kind] for kind in kinds)
        yield from cuts
        return
    dealt = schedule(kinds, chosen.seed)
    while True:
        for _ in range(0, len(kinds), ROUND_FAULTS):
            yield list(itertools.islice(dealt, ROUND_FAULTS))
        yield from cuts


def _is_chosen(name: str, chosen: argparse.Namespace) -> bool:
    return not chosen.kinds or any(part in name for part in chosen.kinds)


def _conclude(rounds: list[Round], chosen: argparse.Namespace) -> int:
    if not rounds:
        return 1
    about = {"seed": chosen.seed, "nodes": chosen.nodes}
    made = table(rounds, f"seed {chosen.seed}, {chosen.nodes} broker(s)")
    Console(width=TABLE_WIDTH).print(made)  # also where the output is no terminal
    if chosen.json:
        write_json(chosen.json, rounds, **about)
    unclean = [played for played in rounds if not played.clean]
    for played in unclean:
        print(played)
        for trial in played.trials:
            if trial.problem:
                print(f"  {trial.kind} ({trial.detail}): {trial.problem}")
    print(f"{len(rounds) - len(unclean)} of {len(rounds)} rounds were clean")
    return 1 if unclean else 0


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of the schedule; any when not given")
    parser.add_argument("--minutes", type=float, default=10.0, help="after which no fault begins any more")
    parser.add_argument("--faults", type=int, default=10**6, help="after which no other begins")
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=3, help="brokers")
    parser.add_argument("--kinds", nargs="+", help="only those whose names contain one of these")
    parser.add_argument("--each", action="store_true", help="each kind once, on an application of its own")
    parser.add_argument("--rate", type=float, default=RECORDS_PER_SECOND, help="records per second")
    parser.add_argument("--patience", type=float, default=STALL_S, help="seconds until a group is stalled")
    parser.add_argument("--schedules", type=int, default=50_000, help="of the simulation, which comes last")
    parser.add_argument("--json", type=Path, help="write all figures to a file")
    parser.add_argument("--list", action="store_true", help="name the kinds, and end")
    chosen = parser.parse_args(arguments)
    chosen.seed = seed_from_env() if chosen.seed is None else chosen.seed
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
