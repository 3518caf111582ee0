"""A full disk said in words, before it happens and when it happens."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.kafka.errors import DiskFull


def require_space(directory: Path, needed_bytes: int) -> None:
    """Raise `DiskFull` when the file system of `directory` has less than `needed_bytes` free."""
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise DiskFull(directory, needed_bytes, free)


@contextmanager
def full_disk_named(directory: Path, needed_bytes: int) -> Iterator[None]:
    """Turn the operating system's "no space left" inside the block into `DiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(directory, needed_bytes) from error
        raise
