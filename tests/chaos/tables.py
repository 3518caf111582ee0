"""What a chaos run found, as a table: a line for each kind of fault."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from .rounds import Round, Trial


@dataclass(frozen=True)
class Line:
    """All trials of a kind; recoveries in seconds, None when there was none."""

    kind: str
    count: int
    p50_s: float | None
    p95_s: float | None
    stalls: int
    own_exits: int
    lost: int
    doubled: int
    wrong: int


def lines(rounds: Iterable[Round]) -> list[Line]:
    """Return a line for each kind, and one for all."""
    by_kind: dict[str, list[Trial]] = {}
    for played in rounds:
        for trial in played.trials:
            by_kind.setdefault(trial.kind, []).append(trial)
    every = [trial for trials in by_kind.values() for trial in trials]
    return [*(line(kind, by_kind[kind]) for kind in sorted(by_kind)), line("all", every)]


def line(kind: str, trials: Sequence[Trial]) -> Line:
    recoveries = sorted(t.recovered_after_s for t in trials if t.recovered_after_s is not None)
    return Line(
        kind,
        len(trials),
        rank(recoveries, 50),
        rank(recoveries, 95),
        sum(trial.recovered_after_s is None for trial in trials),
        sum(len(trial.own_exits) for trial in trials),
        *(sum(len(getattr(trial, what)) for trial in trials) for what in ("lost", "doubled", "wrong")),
    )


def rank(values: Sequence[float], percent: int) -> float | None:
    """Return the value that so many percent of the sorted values do not exceed."""
    return values[-(-len(values) * percent // 100) - 1] if values else None


def table(rounds: Sequence[Round], title: str) -> Table:
    made = Table(
        "fault",
        "count",
        "p50 s",
        "p95 s",
        "stalls",
        "own exits",
        "lost",
        "doubled",
        "wrong",
        title=title,
        box=SIMPLE,
    )
    for column in made.columns[1:]:
        column.justify = "right"
    found = lines(rounds)
    for one in found:
        if one.kind == "all":
            made.add_section()
        made.add_row(
            one.kind, str(one.count), _seconds(one.p50_s), _seconds(one.p95_s), *map(str, _counts(one))
        )
    return made


def _counts(one: Line) -> tuple[int, ...]:
    return one.stalls, one.own_exits, one.lost, one.doubled, one.wrong


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def write_json(path: Path, rounds: Sequence[Round], **about: Any) -> None:
    """Write the lines, and every trial, for those who compare runs."""
    trials = [
        {name: value for name, value in vars(trial).items() if name != "begin"} | {"seed": played.seed}
        for played in rounds
        for trial in played.trials
    ]
    problems = [{"seed": played.seed, "problem": str(played)} for played in rounds if not played.clean]
    content = about | {"lines": [vars(one) for one in lines(rounds)], "trials": trials, "problems": problems}
    path.write_text(json.dumps(content, indent=1))
