"""Rounds of faults under load: a schedule from a seed, the trial of each fault, and the verdict."""

import contextlib
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.topics import TABLES, changelogs, placed
from tests.faults.checker import Report
from tests.faults.cluster import Cluster, FaultRunError
from tests.faults.inputs import Raw
from tests.faults.load import Load
from tests.faults.logs import STREAMS, Names, read_topics
from tests.faults.runs import AGES, verdict

from .catalogue import Kind
from .stage import PARTITIONS, STALL_S, WORKERS, Brokers, Positions, Progress, Say, Stage, Stalled

RECORDS_PER_SECOND = 60.0
#: Between two faults, up to.
PAUSE_S = 1.5

#: The lists of a report by what they mean; all others are "wrong".
LOST = ("lost", "dead_missing", "forwards_missing", "records_missing", "partitions_absent")
DOUBLED = ("doubled", "dead_doubled", "forwards_doubled")
#: Ids of inputs, and of what follows from them.
INPUT = re.compile(r"(requests|statuses)[-/](\d+)[-/](\d+)")


@dataclass
class Trial:
    """One fault as it went.

    Attributes:
        begin: what the group had committed when it began.
        recovered_after_s: None when the group did not commit by itself any more.
        problem: "", or why it did not recover.
    """

    kind: str
    begin: Positions
    detail: str = ""
    recovered_after_s: float | None = None
    own_exits: list[str] = field(default_factory=list)
    problem: str = ""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Round:
    """Several faults on one application, and the checker's verdict on what it left."""

    seed: int
    trials: list[Trial] = field(default_factory=list)
    problem: str = ""  # why there is no verdict
    report: Report | None = None
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        found = self.report.faults() if self.report else {}
        return not self.problem and not found and not any(trial.problem for trial in self.trials)

    def __str__(self) -> str:
        verdict = self.problem or self.report or "; ".join(trial.problem for trial in self.trials)
        return f"round of seed {self.seed}, {self.seconds:.0f} s: {verdict or 'as expected'}"


def schedule(kinds: Sequence[Kind], seed: int) -> Iterator[Kind]:
    """Yield kinds without end: each once, and then as often as its share says."""
    rng = random.Random(seed)
    yield from rng.sample(kinds, len(kinds))
    while True:
        deck = [kind for kind in kinds for _ in range(kind.share)]
        yield from rng.sample(deck, len(deck))


def play(
    brokers: Brokers,
    directory: Path,
    seed: int,
    kinds: Iterable[Kind],
    go_on: Callable[[int], bool],
    say: Say,
    rate: float = RECORDS_PER_SECOND,
    patience_s: float = STALL_S,
) -> Round:
    """Let an application of its own go through faults, and judge it.

    Args:
        go_on: returns whether another fault may begin after so many.
    """
    unique = f"chaos-{uuid.uuid4().hex[:8]}"
    names = Names(brokers.cluster.bootstrap, unique, f"{unique}.", PARTITIONS)
    played, began = Round(seed), time.monotonic()
    brokers.heal()
    cluster = Cluster(names, directory, ages=AGES, replication=brokers.cluster.replication)
    rng = random.Random(seed)
    with cluster, contextlib.closing(Progress(names)) as progress:
        load = Load(names, seed, rate)
        stage = Stage(brokers, cluster, load, rng, progress, patience_s)
        try:
            cluster.create_topics()
            with load:
                _begin(stage)
                _try_all(stage, kinds, go_on, played, say)
            brokers.heal()
            say("         judging …")
            huge = load.huge + stage.huge
            played.report = verdict(cluster, rng, huge, stage.supervise, stage.unsure, TABLES)
        except (FaultRunError, Stalled, RuntimeError, KafkaException) as error:
            played.problem = f"no verdict: {error}"
        finally:
            stage.unmount()
    for broker in brokers.nodes:  # their directory goes with them
        shutil.copy(broker.log_file, directory / f"broker-{broker.node.id}.log")
    if played.report is not None:
        attribute(played, names)
    played.seconds = time.monotonic() - began
    forget_topics(brokers, names)
    return played


def _begin(stage: Stage) -> None:
    for name in WORKERS:
        stage.worker(name).start()
    for name in WORKERS:
        stage.cluster.await_ready(stage.worker(name))
    stage.recover()


def _try_all(
    stage: Stage, kinds: Iterable[Kind], go_on: Callable[[int], bool], played: Round, say: Say
) -> None:
    """Try one fault after the other, unless one leaves a group that not even a restart gets going."""
    for number, kind in enumerate(kinds, start=1):
        stage.pause(stage.rng.uniform(0, PAUSE_S))  # the random moment itself
        began = time.monotonic()
        trial = Trial(kind.name, dict(stage.progress.committed() or stage.progress.last))
        played.trials.append(trial)
        works = try_one(stage, kind, trial)
        after = trial.recovered_after_s
        how = "stalled" if after is None else f"recovered after {after:.1f} s"
        say(f"{number:4}  {kind.name} ({trial.detail}): {how}  [{time.monotonic() - began:.0f} s]")
        for line in (*trial.own_exits, *([trial.problem] if trial.problem else [])):
            say(f"      {line}")
        if not works or not go_on(number):
            return


def try_one(stage: Stage, kind: Kind, trial: Trial) -> bool:
    """Bring a fault about, and wait until the group works again; if it does not, restart all workers.

    Returns: whether the group works in the end.
    """
    stage.recovered_after_s, stage.own_exits = None, []
    try:
        trial.detail = kind.act(stage)
        stage.recover()
        stage.await_workers()  # others may commit for one that ends again and again
        trial.recovered_after_s = stage.recovered_after_s
    except (Stalled, FaultRunError, KafkaException) as error:
        trial.problem = f"{error}"
        return _works_anew(stage, trial)
    finally:
        trial.own_exits = stage.own_exits
    return True


def _works_anew(stage: Stage, trial: Trial) -> bool:
    """Do what an operator would: see that brokers and links are there, and restart every worker."""
    stage.brokers.heal()
    workers = [worker for worker in stage.cluster.workers.values()]
    with stage.away(*workers):
        for worker in workers:
            worker.set_clock(0)
            worker.kill()
    try:
        stage.recover()
    except Stalled:
        trial.problem += "; nor after a restart of all workers"
        return False
    return True


def attribute(played: Round, names: Names) -> None:
    """Put what the report found down to the last fault that began before the input was applied."""
    assert played.report is not None
    found = played.report.faults()
    inputs = _last_inputs(names, found)
    for name, items in found.items():
        for item in items:
            trial = _trial_of(item, inputs, played.trials)
            kind = "lost" if name in LOST else "doubled" if name in DOUBLED else "wrong"
            getattr(trial, kind).append(f"{name} {item}")


def _trial_of(item: str, inputs: dict[str, tuple[str, int, int]], trials: list[Trial]) -> Trial:
    """Return the trial; the last one for what names no input, such as a cell of statistics."""
    match = INPUT.search(item)
    place = (match[1], int(match[2]), int(match[3])) if match else inputs.get(item)
    if place is None:
        return trials[-1]
    stream, partition, offset = place
    before = [trial for trial in trials if trial.begin.get((stream, partition), 0) <= offset]
    return before[-1] if before else trials[0]


def _last_inputs(names: Names, found: dict[str, list[str]]) -> dict[str, tuple[str, int, int]]:
    """Return where the last input of each message lies, if any are to be looked up."""
    if not found:
        return {}
    logs = read_topics(names, *map(names.input, STREAMS))
    every = sorted(_all(logs), key=lambda record: record.timestamp)
    return {
        (record.key or b"").decode(errors="replace"): (
            record.topic.removeprefix(names.prefix),
            record.partition,
            record.offset,
        )
        for record in every
    }


def _all(logs: dict[str, dict[int, list[Raw]]]) -> Iterator[Raw]:
    for partitions in logs.values():
        for records in partitions.values():
            yield from records


def forget_topics(brokers: Brokers, names: Names) -> None:
    """Brokers last longer than a round, and its topics would be copied and cleaned for ever."""
    admin = AdminClient({"bootstrap.servers": brokers.cluster.bootstrap, "log_level": 0})
    every = [*placed(names.prefix, names.partitions), *changelogs(names.app_id, names.partitions)]
    for done in admin.delete_topics([topic.name for topic in every], request_timeout=30).values():
        with contextlib.suppress(KafkaException):
            done.result()
