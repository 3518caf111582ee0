"""What holds for every answer, and what probes and Prometheus read."""

from typing import Any

import faust
import pytest

from streams.kafka.probe import free_port
from streams.web.endpoints import Kept
from streams.web.views import mount
from streams.webhooks.posting import Poster
from tests.agents.flowing import TABLES

from .workers import NOW, RETENTION_MS, STATS_TABLES, Data, Group, MemoryReader, Produced

PATHS = [
    ("/live", 200),
    ("/ready", 200),
    ("/metrics", 200),
    ("/v1/stats", 200),
    ("/v1/messages?status=SENT", 200),
    ("/v1/messages", 400),
    ("/v1/messages/none", 404),
    ("/v1/nothing", 404),
]


@pytest.mark.parametrize(("path", "status"), PATHS)
async def test_answers_are_not_cached_nor_guessed_at(group: Group, path: str, status: int) -> None:
    """Every answer, problems too, says no-store and nosniff."""
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, path)

    assert reply.status == status
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", [path for path, status in PATHS if status == 200])
async def test_a_method_that_is_not_there_is_a_problem(group: Group, path: str) -> None:
    """It says which are."""
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, path, method="PUT")

    assert reply.status == 405
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert {"GET", "HEAD"} <= set(reply.headers["Allow"].split(",")) <= {"GET", "HEAD", "POST", "DELETE"}
    assert reply.json["status"] == 405


async def test_head_says_what_get_would(group: Group) -> None:
    """A probe may leave the body away."""
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, "/v1/stats", method="HEAD")

    assert (reply.status, reply.body, reply.headers["Content-Type"]) == (200, b"", "application/json")


async def test_ready_says_what_is_missing(group: Group) -> None:
    """A worker that is recovering is alive but not ready."""
    (worker,) = await group.start([[]])
    worker.reader.state = (False, "tables are being recovered from their changelogs")

    reply = await group.get(worker, "/ready")

    assert (await group.get(worker, "/live")).status == 200
    assert reply.status == 503
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert "Retry-After" in reply.headers
    assert reply.json["detail"] == "tables are being recovered from their changelogs"


async def test_metrics_are_those_of_the_process(group: Group) -> None:
    """Prometheus' default registry, in its text format."""
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, "/metrics")

    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    assert b"python_info" in reply.body


async def test_a_failure_inside_is_logged_and_not_told(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    """The client learns that it failed; the log learns why."""
    (worker,) = await group.start([range(6)])

    def fail() -> None:
        raise RuntimeError("the secret cause")

    worker.reader.after_read = fail
    reply = await group.get(worker, "/v1/stats")

    assert reply.status == 500
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert b"secret" not in reply.body
    assert "the secret cause" in caplog.text


async def test_the_views_run_on_fausts_web_server(group: Group) -> None:
    """Status and headers are ours there too, for paths and methods that do not exist as well."""
    port = free_port()
    app = faust.App("web-test", broker="kafka://127.0.0.1:1", web_bind="127.0.0.1", web_port=port)
    data = Data()
    data.say("m-1", "SENT", 1_700_000_000_000)
    server: Any = app.web
    kept = Kept(TABLES.endpoints, None, (), Poster())
    mount(
        server.web_app,
        MemoryReader(data, range(6)),
        STATS_TABLES,
        Produced().take,
        RETENTION_MS,
        lambda: NOW,
        kept,
        TABLES.telling.tables,
        TABLES.telling.routing.endpoints,
    )
    server.cors  # noqa: B018 - Faust sets it up before it starts the server
    server.init_server()
    await server.start_server()
    try:
        url = f"http://127.0.0.1:{port}"
        known = await group.get(url, "/v1/messages/m-1")
        unknown = await group.get(url, "/v1/messages/m-2")
        nowhere = await group.get(url, "/nowhere")
        posted = await group.get(url, "/v1/stats", method="POST")
    finally:
        await server.stop_server()

    replies = [known, unknown, nowhere, posted]
    assert [reply.status for reply in replies] == [200, 404, 404, 405]
    assert {reply.headers["Content-Type"] for reply in replies[1:]} == {"application/problem+json"}
    assert {reply.headers["Cache-Control"] for reply in replies} == {"no-store"}
