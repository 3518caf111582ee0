"""Rules of a worker's data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.data_directory import make_data_directory, own_data_directory
from streams.settings import REFUSED

#: Owns the directory, starts a child as the courier starts the sender, says so, and stays.
OWNS = """
import asyncio, sys
from pathlib import Path
import uvloop
from streams.data_directory import own_data_directory

async def stay():
    child = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    print(child.pid, flush=True)
    await child.wait()

own_data_directory(Path(sys.argv[1]))
uvloop.run(stay())
"""
#: The same in a moment.
TRIES = """
import sys
from pathlib import Path
from streams.data_directory import own_data_directory
own_data_directory(Path(sys.argv[1]))
"""


def tried(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRIES, str(directory)], capture_output=True, text=True, check=False
    )


def test_a_data_directory_has_one_owner(tmp_path: Path) -> None:
    """A second worker ends with one line; a killed owner leaves no lock behind, nor do its children."""
    owner = subprocess.Popen([sys.executable, "-c", OWNS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    try:
        second = tried(tmp_path)
        owner.kill()
        owner.wait()
        # the child still runs
        os.kill(child, 0)
        third = tried(tmp_path)
    finally:
        owner.kill()
        os.kill(child, 9)
        owner.stdout.close()

    assert (second.returncode, second.stdout) == (REFUSED, "")
    (line,) = second.stderr.splitlines()
    for part in ("TRACKER_DATA_DIR", str(tmp_path), f"process {owner.pid}"):
        assert part in line
    assert (third.returncode, third.stderr) == (0, "")


def test_only_its_user_may_enter_a_data_directory(tmp_path: Path) -> None:
    """Tables have phone numbers. A directory that exists keeps its mode: somebody chose it."""
    made, given = tmp_path / "deep" / "made", tmp_path / "given"
    given.mkdir(0o755)

    make_data_directory(made)
    make_data_directory(given)

    assert made.stat().st_mode & 0o777 == 0o700
    assert given.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("prepare", [make_data_directory, own_data_directory])
def test_a_directory_that_cannot_be_used_is_named(
    prepare: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its variable and the reason, and without a traceback."""
    (tmp_path / "file").touch()

    with pytest.raises(SystemExit) as ended:
        prepare(tmp_path / "file" / "data")

    assert ended.value.code == REFUSED
    error = capsys.readouterr().err
    assert error.startswith("TRACKER_DATA_DIR: ")
    assert "Not a directory" in error
