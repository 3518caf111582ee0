"""What a worker and its sender tell each other, in order: frames on a pipe.

A frame is four bytes of length, then a list in msgpack. The worker says how its partitions stand and what
waits there, and answers questions; an answer is true at its place among what else is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from streams.domain.endpoints import Endpoint
from streams.domain.webhooks import Queue, Standing, Told

__all__ = [
    "QUESTIONS",
    "TIDINGS",
    "Answer",
    "Counted",
    "Firsts",
    "Groups",
    "Held",
    "Known",
    "Listed",
    "Look",
    "Noted",
    "Produce",
    "Produced",
    "Question",
    "Read",
    "Said",
    "Stands",
    "Tidings",
    "Waits",
    "Wire",
]

T = TypeVar("T")

LENGTH_BYTES: Final = 4

MOST_FRAME_BYTES: Final = 512 << 20
"""More than either side has to say at a time; letters that are read as a length are more."""

Listing: TypeAlias = tuple[bytes, bytes]
"""An entry of the index, and its key."""

Due: TypeAlias = tuple[tuple[bytes, bytes], Standing]
"""A queue's group and key, and how it stands."""


class Message(msgspec.Struct, array_like=True, tag=True, gc=False):
    """What is said by either side."""


class Known(Message):
    """An endpoint as it is now; None: it is there no longer."""

    endpoint_id: str
    endpoint: Endpoint | None


class Held(Message):
    """The partitions that the worker holds.

    Attributes:
        generation: changes whenever one of them may have been elsewhere, before it is here again.
        partitions: how many there are in all.
    """

    generation: int
    held: list[int]
    partitions: int


class Stands(Message):
    """Up to which offset all is applied that came of attempts, by partition.

    Attributes:
        is_busy: whether lanes lag behind their inputs.
    """

    stands: dict[int, int]
    is_busy: bool


class Noted(Message):
    """How queues of a partition stand that a unit of work has changed."""

    partition: int
    due: list[Due]


class Waits(Message):
    """For whom anything waits in a partition; None, here and below: it is held no longer."""

    number: int
    groups: list[bytes] | None


class Listed(Message):
    """What the index lists for an endpoint: what is due again, or soon will be, and what was not tried yet.

    Attributes:
        retries_from, fresh_from: where others may be.
    """

    number: int
    retries: list[Listing] | None
    retries_from: bytes | None
    fresh: list[Listing]
    fresh_from: bytes | None


class Firsts(Message):
    """Queues and their firsts, as they were asked for."""

    number: int
    rows: list[tuple[Queue | None, Told | None]] | None


class Produced(Message):
    """Where the last of some records lies; None: they could not be produced."""

    number: int
    offset: int | None


class Groups(Message):
    """The question for whom anything waits in a partition: `Waits`."""

    number: int
    partition: int


class Look(Message):
    """The question what the index lists for an endpoint in a partition: `Listed`.

    Attributes:
        now: what is due later is wanted only so far; ms.
        retries_from, fresh_from: from where on; None: not wanted.
    """

    number: int
    partition: int
    group: bytes
    now: int
    retries_from: bytes | None
    fresh_from: bytes | None


class Read(Message):
    """The question how queues of a partition stand, and what their firsts are: `Firsts`."""

    number: int
    partition: int
    keys: list[bytes]


class Produce(Message):
    """Keys and values that are to be produced to a partition of the topic of webhooks: `Produced`."""

    number: int
    partition: int
    records: list[tuple[bytes, bytes]]


class Counted(Message):
    """What came of attempts since it was last said, by answer; said every second.

    Attributes:
        under_way: attempts that are being made.
    """

    answers: dict[str, int]
    under_way: int


Answer: TypeAlias = Waits | Listed | Firsts
Question: TypeAlias = Groups | Look | Read
"""Of the tables."""

Tidings: TypeAlias = Known | Held | Stands | Noted | Answer | Produced
"""What a worker tells its sender."""

Said: TypeAlias = Question | Produce | Counted
"""What a sender tells its worker."""


class Wire(Generic[T]):
    """How lists of one type go over a pipe."""

    def __init__(self, type_: Any) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(type_).decode

    def frame(self, items: Sequence[T]) -> bytes:
        """Return a frame that carries some items."""
        packed = self._encode(items)
        return len(packed).to_bytes(LENGTH_BYTES, "big") + packed

    async def read(self, reader: asyncio.StreamReader) -> list[T]:
        """Return the items of the next frame.

        Raises:
            IncompleteReadError: the other side has gone.
            ValueError, DecodeError: something else was written to the pipe.
        """
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        if length > MOST_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes")
        items: list[T] = self._decode(await reader.readexactly(length))
        return items


TIDINGS: Final[Wire[Tidings]] = Wire(list[Tidings])
QUESTIONS: Final[Wire[Said]] = Wire(list[Said])
