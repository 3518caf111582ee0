"""Fault runs: traffic, faults from a seed, then the checker's verdict."""

import os
import random
import signal
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from streams.engine.failpoints import NAMES as FAILPOINTS

from . import views
from .checker import Report, check, expected_of
from .cluster import READY_S, Cluster, FaultRunError, Worker, until
from .inputs import Ages
from .load import Load
from .logs import TABLES, Names, read_world
from .reference import Expected
from .stores import wrong_stores
from .traffic import HUGE_BYTES

#: Most of what is said of a message is due within a run, for the load dates it twenty seconds back.
AGES = Ages(tracking_ms=40_000, retention_ms=30_000)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Profile:
    """How much a run does to its workers."""

    name: str
    random_kills: int  # besides one kill at each chosen failpoint
    failpoints: int
    emptied_kills: int  # how many of them when each second one takes the directory too
    cluster_faults: int
    hooks_s: float  # how long receivers of webhooks misbehave
    hooks_kills: int  # of their worker, at least
    records_per_second: float


SHORT = Profile(
    "short",
    random_kills=2,
    failpoints=4,
    emptied_kills=3,
    cluster_faults=4,
    hooks_s=40.0,
    hooks_kills=4,
    records_per_second=200,
)
FULL = Profile(
    "full",
    random_kills=12,
    failpoints=len(FAILPOINTS),
    emptied_kills=22,
    cluster_faults=16,
    hooks_s=100.0,
    hooks_kills=10,
    records_per_second=400,
)


@dataclass(frozen=True)
class Result:
    """What a run did, and what came of it."""

    kind: str
    seed: int
    faults: int
    exits: int  # workers that ended by themselves, as a fenced one may
    seconds: float
    report: Report

    @property
    def ok(self) -> bool:
        return not self.report.faults()

    def __str__(self) -> str:
        found = self.report.faults()
        cells = len(found.pop("cells_wrong", ()))
        lost, doubled = len(found.pop("lost", ())), len(found.pop("doubled", ()))
        records = sum(len(items) for name, items in found.items() if name.startswith("records_"))
        others = {name: len(items) for name, items in found.items() if not name.startswith("records_")}
        return (
            f"{self.kind} seed {self.seed}: {self.faults} faults, {self.exits} own exits, "
            f"{self.report.consumed} inputs, {self.report.events} events, {self.report.expired} expired, "
            f"{self.report.removed} removed, {lost} lost, {doubled} doubled, "
            f"{records} wrong records, {cells} wrong cells, {others or 'nothing else'}, {self.seconds:.0f} s"
        )


def profile_from_env() -> Profile:
    return {"short": SHORT, "full": FULL}[os.environ.get("FAULTS_PROFILE", "short")]


def seed_from_env() -> int:
    return int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(1, 10_000))


def single_worker(
    names: Names, directory: Path, seed: int, profile: Profile, say: Say, empties: bool = False
) -> Result:
    """Kill one worker again and again, at failpoints and at any moment.

    Args:
        empties: whether the tables' directory is lost with every second kill.
    """
    rng = random.Random(seed)
    began = time.monotonic()
    plan: list[str | None] = [*rng.sample(FAILPOINTS, profile.failpoints), *[None] * profile.random_kills]
    rng.shuffle(plan)
    if empties:
        del plan[profile.emptied_kills :]
    with Cluster(names, directory, session_timeout_s=2.0, ages=AGES) as cluster:
        cluster.create_topics()
        with Load(names, seed, profile.records_per_second) as load:
            worker = cluster.worker("w0")
            for n, failpoint in enumerate(plan):
                kill_once(cluster, worker, failpoint, rng)
                say(f"{time.monotonic() - began:5.1f} s  kill {n + 1} {failpoint or 'at random'}")
                if empties and n % 2:
                    worker.empty()
            worker.start()
            cluster.await_ready(worker)
        report = verdict(cluster, rng, load.huge)
    kind = "one worker, emptied" if empties else "one worker"
    return Result(kind, seed, len(plan), 0, time.monotonic() - began, report)


def kill_once(cluster: Cluster, worker: Worker, failpoint: str | None, rng: random.Random) -> None:
    if failpoint:
        worker.start(f"{failpoint}:{rng.randrange(1, 40)}")
        code = worker.wait(60)
        if code != -signal.SIGKILL:
            raise FaultRunError(
                f"exited {code} instead of being killed at {failpoint}\n{worker.last_words()}"
            )
        return
    worker.start()
    cluster.await_ready(worker)
    time.sleep(rng.uniform(0, 1.5))  # the random moment itself
    worker.kill()


def three_workers(
    names: Names, directory: Path, seed: int, profile: Profile, say: Say, standbys: int = 0
) -> Result:
    """Kill, stop, suspend and add workers while three of them share the work.

    Args:
        standbys: hot copies of each table partition on other workers.
    """
    rng = random.Random(seed)
    began = time.monotonic()
    with Cluster(names, directory, standbys=standbys, ages=AGES) as cluster:
        cluster.create_topics()
        faults = Faults(cluster, rng)
        with Load(names, seed, profile.records_per_second) as load:
            for name in ("w0", "w1", "w2"):
                cluster.worker(name).start()
            cluster.await_progress()
            for n, fault in enumerate(faults.plan(profile.cluster_faults)):
                time.sleep(rng.uniform(0, 4))  # the random moment itself
                what = fault()
                say(f"{time.monotonic() - began:5.1f} s  fault {n + 1} {what}")
                faults.supervise()
                cluster.await_progress()
            faults.supervise()
        report = verdict(cluster, rng, load.huge, faults.supervise)
    kind = "three workers with standbys" if standbys else "three workers"
    return Result(kind, seed, profile.cluster_faults, faults.exits, time.monotonic() - began, report)


class Faults:
    """What can happen to a cluster's workers."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.exits = 0
        self._gone: set[str] = set()  # left for good

    def plan(self, count: int) -> list[Callable[[], str]]:
        """Each kind of fault at least once, kills as often as all others together."""
        kinds = [self.kill, self.terminate, self.suspend, self.join_or_leave]
        more = self.rng.choices(kinds, (3, 1, 1, 1), k=max(0, count - len(kinds)))
        plan = [*kinds, *more][:count]
        self.rng.shuffle(plan)
        return plan

    def supervise(self) -> None:
        """Start again what ended by itself."""
        for worker in self.cluster.workers.values():
            if not worker.alive and worker.name not in self._gone:
                self.exits += 1
                worker.start()

    def kill(self) -> str:
        worker = self._any()
        worker.kill()
        if self.rng.random() < 0.2:
            worker.empty()
        time.sleep(self.rng.uniform(0, 3))  # how long its supervisor takes
        worker.start()
        return f"SIGKILL {worker.name}"

    def terminate(self) -> str:
        worker = self._any()
        worker.terminate()
        worker.start()
        return f"SIGTERM {worker.name}"

    def suspend(self) -> str:
        """Beyond the session timeout: the group goes on without it, and then it comes back."""
        worker = self._any()
        worker.send(signal.SIGSTOP)
        time.sleep(self.cluster.session_timeout_s + self.rng.uniform(1, 4))
        worker.send(signal.SIGCONT)
        worker.suspended = True
        return f"SIGSTOP, SIGCONT {worker.name}"

    def join_or_leave(self) -> str:
        extra = self.cluster.worker("w3")
        if extra.alive:
            self._gone.add(extra.name)
            extra.terminate()
            return "leave w3"
        self._gone.discard(extra.name)
        extra.empty()
        extra.start()
        return "join w3"

    def _any(self) -> Worker:
        return self.rng.choice(self.cluster.alive)


def work_off(cluster: Cluster, supervise: Callable[[], None] = lambda: None) -> int:
    """Have all that is due expire or removed, and nothing more; return the time until when it is, in ms.

    The workers that are left are started anew so as not to look for more: what they are asked must not change
    while they answer.
    """
    by_ms = time.time_ns() // 1_000_000

    def is_cleaned() -> bool:
        supervise()
        if not cluster.alive:
            return False
        status, said = cluster.alive[0].get("/v1/cleanup", "POST", within_s=READY_S)
        if status in (0, 503):  # a worker that was fenced may end at any moment, and the group rebalances
            return False
        if status != 200:
            raise FaultRunError(f"cleanup: {status} {said}")
        # not complete where a lane has yet to take a record that came meanwhile
        return bool(said["complete"])

    until(is_cleaned, READY_S, "all that is due worked off")
    workers = cluster.alive
    for worker in workers:
        worker.terminate()
        worker.environment = worker.environment | {"TRACKER_SWEEP_INTERVAL": "1d"}
    for worker in workers:
        worker.start()
    for worker in workers:
        cluster.await_ready(worker)
    cluster.await_caught_up()
    return by_ms


def overdue(parts: list[Expected], by_ms: int) -> list[str]:
    """Return the messages whose time was up, and which were neither expired nor removed."""
    return [
        message_id
        for part in parts
        for message_id, record in part.records.items()
        if views.is_shown(record) and AGES.due_at(record) <= by_ms
    ]


def verdict(
    cluster: Cluster,
    rng: random.Random,
    huge: int,
    supervise: Callable[[], None] = lambda: None,
    unsure: Container[Path] = (),
    tables: Sequence[str] = TABLES,
) -> Report:
    """Let the workers finish, ask their views, end them, and judge what they leave.

    Args:
        huge: how many records of HUGE_BYTES were produced; the checker knows only what it finds in the log.
        unsure: stores of which less can be asked, see `wrong_stores`.
        tables: whose stores are judged.
    """

    def all_ready() -> bool:
        # one that was suspended may find itself fenced, and end, at any moment from now on
        supervise()
        return all(worker.ready() for worker in cluster.workers.values() if worker.alive)

    until(all_ready, READY_S, "all workers ready")
    cluster.await_caught_up()
    until(all_ready, READY_S, "all workers ready")
    by_ms = work_off(cluster, supervise)
    answers = views.ask(cluster.alive, cluster.names, rng)
    for worker in cluster.alive:
        worker.terminate()
    world = read_world(cluster.names)
    world.ages = AGES
    expected = expected_of(world)
    report = check(world, expected)
    if not report.invalid:
        letters = [letter for log in world.dead_letters.values() for letter in log]
        found = sum(len(letter.value or b"") == HUGE_BYTES for letter in letters)
        report.dead_missing += ["a huge record"] * (huge - found)
        report.overdue = overdue(expected, by_ms)
        report.views_wrong = views.wrong(answers, expected)
        report.stores_wrong = wrong_stores(cluster.names, cluster.directory, unsure, tables)
    return report
