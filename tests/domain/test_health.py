"""When a provider is degraded, and when it has recovered."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.health import Figures, Health, Thresholds, judged

MINUTE = 60_000
LIMITS = Thresholds(messages=50, rate=0.7, slow_share=0.5, cooldown_ms=30 * MINUTE)
GOOD = Figures(messages=100, final=100, arrived=95, failed=5, in_time=90)
FAILING = Figures(messages=100, final=100, arrived=60, failed=40, in_time=60)
SLOW = Figures(messages=100, final=40, arrived=40, failed=0, in_time=40)
SILENT = Figures(messages=100, final=0, arrived=0, failed=0, in_time=0)
BETWEEN = Figures(messages=100, final=100, arrived=80, failed=20, in_time=75)
FEW = Figures(messages=49, final=49, arrived=0, failed=49, in_time=0)


def after(*figures: Figures, health: Health | None = None, begin: int = 100) -> Health:
    """How a provider stands after so many judgements, one a minute."""
    health = health or Health()
    for minute, one in enumerate(figures, begin):
        health = judged(health, one, minute * MINUTE, LIMITS)
    return health


@pytest.mark.parametrize(
    ("figures", "reason"), [(FAILING, "failing"), (SLOW, "slow"), (SILENT, "silent"), (GOOD, None)]
)
def test_a_provider_is_degraded_when_found_bad_three_times(figures: Figures, reason: str | None) -> None:
    """Too few arrive, or too few in time, or nothing is heard; once or twice is no alarm."""
    assert after(figures, figures).degraded is None
    assert after(figures, figures, figures).degraded == reason
    assert after(figures, figures, GOOD, figures, figures).degraded is None


def test_few_messages_are_no_evidence() -> None:
    """Nothing is judged by them, neither for nor against."""
    assert after(*[FEW] * 9) == Health()
    assert after(FAILING, FAILING, FEW, FAILING).degraded == "failing"


def test_a_provider_has_recovered_when_it_is_clearly_good_three_times_after_a_while() -> None:
    """Neither at once, nor when it is hardly better than bad."""
    degraded = after(FAILING, FAILING, FAILING)
    assert degraded.changed_at == 102 * MINUTE

    assert after(*[GOOD] * 29, health=degraded, begin=103).degraded == "failing"
    assert after(*[GOOD] * 30, health=degraded, begin=103) == Health(
        degraded=None, in_a_row=0, changed_at=132 * MINUTE, judged_at=132 * MINUTE
    )
    assert after(*[BETWEEN] * 90, health=degraded, begin=103).degraded == "failing"


def test_a_judgement_that_comes_again_changes_nothing() -> None:
    """Nor one of an older time: the same three do not count twice."""
    health = after(FAILING, FAILING)

    assert judged(health, FAILING, 101 * MINUTE, LIMITS) is health
    assert judged(health, FAILING, 50 * MINUTE, LIMITS) is health


@given(st.lists(st.sampled_from([GOOD, FAILING, SLOW, SILENT, BETWEEN, FEW]), max_size=200))
def test_it_never_changes_twice_within_the_cooldown(figures: list[Figures]) -> None:
    """Whatever comes, half an hour lies between two changes, and three judgements before each."""
    health, changes = Health(), []
    for minute, one in enumerate(figures, 100):
        before, health = health, judged(health, one, minute * MINUTE, LIMITS)
        if (before.degraded is None) != (health.degraded is None):
            changes.append(minute)
            assert len(figures) >= 3

    assert all(later - earlier >= 30 for earlier, later in pairwise(changes))
