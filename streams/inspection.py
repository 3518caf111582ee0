"""`python -m streams settings`: the settings in force."""

from __future__ import annotations

import json
import os
import sys

import click
from rich.console import Console
from rich.table import Table

from streams.settings import InvalidSetting, Settings, in_force, shown

__all__ = ["settings"]


@click.command("settings")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object by variable.")
def settings(as_json: bool) -> None:
    """Print the settings in force and where each comes from; of secret keys only their names.

    Exits with 1 when a variable cannot be used.
    """
    try:
        Settings.from_env()
    except InvalidSetting as error:
        sys.exit(str(error))
    values = {name: (shown(name, value.text), value.source) for name, value in in_force(os.environ).items()}
    if as_json:
        print(json.dumps({name: {"value": v, "source": s} for name, (v, s) in values.items()}, indent=2))
        return
    table = Table("variable", "value", "source")
    for name, (value, source) in values.items():
        table.add_row(name, value, source)
    Console().print(table)
