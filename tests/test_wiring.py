import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from faust.cli.base import cli
from faust.types import _env
from yarl import URL

from streams.__main__ import VALUED, command_of
from streams.environment import remove_foreign_settings
from streams.settings import REFUSED, VARIABLES
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
#: Each setting of Faust's as text, except the random name of a topic that is not used.
CONF = """
import json
from faust.types.settings import Settings
from streams.app import app
print(json.dumps({
    "names": sorted(param.env_name for param in Settings.SETTINGS.values() if param.env_name),
    "values": {
        name: str(vars(app.conf).get(param.storage_name))
        for name, param in Settings.SETTINGS.items()
        if name != "reply_to"
    },
}))
"""
SERVICE_URL = "tcp://10.96.0.7:80"


def wiring(program: str = PROGRAM, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
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

    assert done.returncode == REFUSED
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


def conf(**environment: str) -> dict[str, Any]:
    done = wiring(CONF, **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_no_variable_of_fausts_changes_a_setting() -> None:
    """Only TRACKER_ variables configure a worker; Faust would let its own override what the app passes."""
    usual = conf()
    assert {"WEB_BIND", "WEB_PORT", "BROKER_URL", "PROCESSING_GUARANTEE"} <= set(usual["names"])

    # a number, a truth value and a symbol: each type of setting would take one of these
    for value in ("3", "yes", "memory://"):
        assert conf(**dict.fromkeys(usual["names"], value))["values"] == usual["values"]
    assert conf(WEB_PORT=SERVICE_URL)["values"] == usual["values"]


def test_variables_of_fausts_command_line_are_removed() -> None:
    """Faust reads them when it is imported, and a service named `f-web` or `faust-web` makes some of them."""
    source = Path(_env.__file__).read_text()
    names = {prefix + name for prefix in _env.PREFICES for name in re.findall(r'_getenv\("(\w+)"', source)}
    assert {"FAUST_WEB_PORT", "F_WEB_PORT", "F_DEBUG", "F_WORKDIR"} <= names
    environ = dict.fromkeys(names, SERVICE_URL) | {"PATH": "/bin", "TRACKER_WEB_PORT": "1"}

    remove_foreign_settings(environ)

    assert environ == {"PATH": "/bin", "TRACKER_WEB_PORT": "1"}


def test_variables_of_services_do_not_prevent_a_start() -> None:
    """Kubernetes describes each service of a namespace to all of its containers."""
    services = ("WEB", "F_WEB", "FAUST_WEB", "TRACKER", "TRACKER_WEB")
    environment = {f"{name}_PORT": SERVICE_URL for name in services}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "streams", "worker", "--help"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:6066"),
        ("localhost", "http://localhost:6066"),
        ("::1", "http://[::1]:6066"),
        ("::", f"http://{socket.gethostname()}:6066"),
        ("0.0.0.0", f"http://{socket.gethostname()}:6066"),
    ],
)
def test_other_workers_are_given_a_url_that_leads_here(bind: str, url: str) -> None:
    """An IPv6 address stands in brackets; an address that stands for all is no address to connect to."""
    assert URL(conf(TRACKER_WEB_BIND=bind)["values"]["canonical_url"]) == URL(url)


def test_the_web_view_listens_at_all_addresses_of_both_versions() -> None:
    """Other workers connect to the machine's name, which may have an IPv4 address only."""
    program = """
import asyncio, socket, uvloop
from streams.app import app
async def listen():
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, app.conf.web_bind, 0)
    print(*sorted(socket.family.name for socket in server.sockets))
uvloop.run(listen())
"""
    assert wiring(program, TRACKER_WEB_BIND="0.0.0.0").stdout == "AF_INET\n"
    assert "AF_INET " in wiring(program, TRACKER_WEB_BIND="::").stdout.replace("\n", " ")


def test_commands_are_found_behind_options_and_their_values() -> None:
    """`worker` as a value of an option, or as an argument of another command, starts no worker."""
    assert command_of(["worker", "-l", "info"]) == "worker"
    assert command_of(["--quiet", "-l", "info", "worker"]) == "worker"
    assert command_of(["--loglevel=info", "worker"]) == "worker"
    assert command_of(["send", "worker", "{}"]) == "send"
    assert command_of(["-D", "worker"]) is None
    assert command_of([]) is None


def test_an_option_that_only_informs_starts_no_worker() -> None:
    """A supervisor would start it again and again, for it ends at once."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "streams", "--version", "worker"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_options_with_a_value_are_those_of_faust() -> None:
    """A new one would be taken for a flag, and its value for the command."""
    group = [option for option in cli.params if isinstance(option, click.Option) and not option.is_flag]

    assert {name for option in group for name in option.opts} == VALUED


def test_a_supervisor_imports_neither_faust_nor_rocksdb() -> None:
    """It runs beside the worker as long as that lives, so it must be small."""
    program = (
        "import sys\n"
        "import streams.__main__, streams.data_directory, streams.processes\n"
        "from streams.settings import Settings\n"
        "Settings.from_env({})\n"
        "print(*sys.modules)"
    )
    loaded = set(wiring(program).stdout.split())

    heavy = {
        "faust",
        "rocksdict",
        "aiokafka",
        "aiohttp",
        "asyncio",
        "click",
        "cryptography",
        "uvloop",
        "yarl",
    }
    assert loaded & heavy == set()
