"""``python -m streams``: Faust's commands, and ours."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from streams.environment import remove_foreign_settings
from streams.settings import Settings, refuse, settings_or_exit, variables_help

if TYPE_CHECKING:
    import click

#: Commands of ours by name, each with its module. They need no Faust app, and so no valid settings of one.
OWN = {
    "demo": "streams.demo.cli",
    "kafka": "streams.kafka.cli",
    "receiver": "streams.webhooks.receiver",
    "settings": "streams.inspection",
    "topics": "streams.provisioning",
}
#: Options of Faust's that take a value, and may stand before its command.
VALUED = frozenset(
    {
        *("--app", "-A", "--workdir", "-W", "--datadir", "-D", "--loop", "-L", "--logfile", "-f"),
        *("--loglevel", "-l", "--blocking-timeout", "--console-port"),
    }
)

#: Options of Faust's that print something and end.
INFORMING = frozenset({"--help", "--version"})
#: Options of Faust's after which the web view does not listen where the settings say.
WEB_OPTIONS = ("-p", "--web-port", "-b", "--web-bind", "--web-transport", "--without-web")


def main(arguments: list[str] = sys.argv[1:]) -> None:
    """Run the command that the arguments name."""
    # RocksDB, libuv and others are native code: a crash of theirs says in which threads, and where
    faulthandler.enable()
    remove_foreign_settings(os.environ)
    if arguments[:1] and arguments[0] in OWN:
        _use_uvloop()
        _own(arguments[0]).main(arguments[1:], prog_name=f"python -m streams {arguments[0]}")
    settings = settings_or_exit()
    works = command_of(arguments) == "worker" and not INFORMING & set(arguments)
    if works:
        _prepare_worker(arguments, settings)
    _run_faust(works)


def command_of(arguments: Sequence[str]) -> str | None:
    """Return the name of the command among the arguments, which options may precede."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            return argument
        if argument in VALUED:
            next(rest, None)
    return None


def _prepare_worker(arguments: Sequence[str], settings: Settings) -> None:
    """Check what a worker needs and return in its process; a supervisor starts that, and ends here."""
    # imported here: a supervisor stays small
    from streams.data_directory import make_data_directory, own_data_directory
    from streams.processes import SUPERVISED, has_option, run_worker

    make_data_directory(settings.data_dir)
    if not os.environ.get(SUPERVISED):
        sys.exit(run_worker([sys.executable, *sys.orig_argv[1:]], settings))
    own_data_directory(settings.data_dir)
    _require_failpoint()
    from streams.provisioning import require_topics
    from streams.web_address import require_web_address

    if not any(has_option(arguments, option) for option in WEB_OPTIONS):
        require_web_address(settings.web_bind, settings.web_port)
    _use_uvloop()
    require_topics(settings)


def _require_failpoint() -> None:
    """Refuse a STREAMS_FAILPOINT that does not exist, as settings are refused."""
    try:
        import_module("streams.engine.failpoints")
    except ValueError as error:
        refuse(str(error))


def _run_faust(works: bool) -> None:
    from faust.cli.faust import cli

    from streams.app import app

    _use_uvloop()
    if not works:
        for name in OWN:
            cli.add_command(_own(name), name)
    cli.commands["worker"].epilog = variables_help()
    try:
        app.main()
    except SystemExit as end:
        if works:
            leave(end.code)
        raise


def _own(name: str) -> click.Command:
    """Return a command of ours, which its module has under the same name."""
    command: click.Command = getattr(import_module(OWN[name]), name)
    return command


def _use_uvloop() -> None:
    import asyncio

    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def leave(code: object) -> NoReturn:
    """End the process of a worker that has stopped, at once.

    Its stores are closed by now. The threads that polled and compacted are daemons, and one that is still on
    its way while the interpreter and the libraries are taken down ends the process with SIGSEGV.
    """
    import logging

    if isinstance(code, str):
        print(code, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
