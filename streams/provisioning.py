"""`python -m streams topics`: what the topics are, making and correcting them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import click
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError
from rich.console import Console
from rich.table import Table

from streams.kafka.topics import (
    FoundTopic,
    PartitionMismatch,
    TopicsRefused,
    alter_topics,
    bootstrap_servers,
    create_topics,
    found_topics,
    missing_topics,
)
from streams.settings import InvalidSetting, Settings, refuse, variables_help
from streams.topics import CATALOGUE, PlacedTopic, changelogs, clock_topic, placed
from streams.verification import Deviation, corrections, deviations, unverified

__all__ = ["require_topics", "topics"]

T = TypeVar("T")

#: How often brokers are asked, one of them at random each time, and the pause between; seconds.
ATTEMPTS = 6
PAUSE_S = 0.2

CORRECT = "python -m streams topics --correct"


@click.command("topics", epilog=variables_help())
@click.option("--create", is_flag=True, help="Make those that are not there yet.")
@click.option("--correct", is_flag=True, help="Alter settings that differ from what a worker needs.")
def topics(create: bool, correct: bool) -> None:
    """List the topics of the environment's settings; with --create, make them; with --correct, alter them."""
    try:
        settings = Settings.from_env()
    except InvalidSetting as error:
        raise click.ClickException(str(error)) from error
    if create:
        made = _made(_all_topics(settings), settings)
        print(f"made {', '.join(made)}" if made else "all topics were there")
    if correct:
        _correct(settings)
    if create or correct:
        _require_settings(settings)
        return
    table = Table("topic", "key", "value", "holds")
    for topic in CATALOGUE:
        table.add_row(settings.topic_prefix + topic.name, topic.key, topic.value.__name__, topic.holds)
    Console().print(table)


def require_topics(settings: Settings) -> None:
    """Exit with a message when the topics are not as a worker needs them; make those of its own."""
    own = _of_workers(settings)
    missing = _asked(lambda: missing_topics(settings.broker_url, _all_topics(settings)), settings)
    absent = [name for name in missing if name not in {topic.name for topic in own}]
    if absent:
        refuse(
            f"no topics {', '.join(absent)}: make them with python -m streams topics --create (or allow this "
            "user to describe them)"
        )
    _made(own, settings)
    _require_settings(settings)


def _all_topics(settings: Settings) -> list[PlacedTopic]:
    return [*placed(settings.topic_prefix, settings.partitions), *_of_workers(settings)]


def _of_workers(settings: Settings) -> list[PlacedTopic]:
    """Return the topics that only workers use."""
    return [*changelogs(settings.app_id, settings.partitions), clock_topic(settings.app_id)]


def _require_settings(settings: Settings) -> None:
    """Exit with a message if a topic's settings break a guarantee; warn of what weakens one."""
    specs, found = _all_topics(settings), _found(settings)
    deviating = deviations(specs, found, settings.replication)
    if hidden := unverified(specs, found):
        print(
            f"warning: the settings of {', '.join(hidden)} could not be verified: this user needs "
            "the operation DescribeConfigs on them",
            file=sys.stderr,
        )
    breaking = [deviation for deviation in deviating if deviation.breaks]
    weakening = [deviation for deviation in deviating if not deviation.breaks]
    if weakening:
        print(
            _told("warning: settings of topics weaken what is guaranteed", weakening, settings),
            file=sys.stderr,
        )
    if breaking:
        refuse(_told("settings of topics break what is guaranteed", breaking, settings))


def _told(headline: str, deviating: Sequence[Deviation], settings: Settings) -> str:
    lines = [f"{headline}:", *(f"  {deviation}" for deviation in deviating)]
    if changes := corrections(deviating):
        lines += [f"{CORRECT} corrects them, or whoever may alter the topics:", *_commands(changes, settings)]
    return "\n".join(lines)


def _commands(changes: Mapping[str, Mapping[str, str]], settings: Settings) -> list[str]:
    """Return the commands of Kafka's own tool that make the changes."""
    servers = ",".join(bootstrap_servers(settings.broker_url))
    return [
        f"  kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics --entity-name {topic} "
        f"--add-config {','.join(f'{name}={value}' for name, value in values.items())}"
        for topic, values in changes.items()
    ]


def _correct(settings: Settings) -> None:
    changes = corrections(deviations(_all_topics(settings), _found(settings), settings.replication))
    if changes:
        _asked(lambda: alter_topics(settings.broker_url, changes), settings)
    for topic, values in changes.items():
        print(f"{topic}: set {', '.join(f'{name}={value}' for name, value in values.items())}")
    if not changes:
        print("no setting had to be altered")


def _found(settings: Settings) -> dict[str, FoundTopic]:
    names = {topic.name for topic in _all_topics(settings)}
    return _asked(lambda: found_topics(settings.broker_url, names), settings)


def _made(specs: list[PlacedTopic], settings: Settings) -> list[str]:
    replication = settings.replication
    return _asked(lambda: create_topics(settings.broker_url, specs, replication=replication), settings)


def _asked(ask: Callable[[], Coroutine[Any, Any, T]], settings: Settings) -> T:
    try:
        return asyncio.run(_with_any_broker(ask))
    except (PartitionMismatch, TopicsRefused) as error:
        refuse(str(error))
    except KafkaError as error:
        # not a refusal: a supervisor tries again
        sys.exit(f"TRACKER_BROKER_URL: no broker answers at {settings.broker_url}: {error}")


async def _with_any_broker(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask again when a broker does not answer: aiokafka's admin client tries no other one."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await ask()
        except (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError):
            await asyncio.sleep(PAUSE_S)
    return await ask()
