"""What a worker and `python -m streams topics` do about topics of a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from click.testing import CliRunner, Result

from streams.kafka.topics import alter_topics, found_topics
from streams.provisioning import require_topics, topics
from streams.settings import REFUSED, Settings
from tests.conftest import Broker, Names

pytestmark = pytest.mark.kafka

Command = Callable[..., Result]


@pytest.fixture
def environment(kafka: Broker, names: Names) -> dict[str, str]:
    return {
        "TRACKER_BROKER_URL": kafka.url,
        "TRACKER_TOPIC_PREFIX": names.prefix,
        "TRACKER_APP_ID": names.app_id,
        "TRACKER_PARTITIONS": "2",
    }


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    def run(*options: str) -> Result:
        return CliRunner().invoke(topics, options, env=environment)

    return run


@pytest.fixture
def settings(environment: dict[str, str], command: Command) -> Settings:
    """Settings of topics that were just created."""
    made = command("--create")
    assert made.exit_code == 0, made.output
    return Settings.from_env(environment)


def refusal(settings: Settings) -> str:
    """Return the reason for which a worker with these settings does not start."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as end:
        require_topics(settings)
    assert end.value.code == REFUSED
    return errors.getvalue()


def config(kafka: Broker, topic: str) -> dict[str, str]:
    found = asyncio.run(found_topics(kafka.url, {topic}))[topic].config
    assert found is not None
    return dict(found)


def test_created_topics_are_what_a_worker_needs(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is refused, nothing warned of."""
    require_topics(settings)

    assert capsys.readouterr() == ("", "")


def test_a_setting_that_breaks_a_guarantee_is_refused_and_corrected(
    kafka: Broker, names: Names, settings: Settings, command: Command
) -> None:
    """The message names both commands; ours alters this setting and no other of the topic."""
    topic = names.topic("events")
    asyncio.run(alter_topics(kafka.url, {topic: {"max.message.bytes": "1000", "flush.ms": "12345"}}))

    reason = refusal(settings)
    corrected = command("--correct")
    require_topics(settings)

    assert f"{topic}: max.message.bytes is 1000, not 16777216 or more" in reason
    assert "python -m streams topics --correct" in reason
    assert (
        f"kafka-configs.sh --bootstrap-server {kafka.bootstrap} --alter --entity-type topics "
        f"--entity-name {topic} --add-config max.message.bytes=16777216"
    ) in reason
    assert corrected.output == f"{topic}: set max.message.bytes=16777216\n"
    after = config(kafka, topic)
    assert (after["max.message.bytes"], after["flush.ms"]) == ("16777216", "12345")
    assert after["retention.ms"] == "604800000", "it was set when the topic was created, and stays"


def test_what_weakens_a_guarantee_is_a_warning(
    kafka: Broker, names: Names, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker goes on."""
    asyncio.run(alter_topics(kafka.url, {names.topic("statuses"): {"retention.ms": "3600000"}}))

    require_topics(settings)

    warned = capsys.readouterr().err
    assert f"{names.topic('statuses')}: retention.ms is 3600000, not 604800000 or more" in warned
    assert "--add-config retention.ms=604800000" in warned


def test_a_changelog_is_verified_too(kafka: Broker, names: Names, settings: Settings) -> None:
    """A table whose rows expire in Kafka cannot be recovered."""
    topic = f"{names.app_id}-deliveries-changelog"
    asyncio.run(alter_topics(kafka.url, {topic: {"cleanup.policy": "delete"}}))

    assert f"{topic}: cleanup.policy is delete, not compact" in refusal(settings)


def test_added_partitions_of_an_input_need_a_new_deployment(
    kafka: Broker, names: Names, settings: Settings, command: Command
) -> None:
    """Another TRACKER_PARTITIONS would not fit the tables, nor another prefix alone."""
    asyncio.run(add_partitions(kafka, names.topic("statuses"), 4))

    reason = refusal(settings)

    assert f"{names.topic('statuses')} has 4, not 2" in reason
    assert "a new TRACKER_TOPIC_PREFIX and a new TRACKER_APP_ID" in reason
    assert command("--create").exit_code == REFUSED


def test_another_number_of_partitions_everywhere_is_a_wrong_setting(
    settings: Settings, environment: dict[str, str]
) -> None:
    """The message has the value that fits."""
    mistaken = Settings.from_env(environment | {"TRACKER_PARTITIONS": "8"})

    assert "Set TRACKER_PARTITIONS=2" in refusal(mistaken)


def test_added_partitions_of_an_output_are_a_warning(
    kafka: Broker, names: Names, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written to them."""
    asyncio.run(add_partitions(kafka, names.topic("events"), 3))

    require_topics(settings)

    assert f"{names.topic('events')}: the number of partitions is 3, not 2" in capsys.readouterr().err


async def add_partitions(kafka: Broker, topic: str, count: int) -> None:
    """As `kafka-topics.sh --alter --partitions`; the broker that answers knows them when this returns."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(count)})
        while (await found_topics(kafka.url, {topic}))[topic].partitions != count:
            await asyncio.sleep(0.05)
    finally:
        await admin.close()
