"""Kafka's jars: resolved and fetched by jgo, checked against `jars.lock`, kept in a directory of our own.

The lock lists every jar, so a start fetches only what is missing, and imports jgo only then: a second start
needs no network. `python -m streams.kafka.jars` resolves `ROOTS` again and rewrites the lock.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streams.kafka.disk import full_disk_named, require_space
from streams.kafka.errors import DownloadFailed, JarRefused
from streams.kafka.places import cache_dir

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA_VERSION = "4.3.0"

#: Kafka's POM brings slf4j-api 1.7 and no binding: without one of the same major the log stays empty.
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")

LOCK_FILE = Path(__file__).with_name("jars.lock")
LOCK_HEADER = """\
# Every jar of the embedded broker: sha256, bytes, group:artifact:version.
# Written by `python -m streams.kafka.jars`; a file that differs is refused.
"""

_PARALLEL = 6
_ATTEMPTS = 3
_PAUSE_S = 1.0
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Jar:
    """One line of the lock."""

    sha256: str
    size_bytes: int
    coordinate: str

    @property
    def file_name(self) -> str:
        """Its name in Maven's layout and in ours."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


#: Fetches one jar into a directory of its own choice below the given one, and returns the file.
Fetch = Callable[[str, Path], Path]
Say = Callable[[str], None]


def read_lock(path: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """Return the jars that the lock lists, in its order."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return tuple(Jar(digest, int(size), coordinate) for digest, size, coordinate in map(str.split, lines))


def jars_dir() -> Path:
    """Return the directory of the jars of this Kafka version; it need not exist."""
    return cache_dir() / f"kafka-{KAFKA_VERSION}"


def ensure_jars(
    directory: Path | None = None,
    *,
    lock: Sequence[Jar] | None = None,
    fetch: Fetch | None = None,
    say: Say = lambda _line: None,
) -> list[Path]:
    """Return the class path: every jar of the lock, present in `directory` and with the hash of the lock.

    Args:
        directory: where the jars are kept; made when missing.
        lock: what to have, `jars.lock` by default.
        fetch: how a missing jar is got, jgo by default.
        say: told, in a line, what takes time.
    Raises:
        JarRefused, DownloadFailed, DiskFull.
    """
    directory = directory or jars_dir()
    lock = read_lock() if lock is None else lock
    missing = [jar for jar in lock if not (directory / jar.file_name).exists()]
    if missing:
        _download(missing, directory, fetch or fetch_with_jgo, say)
    for jar in lock:
        _check(directory / jar.file_name, jar, f"Delete {directory / jar.file_name} and start again.")
    return [directory / jar.file_name for jar in lock]


def _download(missing: Sequence[Jar], directory: Path, fetch: Fetch, say: Say) -> None:
    needed = sum(jar.size_bytes for jar in missing)
    say(f"Fetching Kafka {KAFKA_VERSION}: {len(missing)} jars, {needed / 2**20:.0f} MiB, once …")
    with full_disk_named(directory, needed):
        directory.mkdir(parents=True, exist_ok=True)
        require_space(directory, needed)
        with (
            tempfile.TemporaryDirectory(prefix="fetching-", dir=directory) as workspace,
            ThreadPoolExecutor(_PARALLEL) as pool,
        ):
            arriving = [pool.submit(_download_one, jar, directory, Path(workspace), fetch) for jar in missing]
            try:
                for download in arriving:
                    download.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _download_one(jar: Jar, directory: Path, workspace: Path, fetch: Fetch) -> None:
    """Fetch, check, and only then give the jar its place, in one step: nothing half-fetched is seen there."""
    arrived = fetch(jar.coordinate, workspace)
    _check(
        arrived,
        jar,
        "It was thrown away. Start again; when it happens again, the registry (or a proxy before it) serves "
        "another file than the one that was locked: find out why before you change the lock.",
    )
    os.replace(arrived, directory / jar.file_name)


def _check(path: Path, jar: Jar, remedy: str) -> None:
    found = _sha256(path)
    if found != jar.sha256:
        raise JarRefused(path, jar.coordinate, jar.sha256, found, remedy)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_with_jgo(coordinate: str, workspace: Path) -> Path:
    """Fetch one jar by its exact coordinate, in pure Python.

    The lock was resolved when it was written, so no POM is read here. Trap 21: jgo's environments are not
    used at all: their `classpath` leaves out the modular jars, and to tell these apart jgo looks for a JDK to
    download.
    """
    group, artifact_id, version = coordinate.split(":")
    artifact = _maven(workspace).project(group, artifact_id).at_version(version).artifact()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return artifact.resolve()
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the network's
            if attempt == _ATTEMPTS:
                raise DownloadFailed(coordinate, str(error) or type(error).__name__) from error
            _forget_partial(artifact.cached_path)
            time.sleep(_PAUSE_S)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _maven(cache: Path) -> "MavenContext":
    from jgo.maven import MavenContext

    return MavenContext(repo_cache=cache, timeout=_TIMEOUT_S)


def _forget_partial(path: Path | None) -> None:
    """Remove what a broken download left: jgo would take it for the whole file."""
    if path is not None:
        path.unlink(missing_ok=True)


def resolve(roots: Iterable[str] = ROOTS) -> list[Jar]:
    """Resolve `roots` with all that they need at run time, and return the lines of a new lock."""
    with tempfile.TemporaryDirectory(prefix="resolving-") as workspace:
        maven = _maven(Path(workspace))
        given, needed = maven.resolver.resolve([maven.create_dependency(root) for root in roots])
        artifacts = [d.artifact for d in [*given, *needed] if d.scope in (None, "compile", "runtime")]
        with ThreadPoolExecutor(_PARALLEL) as pool:
            files = list(pool.map(lambda artifact: artifact.resolve(), artifacts))
        coordinates = [f"{a.groupId}:{a.artifactId}:{a.version}" for a in artifacts]
        return [
            Jar(_sha256(file), file.stat().st_size, coordinate)
            for coordinate, file in sorted(zip(coordinates, files, strict=True))
        ]


def format_lock(jars: Iterable[Jar]) -> str:
    """Return the text of `jars.lock` for these jars."""
    return LOCK_HEADER + "".join(f"{jar.sha256} {jar.size_bytes} {jar.coordinate}\n" for jar in jars)


if __name__ == "__main__":
    LOCK_FILE.write_text(format_lock(resolve()))
