"""Rules of what the environment says to a demonstration."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from streams.demo.cli import demo
from streams.demo.places import place_of, settings_from


def test_a_foreign_broker_gets_fresh_names() -> None:
    """Names that the environment sets are kept; our own broker is empty and gets the usual ones."""
    theirs = {"TRACKER_BROKER_URL": "kafka://example:9092"}
    own = place_of(settings_from({}))
    foreign = place_of(settings_from(theirs))
    named = place_of(settings_from({**theirs, "TRACKER_TOPIC_PREFIX": "x."}))

    assert (own.app_id, own.inputs["statuses"]) == ("delivery-tracker", "delivery.statuses")
    assert foreign.app_id != own.app_id and foreign.topic_prefix != own.topic_prefix
    assert named.events == "x.events"


def test_what_is_unset_or_empty_gets_the_demonstrations_default() -> None:
    """Four partitions unless the environment has a number, and the option wins over both."""
    assert settings_from({}).partitions == settings_from({"TRACKER_PARTITIONS": ""}).partitions == 4
    assert settings_from({"TRACKER_PARTITIONS": "6"}).partitions == 6
    assert settings_from({"TRACKER_PARTITIONS": "6"}, partitions=2).partitions == 2
    assert settings_from({"TRACKER_WEB_PORT": "", "TRACKER_REPLICATION": "3"}).web_port == 6066
    assert settings_from({"TRACKER_REPLICATION": "3"}).replication == 3


@pytest.mark.parametrize(
    ("variable", "value"), [("TRACKER_PARTITIONS", "eight"), ("TRACKER_BROKER_URL", "localhost:9092")]
)
def test_a_bad_variable_ends_the_command_with_its_name(variable: str, value: str) -> None:
    """Exit code 1 and one line, before anything is started."""
    ran = CliRunner().invoke(demo, env={variable: value})

    assert ran.exit_code == 1
    assert ran.output.startswith(f"Error: {variable}: cannot use {value!r}: write ")
    assert len(ran.output.splitlines()) == 1
