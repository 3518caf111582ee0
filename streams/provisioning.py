"""`python -m streams topics`: what the topics are, and making them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import click
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from streams.kafka.topics import PartitionMismatch, TopicsRefused, create_topics, missing_topics
from streams.settings import InvalidSetting, Settings, variables_help
from streams.topics import CATALOGUE, PlacedTopic, changelogs, clock_topic, placed

__all__ = ["require_data_dir", "require_topics", "topics"]

T = TypeVar("T")


@click.command("topics", epilog=variables_help())
@click.option("--create", is_flag=True, help="Make those that are not there yet.")
def topics(create: bool) -> None:
    """List the topics of the environment's settings; with --create, make them."""
    try:
        settings = Settings.from_env()
    except InvalidSetting as error:
        raise click.ClickException(str(error)) from error
    if create:
        inputs_and_outputs = placed(settings.topic_prefix, settings.partitions)
        made = _made([*inputs_and_outputs, *_of_workers(settings)], settings)
        print(f"made {', '.join(made)}" if made else "all topics were there")
        return
    table = Table("topic", "key", "value", "holds")
    for topic in CATALOGUE:
        table.add_row(settings.topic_prefix + topic.name, topic.key, topic.value.__name__, topic.holds)
    Console().print(table)


def require_topics(settings: Settings) -> None:
    """Exit with a message when the topics are not as a worker needs them; make those of its own."""
    specs = placed(settings.topic_prefix, settings.partitions)
    missing = _asked(missing_topics(settings.broker_url, specs), settings)
    if missing:
        sys.exit(f"no topics {', '.join(missing)}: make them with python -m streams topics --create")
    _made(_of_workers(settings), settings)


def _of_workers(settings: Settings) -> list[PlacedTopic]:
    """Return the topics that only workers use."""
    return [*changelogs(settings.app_id, settings.partitions), clock_topic(settings.app_id)]


def require_data_dir(settings: Settings) -> None:
    """Make the directory of the tables, or exit with a message."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"TRACKER_DATA_DIR: cannot make {str(settings.data_dir)!r}: {error.strerror}")


def _made(specs: list[PlacedTopic], settings: Settings) -> list[str]:
    return _asked(create_topics(settings.broker_url, specs, replication=settings.replication), settings)


def _asked(asking: Coroutine[Any, Any, T], settings: Settings) -> T:
    try:
        return asyncio.run(asking)
    except (PartitionMismatch, TopicsRefused) as error:
        sys.exit(str(error))
    except KafkaError as error:
        sys.exit(f"TRACKER_BROKER_URL: no broker answers at {settings.broker_url}: {error}")
