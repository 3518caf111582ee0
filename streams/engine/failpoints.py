"""Places at which a test kills the worker: ``STREAMS_FAILPOINT=commit.after:17``.

At the n-th passage of the named point the process kills itself with SIGKILL, as a power cut would.
Without the variable a passage costs one comparison.
"""

from __future__ import annotations

import os
import signal

__all__ = ["NAMES", "passed"]

#: The steps of a commit, before and after each, in their order.
NAMES = tuple(
    f"{step}.{side}"
    for step in ("produce", "offsets", "commit", "store", "ack")
    for side in ("before", "after")
)


def _armed(setting: str) -> tuple[str, int]:
    name, _, count = setting.partition(":")
    if setting and name not in NAMES:
        raise ValueError(f"STREAMS_FAILPOINT: {name!r} is none of {', '.join(NAMES)}")
    return name, int(count or 1)


_name, _left = _armed(os.environ.get("STREAMS_FAILPOINT", ""))


def passed(name: str) -> None:
    """Say that the commit has come to `name`; kills the process when the test asked for it."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
