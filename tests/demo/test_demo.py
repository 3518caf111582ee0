"""Rules of the demonstration as a command, on a real broker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.kafka


@contextlib.contextmanager
def demo(broker_url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command on a broker that runs already, so under fresh names."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TRACKER_")}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "streams", "demo", *arguments],
        env={**own, "TRACKER_BROKER_URL": broker_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()  # what it started goes with it
        process.communicate()


def test_an_exact_run_adds_up_and_exits(kafka) -> None:
    """So many messages in, the same many out, each status counted; exit code 0."""
    with demo(kafka.url, "--messages", "2000", "--exit") as process:
        output, _ = process.communicate(timeout=120)

    assert process.returncode == 0, output
    assert "all of it adds up" in output
    assert "callbacks/s" in output
    assert "first delivered message after" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_steady_run_stops_within_ten_seconds(kafka, number: signal.Signals) -> None:
    """At Ctrl-C and at SIGTERM; it shows a delivered message and where to look before."""
    lines = []
    with demo(kafka.url) as process:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("first delivered message"):
                break
        process.send_signal(number)
        asked_at = time.monotonic()
        rest, _ = process.communicate(timeout=20)

    assert time.monotonic() - asked_at < 10
    assert process.returncode == 0, "".join(lines) + rest
    assert any("curl http://127.0.0.1" in line for line in lines)


def test_a_dead_worker_fails_the_run_with_its_last_words(kafka, tmp_path) -> None:
    """What only the worker refuses: the demonstration shows the end of its log and exits 1."""
    process = subprocess.run(
        [sys.executable, "-m", "streams", "demo", "--messages", "10", "--exit"],
        env={
            **os.environ,
            "TRACKER_BROKER_URL": kafka.url,
            "STREAMS_FAILPOINT": "nowhere:1",
            "TMPDIR": str(tmp_path),  # logs of a failed run stay
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 1
    assert "STREAMS_FAILPOINT: 'nowhere' is none of" in process.stderr
