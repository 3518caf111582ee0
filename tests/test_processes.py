"""Rules of a worker's processes and of their supervisor."""

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
from streams.demo.readings import all_ready, fetch_json
from streams.demo.traffic import Tally, Traffic, generate
from streams.demo.workers import WorkerProcess, children, web_port, worker_environment
from streams.processes import (
    SUPERVISED,
    USAGE,
    Backoff,
    OwnedProcess,
    end_all,
    environments,
    run_worker,
    supervise,
)
from streams.settings import REFUSED, InvalidSetting, Settings

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
#: Ends as a worker does that is asked to.
POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + STAYS
#: Ends by itself at once; at first otherwise than later.
ENDS = """
import os, sys
path, first, later = sys.argv[1:]
code = later if os.path.exists(path) else first
open(path, "w").close()
sys.exit(int(code))
"""
#: Ends and leaves a process behind that does the same.
LEAVES = """
import os, subprocess, sys
path = sys.argv[1]
left = subprocess.Popen(["true"])
with open(path + ".new", "w") as file:
    file.write(str(left.pid))
os.rename(path + ".new", path)
os._exit(1)
"""
#: A worker made of another program than ours.
SUPERVISES = """
import sys
from streams.processes import run_worker
from streams.settings import Settings
sys.exit(run_worker([sys.executable, "-c", *sys.argv[1:]], Settings.from_env({})))
"""


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


def pending(pid: int) -> bool:
    """Whether a process has yet to handle a SIGTERM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask & (1 << (signal.SIGTERM - 1)) for mask in masks)


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def supervisor(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISES, program, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )


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
    assert {one[SUPERVISED] for one in own} == {"1"}


def test_a_single_process_has_the_port_and_directory_of_the_worker() -> None:
    """A worker that had no supervisor finds its tables, and options of the command line have their effect."""
    assert environments(Settings.from_env({})) == [{SUPERVISED: "1"}]


def test_ports_of_all_processes_must_exist() -> None:
    """The last of them would be beyond the last port."""
    with pytest.raises(InvalidSetting, match=r"^TRACKER_WEB_PORT: .*2 processes"):
        Settings.from_env({"TRACKER_PROCESSES": "2", "TRACKER_WEB_PORT": "65535"})


@pytest.mark.parametrize("option", ["--web-port=7000", "-p", "-p7000", "--datadir"])
def test_an_option_that_all_would_share_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes cannot have one port or one directory."""
    with pytest.raises(SystemExit) as ended:
        run_worker(["worker", option], Settings.from_env({"TRACKER_PROCESSES": "2"}))

    assert ended.value.code == REFUSED
    assert "TRACKER_WEB_PORT" in capsys.readouterr().err


def test_pauses_double_up_to_half_a_minute() -> None:
    """A fault that stays costs two restarts a minute, and as many lines."""
    backoff = Backoff()

    assert [backoff.after(ran_s=2) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_pauses_are_short_again_after_a_steady_run() -> None:
    """What ends after an hour has nothing to do with what ended before."""
    backoff = Backoff()
    for _ in range(5):
        backoff.after(ran_s=59)

    assert [backoff.after(ran_s=60), backoff.after(ran_s=1)] == [1, 2]


def test_a_process_that_ends_is_started_again_and_the_others_stay(tmp_path: Path) -> None:
    """Also one that was killed; the stop ends all of them."""
    paths = [tmp_path / "0", tmp_path / "1"]
    members = [member(STAYS, path) for path in paths]
    stop, said, ends = threading.Event(), [], []
    thread = threading.Thread(target=lambda: ends.append(supervise(members, stop.is_set, said.append)))
    thread.start()
    first, other = map(pid_in, paths)

    os.kill(first, signal.SIGKILL)
    again = pid_in(paths[0], other_than=first)
    stop.set()
    thread.join(10)

    assert ends == [None]
    assert said == ["process 0 was killed by SIGKILL after 0 s; it is restarted in 1 s"]
    assert (is_there(again), pid_in(paths[1])) == (True, other)
    assert end_all(members, GRACE_S, lambda: False) == [-signal.SIGTERM, -signal.SIGTERM]
    assert not is_there(again)
    assert not is_there(other)


@pytest.mark.parametrize("code", [REFUSED, USAGE])
def test_a_process_that_refuses_to_start_ends_the_worker(code: int, tmp_path: Path) -> None:
    """A setting or an argument that cannot be used: another start would not help, and hides the message."""
    refusing = member(ENDS, tmp_path / "started")
    refusing.command = [*refusing.command, str(code), "0"]
    said: list[str] = []

    assert supervise([refusing], lambda: False, said.append) == code
    assert said == []


def test_a_refusal_after_the_first_start_is_tried_again(tmp_path: Path) -> None:
    """The settings are the same, so what it refuses has changed outside: a topic that has no leader."""
    refusing = member(ENDS, tmp_path / "started")
    refusing.command = [*refusing.command, "1", str(REFUSED)]
    said: list[str] = []

    assert supervise([refusing], lambda: len(said) == 2, said.append) is None
    assert [text.partition(" after")[0] for text in said] == [
        "process 0 ended with 1",
        f"process 0 ended with {REFUSED}",
    ]


def test_arguments_are_refused_for_good(tmp_path: Path) -> None:
    """They stay the same, also if something else ended the first start, such as a broker that was away."""
    refusing = member(ENDS, tmp_path / "started")
    refusing.command = [*refusing.command, "1", str(USAGE)]

    assert supervise([refusing], lambda: False, print) == USAGE


def test_a_process_that_the_system_cannot_start_is_tried_again(tmp_path: Path) -> None:
    """There may be room for it later."""
    missing = OwnedProcess([str(tmp_path / "missing")], {}, GRACE_S)
    said: list[str] = []

    assert supervise([missing], lambda: bool(said), said.append) is None
    assert said == ["process 0 was not started (No such file or directory); it is restarted in 1 s"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", [POLITE, STAYS], ids=["running", "starting"])
def test_a_worker_that_is_asked_to_stop_ends_with_zero(
    number: signal.Signals, program: str, tmp_path: Path
) -> None:
    """Also if its process was not so far as to listen to the signal."""
    with supervisor(program, tmp_path / "pid") as worker:
        pid = pid_in(tmp_path / "pid")
        worker.send_signal(number)
        assert worker.wait(20) == 0
    assert not is_there(pid)


def test_a_second_signal_kills_a_worker(tmp_path: Path) -> None:
    """Who asks twice does not want to wait."""
    with supervisor(DEAF, tmp_path / "pid") as worker:
        pid = pid_in(tmp_path / "pid")
        worker.terminate()
        # the first one must have arrived, or both would be one
        until(lambda: int(not pending(worker.pid)), bool)
        worker.terminate()
        assert worker.wait(5) == 1
    assert not is_there(pid)


def test_a_worker_whose_process_waits_for_its_restart_ends_with_zero(tmp_path: Path) -> None:
    """There is nothing that could have stopped badly."""
    with supervisor(ENDS, tmp_path / "started", 1, 1) as worker:
        assert worker.stderr is not None
        assert worker.stderr.readline().startswith("process 0 ended with 1")
        worker.terminate()
        assert worker.wait(20) == 0


def test_a_worker_ends_with_the_exit_code_of_a_refusal(tmp_path: Path) -> None:
    """So that those who run it can tell a configuration from a fault."""
    with supervisor(ENDS, tmp_path / "started", REFUSED, 0) as worker:
        assert worker.wait(20) == REFUSED


def test_what_a_process_leaves_behind_is_waited_for(tmp_path: Path) -> None:
    """As the first process of a container a worker inherits it, and it would stay a zombie."""
    program = """
import ctypes, sys
from pathlib import Path
from streams.processes import OwnedProcess, supervise
from tests.test_processes import LEAVES
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
left = Path(sys.argv[1])
member = OwnedProcess([sys.executable, "-c", LEAVES, str(left)], {}, 1)
supervise([member], lambda: left.exists() and not Path("/proc", left.read_text()).exists(), print)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "pid")], check=True, timeout=60)


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


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_a_single_process_is_restarted_too(kafka: Any, tmp_path: Path) -> None:
    """With the directory and the port of the worker; another worker is refused the directory meanwhile."""
    place = Place(f"single-{time.time_ns()}", f"single-{time.time_ns()}.", 2)
    fill_topics(kafka.url, place, [])
    environment = worker_environment(
        broker_url=kafka.url,
        app_id=place.app_id,
        topic_prefix=place.topic_prefix,
        partitions=place.partitions,
        data_dir=tmp_path / "data",
        web_port=web_port(0),
    )
    url = f"http://127.0.0.1:{environment['TRACKER_WEB_PORT']}"
    command = [sys.executable, "-m", "streams", "worker", "-l", "warn"]
    owned = OwnedProcess(command, environment, GRACE_S)
    owned.start()
    try:
        assert owned.process is not None
        until(lambda: all_ready([url]), bool)
        (first,) = workers_of(owned.process.pid)
        assert pid_in(tmp_path / "data" / "lock") == first

        other = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        assert other.returncode == REFUSED
        assert f"belongs to the running process {first}" in other.stderr

        os.kill(first, signal.SIGKILL)
        second = pid_in(tmp_path / "data" / "lock", other_than=first)
        until(lambda: all_ready([url]), bool)
        assert workers_of(owned.process.pid) == [second]
        assert {path.name for path in (tmp_path / "data").iterdir()} == {"lock", "v1"}
    finally:
        codes = end_all([owned], 20, lambda: False)
    assert codes == [0]


def workers_of(pid: int) -> list[int]:
    """The process ids of a supervisor's workers, without their watchdogs."""
    return [child for child in children(pid) if b"worker" in command_of(child)]


def said_by(process: WorkerProcess) -> list[Counter[str]]:
    """How many messages there are by status, as each process of a worker says."""
    answers = [fetch_json(f"{url}/v1/stats") or {} for url in process.urls]
    return [+Counter(answer.get("byStatus", {})) for answer in answers]


def members(process: WorkerProcess) -> list[int]:
    """The process ids of a worker's processes, without their watchdogs."""
    assert process.pid is not None
    return workers_of(process.pid)


def command_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
