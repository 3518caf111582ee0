"""The HTTP face: routes, headers and problems; what is answered stands in `gathering` and `answers`.

The handlers are aiohttp's own, on the application that Faust's web server runs: Faust's View turns errors
into `{"error": ...}` documents of one fixed content type (faust/web/views.py, `View.error`), and paths and
methods that do not exist are answered in aiohttp's plain text, so a middleware is needed anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streams.domain.endpoints import Endpoint
from streams.engine.reading import Reader
from streams.web import problems
from streams.web.answers import NotHeld
from streams.web.asking import HOP_HEADER, Asking
from streams.web.commands import Commands, Doing
from streams.web.counting import StatsTables
from streams.web.endpoints import INTERNAL_ENDPOINTS, Endpoints, Kept
from streams.web.gathering import INTERNAL_CLEANUP, INTERNAL_LIST, Gathering
from streams.web.problems import Problem
from streams.web.queries import parse_listing, parse_partitions, parse_stats, single_values
from streams.web.statistics import INTERNAL_STATS, Statistics, unpacked
from streams.web.webhooks import INTERNAL_REPLAY, INTERNAL_WEBHOOKS, Webhooks
from tables.webhooks import WebhookTables

__all__ = ["mount"]

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def mount(
    application: web.Application,
    reader: Reader,
    tables: StatsTables,
    doing: Doing,
    retention_ms: int,
    now: Callable[[], int],
    kept: Kept,
    sent: WebhookTables,
    known: Mapping[str, Endpoint],
) -> Statistics:
    """Put the views on an aiohttp application that has not started; return what answers about statistics.

    Args:
        known: all endpoints, as this worker knows them.
    """
    asking = Asking()
    gathering = Gathering(reader, tables.deliveries, asking)
    endpoints = Endpoints(kept, doing, reader, gathering, now)
    commands = Commands(doing, reader, gathering, endpoints.sealed)
    webhooks = Webhooks(sent, known, doing, reader, gathering)
    statistics = Statistics(reader, tables, gathering.scatter, retention_ms, now)
    views = Views(reader, gathering, statistics)
    application.middlewares.append(views.explain)
    application.on_response_prepare.append(harden)
    application.on_cleanup.append(asking.close)
    application.on_cleanup.append(endpoints.close)
    application.add_routes(
        [
            web.get("/live", live),
            web.get("/ready", views.ready),
            web.get("/metrics", metrics),
            web.get("/v1/stats", views.stats),
            web.get("/v1/activity", views.activity),
            web.get("/v1/messages", views.messages),
            # aiohttp's own {name} would not match an id that holds a brace.
            web.get("/v1/messages/{messageId:[^/]+}", views.message),
            web.get("/v1/messages/{messageId:[^/]+}/report", views.report),
            web.post("/v1/messages", commands.track),
            web.post("/v1/messages/{messageId:[^/]+}/statuses", commands.say),
            web.post("/v1/messages/{messageId:[^/]+}/erase", commands.erase),
            web.delete("/v1/messages/{messageId:[^/]+}", commands.stop),
            web.post("/v1/cleanup", commands.clean_up),
            web.get("/v1/endpoints", endpoints.listing),
            web.post("/v1/endpoints", endpoints.register),
            web.get("/v1/endpoints/{endpointId:[^/]+}", endpoints.one),
            web.patch("/v1/endpoints/{endpointId:[^/]+}", endpoints.change),
            web.delete("/v1/endpoints/{endpointId:[^/]+}", endpoints.remove),
            web.post("/v1/endpoints/{endpointId:[^/]+}/ping", endpoints.ping),
            web.post("/v1/endpoints/{endpointId:[^/]+}/rotate", endpoints.rotate),
            web.post("/v1/endpoints/{endpointId:[^/]+}/replay", webhooks.replay),
            web.get("/v1/webhooks", webhooks.listing),
            web.get("/v1/webhooks/{eventId:[^/]+}", webhooks.one),
            web.post("/v1/webhooks/{eventId:[^/]+}/resend", webhooks.resend),
            web.get(INTERNAL_ENDPOINTS, endpoints.listing_part),
            web.get(INTERNAL_WEBHOOKS, webhooks.listing_part),
            web.post(INTERNAL_REPLAY, webhooks.replay_part),
            web.post(INTERNAL_CLEANUP, commands.clean_up_part),
            web.get(INTERNAL_LIST, views.messages_part),
            web.get(INTERNAL_STATS, views.stats_part),
        ]
    )
    return statistics


class Views:
    """The handlers that read tables."""

    def __init__(self, reader: Reader, gathering: Gathering, statistics: Statistics) -> None:
        self.reader = reader
        self.gathering = gathering
        self.statistics = statistics

    async def ready(self, request: web.Request) -> web.Response:
        """Answer 200 while all that the group gave this worker is recovered and open."""
        ready, reason = self.reader.ready()
        if not ready:
            raise problems.not_ready(reason)
        return as_json(msgspec.json.encode({"status": "ready"}))

    async def message(self, request: web.Request) -> web.Response:
        """Show the tracking record of one message."""
        single_values(request.query, ())
        message_id = request.match_info["messageId"]
        return as_json(await self.gathering.record(message_id, asked_by_worker=asked_by_worker(request)))

    async def report(self, request: web.Request) -> web.Response:
        """Show the delivery report of one message."""
        single_values(request.query, ())
        message_id = request.match_info["messageId"]
        return as_json(await self.gathering.report(message_id, asked_by_worker=asked_by_worker(request)))

    async def messages(self, request: web.Request) -> web.Response:
        """List the messages of one status, newest first."""
        values = single_values(request.query, ("status", "limit", "cursor"))
        return as_json(await self.gathering.listing(parse_listing(values)))

    async def stats(self, request: web.Request) -> web.Response:
        """Show how all messages stand, or those created or sent in a period."""
        return as_json(await self.statistics.stats(parse_stats(request.query, with_by=True)))

    async def activity(self, request: web.Request) -> web.Response:
        """Show what happened, ever or in a period."""
        return as_json(await self.statistics.activity(parse_stats(request.query, with_by=False)))

    async def messages_part(self, request: web.Request) -> web.Response:
        """Give another worker this one's share of a list."""
        values = single_values(request.query, ("status", "limit", "cursor", "partitions"))
        partitions = parse_partitions(values.get("partitions"), self.reader.partitions)
        return as_msgpack(await self.gathering.listing_part(parse_listing(values), partitions))

    async def stats_part(self, request: web.Request) -> web.Response:
        """Give another worker this one's share of the statistics."""
        values = single_values(request.query, ("partitions", "inquiry"))
        partitions = parse_partitions(values.get("partitions"), self.reader.partitions)
        return as_msgpack(await self.statistics.part(partitions, unpacked(values.get("inquiry", ""))))

    @web.middleware
    async def explain(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give every failure its problem document."""
        try:
            require_utf8(request.raw_path)
            return await handler(request)
        except Problem as problem:
            return as_problem(problem)
        except NotHeld as error:
            return as_problem(self.gathering.unavailable(error.partitions))
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return as_problem(from_http(error))
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return as_problem(Problem(500, "The request failed inside; the worker's log says why."))


def require_utf8(target: str) -> None:
    """Refuse a path or query that is not UTF-8: aiohttp would take its bytes for the text of their escapes.

    Raises:
        Problem: it is not.
    """
    try:
        unquote_to_bytes(target).decode()
    except UnicodeError:
        raise Problem(400, "The path and the query of a URL are UTF-8, percent-encoded.") from None


async def live(request: web.Request) -> web.Response:
    """Answered by the loop that also feeds the lanes: silence means that it stands still."""
    return as_json(msgspec.json.encode({"status": "live"}))


async def metrics(request: web.Request) -> web.Response:
    """Show the process's metrics to Prometheus."""
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def harden(request: web.Request, response: web.StreamResponse) -> None:
    """Keep answers out of caches, and browsers from guessing what they are."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"


def asked_by_worker(request: web.Request) -> bool:
    """Say whether another worker asks, which is not to be asked on."""
    return HOP_HEADER in request.headers


def from_http(error: web.HTTPException) -> Problem:
    """Reword what aiohttp raises itself: no such path, no such method, too large."""
    headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    return Problem(error.status, HTTPStatus(error.status).description or error.reason, headers=headers)


def as_json(body: bytes) -> web.Response:
    """Answer with a JSON document."""
    return web.Response(body=body, content_type="application/json")


def as_msgpack(part: msgspec.Struct) -> web.Response:
    """Answer another worker."""
    return web.Response(body=msgspec.msgpack.encode(part), content_type="application/msgpack")


def as_problem(problem: Problem) -> web.Response:
    """Answer with a problem document."""
    return web.Response(
        body=problem.body(),
        status=problem.status,
        content_type=problems.CONTENT_TYPE,
        headers=problem.headers,
    )
