import json
import os
import subprocess
import sys
from pathlib import Path

from streams.settings import VARIABLES
from streams.topics import TABLES, changelogs

ROOT = Path(__file__).parent.parent
ROUTES = {
    "/live",
    "/metrics",
    "/ready",
    "/v1/cleanup",
    "/v1/endpoints",
    "/v1/endpoints/{endpointId}",
    "/v1/endpoints/{endpointId}/ping",
    "/v1/endpoints/{endpointId}/replay",
    "/v1/endpoints/{endpointId}/rotate",
    "/v1/internal/cleanup",
    "/v1/internal/endpoints",
    "/v1/internal/messages",
    "/v1/internal/replay",
    "/v1/internal/stats",
    "/v1/internal/webhooks",
    "/v1/messages",
    "/v1/messages/{messageId}",
    "/v1/messages/{messageId}/erase",
    "/v1/messages/{messageId}/report",
    "/v1/messages/{messageId}/statuses",
    "/v1/activity",
    "/v1/stats",
    "/v1/webhooks",
    "/v1/webhooks/{eventId}",
    "/v1/webhooks/{eventId}/resend",
}
#: An empty document; Faust always has either this or its statistics there.
FAUSTS_INDEX = "/"
PROGRAM = """
import json
from streams.app import app, lanes, MODULES
app.finalize()
app.discover()
# as Faust does when its web server starts; only then are the pages of its own added
app.web.cors
app.web.init_server()
print(json.dumps({
    "agents": sorted(app.agents),
    "tables": sorted(app.tables),
    "changelogs": sorted(table.changelog_topic_name for table in app.tables.values()),
    "inputs": sorted(lanes.topics),
    "read": sorted({topic for agent in app.agents.values() for topic in agent.channel.topics}),
    "routes": sorted({resource.canonical for resource in app.web.web_app.router.resources()}),
    "bind": app.conf.web_bind,
}))
"""


def wiring(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_agent_table_topic_and_view_is_there() -> None:
    """Faust drops what fails to import from a package in silence; here each module is named and must load."""
    done = wiring()
    assert done.returncode == 0, done.stderr
    app = json.loads(done.stdout)

    assert app["agents"] == ["apply_requests", "apply_statuses", "apply_webhooks"]
    assert (
        app["tables"]
        == list(TABLES)
        == [
            "deliveries",
            "endpoints",
            "pending_stats",
            "period_stats",
            "provider_health",
            "webhook_events",
            "webhook_queues",
            "webhook_sendings",
        ]
    )
    assert app["changelogs"] == [topic.name for topic in changelogs("delivery-tracker", 8)]
    assert app["inputs"] == app["read"] == ["delivery.requests", "delivery.statuses", "delivery.webhooks"]


def test_nothing_of_fausts_own_pages_shows_tables() -> None:
    """Faust's table pages show every value to anyone who asks, and it binds to all addresses by default."""
    app = json.loads(wiring().stdout)

    assert set(app["routes"]) == ROUTES | {FAUSTS_INDEX}
    assert app["bind"] == "127.0.0.1"


def test_a_bad_setting_stops_the_start_with_its_name() -> None:
    """A variable that cannot be used is named, with what to write instead."""
    done = wiring(TRACKER_PARTITIONS="eight")

    assert done.returncode == 1
    assert "TRACKER_PARTITIONS: cannot use 'eight': write a whole number from 1 to 1024" in done.stderr


def test_the_help_of_a_worker_names_every_variable() -> None:
    """Who asks the command finds what may be set, and what it is when unset."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "streams", "worker", "--help"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for variable in VARIABLES:
        assert f"{variable.name} [default: {variable.default}] {variable.help}" in said
