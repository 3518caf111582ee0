"""Which deviations of topics' settings are found; settings as a broker answers them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from streams.kafka.topics import FoundTopic, created_config
from streams.topics import PlacedTopic, changelogs, placed
from streams.verification import Deviation, corrections, deviations, unverified

SPECS = [*placed("d.", 4), *changelogs("app", 4)]
#: What Kafka 4 answers for settings that a topic does not have of its own.
DEFAULTS = {
    "cleanup.policy": "delete",
    "delete.retention.ms": "86400000",
    "max.compaction.lag.ms": "9223372036854775807",
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": "9223372036854775807",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.ms": "604800000",
    "unclean.leader.election.enable": "false",
}
CHANGELOG = "app-deliveries-changelog"


def as_created(replication: int = 1) -> dict[str, FoundTopic]:
    return {
        spec.name: FoundTopic(spec.partitions, replication, {**DEFAULTS, **created_config(spec, replication)})
        for spec in SPECS
    }


def altered(topic: str, config: Mapping[str, str], replication: int = 1) -> list[Deviation]:
    """Deviations of topics as we create them, but for some settings of one."""
    found = as_created(replication)
    found[topic] = found[topic]._replace(config={**(found[topic].config or {}), **config})
    return deviations(SPECS, found, replication)


@pytest.mark.parametrize("replication", [1, 2, 3, 5])
def test_topics_as_they_are_created_deviate_in_nothing(replication: int) -> None:
    """With any number of replicas, on a broker with Kafka's defaults."""
    assert deviations(SPECS, as_created(replication), replication) == []


@pytest.mark.parametrize(
    ("topic", "setting", "value", "correction"),
    [
        ("d.statuses", "max.message.bytes", "900000", "16777216"),
        ("d.statuses", "cleanup.policy", "compact", "delete"),
        ("d.requests", "cleanup.policy", "compact,delete", "delete"),
        ("d.webhooks", "message.timestamp.type", "LogAppendTime", "CreateTime"),
        ("d.events", "max.message.bytes", "1048588", "16777216"),
        ("d.events", "cleanup.policy", "compact", "delete"),
        ("d.events", "min.insync.replicas", "2", "1"),
        ("d.events", "segment.bytes", "1048576", "16777216"),
        ("d.stats", "cleanup.policy", "delete", "compact"),
        ("d.stats", "cleanup.policy", "compact,delete", "compact"),
        ("d.stats", "max.message.bytes", "1048588", "16777216"),
        ("d.dead-letters", "max.message.bytes", "16777216", "17825792"),
        ("d.dead-letters", "message.timestamp.after.max.ms", "3599999", "3600000"),
        ("d.dead-letters", "message.timestamp.before.max.ms", "604800000", "9223372036854775807"),
        ("d.dead-letters", "message.timestamp.difference.max.ms", "604800000", "9223372036854775807"),
        (CHANGELOG, "cleanup.policy", "delete", "compact"),
        (CHANGELOG, "cleanup.policy", "compact,delete", "compact"),
        (CHANGELOG, "max.message.bytes", "1048588", "16777216"),
        (CHANGELOG, "min.insync.replicas", "2", "1"),
    ],
)
def test_what_breaks_a_guarantee(topic: str, setting: str, value: str, correction: str) -> None:
    """It is named with its value, and corrected by the value that a created topic has, or must have."""
    (deviation,) = altered(topic, {setting: value})

    assert (deviation.topic, deviation.setting, deviation.actual) == (topic, setting, value)
    assert deviation.breaks
    assert corrections([deviation]) == {topic: {setting: correction}}
    assert altered(topic, {setting: correction}) == []


@pytest.mark.parametrize(
    ("topic", "setting", "value", "correction"),
    [
        ("d.statuses", "max.message.bytes", "1048588", "16777216"),
        ("d.statuses", "retention.ms", "86400000", "604800000"),
        ("d.statuses", "retention.bytes", "1000000", "-1"),
        ("d.statuses", "message.timestamp.before.max.ms", "604800000", "9223372036854775807"),
        ("d.events", "retention.ms", "3600000", "604800000"),
        ("d.events", "unclean.leader.election.enable", "true", "false"),
        ("d.dead-letters", "message.timestamp.type", "LogAppendTime", "CreateTime"),
        ("d.dead-letters", "retention.ms", "604800000", "2592000000"),
        (CHANGELOG, "segment.ms", "604800000", "86400000"),
        (CHANGELOG, "max.compaction.lag.ms", "9223372036854775807", "86400000"),
    ],
)
def test_what_weakens_a_guarantee(topic: str, setting: str, value: str, correction: str) -> None:
    """A worker may start, with a warning."""
    (deviation,) = altered(topic, {setting: value})

    assert (deviation.setting, deviation.actual, deviation.correction) == (setting, value, correction)
    assert not deviation.breaks


@pytest.mark.parametrize(
    ("topic", "config"),
    [
        ("d.statuses", {"retention.ms": "-1"}),
        ("d.events", {"max.message.bytes": "16777217", "retention.ms": "9999999999"}),
        ("d.events", {"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}),
        (CHANGELOG, {"message.timestamp.type": "LogAppendTime", "segment.ms": "3600000"}),
    ],
)
def test_more_than_is_needed_will_do(topic: str, config: Mapping[str, str]) -> None:
    """Limits are compared, not equal; what guarantees do not depend on is left to whoever runs the broker."""
    assert altered(topic, config) == []


def test_a_dead_letter_topic_takes_whatever_an_input_takes() -> None:
    """Larger records and later timestamps than ours, if an input accepts them."""
    found = altered(
        "d.requests", {"max.message.bytes": "33554432", "message.timestamp.after.max.ms": "86400000"}
    )

    assert {one.topic for one in found} == {"d.dead-letters"}
    assert corrections(found) == {
        "d.dead-letters": {"max.message.bytes": "34603008", "message.timestamp.after.max.ms": "86400000"}
    }


def test_timestamps_of_a_topic_that_ignores_them_are_not_limited() -> None:
    """The broker refuses none then; that dead letters lose theirs is a warning."""
    (deviation,) = altered(
        "d.dead-letters",
        {"message.timestamp.type": "LogAppendTime", "message.timestamp.after.max.ms": "1"},
    )

    assert not deviation.breaks


def test_a_table_keeps_tombstones_as_long_as_the_catalogue_says() -> None:
    """However long that is: a worker that was away for less must find them."""
    changelog = PlacedTopic(
        CHANGELOG, 4, {**changelogs("app", 4)[0].config, "delete.retention.ms": "604800000"}, "changelog"
    )
    found = {
        CHANGELOG: FoundTopic(4, 1, {**DEFAULTS, **changelog.config, "delete.retention.ms": "604799999"})
    }

    (deviation,) = deviations([changelog], found)

    assert deviation.breaks
    assert corrections([deviation]) == {CHANGELOG: {"delete.retention.ms": "604800000"}}


def test_with_three_replicas_two_must_have_a_record() -> None:
    """Otherwise one broker can take acknowledged records with it."""
    (deviation,) = altered("d.events", {"min.insync.replicas": "1"}, replication=3)

    assert (deviation.breaks, deviation.correction) == (False, "2")


def test_fewer_replicas_than_intended_are_named_and_no_setting_corrects_them() -> None:
    """Replicas are added by Kafka's own tool."""
    found = {"d.events": as_created()["d.events"]}

    (deviation,) = deviations(SPECS, found, replication=3)

    assert "TRACKER_REPLICATION" in str(deviation)
    assert (deviation.breaks, corrections([deviation])) == (False, {})


def test_an_output_may_have_more_partitions() -> None:
    """Workers write to the first ones; whoever added partitions learns that the rest stay empty."""
    found = {"d.events": as_created()["d.events"]._replace(partitions=12)}

    (deviation,) = deviations(SPECS, found)

    assert (deviation.actual, deviation.needed, deviation.breaks) == ("12", "4", False)


def test_settings_that_may_not_be_read_are_named() -> None:
    """They deviate from nothing, and are not verified."""
    found = as_created()
    found["d.events"] = FoundTopic(4, 1, None)

    assert deviations(SPECS, found) == []
    assert unverified(SPECS, found) == ["d.events"]
