"""Whether a provider delivers as it should: judged by what became of the messages of a while ago.

A false alarm is worse than a late one. So a provider is judged only by enough messages; it is degraded when
it was found bad several times in a row, recovered when it was found clearly good as often; and for a while
after either, nothing changes.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

import msgspec

__all__ = ["Figures", "Health", "Reason", "Thresholds", "judged"]

Reason: TypeAlias = Literal["failing", "slow", "silent"]
"""Why a provider is bad: too few of its messages arrive, too few in time, or nothing is heard of any."""

IN_A_ROW: Final = 3
"""Judgements that must agree."""

MARGIN: Final = 0.5
"""To be clearly good, what is bad of a provider must be less than this share of what makes it bad."""


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Figures(msgspec.Struct, gc=False, rename="camel"):
    """What became of the messages that a provider sent in a stretch of time.

    Attributes:
        final: those that have arrived, failed or expired; `arrived` and `failed` are among them.
        in_time: those that arrived within the time that is slow.
    """

    messages: Count
    final: Count
    arrived: Count
    failed: Count
    in_time: Count


class Thresholds(NamedTuple):
    """What makes a provider bad.

    Attributes:
        messages: it is judged by at least so many.
        rate: of the messages in a final status this share must arrive.
        slow_share: of those that have not failed no more than this share may be late.
        cooldown_ms: how long nothing changes after a change.
    """

    messages: int = 50
    rate: float = 0.7
    slow_share: float = 0.5
    cooldown_ms: int = 30 * 60_000


class Health(msgspec.Struct, array_like=True, gc=False):
    """How a provider stands, and how it is stored.

    Attributes:
        degraded: why it is; None if it is not.
        in_a_row: how many judgements in a row have been against that.
        changed_at: when it last became degraded or recovered, ms; 0: never.
        judged_at: when it was last judged, ms.
    """

    version: Literal[1] = 1
    degraded: Reason | None = None
    in_a_row: int = 0
    changed_at: int = 0
    judged_at: int = 0


def judged(health: Health, figures: Figures, at: int, thresholds: Thresholds) -> Health:
    """Return how a provider stands after one more judgement; one of an older time changes nothing."""
    if at <= health.judged_at or figures.messages < thresholds.messages:
        return health
    reason = _bad(figures, thresholds, 1.0)
    against = reason is not None
    if health.degraded is not None:
        against = _bad(figures, thresholds, MARGIN) is None
    in_a_row = health.in_a_row + 1 if against else 0
    after = Health(degraded=health.degraded, in_a_row=in_a_row, changed_at=health.changed_at, judged_at=at)
    if in_a_row >= IN_A_ROW and at - health.changed_at >= thresholds.cooldown_ms:
        after.degraded = reason if health.degraded is None else None
        after.in_a_row, after.changed_at = 0, at
    return after


def _bad(figures: Figures, thresholds: Thresholds, strictness: float) -> Reason | None:
    """Say why a provider is bad, by limits of that share of what makes it so."""
    if not figures.final:
        return "silent"
    if figures.final - figures.arrived > strictness * (1 - thresholds.rate) * figures.final:
        return "failing"
    waited = figures.messages - figures.failed
    if waited - figures.in_time > strictness * thresholds.slow_share * waited:
        return "slow"
    return None
