from pathlib import Path

import pytest

from streams.settings import VARIABLES, InvalidSetting, Settings, duration_s


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
    with pytest.raises(InvalidSetting, match=f"^{variable}: cannot use '{text}'.*{mending}"):
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
