"""Attempts: what was said of each try to deliver a message, and which of them speaks for the message.

A history entry belongs to the attempt that it numbers, else to that of its provider, which is the last one
that this provider has a number for, if there is one. An entry that names neither is said of the message, so
it counts for the attempt that is the latest when all is known. What an attempt has come to depends on the set
of its entries alone, and so does the order of attempts: nothing here knows what arrived first.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from streams.domain.statuses import DELIVERED, Source, is_contradiction, winner

__all__ = [
    "Attempt",
    "Entry",
    "Failure",
    "LongText",
    "contradict",
    "enter",
    "in_order",
    "is_greater",
    "speaker",
]

Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=256)]

LongText: TypeAlias = Annotated[str, msgspec.Meta(max_length=1_024)]
"""Addresses of push services, and ids that providers give, are longer than names."""


class Failure(msgspec.Struct, gc=False, omit_defaults=True):
    """Why a message, or an attempt to deliver it, failed; `details` is JSON text."""

    code: Text
    message: str = ""
    details: Any = None


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One element of the history.

    Attributes:
        precedence: of its status.
        at: event time, ms.
        given: the time as it was given, which may not be plausible; part of the entry's identity.
        receipt: when its record came to Kafka, ms.
        attempt: its number; REQUESTED in the entry of a track request, which no callback can say.
    """

    precedence: int
    at: int
    given: int | None
    receipt: int
    provider: str | None
    attempt: int | None
    source: Source
    id: str | None = None
    error: Failure | None = None


class Attempt(msgspec.Struct, array_like=True, gc=False):
    """One try to deliver the message.

    Attributes:
        name: its number, else its provider; None for what was said of the message and of no attempt.
        at: the least event time.
        seen: bit n tells that it has a status of precedence n.
        provider: who made it, the first (by event time) of those named; `named_at` is when.
        failure: the last error; `failure_at` is when.
        requested: whether a track request asked this provider, which then is the first to try.
    """

    name: int | str | None
    at: int
    seen: int
    provider: str | None
    named_at: int
    failure: Failure | None = None
    failure_at: int = 0
    requested: bool = False


REQUESTED: Final = 0

MAX_ATTEMPTS: Final = 50
"""Attempts that are kept apart. No message has so many; a producer that names a new one each time must not
make a record that no broker takes."""

_NEVER: Final = -(2**63)


def enter(attempts: list[Attempt], entry: Entry) -> None:
    """Add an entry to the attempt that it belongs to."""
    # no number, or REQUESTED
    name = entry.attempt or entry.provider
    for attempt in attempts:
        if attempt.name == name:
            _add(attempt, entry)
            return
    at, requested = entry.at, entry.attempt == REQUESTED
    attempts.append(Attempt(name, at, 1 << entry.precedence, entry.provider, at, entry.error, at, requested))
    if len(attempts) > MAX_ATTEMPTS:
        _fold(attempts)


def _add(attempt: Attempt, entry: Entry) -> None:
    provider, at = entry.provider, entry.at
    if at < attempt.at:
        attempt.at = at
    attempt.seen |= 1 << entry.precedence
    # mostly the same provider again, later
    if (provider != attempt.provider or at < attempt.named_at) and _is_first(entry, attempt):
        attempt.provider, attempt.named_at = provider, at
    if entry.error is not None and is_greater(at, entry.error, attempt):
        attempt.failure, attempt.failure_at = entry.error, at
    if entry.attempt == REQUESTED:
        attempt.requested = True


def _fold(attempts: list[Attempt]) -> None:
    """Let what was said of one attempt be said of the message: the one whose name is the least.

    Its name alone decides, so it is the same one in whatever order they come, and when it comes again.
    """
    nameless = next((attempt for attempt in attempts if attempt.name is None), None)
    named = [attempt for attempt in attempts if attempt is not nameless]
    if len(named) <= MAX_ATTEMPTS:
        return
    least = min(named, key=lambda each: (_number(each), str(each.name)))
    attempts.remove(least)
    if nameless is None:
        attempts.append(Attempt(None, least.at, least.seen, None, least.at, least.failure, least.failure_at))
        return
    joined = _joined(nameless, least)
    joined.at = min(nameless.at, least.at)
    attempts[attempts.index(nameless)] = joined


def _is_first(entry: Entry, attempt: Attempt) -> bool:
    """Say whether an entry names a provider, and that at an earlier time than the one named so far."""
    provider, named = entry.provider, attempt.provider
    return provider is not None and (
        named is None or entry.at < attempt.named_at or (entry.at == attempt.named_at and provider < named)
    )


def is_greater(at: int, error: Failure, attempt: Attempt) -> bool:
    """Say whether an error is shown rather than the one that the attempt has."""
    known = attempt.failure
    return known is None or _error_order(at, error) > _error_order(attempt.failure_at, known)


def _error_order(at: int, error: Failure) -> tuple[int, str, str, str]:
    return at, error.code, error.message, error.details or ""


def in_order(attempts: list[Attempt]) -> list[Attempt]:
    """Return the attempts, the first one first; what is said of no attempt of its own has joined another.

    An attempt begins with the first that was said of it. A numbered one begins no earlier than those of
    lesser numbers, whatever the clocks of different providers tell; the provider that was asked is the first.
    """
    if len(attempts) == 1:
        return attempts
    begun = _NEVER
    begins: dict[int | str | None, int] = {}
    last_of: dict[int | str | None, int | str] = {}
    for attempt in sorted((each for each in attempts if isinstance(each.name, int)), key=_number):
        begun = begins[attempt.name] = max(begun, attempt.at)
        last_of[attempt.provider] = _number(attempt)
    tries = {each.name: each for each in attempts if each.name is not None and each.name not in last_of}
    for attempt in attempts:
        if attempt.name is not None and attempt.name in last_of:
            of = last_of[attempt.name]
            tries[of] = _joined(tries[of], attempt)
    ordered = sorted(
        tries.values(),
        key=lambda each: (not each.requested, begins.get(each.name, each.at), _number(each), str(each.name)),
    )
    for attempt in attempts:
        if attempt.name is None:
            ordered[-1] = _joined(ordered[-1], attempt)
    return ordered


def _number(attempt: Attempt) -> int:
    return attempt.name if isinstance(attempt.name, int) else -1


def _joined(attempt: Attempt, said: Attempt) -> Attempt:
    """Return an attempt with what was said of the message."""
    failure, failure_at = attempt.failure, attempt.failure_at
    if said.failure is not None and is_greater(said.failure_at, said.failure, attempt):
        failure, failure_at = said.failure, said.failure_at
    return Attempt(
        attempt.name,
        attempt.at,
        attempt.seen | said.seen,
        attempt.provider,
        attempt.named_at,
        failure,
        failure_at,
        attempt.requested,
    )


def speaker(attempts: list[Attempt], channel: str | None) -> Attempt:
    """Return the attempt whose status is that of the message.

    What has arrived has arrived: of attempts that did, the one that came furthest speaks, and of those the
    latest. If none did, the latest speaks; that an earlier one failed, or fails late, is the past.
    """
    if len(attempts) == 1:
        return attempts[0]
    ordered = in_order(attempts)
    speaks, furthest = ordered[-1], DELIVERED
    for attempt in ordered:
        status = winner(attempt.seen, channel)
        if status >= furthest:
            speaks, furthest = attempt, status
    return speaks


def contradict(attempts: list[Attempt]) -> bool:
    """Say whether any attempt is said both to have failed and to have arrived."""
    return any(is_contradiction(attempt.seen) for attempt in in_order(attempts))
