"""How long the brokers have not answered a worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Reachability"]


class Reachability:
    """When the group's coordinator last answered a heartbeat.

    After a session timeout without an answer the group takes the worker for dead, whatever other brokers
    answer. The consumer's thread writes, others read.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answered_at: float | None = None

    def answered(self) -> None:
        """Record an answer of the coordinator."""
        self._answered_at = self._clock()

    def silence_s(self) -> float:
        """Return the time since the last answer, seconds; 0 before the first one."""
        answered_at = self._answered_at
        return 0.0 if answered_at is None else self._clock() - answered_at

    def observe(self, coordinator: Any) -> None:
        """Record each heartbeat that aiokafka's coordinator of the group gets an answer to."""
        heartbeat = coordinator._do_heartbeat

        async def observed() -> bool:
            is_answered: bool = await heartbeat()
            if is_answered:
                self.answered()
            return is_answered

        coordinator._do_heartbeat = observed
