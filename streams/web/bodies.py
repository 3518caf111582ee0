"""Bodies of requests, and what may send them."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from streams.domain.errors import MalformedRecord
from streams.messages import MAX_VALUE_BYTES, malformed
from streams.web import problems

__all__ = ["bytes_of", "json_response", "object_of", "refuse_foreign", "said_in"]

T = TypeVar("T")

#: What browsers say of a request that another site's page makes; a page must not stop anybody's messages.
FOREIGN: Final = frozenset({"cross-site", "same-site"})


def refuse_foreign(request: web.Request) -> None:
    """Raise a problem if the page of another site asks."""
    if request.headers.get("Sec-Fetch-Site") in FOREIGN:
        raise problems.Problem(403, "Pages of other sites may not change anything here.")


async def object_of(request: web.Request) -> dict[str, Any]:
    """Return the body's JSON object.

    Raises:
        Problem: it has none, or too large a one, or may not ask.
    """
    try:
        said = msgspec.json.decode(await bytes_of(request))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise problems.malformed(MalformedRecord("not-json", "", str(error))) from error
    if not isinstance(said, dict):
        raise problems.malformed(MalformedRecord("wrong-type", "", "Expected `object`"))
    return said


def said_in(body: bytes, type_: type[T]) -> T:
    """Return what a body in JSON says, as a type.

    Raises:
        Problem: which field is wrong, and why.
    """
    try:
        return msgspec.json.decode(body, type=type_)
    except (ValueError, RecursionError) as error:
        raise problems.malformed(malformed(error)) from None


async def bytes_of(request: web.Request) -> bytes:
    """Return the body, which is JSON by its type.

    Raises:
        Problem: it is not, or too large, or may not ask.
    """
    refuse_foreign(request)
    if request.content_type != "application/json":
        raise problems.Problem(415, "Send JSON, with Content-Type: application/json.")
    body = await request.content.read(MAX_VALUE_BYTES + 1)
    while len(body) <= MAX_VALUE_BYTES and (more := await request.content.read(MAX_VALUE_BYTES)):
        body += more
    if len(body) > MAX_VALUE_BYTES:
        raise problems.Problem(413, f"At most {MAX_VALUE_BYTES} bytes are taken.")
    return body


def json_response(status: int, said: Any) -> web.Response:
    """Return an answer in JSON."""
    return web.Response(status=status, body=msgspec.json.encode(said), content_type="application/json")
