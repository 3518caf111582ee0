"""`kafka up | down | status | reset`: the embedded broker from the command line."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import click

from streams.kafka.broker import EmbeddedKafka
from streams.kafka.errors import EmbeddedKafkaError
from streams.kafka.places import default_data_dir
from streams.kafka.probe import free_port, is_free

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
    "--port", type=click.IntRange(0, 65535), help="0: any free one.  [default: 9092, when taken any free one]"
)
def up(data_dir: Path, port: int | None) -> None:
    """Start the broker and leave it running; the last line is its URL."""
    broker = EmbeddedKafka(data_dir, say=click.echo)
    running = broker.status()
    if running is not None:
        click.echo(f"It runs already (pid {running.pid}).")
        click.echo(running.url)
        return
    broker.port = _usual_port() if port is None else port
    broker.start(detached=True)
    click.echo(f"Kafka is up; its data and log are in {broker.data_dir}.")
    click.echo(broker.url)


def _usual_port() -> int:
    return USUAL_PORT if is_free(USUAL_PORT) else free_port()


@kafka.command()
@_with_broker
def down(data_dir: Path) -> None:
    """Stop the broker; its topics stay."""
    broker = EmbeddedKafka(data_dir)
    running = broker.status()
    if running is None:
        click.echo("No broker runs.")
        return
    broker.stop()
    click.echo(f"Stopped (pid {running.pid}).")


@kafka.command()
@_with_broker
def status(data_dir: Path) -> None:
    """Tell whether the broker runs and answers; exits with 1 when not."""
    running = EmbeddedKafka(data_dir).status()
    if running is None:
        click.echo("No broker runs.")
        raise SystemExit(1)
    click.echo(
        f"pid {running.pid}, data in {running.data_dir}, {'serving' if running.serving else 'not answering'}"
    )
    click.echo(running.url)
    if not running.serving:
        raise SystemExit(1)


@kafka.command()
@_with_broker
def reset(data_dir: Path) -> None:
    """Stop the broker and delete its topics."""
    broker = EmbeddedKafka(data_dir)
    broker.stop()
    if (data_dir / "server.properties").exists():  # ours, and not a directory named by mistake
        shutil.rmtree(data_dir)
    click.echo("The broker is stopped and its data are gone.")


if __name__ == "__main__":
    kafka()
