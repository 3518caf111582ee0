"""What is told to endpoints: frozen when it happened, in order per endpoint and message, tried again.

The law, without a clock and without chance. Of each message the webhooks to one endpoint form a queue, of
which the first is tried until it is delivered or its tries are used up; then comes the next. What came of an
attempt is a record like any other: it says which attempt it was and what was random, so each counts once,
however often it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from streams.domain.attempts import Text
from streams.domain.delivery import MessageId
from streams.domain.endpoints import Endpoint
from streams.domain.retries import Verdict, next_attempt_at, verdict_of

__all__ = [
    "EVENT_RANGES",
    "GROUP_BYTES",
    "MOST_BODY_BYTES",
    "MOST_PAUSE_MS",
    "MOST_TIME_MS",
    "OWN",
    "Abandon",
    "Attempted",
    "Queue",
    "Resend",
    "Sending",
    "Standing",
    "State",
    "Told",
    "Trouble",
    "Try",
    "after_attempt",
    "begun_anew",
    "counts",
    "event_id",
    "event_key",
    "event_place",
    "group_of",
    "owner_of",
    "partition_named",
    "queue_key",
    "queue_names",
    "sending_key",
    "sending_names",
    "verdict",
]

State: TypeAlias = Literal["pending", "delivered", "failed"]

Trouble: TypeAlias = Literal[
    "forbidden", "dns", "tls", "refused", "timeout", "disconnected", "protocol", "invalid-url", "unsealable"
]
"""Why there is no answer of HTTP."""

MOST_BODY_BYTES: Final = 20_000
"""Of a webhook; what would be more goes without the report."""

GONE_PAUSE_MS: Final = 3_600_000

MOST_TRIES_LOGGED: Final = 30
"""Attempts that the log of a webhook keeps, the last of them."""

GROUP_BYTES: Final = 8

OWN: Final = "@"
"""Begins the ids of endpoints that a message's own request named; then comes which of them."""

_STREAMS: Final[Mapping[str, bytes]] = {"requests": b"r", "statuses": b"s"}
_ID: Final = re.compile(rf"({'|'.join(_STREAMS)})-[0-9]{{1,19}}-([0-9]{{1,19}})-([0-9]{{1,19}})")
_STREAM_NAMES: Final = {letter: name for name, letter in _STREAMS.items()}
_PLACE: Final = Struct(">cQB")
_pack: Final = _PLACE.pack
_unpack: Final = _PLACE.unpack

EVENT_RANGES: Final = [(letter, letter + b"\xff" * _PLACE.size) for letter in _STREAMS.values()]
"""Between which keys the events of each input lie, in order of arrival."""


MOST_TIME_MS: Final = 2**62
MOST_PAUSE_MS: Final = 2**40

Time: TypeAlias = Annotated[int, msgspec.Meta(ge=-MOST_TIME_MS, le=MOST_TIME_MS)]
"""A time, ms: with some pauses added still one that can be stored."""

Pause: TypeAlias = Annotated[int, msgspec.Meta(ge=-MOST_PAUSE_MS, le=MOST_PAUSE_MS)]
"""How long something takes, ms; clocks may be set back meanwhile."""


class Told(msgspec.Struct, array_like=True, gc=False):
    """An event as it is told, and how it is stored: an array that begins with its version.

    Attributes:
        at: when it was made, by the record that it was made of; ms.
        endpoints: the ids of those that it is told to.
        body: of the webhook, the same for all of them and for every attempt.
    """

    version: Literal[1] = 1
    message_id: str = ""
    type: str = ""
    at: int = 0
    endpoints: list[str] = []
    body: bytes = b""


class Queue(msgspec.Struct, array_like=True, gc=False):
    """What waits to be told to one endpoint of one message; only the first is tried.

    Attributes:
        group: what is sent side by side only so often; see `group_of`.
        waiting: keys of events, in order, the first one first.
        due_at: when the first is tried again, or, if it never was, when it came; ms.
        attempts: how often it was.
        from_attempt: how many of them were made before it was begun anew.
        endpoint: where it goes, if that is said by the message itself.
    """

    version: Literal[1] = 1
    group: bytes = b""
    waiting: list[bytes] = []
    due_at: int = 0
    attempts: int = 0
    from_attempt: int = 0
    endpoint: Endpoint | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the first was not tried yet, since it was begun: it is due, whatever the clocks say."""
        return self.attempts == self.from_attempt


Standing: TypeAlias = tuple[Queue, Told | None] | None
"""How a queue stands, with its first if that is at hand; None: nothing waits there any more."""


class Try(msgspec.Struct, array_like=True, gc=False):
    """What came of an attempt; times in ms."""

    number: int
    started_at: int
    duration_ms: int
    status: int | None = None
    trouble: Trouble | None = None
    body: str = ""


class Sending(msgspec.Struct, array_like=True, gc=False):
    """What became of telling one event to one endpoint, once it was tried.

    Attributes:
        at: when the event was made; ms.
        attempts: how many were made; `tries` has the last of them.
        endpoint: where it goes, if that is said by the message itself.
    """

    version: Literal[1] = 1
    message_id: str = ""
    state: State = "pending"
    group: bytes = b""
    at: int = 0
    attempts: int = 0
    tries: list[Try] = []
    endpoint: Endpoint | None = None


class Attempted(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="webhook.attempted"):
    """What a sender says of an attempt; times in ms.

    Attributes:
        number: of the attempt, from 1.
        made_at: when the event was made.
        random: from 0 up to 1; decides on the jitter of the next one.
        retry_after: how long the receiver asked to be left alone.
    """

    message_id: MessageId
    event_id: Text
    endpoint_id: Text
    number: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    made_at: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    started_at: Time
    duration: Pause
    random: Annotated[float, msgspec.Meta(ge=0, le=1)]
    status: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None
    trouble: Trouble | None = None
    body: str = ""
    retry_after: Pause | None = None


class Resend(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="webhook.resend"):
    """The request that an event be told to an endpoint once more, from the first attempt on."""

    message_id: MessageId
    event_id: Text
    endpoint_id: Text


class Abandon(msgspec.Struct, gc=False, rename="camel", tag_field="type", tag="webhook.abandon"):
    """A sender's request to forget what waits of a message for an endpoint that is there no longer."""

    message_id: MessageId
    endpoint_id: Text


def event_place(stream: str, offset: int, number: int) -> bytes:
    """Return the key of an event: of a record's events the one of that number."""
    return _pack(_STREAMS[stream], offset, number)


def event_key(id_: str) -> bytes | None:
    """Return what stands for an event in the tables of its partition, in order of arrival.

    Returns: None when nothing has such an id.
    """
    found = _ID.fullmatch(id_)
    if found is None:
        return None
    offset, number = int(found[2]), int(found[3])
    if offset >= 1 << 63 or number > 255:
        return None
    return event_place(found[1], offset, number)


def partition_named(id_: str) -> int | None:
    """Return the partition that an event was made in, as its id says; None when nothing has such an id."""
    return None if event_key(id_) is None else int(id_.split("-")[1])


def event_id(partition: int, key: bytes) -> str:
    """Return the id of an event."""
    letter, offset, number = _unpack(key)
    return f"{_STREAM_NAMES[letter]}-{partition}-{offset}-{number}"


def queue_key(endpoint_id: str, message_id: str) -> bytes:
    """Return the key of a queue; ids of endpoints have no NUL."""
    return f"{endpoint_id}\0{message_id}".encode()


def queue_names(key: bytes) -> tuple[str, str]:
    """Return the ids of endpoint and message that a queue's key is made of."""
    endpoint_id, _, message_id = key.decode().partition("\0")
    return endpoint_id, message_id


def sending_key(event: bytes, endpoint_id: str) -> bytes:
    """Return the key of what became of telling an event to an endpoint: beside the event's."""
    return event + endpoint_id.encode()


def sending_names(key: bytes) -> tuple[bytes, str]:
    """Return the event's key and the endpoint's id that a sending's key is made of."""
    return key[: _PLACE.size], key[_PLACE.size :].decode()


def owner_of(message_id: str) -> str:
    """Return whose the secrets are that a message's own request named."""
    return OWN + message_id


def group_of(name: str) -> bytes:
    """Return what stands for an endpoint in the index."""
    return blake2b(name.encode(), digest_size=GROUP_BYTES).digest()


def verdict(said: Attempted) -> Verdict:
    """Say what an attempt came to."""
    return "failed" if said.status is None else verdict_of(said.status)


def counts(queue: Queue, said: Attempted) -> bool:
    """Return whether an attempt counts for the first of a queue, which it is about.

    The next one does. An earlier one counts if it was delivered: two senders may have made an attempt of the
    same number, for the second did not know yet that the first had failed.
    """
    if said.number == queue.attempts + 1:
        return True
    return queue.from_attempt < said.number <= queue.attempts and verdict(said) == "delivered"


def after_attempt(
    queue: Queue,
    sending: Sending,
    said: Attempted,
    came_to: Verdict,
    schedule: Sequence[int],
    *,
    is_kept: bool,
) -> State:
    """Note what came of the attempt that a queue's first was due for, and say how that stands now.

    While it is pending, the queue says when it is tried again; else the first is to be let go (`begun_anew`).

    Args:
        came_to: what is to be made of it (`verdict`).
        is_kept: whether the endpoint outlives the message: what is refused for ever waits until it is mended.
    """
    tried = Try(said.number, said.started_at, said.duration, said.status, said.trouble, said.body)
    sending.tries = [*sending.tries[1 - MOST_TRIES_LOGGED :], tried] if sending.tries else [tried]
    sending.attempts = queue.attempts = max(queue.attempts, said.number)
    if came_to == "delivered":
        sending.state = "delivered"
        return "delivered"
    ended_at, made = said.started_at + said.duration, said.number - queue.from_attempt
    again = next_attempt_at(ended_at, made, said.random, said.retry_after, schedule)
    if came_to == "gone":
        # until its endpoint is known to be disabled it must not be tried at once
        again = (again or ended_at + GONE_PAUSE_MS) if is_kept else None
    sending.state = "failed" if again is None else "pending"
    queue.due_at = ended_at if again is None else again
    return sending.state


def begun_anew(queue: Queue, at: int, attempts: int) -> None:
    """Have the first of a queue tried from the beginning.

    Args:
        at: when it came to be the first, ms.
        attempts: how often it was tried before, so that attempts of then are not taken for those of now.
    """
    queue.due_at, queue.attempts, queue.from_attempt = at, attempts, attempts
