"""The data directory of a worker's process: private, and with one owner at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from streams.settings import refuse

__all__ = ["LOCK", "make_data_directory", "own_data_directory"]

#: Name of the file whose lock the owner holds.
LOCK: Final = "lock"
#: What only the user of the worker may enter: tables have phone numbers.
PRIVATE: Final = 0o700


def make_data_directory(path: Path) -> None:
    """Make a data directory if it does not exist, or refuse to start."""
    try:
        path.mkdir(PRIVATE, parents=True, exist_ok=True)
    except OSError as error:
        refuse(f"TRACKER_DATA_DIR: cannot make {str(path)!r}: {error.strerror}; name a directory to write to")


def own_data_directory(path: Path) -> None:
    """Become the owner of a data directory until this process ends, or refuse to start.

    The kernel releases the lock when the process ends, SIGKILL included. Its file descriptor is closed in
    child processes (PEP 446), so none of them keeps it.
    """
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        refuse(
            f"TRACKER_DATA_DIR: {str(path)!r} belongs to the running process {_owner(path)}; end it, or set "
            "another directory for this worker"
        )
    except OSError as error:
        refuse(f"TRACKER_DATA_DIR: cannot lock {str(path / LOCK)!r}: {error.strerror}")


def _owner(path: Path) -> str:
    # empty for a moment when the owner has only just locked it
    return (path / LOCK).read_text().strip() or "that starts just now"
