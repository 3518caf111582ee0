"""The format of the broker's directory: written by Kafka's StorageTool once, then kept and copied."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

#: The mark of a formatted directory, which Kafka reads first.
_MARK = "meta.properties"


def is_formatted(directory: Path) -> bool:
    """Tell whether a broker has used, or could use, this directory."""
    return (directory / _MARK).exists()


def template_name(cluster_id: str, node_id: int) -> str:
    """Return where the format of a node is kept: it has the node's id, and an id of the directory's own."""
    return f"formatted-{cluster_id}" + (f"-{node_id}" if node_id > 1 else "")


def format_once(directory: Path, template: Path, format_anew: Callable[[], None]) -> None:
    """Format `directory`: from `template` when there is one, else with `format_anew`, which then becomes it.

    The tool is a Java program of its own, half as long as the broker's start. What it writes depends on
    Kafka's version and on the ids of the cluster and the node only, not on ports or places.
    """
    if is_formatted(template):
        shutil.copytree(template, directory, dirs_exist_ok=True)
        return
    format_anew()
    template.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix="formatting-", dir=template.parent))
    shutil.copytree(directory, staged, dirs_exist_ok=True)
    try:
        os.replace(staged, template)
    except OSError:  # another broker was as quick
        shutil.rmtree(staged, ignore_errors=True)
