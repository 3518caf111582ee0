"""End the broker when its owner is gone, however the owner went.

Run as a script: `watchdog.py PID GRACE_S [DIRECTORY]`. Standard input is a pipe that only the owner holds:
the kernel closes it when the owner dies, SIGKILL included. A byte before that: the owner saw to it all.
(Linux's PR_SET_PDEATHSIG follows the thread that started the broker, not the process, and exists only there.)
"""

import os
import shutil
import signal
import sys
import time


def main(pid: int, grace_s: float, directory: str | None) -> None:
    """Wait for the owner's end, then stop `pid` and remove `directory` (a temporary one)."""
    if sys.stdin.buffer.read(1):
        return
    end(pid, grace_s)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def end(pid: int, grace_s: float) -> None:
    """Stop a process: SIGTERM, and SIGKILL when it is still there after `grace_s` seconds."""
    try:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            time.sleep(0.05)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
