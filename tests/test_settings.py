import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from streams.inspection import settings as command
from streams.settings import (
    DEVELOPMENT_VARIABLES,
    VARIABLES,
    InvalidSetting,
    Settings,
    duration_s,
    in_force,
)

KEY = "A" * 43 + "="


def test_an_empty_environment_gives_the_defaults() -> None:
    """Every setting has a default that a newcomer can start with."""
    settings = Settings.from_env({})

    assert settings.broker_url == "kafka://127.0.0.1:9092"
    assert (settings.partitions, settings.web_bind, settings.web_port) == (8, "127.0.0.1", 6066)
    assert (settings.session_timeout_s, settings.data_dir) == (10.0, Path("data"))


@pytest.mark.parametrize(
    ("variable", "text", "mending"),
    [
        ("TRACKER_BROKER_URL", "localhost:9092", "kafka://host:port"),
        ("TRACKER_BROKER_URL", "kafka://a:1,b:2", "several with ';'"),
        ("TRACKER_BROKER_URL", "kafka://a:1;b:2", "several with ';'"),
        ("TRACKER_BROKER_URL", "kafka://a:9092/topic", "kafka://host:port"),
        ("TRACKER_BROKER_URL", "kafka://a b:9092", "kafka://host:port"),
        ("TRACKER_BROKER_URL", "kafka://[::1", "kafka://host:port"),
        ("TRACKER_BROKER_URL", "kafka://a:0", "from 1 to 65535"),
        ("TRACKER_BROKER_URL", "kafka://a:99999", "from 1 to 65535"),
        ("TRACKER_WEB_BIND", "nonsense here", "IP address"),
        ("TRACKER_WEB_BIND", "*", "IP address"),
        ("TRACKER_WEB_BIND", "300.0.0.1", "IP address"),
        ("TRACKER_WEB_BIND", "127.0.0.1:6066", "IP address"),
        ("TRACKER_WEB_BIND", "fe80::1%eth0", "without brackets and zone"),
        ("TRACKER_WEBHOOK_ALLOW", "example.com", "networks such as"),
        ("TRACKER_APP_ID", "two words", "letters, digits"),
        ("TRACKER_TOPIC_PREFIX", "a/b", "letters, digits"),
        ("TRACKER_PARTITIONS", "0", "from 1 to 1024"),
        ("TRACKER_REPLICATION", "many", "from 1 to 32"),
        ("TRACKER_WEB_PORT", "70000", "from 1 to 65535"),
        ("TRACKER_SESSION_TIMEOUT", "10", "500ms, 5s"),
        ("TRACKER_SESSION_TIMEOUT", "1h", "from 1s to 300s"),
        ("TRACKER_STANDBYS", "-1", "from 0 to 8"),
        ("TRACKER_UNIT_RECORDS", "1.5", "from 1 to 100000"),
        ("TRACKER_COMPRESSION", "brotli", "zstd, lz4, snappy, gzip, none"),
    ],
)
def test_a_bad_value_names_its_variable_and_how_to_mend_it(variable: str, text: str, mending: str) -> None:
    """The message has the variable, what stands in it, and what may."""
    with pytest.raises(InvalidSetting, match=f"^{variable}: cannot use '{re.escape(text)}'.*{mending}"):
        Settings.from_env({variable: text})


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("5s", 5), ("10m", 600), ("72h", 259_200), ("30d", 2_592_000)]
)
def test_durations_are_written_with_their_unit(text: str, seconds: float) -> None:
    """A number and ms, s, m, h or d."""
    assert duration_s(text) == seconds


def test_every_variable_can_be_set_to_its_default() -> None:
    """The defaults of the catalogue are valid themselves."""
    assert Settings.from_env({v.name: v.default for v in VARIABLES}) == Settings.from_env({})


def test_a_key_that_cannot_be_used_is_not_shown() -> None:
    """What is wrong is said; the message may come into a log."""
    key = "A" * 40
    with pytest.raises(InvalidSetting, match=r"TRACKER_SECRET_KEYS: .*k1 has 30 bytes") as refused:
        Settings.from_env({"TRACKER_SECRET_KEYS": f"k1:{key}"})

    assert key not in str(refused.value)
    assert "A" * 40 not in repr(Settings.from_env({"TRACKER_SECRET_KEYS": f"k1:{'A' * 43}="}))


def test_networks_that_webhooks_may_reach_are_checked() -> None:
    """A slip would open, or close, more than was meant."""
    allowed = Settings.from_env({"TRACKER_WEBHOOK_ALLOW": "10.1.0.0/16, fd00::/8"}).webhook_allow
    assert [str(network) for network in allowed] == ["10.1.0.0/16", "fd00::/8"]
    for text in ("10.1.0.1/16", "example.com", "10.1.0.0/40"):
        with pytest.raises(InvalidSetting, match="TRACKER_WEBHOOK_ALLOW"):
            Settings.from_env({"TRACKER_WEBHOOK_ALLOW": text})


@pytest.mark.parametrize(
    "text",
    [
        "kafka://broker",
        "kafka://broker:9092/",
        "kafka://kafka_1:19092",
        "kafka://b-1.example.com.:9092;kafka://10.0.0.1:9092",
        "kafka://[::1]:9092",
        "kafka://[fd00::1]",
    ],
)
def test_brokers_are_names_and_addresses(text: str) -> None:
    """With or without a port; IPv6 in brackets."""
    assert Settings.from_env({"TRACKER_BROKER_URL": text}).broker_url == text


def test_a_password_in_the_broker_url_is_refused_and_not_shown() -> None:
    """It would have no effect, and would stand in logs."""
    with pytest.raises(
        InvalidSetting, match=r"^TRACKER_BROKER_URL: .*neither a user nor a password"
    ) as refused:
        Settings.from_env({"TRACKER_BROKER_URL": "kafka://me:hidden@broker:9092"})

    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("text", ["::", "::1", "0.0.0.0", "10.0.0.7", "localhost", "worker-1.tracker.svc"])
def test_the_web_view_binds_to_an_address_or_a_host_name(text: str) -> None:
    """Of either version of IP."""
    assert Settings.from_env({"TRACKER_WEB_BIND": text}).web_bind == text


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("TRACKER_PROCESSSES", "TRACKER_PROCESSES"),
        ("TRACKER_WEBHOK_ALLOW", "TRACKER_WEBHOOK_ALLOW"),
        ("TRACKER_PORT", "TRACKER_WEB_PORT"),
        ("TRACKER_WEBB_PORT", "TRACKER_WEB_PORT"),
        ("TRACKER_SECRET_KEY", "TRACKER_SECRET_KEYS"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    """A slip would leave a default in force; the value may be a secret and is not shown."""
    with pytest.raises(InvalidSetting, match=f"^{name}: .*did you mean {nearest}\\?") as refused:
        Settings.from_env({name: "hidden"})

    assert "hidden" not in str(refused.value)


def test_an_unknown_variable_without_a_near_name_leads_to_the_table() -> None:
    """A suggestion that is far off would mislead."""
    with pytest.raises(InvalidSetting, match=r"^TRACKER_QQQ: .*README\.md"):
        Settings.from_env({"TRACKER_QQQ": "1"})


def test_variables_that_do_not_concern_a_worker_are_accepted() -> None:
    """Those of tests and development, those of others, and those that are empty, which is unset."""
    environ = {variable.name: "x" for variable in DEVELOPMENT_VARIABLES}

    assert Settings.from_env({**environ, "TRACKERS": "x", "OTHER_APP_ID": "x", "TRACKER_OLD": ""})


def test_variables_of_kubernetes_services_are_ignored() -> None:
    """A service may be called `tracker`, or `tracker-web`, whose port has the name of a setting."""
    address = "10.96.0.7"
    environ = {
        f"{service}_{suffix}": value
        for service in ("TRACKER", "TRACKER_WEB")
        for suffix, value in {
            "SERVICE_HOST": address,
            "SERVICE_PORT": "6066",
            "SERVICE_PORT_HTTP": "6066",
            "PORT": f"tcp://{address}:6066",
            "PORT_6066_TCP": f"tcp://{address}:6066",
            "PORT_6066_TCP_PROTO": "tcp",
            "PORT_6066_TCP_PORT": "6066",
            "PORT_6066_TCP_ADDR": address,
        }.items()
    }

    assert Settings.from_env(environ) == Settings.from_env({})


@pytest.mark.parametrize(
    ("prefix", "app_id"),
    [("eu.", "delivery-tracker-eu"), ("eu-", "delivery-tracker-eu"), ("eu", "delivery-tracker-eu")],
)
def test_another_prefix_has_another_app_id(prefix: str, app_id: str) -> None:
    """Two deployments on one broker share neither their group nor their changelogs."""
    assert Settings.from_env({"TRACKER_TOPIC_PREFIX": prefix}).app_id == app_id
    assert Settings.from_env({"TRACKER_TOPIC_PREFIX": prefix, "TRACKER_APP_ID": "own"}).app_id == "own"
    assert Settings.from_env({"TRACKER_TOPIC_PREFIX": "p" * 100}).app_id == f"delivery-tracker-{'p' * 100}"


def printed(environ: dict[str, str], *arguments: str) -> Result:
    clean = dict.fromkeys(variable.name for variable in VARIABLES)
    return CliRunner().invoke(command, arguments, env={**clean, "COLUMNS": "200", **environ})


def test_the_settings_in_force_are_printed_with_their_source() -> None:
    """As a table for people, and as JSON with a member for each variable."""
    environ = {"TRACKER_TOPIC_PREFIX": "eu.", "TRACKER_SECRET_KEYS": f"new:{KEY},old:{KEY}"}

    done = printed(environ, "--json")
    assert done.exit_code == 0, done.output
    values = json.loads(done.output)
    assert list(values) == [variable.name for variable in VARIABLES]
    assert values["TRACKER_TOPIC_PREFIX"] == {"value": "eu.", "source": "environment"}
    assert values["TRACKER_APP_ID"] == {"value": "delivery-tracker-eu", "source": "default"}
    assert values["TRACKER_SECRET_KEYS"] == {"value": "new, old", "source": "environment"}

    table = printed(environ).output
    for name, value in values.items():
        assert re.search(rf"{name} .*{re.escape(value['value'])} .*{value['source']}", table)
    assert KEY not in table + done.output


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_printing_settings_fails_where_a_worker_would(arguments: list[str]) -> None:
    """With the same message and exit code 1."""
    done = printed({"TRACKER_PARTITIONS": "0"}, *arguments)

    assert (done.exit_code, done.output) == (
        1,
        "TRACKER_PARTITIONS: cannot use '0': write a whole number from 1 to 1024\n",
    )


def test_every_setting_has_a_variable() -> None:
    """And what is printed is what is read."""
    assert list(in_force({})) == [variable.name for variable in VARIABLES]
    assert len(VARIABLES) == len(Settings.__dataclass_fields__)
