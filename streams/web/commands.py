"""What can be asked for over HTTP that changes something.

Nothing is changed here: a call becomes a record of an input topic like anybody's, and the answer says where
it stands. What becomes of it is decided by the lane of its message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from streams.domain.errors import MalformedRecord
from streams.domain.placement import partition_of
from streams.engine.calls import Calls
from streams.engine.reading import Reader
from streams.engine.units import Headers
from streams.messages import Stream, encode, read_request, read_status
from streams.web import problems
from streams.web.answers import CleanedPart
from streams.web.asking import HOP_HEADER, Ask, Unreachable
from streams.web.bodies import json_response, object_of, refuse_foreign
from streams.web.gathering import Gathering
from streams.web.queries import parse_partitions, parse_wait, single_values

__all__ = ["CleanUp", "Commands", "Doing", "Placed", "Produce", "by_holder"]

log = logging.getLogger(__name__)

PRODUCE_TIMEOUT_S: Final = 10.0
CLEANUP_S: Final = 20.0


class Known(msgspec.Struct):
    """What became of a record."""

    outcome: str


class Placed(msgspec.Struct):
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int


#: Produces to an input topic: stream, key, value, partition, headers; returns when the broker has
#: acknowledged.
Produce = Callable[[Stream, bytes, bytes, int, Headers], Awaitable[Placed]]
#: Works off what is due in those of the partitions that this worker holds, for at most so many seconds.
CleanUp = Callable[[Sequence[int], float], Awaitable[CleanedPart]]


@dataclass(frozen=True)
class Doing:
    """What the views can have done, beside reading."""

    produce: Produce
    clean_up: CleanUp
    calls: Calls

    async def produced(
        self, stream: Stream, key: bytes, value: bytes, partition: int, headers: Headers
    ) -> Placed:
        """Produce, or raise the problem that nobody knows whether the broker has it."""
        try:
            async with asyncio.timeout(PRODUCE_TIMEOUT_S):
                return await self.produce(stream, key, value, partition, headers)
        except Exception as error:
            log.warning("a record could not be produced to %s: %r", stream, error)
            raise problems.not_produced() from error


class Commands:
    """The handlers that produce."""

    def __init__(
        self, doing: Doing, reader: Reader, gathering: Gathering, sealed: Callable[[str, Any], Any]
    ) -> None:
        """Make them.

        Args:
            sealed: returns the webhooks of a message's request without secrets in the clear.
        """
        self._sealed = sealed
        self._doing = doing
        self._reader = reader
        self._gathering = gathering

    async def track(self, request: web.Request) -> web.Response:
        """Take a track request."""
        values = single_values(request.query, ("wait",))
        said = await object_of(request) | {"type": "track"}
        if said.get("webhooks"):
            message_id = _message_of(encode(said), read_request)
            said["webhooks"] = self._sealed(message_id, said["webhooks"])
        return await self._accept(request, "requests", said, parse_wait(values))

    async def say(self, request: web.Request) -> web.Response:
        """Take a status of a message."""
        values = single_values(request.query, ("wait",))
        return await self._accept(
            request, "statuses", _of(request, await object_of(request)), parse_wait(values)
        )

    async def stop(self, request: web.Request) -> web.Response:
        """Take the request that a message be tracked no longer."""
        refuse_foreign(request)
        values = single_values(request.query, ("reason", "wait"))
        wait_s = parse_wait(values)
        values.pop("wait", None)
        return await self._accept(request, "requests", _of(request, {"type": "stop", **values}), wait_s)

    async def erase(self, request: web.Request) -> web.Response:
        """Take the request that what may be personal be forgotten."""
        refuse_foreign(request)
        values = single_values(request.query, ("wait",))
        return await self._accept(request, "requests", _of(request, {"type": "erase"}), parse_wait(values))

    async def clean_up(self, request: web.Request) -> web.Response:
        """Have every worker work off what is due."""
        refuse_foreign(request)
        single_values(request.query, ())
        done = await self._gathering.cleanup(self._cleaned, CLEANUP_S)
        return web.Response(body=done, content_type="application/json")

    async def clean_up_part(self, request: web.Request) -> web.Response:
        """Work off what is due in this worker's share of the partitions."""
        refuse_foreign(request)
        values = single_values(request.query, ("partitions",))
        partitions = parse_partitions(values.get("partitions"), self._reader.partitions)
        part = msgspec.msgpack.encode(await self._cleaned(partitions))
        return web.Response(body=part, content_type="application/msgpack")

    async def _cleaned(self, partitions: Sequence[int]) -> CleanedPart:
        return await self._doing.clean_up(partitions, CLEANUP_S)

    async def _accept(
        self, request: web.Request, stream: Stream, said: dict[str, Any], wait_s: float | None
    ) -> web.Response:
        """Produce what is said; if its outcome is waited for, where it will be known.

        Args:
            wait_s: how long to wait for the outcome; None: not at all.
        """
        value = encode(said)
        key = _message_of(value, read_status if stream == "statuses" else read_request).encode()
        partition = partition_of(key, self._reader.partitions)
        if wait_s is None:
            return json_response(202, await self._doing.produced(stream, key, value, partition, []))
        holder = None if HOP_HEADER in request.headers else self._reader.holder(partition)
        if partition not in self._reader.held() and holder is not None:
            return await self._passed_on(holder, request, value, wait_s)
        with self._doing.calls.expect() as call:
            placed = await self._doing.produced(stream, key, value, partition, [call.header])
            if await call.until(1, wait_s):
                return json_response(200, Known(next(iter(call.outcomes))))
        return json_response(202, placed)

    async def _passed_on(
        self, holder: str, request: web.Request, value: bytes, wait_s: float
    ) -> web.Response:
        """Let the worker do it that holds the message's partition, for it will know the outcome."""
        body = value if request.body_exists else None
        try:
            return await passed_on(self._gathering.ask, holder, request, body, PRODUCE_TIMEOUT_S + wait_s + 1)
        except Unreachable as error:
            # it may have produced it all the same
            raise problems.not_produced() from error


async def by_holder(
    gathering: Gathering, request: web.Request, partition: int, within_s: float, body: bytes | None = None
) -> web.Response | None:
    """Let the worker answer that holds a partition; None if it is this one.

    Raises:
        Problem: nobody is known to hold it, or who does gives no answer.
    """
    reader = gathering.reader
    if partition in reader.held():
        return None
    holder = reader.holder(partition)
    if HOP_HEADER in request.headers or holder is None:
        raise gathering.unavailable([partition])
    try:
        return await passed_on(gathering.ask, holder, request, body, within_s)
    except Unreachable as error:
        raise gathering.unavailable([partition]) from error


async def passed_on(
    ask: Ask, holder: str, request: web.Request, body: bytes | None, within_s: float
) -> web.Response:
    """Return another worker's answer to a request; raise Unreachable if it gives none."""
    path = request.rel_url.raw_path_qs
    status, answer = await ask(holder, path, method=request.method, body=body, within_s=within_s)
    kind = "application/json" if status < 400 else problems.CONTENT_TYPE
    return web.Response(status=status, body=answer or None, content_type=kind)


def _message_of(value: bytes, read: Callable[[bytes], Any]) -> str:
    """Return the message that a record is about, if it is one that will be applied."""
    try:
        message_id: str = read(value).message_id
    except MalformedRecord as error:
        raise problems.malformed(error) from error
    return message_id


def _of(request: web.Request, said: dict[str, Any]) -> dict[str, Any]:
    """Say it of the message in the path; a body may name the same."""
    message_id = request.match_info["messageId"]
    if said.get("messageId", message_id) != message_id:
        other = MalformedRecord("invalid-value", "messageId", "differs from the one in the path")
        raise problems.malformed(other)
    return said | {"messageId": message_id}
