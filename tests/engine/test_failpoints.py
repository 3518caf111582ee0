import subprocess
import sys

PROGRAM = """
from streams.engine import failpoints
for n in range(3):
    for name in failpoints.NAMES:
        failpoints.passed(name)
        print(n, name, flush=True)
"""


def run(setting: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"STREAMS_FAILPOINT": setting, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_process_dies_at_the_passage_that_was_asked_for() -> None:
    """SIGKILL at the second time that the commit is about to begin, and not before."""
    done = run("commit.before:2")

    assert done.returncode == -9
    assert done.stdout.splitlines()[-1] == "1 offsets.after"


def test_an_unknown_point_is_refused_at_start() -> None:
    """A name that no commit passes would never kill: the test that asks for it could not fail."""
    done = run("comit.before")

    assert done.returncode == 1
    assert "'comit.before' is none of produce.before" in done.stderr
