"""The worker that fault runs start and kill: nothing restarts it but they, and its clock can be put wrong.

``FAULTS_CLOCK`` names a file with the seconds by which the clock is ahead; it is read all the time. The
libraries in C that ask the system for the time are made to ask Python: of those, aiokafka's record builder
matters, which dates records.
"""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

LOOK_S = 0.05

_time, _time_ns = time.time, time.time_ns
_ahead_s = 0.0


def shift_clock(path: Path) -> None:
    """Let the wall clock follow the file from now on."""
    _read(path)
    time.time = lambda: _time() + _ahead_s
    time.time_ns = lambda: _time_ns() + round(_ahead_s * 1e9)
    _date_records_by_it()
    threading.Thread(target=_follow, args=(path,), name="clock", daemon=True).start()


def _follow(path: Path) -> None:
    while True:
        time.sleep(LOOK_S)
        _read(path)


def _read(path: Path) -> None:
    global _ahead_s
    try:
        _ahead_s = float(path.read_text())
    except FileNotFoundError:
        _ahead_s = 0.0


def _date_records_by_it() -> None:
    from aiokafka.producer import message_accumulator

    built: Any = message_accumulator.DefaultRecordBatchBuilder

    class Builder(built):  # type: ignore[misc]
        def append(self, offset: int, timestamp: int | None, *rest: Any, **named: Any) -> Any:
            dated = _milliseconds() if timestamp is None else timestamp
            return super().append(offset, dated, *rest, **named)

    message_accumulator.DefaultRecordBatchBuilder = Builder


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    shift_clock(Path(os.environ["FAULTS_CLOCK"]))
    sys.argv = ["streams", "worker"]  # which Faust reads
    from streams.__main__ import main

    main(sys.argv[1:])


if __name__ == "__main__":
    main()
