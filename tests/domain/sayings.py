"""Callbacks and requests as tests write them, and strategies that make hostile ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from streams.domain.delivery import Callback, Delivery, Failure, Track, merge, track
from streams.domain.statuses import NAMES
from streams.domain.times import EARLIEST_MS, LEAD_MS

NOON = 1_795_435_200_000
"""2026-11-23T12:00:00Z; tests count in milliseconds from here."""


def callback(status: str, at: int | None = 0, message_id: str = "m-1", **said: Any) -> Callback:
    """What a provider says of m-1, `at` ms after noon (None: without a time)."""
    for name in ("sent_at", "delivered_at", "read_at", "clicked_at", "failed_at"):
        if name in said:
            said[name] += NOON
    return Callback(message_id, status, None if at is None else NOON + at, **said)  # type: ignore[arg-type]


def request(at: int | None = 0, message_id: str = "m-1", **said: Any) -> Track:
    """A track request for m-1, created `at` ms after noon (None: it does not say when)."""
    required = {"phone_number": "+82100000001", "template_id": "tpl", "provider": "solapi"}
    created_at = None if at is None else NOON + at
    return Track(message_id, created_at=created_at, **(required | said))


def delivery_of(*said: Callback | Track | tuple[Callback | Track, int]) -> Delivery:
    """Make a delivery of what is said; each arrives a second after noon, or so many ms."""
    delivery = Delivery()
    for one in said:
        what, receipt = one if isinstance(one, tuple) else (one, 1_000)
        add(delivery, what, NOON + receipt)
    return delivery


def add(delivery: Delivery, what: Callback | Track, receipt: int) -> Any:
    law: Callable[..., Any] = merge if isinstance(what, Callback) else track
    return law(delivery, what, receipt)


def few(*values: Any) -> st.SearchStrategy[Any]:
    """So few that ties are frequent."""
    return st.sampled_from((None, *values))


TIMES = (
    NOON,
    NOON + 1,
    NOON + 2,
    NOON - 50,
    EARLIEST_MS - 1,
    EARLIEST_MS,
    NOON + LEAD_MS,
    NOON + 2 * LEAD_MS,
    0,
)
times = few(*TIMES)
failures = few(Failure("30003", "gone"), Failure("30003", "lost"), Failure("30005", "gone", '{"x":1}'))
metadata = few({"a": "1"}, {"a": "2", "b": '"x"'}, {"b": '"y"'}, {})

callbacks = st.builds(
    Callback,
    message_id=st.just("m-1"),
    status=st.sampled_from(NAMES),
    timestamp=times,
    provider=few("a", "b"),
    attempt=few(1, 2),
    source=few("provider", "manual"),
    error=failures,
    metadata=metadata,
    sent_at=times,
    delivered_at=times,
    read_at=times,
    failed_at=times,
    id=few("x"),
    channel=few("sms", "email"),
    tenant=few("t-1", "t-2"),
    phone_number=few("+1", "+2"),
    template_id=few("tpl-1", "tpl-2"),
)
tracks = st.builds(
    Track,
    message_id=st.just("m-1"),
    phone_number=st.sampled_from(("+3", "+4")),
    template_id=st.just("tpl-3"),
    provider=st.sampled_from(("a", "c")),
    channel=few("sms", "email"),
    tenant=few("t-3"),
    initial_status=few("QUEUED", "SENT"),
    metadata=metadata,
    created_at=times,
)
receipts = st.sampled_from((NOON + 3, NOON + 4, NOON + LEAD_MS, NOON - LEAD_MS))


def identity(what: Callback | Track) -> tuple[Any, ...]:
    """By what the law tells callbacks apart."""
    if isinstance(what, Track):
        return "track", what.initial_status or "QUEUED", what.provider, what.created_at
    if what.id is not None:
        return what.id, what.status
    code = what.error.code if what.error else None
    return what.status, what.provider, what.attempt, what.timestamp, code, what.source or "provider"


def histories(with_tracks: bool = True) -> st.SearchStrategy[list[tuple[Callback | Track, int]]]:
    """What was said of one message, each with its arrival; no two of one identity."""
    what = st.one_of(callbacks, callbacks, callbacks, tracks) if with_tracks else callbacks
    return st.lists(st.tuples(what, receipts), min_size=1, max_size=8, unique_by=lambda one: identity(one[0]))
