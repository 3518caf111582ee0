"""What can be asked for over HTTP that changes something.

Nothing is changed here: a call becomes a record of an input topic like anybody's, and the answer says where
it stands. What becomes of it is decided by the lane of its message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from streams.domain.errors import MalformedRecord
from streams.domain.placement import partition_of
from streams.engine.reading import Reader
from streams.messages import MAX_VALUE_BYTES, Stream, encode, read_request, read_status
from streams.web import problems
from streams.web.queries import single_values

__all__ = ["Commands", "Placed", "Produce"]

log = logging.getLogger(__name__)

PRODUCE_TIMEOUT_S: Final = 10.0
#: What browsers say of a request that another site's page makes; a page must not stop anybody's messages.
FOREIGN: Final = frozenset({"cross-site", "same-site"})


class Placed(msgspec.Struct):
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int


#: Produces to an input topic: stream, key, value, partition; returns when the broker has acknowledged.
Produce = Callable[[Stream, bytes, bytes, int], Awaitable[Placed]]


class Commands:
    """The handlers that produce."""

    def __init__(self, produce: Produce, reader: Reader) -> None:
        self._produce = produce
        self._reader = reader

    async def track(self, request: web.Request) -> web.Response:
        """Take a track request."""
        single_values(request.query, ())
        said = await _body(request) | {"type": "track"}
        return await self._accept("requests", said)

    async def say(self, request: web.Request) -> web.Response:
        """Take a status of a message."""
        single_values(request.query, ())
        return await self._accept("statuses", _of(request, await _body(request)))

    async def stop(self, request: web.Request) -> web.Response:
        """Take the request that a message be tracked no longer."""
        _refuse_foreign(request)
        values = single_values(request.query, ("reason",))
        return await self._accept("requests", _of(request, {"type": "stop", **values}))

    async def erase(self, request: web.Request) -> web.Response:
        """Take the request that what may be personal be forgotten."""
        _refuse_foreign(request)
        single_values(request.query, ())
        return await self._accept("requests", _of(request, {"type": "erase"}))

    async def _accept(self, stream: Stream, said: dict[str, Any]) -> web.Response:
        value = encode(said)
        read: Callable[[bytes], Any] = read_status if stream == "statuses" else read_request
        try:
            message_id: str = read(value).message_id
        except MalformedRecord as error:
            raise problems.malformed(error) from error
        key = message_id.encode()
        try:
            async with asyncio.timeout(PRODUCE_TIMEOUT_S):
                placed = await self._produce(stream, key, value, partition_of(key, self._reader.partitions))
        except Exception as error:
            log.warning("a record could not be produced to %s: %r", stream, error)
            raise problems.not_produced() from error
        return web.Response(status=202, body=msgspec.json.encode(placed), content_type="application/json")


def _refuse_foreign(request: web.Request) -> None:
    if request.headers.get("Sec-Fetch-Site") in FOREIGN:
        raise problems.Problem(403, "Pages of other sites may not change anything here.")


async def _body(request: web.Request) -> dict[str, Any]:
    _refuse_foreign(request)
    if request.content_type != "application/json":
        raise problems.Problem(415, "Send JSON, with Content-Type: application/json.")
    body = await request.content.read(MAX_VALUE_BYTES + 1)
    while len(body) <= MAX_VALUE_BYTES and (more := await request.content.read(MAX_VALUE_BYTES)):
        body += more
    if len(body) > MAX_VALUE_BYTES:
        raise problems.Problem(413, f"At most {MAX_VALUE_BYTES} bytes are taken.")
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise problems.malformed(MalformedRecord("not-json", "", str(error))) from error
    if not isinstance(said, dict):
        raise problems.malformed(MalformedRecord("wrong-type", "", "Expected `object`"))
    return said


def _of(request: web.Request, said: dict[str, Any]) -> dict[str, Any]:
    """Say it of the message in the path; a body may name the same."""
    message_id = request.match_info["messageId"]
    if said.get("messageId", message_id) != message_id:
        other = MalformedRecord("invalid-value", "messageId", "differs from the one in the path")
        raise problems.malformed(other)
    return said | {"messageId": message_id}
