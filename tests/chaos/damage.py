"""What can happen to the directory of a table's store, with the worker away."""

import errno
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from streams.topics import TABLES as TABLES
from tests.faults.stores import offset_of, read_store

Harm = Callable[[Path, random.Random], None]


def any_store(data_dir: Path, rng: random.Random) -> Path | None:
    """Return a store that has something on the disk."""
    stores = sorted(store for store in data_dir.rglob("*-*.db") if list(store.glob("*.sst")))
    return rng.choice(stores) if stores else None


def _any_sst(store: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(store.glob("*.sst")))


def cut_a_table_file(store: Path, rng: random.Random) -> None:
    path = _any_sst(store, rng)
    os.truncate(path, path.stat().st_size // 2)


def flip_bits(store: Path, rng: random.Random) -> None:
    path = _any_sst(store, rng)
    data = bytearray(path.read_bytes())
    for _ in range(20):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def lose_a_table_file(store: Path, rng: random.Random) -> None:
    _any_sst(store, rng).unlink()


def lose_the_manifest(store: Path, rng: random.Random) -> None:
    for path in store.glob("MANIFEST-*"):
        path.unlink()


def garble_the_manifest(store: Path, rng: random.Random) -> None:
    for path in store.glob("MANIFEST-*"):
        path.write_bytes(rng.randbytes(max(64, path.stat().st_size)))


def empty_current(store: Path, rng: random.Random) -> None:
    (store / "CURRENT").write_bytes(b"")


def leave_a_file_instead(store: Path, rng: random.Random) -> None:
    shutil.rmtree(store)
    store.write_bytes(b"")


def take_a_neighbours(store: Path, rng: random.Random) -> None:
    """Put the store of another partition of the same table in its place."""
    table = store.name.rpartition("-")[0]
    others = [path for path in store.parent.glob(f"{table}-*.db") if path != store]
    if not others:
        return leave_a_file_instead(store, rng)
    shutil.rmtree(store)
    shutil.copytree(rng.choice(sorted(others)), store)


HARMS: dict[str, Harm] = {
    "a table file cut": cut_a_table_file,
    "bits flipped": flip_bits,
    "a table file lost": lose_a_table_file,
    "the manifest lost": lose_the_manifest,
    "the manifest garbled": garble_the_manifest,
    "CURRENT empty": empty_current,
    "a file in its place": leave_a_file_instead,
    "another partition's": take_a_neighbours,
}


def cannot_mount() -> str:
    """Return why no file system can be mounted here; "" when one can."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory]
        try:
            done = subprocess.run(command, capture_output=True, check=False, text=True)
        except OSError as error:
            return f"there is no mount: {error}"
        if done.returncode:
            return done.stderr.strip()
        subprocess.run(["umount", directory], check=False)
        return ""


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    try:
        with path.open("wb") as filler:
            while True:
                filler.write(bytes(1 << 20))
                filler.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


__all__ = [
    "HARMS",
    "TABLES",
    "Harm",
    "any_store",
    "cannot_mount",
    "fill",
    "offset_of",
    "read_store",
]
