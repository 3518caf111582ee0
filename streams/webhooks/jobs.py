"""What a worker and its sender tell each other: jobs one way, what came of them the other.

Frames on a pipe: four bytes of length, then a list in msgpack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from streams.domain.endpoints import Endpoint
from streams.domain.webhooks import Trouble

__all__ = ["DONE", "JOBS", "Done", "Job", "Wire"]

T = TypeVar("T")

LENGTH_BYTES: Final = 4


class Job(msgspec.Struct, array_like=True, gc=False):
    """One attempt that is to be made.

    Attributes:
        number: says which job it is, and nothing else.
        owner: whose the endpoint's secrets are: its own, by its id, or a message's.
    """

    number: int
    owner: str
    endpoint: Endpoint
    webhook_id: str
    type: str
    body: bytes


class Done(msgspec.Struct, array_like=True, gc=False):
    """What came of a job; times in ms."""

    number: int
    started_at: int
    duration_ms: int
    status: int | None
    trouble: Trouble | None
    body: str
    retry_after_ms: int | None


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
        """
        length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
        items: list[T] = self._decode(await reader.readexactly(length))
        return items


JOBS: Final[Wire[Job]] = Wire(list[Job])
DONE: Final[Wire[Done]] = Wire(list[Done])
