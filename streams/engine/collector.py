"""The cyclic garbage collector, on our own clock.

Trap 22: millions of short-lived objects trigger Python's collector, and each time it walks all that
is alive; it took 40 % of the worker's time. Nothing on the hot path makes cycles, so the automatic
collector is off, and what asyncio and Faust leave behind is collected between units of work.
"""

from __future__ import annotations

import gc
import time

from streams.engine import metrics

__all__ = ["Collector"]

#: Seconds between two collections of a worker that has nothing to do, and of one that is busy: then each
#: record that waits in a lane is walked.
IDLE_S = 10.0
BUSY_S = 60.0


class Collector:
    """Decides when to collect."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def take_over(self) -> None:
        """Switch the automatic collector off, once; what is alive now is never walked again."""
        if not gc.isenabled():
            return
        gc.collect()
        gc.freeze()
        gc.disable()
        self._last = time.monotonic()

    def between_units(self) -> None:
        """Collect when it is due for a busy worker; called after each commit."""
        self._collect_after(BUSY_S)

    def when_idle(self) -> None:
        """Collect when it is due for an idle worker; called while no unit of work is under way."""
        self._collect_after(IDLE_S)

    def _collect_after(self, interval: float) -> None:
        now = time.monotonic()
        if now - self._last >= interval:
            gc.collect()
            self._last = time.monotonic()
            metrics.GC_SECONDS.inc(self._last - now)
