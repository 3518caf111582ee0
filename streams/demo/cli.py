"""`python -m streams demo`: see it run."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import click
from rich.console import Console

from streams.demo.places import DEFAULTS, settings_from
from streams.demo.runs import Options, demonstrate
from streams.demo.screens import open_screen
from streams.demo.traffic import DEFAULT_SEED
from streams.demo.watching import DemoFailed
from streams.settings import InvalidSetting, variables_help


@click.command("demo", epilog=variables_help(DEFAULTS))
@click.option("--messages", type=click.IntRange(1), help="Play that many messages; without it, go on.")
@click.option("--exit", "exits", is_flag=True, help="Process exactly that many, sum up, exit.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 20_000), default=200.0, show_default=True, help="Messages/s"
)
@click.option("--seed", type=int, default=DEFAULT_SEED, show_default=True, help="Of the simulated traffic.")
@click.option(
    "--partitions", type=click.IntRange(1, 1024), help="Of every topic; TRACKER_PARTITIONS, else 4."
)
@click.option("--keep", is_flag=True, help="Leave the worker's log and data directory.")
def demo(
    messages: int | None, exits: bool, rate: float, seed: int, partitions: int | None, keep: bool
) -> None:
    """Play simulated provider traffic through a broker and a worker, and show what becomes of it.

    Uses the broker of TRACKER_BROKER_URL if it is set, else an embedded one that lasts as long as this.
    """
    started_at = time.monotonic()
    if exits and messages is None:
        raise click.UsageError("--exit needs --messages: how many before it exits?")
    try:
        settings = settings_from(os.environ, partitions=partitions)
    except InvalidSetting as error:
        raise click.ClickException(str(error)) from error
    options = Options(
        messages=messages,
        rate=rate,
        exits=exits,
        seed=seed,
        keep=keep,
        settings=settings,
        own_broker=not os.environ.get("TRACKER_BROKER_URL"),
    )
    screen = open_screen(Console(), ends=exits)
    try:
        asyncio.run(demonstrate(options, screen, started_at))
    except DemoFailed as error:
        screen.close()
        print(f"the demonstration failed: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        screen.close()
