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

#: Seconds between two collections of the youngest generation, and of the young ones together.
YOUNGEST_S = 2.0
YOUNG_S = 20.0
#: Seconds between two whole collections of a worker that has nothing to do, and of one that is busy.
IDLE_S = 10.0
WHOLE_S = 300.0


class Collector:
    """Decides which generation to collect, and when."""

    def __init__(self) -> None:
        now = time.monotonic()
        self._last = [now, now, now]

    def take_over(self) -> None:
        """Switch the automatic collector off, once; what is alive now is never walked again."""
        if not gc.isenabled():
            return
        gc.collect()
        gc.freeze()
        gc.disable()

    def between_units(self) -> None:
        """Collect what is due; called after each commit."""
        now = time.monotonic()
        for generation, interval in ((2, WHOLE_S), (1, YOUNG_S), (0, YOUNGEST_S)):
            if now - self._last[generation] >= interval:
                self._collect(generation, now)
                return

    def when_idle(self) -> None:
        """Collect everything; called while no unit of work is under way."""
        now = time.monotonic()
        if now - self._last[2] >= IDLE_S:
            self._collect(2, now)

    def _collect(self, generation: int, now: float) -> None:
        gc.collect(generation)
        metrics.GC_SECONDS.inc(time.monotonic() - now)
        for younger in range(generation + 1):
            self._last[younger] = now
