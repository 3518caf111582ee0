"""``python -m streams``: Faust's commands, and ours."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
from typing import NoReturn

import click
import uvloop
from faust.cli.base import cli

from streams.demo.cli import demo
from streams.kafka.cli import kafka
from streams.processes import run_worker
from streams.provisioning import require_data_dir, require_topics, topics
from streams.settings import settings_or_exit, variables_help
from streams.webhooks.receiver import receiver

#: Commands that need no Faust app, and so no valid settings of one.
OWN: dict[str, click.Command] = {"demo": demo, "kafka": kafka, "receiver": receiver, "topics": topics}


def main(arguments: list[str] = sys.argv[1:]) -> None:
    """Run the command that the arguments name."""
    # RocksDB, libuv and others are native code: a crash of theirs says in which threads, and where
    faulthandler.enable()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    for name, command in OWN.items():
        cli.add_command(command, name)
    if arguments[:1] and arguments[0] in OWN:
        OWN[arguments[0]].main(arguments[1:], prog_name=f"python -m streams {arguments[0]}")
    works = "worker" in arguments and "--help" not in arguments
    settings = settings_or_exit()
    if works:
        require_data_dir(settings)
        require_topics(settings)
        if settings.processes > 1:
            sys.exit(run_worker(arguments, settings))
    from faust.cli.faust import cli as faust_commands

    from streams.app import app

    faust_commands.commands["worker"].epilog = variables_help()
    try:
        app.main()
    except SystemExit as end:
        if works:
            leave(end.code)
        raise


def leave(code: object) -> NoReturn:
    """End the process of a worker that has stopped, at once.

    Its stores are closed by now. The threads that polled and compacted are daemons, and one that is still on
    its way while the interpreter and the libraries are taken down ends the process with SIGSEGV.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
