"""Rules of a worker that is several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.brokers import committed, fill_topics
from bench.ours import until_ready, worker
from streams.demo.places import Place
from streams.demo.readings import fetch_json
from streams.demo.traffic import Tally, Traffic, generate
from streams.demo.workers import WorkerProcess, children
from streams.processes import OwnedProcess, end_all, environments, run_worker, supervise
from streams.settings import InvalidSetting, Settings

GRACE_S = 5.0
#: Tells its process id in a file, and stays.
STAYS = """
import os, signal, sys
path = sys.argv[1]
with open(path + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(path + ".new", path)
signal.pause()
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STAYS


def member(program: str, path: Path) -> OwnedProcess:
    return OwnedProcess([sys.executable, "-c", program, str(path)], {}, GRACE_S)


def pid_in(path: Path, other_than: int = 0) -> int:
    """The process id that the file tells, once it is another than this one."""
    return until(
        lambda: int(path.read_text()) if path.exists() else 0, lambda pid: pid not in {0, other_than}
    )


def until(look: Callable[[], int], good: Callable[[int], bool]) -> int:
    deadline = time.monotonic() + 60
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.02)
    return seen


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_each_process_has_its_own_port_and_directory() -> None:
    """From the worker's on, so that all of them can be found."""
    settings = Settings.from_env(
        {"TRACKER_PROCESSES": "3", "TRACKER_WEB_PORT": "7000", "TRACKER_DATA_DIR": "here"}
    )

    own = environments(settings)

    assert [one["TRACKER_WEB_PORT"] for one in own] == ["7000", "7001", "7002"]
    assert len({one["TRACKER_DATA_DIR"] for one in own}) == 3
    assert {Path(one["TRACKER_DATA_DIR"]).parent for one in own} == {Path("here")}
    assert {one["TRACKER_PROCESSES"] for one in own} == {"1"}, "or each would start as many again"


def test_ports_of_all_processes_must_exist() -> None:
    """The last of them would be beyond the last port."""
    with pytest.raises(InvalidSetting, match=r"^TRACKER_WEB_PORT: .*2 processes"):
        Settings.from_env({"TRACKER_PROCESSES": "2", "TRACKER_WEB_PORT": "65535"})


@pytest.mark.parametrize("option", ["--web-port=7000", "-p", "-p7000", "--datadir"])
def test_an_option_that_all_would_share_is_refused(option: str) -> None:
    """Two processes cannot have one port or one directory."""
    with pytest.raises(SystemExit, match="TRACKER_WEB_PORT"):
        run_worker(["worker", option], Settings.from_env({"TRACKER_PROCESSES": "2"}))


def test_a_process_that_ends_is_started_again_and_the_others_stay(tmp_path: Path) -> None:
    """Also one that was killed; the stop ends all of them."""
    paths = [tmp_path / "0", tmp_path / "1"]
    members = [member(STAYS, path) for path in paths]
    stop, said, kept = threading.Event(), [], []
    thread = threading.Thread(target=lambda: kept.append(supervise(members, stop.is_set, said.append)))
    thread.start()
    first, other = map(pid_in, paths)

    os.kill(first, signal.SIGKILL)
    again = pid_in(paths[0], other_than=first)
    stop.set()
    thread.join(10)

    assert kept == [True]
    assert said == [f"process 0 ended with {-signal.SIGKILL}; it is started again in 1 s"]
    assert (is_there(again), pid_in(paths[1])) == (True, other)
    assert end_all(members, GRACE_S, lambda: False) == [-signal.SIGTERM, -signal.SIGTERM]
    assert not is_there(again)
    assert not is_there(other)


def test_a_process_that_cannot_start_ends_the_worker() -> None:
    """Three ends in a row right after the start: a fourth try would not help, and hides the fault."""
    members = [OwnedProcess([sys.executable, "-c", "raise SystemExit(3)"], {}, GRACE_S)]
    said: list[str] = []

    assert supervise(members, lambda: False, said.append) is False
    assert [text.partition(";")[0] for text in said] == [
        "process 0 ended with 3",
        "process 0 ended with 3",
        "process 0 ended with 3, 3 times in a row",
    ]


def test_a_hurry_kills_what_does_not_go(tmp_path: Path) -> None:
    """A second signal is not kept waiting for the grace of the first."""
    deaf = member(DEAF, tmp_path / "deaf")
    deaf.start()
    pid_in(tmp_path / "deaf")

    assert end_all([deaf], 60.0, lambda: True) == [-signal.SIGKILL]


def test_nothing_outlives_a_killed_owner(tmp_path: Path) -> None:
    """SIGKILL leaves the owner no time to stop what it started."""
    program = """
import sys
from pathlib import Path
from tests.test_processes import STAYS, member
from streams.processes import supervise
supervise([member(STAYS, Path(sys.argv[1]))], lambda: False, print)
"""
    owner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "pid")])
    pid = pid_in(tmp_path / "pid")

    owner.kill()
    owner.wait()

    until(lambda: int(is_there(pid)), lambda there: not there)


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_a_killed_process_of_a_worker_loses_and_doubles_nothing(kafka: Any) -> None:
    """Its partitions go to the other one, it comes back, and any of both counts what was said."""
    tally = Tally()
    place = Place(f"killed-{time.time_ns()}", f"killed-{time.time_ns()}.", 4)
    traffic = Traffic(messages=3_000, messages_per_second=2_000.0, mean_delivery_s=1.0).ending_now()
    fill_topics(kafka.url, place, generate(traffic, tally))
    with worker(kafka.url, place, processes=2, environment={"TRACKER_SESSION_TIMEOUT": "2s"}) as process:
        until_ready(process)
        first, second = members(process)

        os.kill(first, signal.SIGKILL)

        until(lambda: len(set(members(process)) - {first, second}), lambda new: new == 1)
        until(lambda: said_by(process) == [tally.by_status] * 2, lambda right: right)
        offsets = committed(kafka.url, place.app_id, place.inputs.values(), 4)

    # and markers of transactions, which have offsets, too
    assert offsets >= tally.records + tally.forwarded


def said_by(process: WorkerProcess) -> list[Counter[str]]:
    """How many messages there are by status, as each process of a worker says."""
    answers = [fetch_json(f"{url}/v1/stats") or {} for url in process.urls]
    return [+Counter(answer.get("byStatus", {})) for answer in answers]


def members(process: WorkerProcess) -> list[int]:
    """The process ids of a worker's processes, without their watchdogs."""
    assert process.pid is not None
    return [pid for pid in children(process.pid) if b"worker" in command_of(pid)]


def command_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
