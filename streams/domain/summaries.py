"""What is answered about cells: counts, rates, times; and about what happened in them."""

from __future__ import annotations

from typing import Final

import msgspec

from streams.domain.histogram import CURVE_MS, percentiles, within
from streams.domain.statistics import CALLBACK_OUTCOMES, Cell, activity, cohort
from streams.domain.statuses import FAILED, FIRST_FINAL, NAMES, Status
from streams.domain.times import iso

__all__ = ["CURVE_NAMES", "ActivitySummary", "DeliveryStats", "DeliveryTime", "activity_summary", "summary"]

CURVE_NAMES: Final = ("5s", "30s", "1m", "5m", "1h", "24h")
"""How the times of `CURVE_MS` are written."""


class DeliveryTime(msgspec.Struct, gc=False):
    """The times from sent to delivered that so many percent of the deliveries do not exceed; ms."""

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


class DeliveryStats(msgspec.Struct, rename="camel", gc=False):
    """What is answered about messages; times in ms, rates in percent.

    Attributes:
        average_delivery_time: of those that are known to be sent and delivered, and when.
        delivery_rate: of all messages those that have ever arrived, whatever was said of them later.
        delivery_rate_of_final: of the messages whose status is final those that have ever arrived.
        clock_skew: messages that were said to be delivered before they were sent, or without having arrived;
            their times do not count.
        delivery_curve: of all messages those that have arrived within so long a time.
        last_updated: when one of them last changed; None if there is none.
    """

    total_messages: int
    by_status: dict[Status, int]
    by_provider: dict[str, int]
    by_error_code: dict[str, int]
    average_delivery_time: float
    delivery_rate: float
    delivery_rate_of_final: float
    failure_rate: float
    delivery_time: DeliveryTime
    delivery_curve: dict[str, float]
    clock_skew: int
    last_updated: str | None


class ActivitySummary(msgspec.Struct, rename="camel", gc=False):
    """What is answered about what happened, by event time.

    Attributes:
        transitions: new entries of histories, by status.
        callbacks: by what became of them.
        average_lateness: from the event to the arrival of a callback that was applied, ms.
        lateness_curve: of those callbacks so many percent came within so long a time.
    """

    transitions: dict[Status, int]
    callbacks: dict[str, int]
    average_lateness: float
    lateness_curve: dict[str, float]


def summary(cell: Cell, family: int) -> DeliveryStats:
    """Say how the messages of a cohort stand: CREATED_THEN or SENT_THEN."""
    messages = cohort(cell, family)
    total, timed = sum(messages.by_status), sum(messages.durations.values())
    return DeliveryStats(
        total,
        dict(zip(NAMES, messages.by_status, strict=True)),
        messages.providers,
        messages.failures,
        messages.duration_sum / timed if timed else 0,
        _percent(messages.arrived, total),
        _percent(messages.arrived_final, sum(messages.by_status[FIRST_FINAL:])),
        _percent(messages.by_status[FAILED], total),
        DeliveryTime(*percentiles(messages.durations, (50, 90, 95, 99))),
        {
            name: _percent(within(messages.durations, ms), total)
            for name, ms in zip(CURVE_NAMES, CURVE_MS, strict=True)
        },
        messages.clock_skew,
        iso(cell.updated_at) if total else None,
    )


def activity_summary(cell: Cell) -> ActivitySummary:
    """Say what happened."""
    happened = activity(cell)
    callbacks = sum(happened.lateness)
    upto = [sum(happened.lateness[: place + 1]) for place in range(len(CURVE_MS))]
    return ActivitySummary(
        dict(zip(NAMES, happened.by_status, strict=True)),
        dict(zip(CALLBACK_OUTCOMES, happened.outcomes, strict=True)),
        happened.lateness_sum / callbacks if callbacks else 0,
        {name: _percent(count, callbacks) for name, count in zip(CURVE_NAMES, upto, strict=True)},
    )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0
