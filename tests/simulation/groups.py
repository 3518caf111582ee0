"""The simulated consumer group: who is a member, and which partitions each has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.loop import SimulatedLoop
from tests.simulation.schedule import Schedule

__all__ = ["Group"]

SESSION_S: Final = 6.0
#: How long a rebalance waits for members to give up their partitions.
REBALANCE_S: Final = 10.0
LOOK_S: Final = 0.5


class Group:
    """Assigns partitions to workers, and evicts those of which it receives no heartbeat.

    A member that is stopped, or cut off from the coordinator, does not know that it was evicted: it goes on
    as the owner of its partitions.

    Attributes:
        ever_evicted: the workers that were evicted at any time.
    """

    def __init__(
        self, loop: SimulatedLoop, schedule: Schedule, partitions: int, trace: Callable[..., None]
    ) -> None:
        self.generation = 0
        self._loop = loop
        self._schedule = schedule
        self._partitions = partitions
        self._trace = trace
        self._members: dict[Any, float] = {}
        self._evicted: dict[Any, None] = {}
        self.ever_evicted: set[Any] = set()
        self._is_due = asyncio.Event()

    def join(self, worker: Any) -> None:
        """Take a member."""
        self._trace("join", worker.name)
        self._members[worker] = self._loop.time()
        self.rebalance()

    def leave(self, worker: Any) -> None:
        """Let a member go."""
        self._evicted.pop(worker, None)
        if self._members.pop(worker, None) is not None:
            self._trace("leave", worker.name)
            self.rebalance()

    def rebalance(self) -> None:
        """Have the partitions assigned anew."""
        self._is_due.set()

    async def coordinate(self) -> None:
        """Rebalance whenever that is due, for ever."""
        while True:
            await self._is_due.wait()
            await asyncio.sleep(0.3)
            self._is_due.clear()
            await self._rebalance()

    async def watch(self) -> None:
        """Evict members without heartbeats, and take them in again when they are back, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = self._loop.time()
            for worker, heard_at in list(self._members.items()):
                if worker.is_heard:
                    self._members[worker] = now
                elif now - heard_at > SESSION_S:
                    self._evict(worker)
            for worker in [worker for worker in self._evicted if worker.is_heard]:
                del self._evicted[worker]
                self.join(worker)

    def _evict(self, worker: Any) -> None:
        self._trace("evict", worker.name)
        self.ever_evicted.add(worker)
        if self._members.pop(worker, None) is not None:
            self._evicted[worker] = None
            self.rebalance()

    async def _rebalance(self) -> None:
        revoking = {worker: worker.process.spawn(worker.revoke()) for worker in self._members}
        deadline = self._loop.time() + REBALANCE_S
        while self._loop.time() < deadline and any(
            worker in self._members and not task.done() for worker, task in revoking.items()
        ):
            await asyncio.sleep(0.05)
        for worker, task in revoking.items():
            if worker in self._members and not task.done():
                self._evict(worker)
        members = [worker for worker in revoking if worker in self._members]
        self.generation += 1
        numbers = list(range(self._partitions))
        self._schedule.random.shuffle(members)
        self._schedule.random.shuffle(numbers)
        for index, worker in enumerate(members):
            mine = numbers[index :: len(members)]
            self._trace("assign", worker.name, self.generation, sorted(mine))
            worker.process.spawn(worker.assign(self.generation, frozenset(mine)))
