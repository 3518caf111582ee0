import errno
import hashlib
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from streams.kafka import jars
from streams.kafka.errors import DiskFull, DownloadFailed, JarRefused
from streams.kafka.jars import Jar, ensure_jars, read_lock

CONTENT = b"not much of a jar"
JAR = Jar(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "org.example:thing:1.0")
OTHER = Jar(hashlib.sha256(b"other").hexdigest(), 5, "org.example:other:2.0")


def serve(contents):
    """Return a fetch that knows these coordinates, and the list of those it was asked for."""
    asked = []

    def fetch(coordinate, workspace):
        asked.append(coordinate)
        arrived = workspace / f"{len(asked)}.jar"
        arrived.write_bytes(contents[coordinate])
        return arrived

    return fetch, asked


def test_only_missing_jars_are_fetched(tmp_path):
    """A jar that is there is checked, not fetched again."""
    (tmp_path / OTHER.file_name).write_bytes(b"other")
    fetch, asked = serve({JAR.coordinate: CONTENT})

    class_path = ensure_jars(tmp_path, lock=[JAR, OTHER], fetch=fetch)

    assert asked == [JAR.coordinate]
    assert class_path == [tmp_path / "thing-1.0.jar", tmp_path / "other-2.0.jar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other-2.0.jar", "thing-1.0.jar"]


def test_a_fetched_jar_with_another_hash_is_refused_and_not_kept(tmp_path):
    """The message names the jar, both hashes, and what to do; nothing is left behind."""
    fetch, _ = serve({JAR.coordinate: b"something else"})

    with pytest.raises(JarRefused, match=r"org\.example:thing:1\.0") as refused:
        ensure_jars(tmp_path, lock=[JAR], fetch=fetch)

    found = hashlib.sha256(b"something else").hexdigest()
    assert JAR.sha256 in str(refused.value) and found in str(refused.value)
    assert "Start again" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_kept_jar_that_was_changed_is_refused(tmp_path):
    """The cache is checked at every start; the message says which file to delete."""
    (tmp_path / JAR.file_name).write_bytes(b"tampered")
    fetch, asked = serve({})

    with pytest.raises(JarRefused, match=f"Delete {tmp_path / JAR.file_name}"):
        ensure_jars(tmp_path, lock=[JAR], fetch=fetch)

    assert asked == []


def test_a_failed_download_names_the_jar_and_keeps_what_arrived(tmp_path):
    """The next start fetches only the rest."""
    fetch, _ = serve({OTHER.coordinate: b"other"})

    def flaky(coordinate, workspace):
        if coordinate == JAR.coordinate:
            raise DownloadFailed(coordinate, "no route to host")
        return fetch(coordinate, workspace)

    with pytest.raises(DownloadFailed, match=r"org\.example:thing:1\.0: no route to host"):
        ensure_jars(tmp_path, lock=[OTHER, JAR], fetch=flaky)

    assert [path.name for path in tmp_path.iterdir()] == [OTHER.file_name]


def test_too_little_space_is_said_before_anything_is_fetched(tmp_path, monkeypatch):
    """Free and needed space stand in the message."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=4))
    fetch, asked = serve({JAR.coordinate: CONTENT})

    with pytest.raises(DiskFull, match="the disk is full"):
        ensure_jars(tmp_path, lock=[JAR], fetch=fetch)

    assert asked == []


def test_a_disk_that_fills_up_meanwhile_is_said_in_words(tmp_path):
    """The operating system's ENOSPC, from the middle of a download, becomes the same message."""

    def fetch(_coordinate, _workspace):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match="no space is left"):
        ensure_jars(tmp_path, lock=[JAR], fetch=fetch)


def test_jgo_failing_for_want_of_a_network_is_a_failed_download(tmp_path, monkeypatch):
    """Each jar is tried a few times; the last error is the reason given."""
    tried = []

    class Artifact:
        cached_path = tmp_path / "half.jar"

        def resolve(self):
            tried.append(self.cached_path.exists())
            self.cached_path.write_bytes(b"half")
            raise ConnectionError("the network is unreachable")

    chain = SimpleNamespace(project=lambda *_: SimpleNamespace(at_version=lambda _: component))
    component = SimpleNamespace(artifact=Artifact)
    monkeypatch.setattr(jars, "_maven", lambda _cache: chain)
    monkeypatch.setattr(jars, "_PAUSE_S", 0)

    with pytest.raises(DownloadFailed, match="the network is unreachable"):
        jars.fetch_with_jgo(JAR.coordinate, tmp_path)

    assert tried == [False, False, False], "jgo would take the rest of a broken download for the whole file"


def test_jgo_is_not_imported_when_nothing_is_missing(tmp_path, monkeypatch):
    """A second start needs neither network nor resolver."""
    monkeypatch.setitem(sys.modules, "jgo", None)
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    (tmp_path / JAR.file_name).write_bytes(CONTENT)

    assert ensure_jars(tmp_path, lock=[JAR]) == [tmp_path / JAR.file_name]


def test_the_lock_lists_the_roots_and_an_slf4j_binding_of_the_apis_version():
    """Without a binding of the same major the broker's log would stay empty."""
    locked = {jar.coordinate for jar in read_lock()}
    versions = {c.split(":")[1]: c.split(":")[2] for c in locked}

    assert set(jars.ROOTS) <= locked
    assert versions["slf4j-simple"] == versions["slf4j-api"]
    assert len(locked) == len({jar.file_name for jar in read_lock()})


def test_the_lock_is_what_it_would_be_written_as():
    """Read and written again it is the same file, so a new resolution shows as a clean difference."""
    assert jars.format_lock(read_lock()) == jars.LOCK_FILE.read_text()


def test_jars_are_kept_below_xdg_cache_home(monkeypatch):
    """Each Kafka version has a directory of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")

    assert jars.jars_dir() == Path("/elsewhere/delivery-tracker/kafka-4.3.0")
