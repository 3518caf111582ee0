"""Schedules follow from their seeds, and what a checker finds is put down to the right fault."""

import itertools

import pytest

from tests.faults.checker import Report

from . import rounds
from .catalogue import CATALOGUE, Kind
from .rounds import Round, Trial, attribute, schedule
from .tables import Line, lines, rank

KINDS = [Kind("a", lambda stage: "", share=3), Kind("b", lambda stage: ""), Kind("c", lambda stage: "")]
NAMES = rounds.Names("127.0.0.1:1", "app", "p.", 2)


def dealt(seed: int, count: int = 8) -> list[str]:
    return [kind.name for kind in itertools.islice(schedule(KINDS, seed), count)]


def test_each_kind_comes_once_and_then_as_often_as_its_share() -> None:
    names = dealt(1)
    assert sorted(names[:3]) == ["a", "b", "c"]
    assert sorted(names[3:]) == ["a", "a", "a", "b", "c"]


def test_a_seed_gives_the_same_schedule() -> None:
    assert dealt(5, 40) == dealt(5, 40) != dealt(6, 40)


def test_there_are_more_than_24_kinds_for_one_broker_and_for_three() -> None:
    assert sum(kind.nodes == 1 for kind in CATALOGUE.values()) >= 24


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Round:
    """Two faults; the second began when 10 inputs were committed."""
    monkeypatch.setattr(rounds, "_last_inputs", lambda *_: {"m-1": ("requests", 0, 3)})
    trials = [
        Trial("first", {("requests", 0): 0}, recovered_after_s=1.0),
        Trial("second", {("requests", 0): 10}),
    ]
    return Round(1, trials)


@pytest.mark.parametrize(
    ("report", "kind", "what"),
    [
        (Report(lost=["requests-0-9-1"]), "first", "lost"),
        (Report(lost=["requests-0-10-1"]), "second", "lost"),
        (Report(dead_doubled=["requests-0-12"]), "second", "doubled"),
        (Report(forwards_missing=["p.requests/0/2"]), "first", "lost"),
        (Report(records_wrong=["m-1"]), "first", "wrong"),
        (Report(cells_wrong=["0/('m', 'w', 1, ())"]), "second", "wrong"),
    ],
)
def test_a_finding_is_put_down_to_the_last_fault_before_its_input(
    played: Round, report: Report, kind: str, what: str
) -> None:
    played.report = report
    attribute(played, NAMES)

    (found,) = [
        (t.kind, name) for t in played.trials for name in ("lost", "doubled", "wrong") if getattr(t, name)
    ]
    assert found == (kind, what)
    assert not played.clean


def test_a_table_counts_trials_by_kind(played: Round) -> None:
    played.trials.append(Trial("first", {}, recovered_after_s=3.0, own_exits=["w0", "w1"], doubled=["x"]))

    assert lines([played]) == [
        Line("first", 2, 1.0, 3.0, 0, 2, 0, 1, 0),
        Line("second", 1, None, None, 1, 0, 0, 0, 0),
        Line("all", 3, 1.0, 3.0, 1, 2, 0, 1, 0),
    ]


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (95, 10), (100, 10), (1, 1)])
def test_a_rank_is_a_value_that_occurred(percent: int, value: int) -> None:
    assert rank(range(1, 11), percent) == value
    assert rank([], percent) is None
