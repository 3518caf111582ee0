"""Repeated lines of libraries' logs: during an outage aiokafka writes a hundred a second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["RepetitionLimit", "limit_repetitions"]

#: How long a line of the same template is suppressed, seconds.
INTERVAL_S = 10.0
#: Lines of these loggers are never suppressed: each of ours is about something of its own.
OWN = ("agents", "streams", "tables")
#: Templates that are kept at most; texts that were formatted before they were logged are all different.
MOST_TEMPLATES = 1_000


@dataclass(slots=True)
class _Written:
    """A line that was written, and how many like it were not since then."""

    at: float
    suppressed: int = 0


class RepetitionLimit(logging.Filter):
    """Passes lines of one logger, level and template once in an interval, and counts the others.

    The next line that passes says how many were suppressed. The filter belongs on handlers, for a logger's
    filter does not see lines of its children.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._clock = clock
        self._written: dict[tuple[str, int, str], _Written] = {}
        # handlers are called by several threads, and filters outside of a handler's lock
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line passes; the same for each handler that asks."""
        if record.name.partition(".")[0] in OWN:
            return True
        passes: bool | None = getattr(record, "passes_limit", None)
        if passes is None:
            with self._lock:
                passes = record.passes_limit = self._passes(record)
        return passes

    def _passes(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, record.levelno, str(record.msg)), self._clock()
        written = self._written.get(key)
        if written is not None and now - written.at < self._interval_s:
            written.suppressed += 1
            return False
        if written is not None and written.suppressed:
            since_s = now - written.at
            record.msg = f"{record.msg} ({written.suppressed} more like this in the last {since_s:.0f} s)"
        if len(self._written) >= MOST_TEMPLATES:
            self._forget(now)
        self._written[key] = _Written(now)
        return True

    def _forget(self, now: float) -> None:
        """Drop what would pass now, or all of it."""
        recent = {key: one for key, one in self._written.items() if now - one.at < self._interval_s}
        self._written = recent if len(recent) < MOST_TEMPLATES else {}


def limit_repetitions(handlers: list[logging.Handler]) -> None:
    """Let these handlers write repeated lines of libraries once in an interval."""
    limit = RepetitionLimit()
    for handler in handlers:
        handler.addFilter(limit)
