"""`kafka up | down | status | reset`: the embedded broker, or several, from the command line."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import click

from streams.kafka.broker import Status
from streams.kafka.cluster import MOST_NODES, EmbeddedCluster, nodes_of
from streams.kafka.errors import EmbeddedKafkaError
from streams.kafka.places import default_data_dir
from streams.kafka.probe import is_free

#: Where TRACKER_BROKER_URL points by default.
USUAL_PORT = 9092

Command = Callable[..., None]


def _with_broker(command: Command) -> Command:
    """Give a command the broker of `--dir`, and say in words what keeps it from working."""

    @click.option(
        "--dir",
        "data_dir",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="TRACKER_KAFKA_DIR",
        default=default_data_dir,
        help="Its topics, log and pid file.  [env TRACKER_KAFKA_DIR; default: below XDG_STATE_HOME]",
    )
    @functools.wraps(command)
    def wrapped(data_dir: Path, **options: object) -> None:
        try:
            command(data_dir, **options)
        except EmbeddedKafkaError as error:
            raise click.ClickException(str(error)) from error

    return wrapped


@click.group()
def kafka() -> None:
    """An embedded Apache Kafka on 127.0.0.1, for development."""


@kafka.command()
@_with_broker
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Of the first node, the others follow; 0: any free ones.  [default: 9092, when taken any free one]",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, MOST_NODES),
    help="How many brokers; three keep three copies and let one of them fail.  "
    "[default: as many as the directory has, at first 1]",
)
def up(data_dir: Path, port: int | None, nodes: int | None) -> None:
    """Start the broker and leave it running; the last line is its URL."""
    count = nodes or nodes_of(data_dir) or 1
    cluster = EmbeddedCluster(data_dir, nodes=count, ports=_ports(port, count), say=click.echo)
    running = [status for status in cluster.statuses() if status is not None]
    if len(running) == count:
        click.echo(f"It runs already ({_pids(running)}).")
    else:
        cluster.start(detached=True)
        click.echo(f"Kafka is up; its data and log are in {cluster.data_dir}.")
        if count > 1:
            click.echo(f"For topics that outlive a broker: TRACKER_REPLICATION={cluster.replication}")
    click.echo(cluster.url)


def _ports(first: int | None, count: int) -> list[int]:
    usual = range(USUAL_PORT, USUAL_PORT + count)
    if first is None and all(map(is_free, usual)):
        return list(usual)
    return list(range(first, first + count)) if first else []


def _pids(running: list[Status]) -> str:
    return f"pid {', '.join(str(status.pid) for status in running)}"


@kafka.command()
@_with_broker
def down(data_dir: Path) -> None:
    """Stop the broker; its topics stay."""
    cluster = EmbeddedCluster(data_dir)
    running = [status for status in cluster.statuses() if status is not None]
    if not running:
        click.echo("No broker runs.")
        return
    cluster.stop()
    click.echo(f"Stopped ({_pids(running)}).")


@kafka.command()
@_with_broker
def status(data_dir: Path) -> None:
    """Tell whether the broker runs and answers; exits with 1 when not, or when one of several does not."""
    cluster = EmbeddedCluster(data_dir)
    found = cluster.statuses()
    if not any(found):
        click.echo("No broker runs.")
        raise SystemExit(1)
    for number, one in enumerate(found, start=1):
        click.echo((f"node {number}: " if len(found) > 1 else "") + _described(one))
    click.echo(cluster.url)
    if not all(one is not None and one.serving for one in found):
        raise SystemExit(1)


def _described(one: Status | None) -> str:
    if one is None:
        return "does not run; `kafka up` starts it again"
    return f"pid {one.pid}, data in {one.data_dir}, {'serving' if one.serving else 'not answering'}"


@kafka.command()
@_with_broker
def reset(data_dir: Path) -> None:
    """Stop the broker and delete its topics."""
    ours = nodes_of(data_dir) > 0  # and not a directory named by mistake
    EmbeddedCluster(data_dir).stop()
    if ours:
        shutil.rmtree(data_dir)
    click.echo("The broker is stopped and its data are gone.")


if __name__ == "__main__":
    kafka()
