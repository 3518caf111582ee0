"""Watching a worker at work: read what it says now and then, and show it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from streams.demo import summaries
from streams.demo.readings import EventCounts, Lags, Metrics, all_ready, fetch_json, fetch_metrics
from streams.demo.screens import Board, Screen
from streams.demo.stops import Stopper, in_thread
from streams.demo.workers import WorkerProcess

T = TypeVar("T")

LOOK_EVERY_S = 1.0
LOOK_AT_FIRST_S = 0.25
"""Until the first delivered message is there, which is what everybody waits for."""

READY_S = 60.0
STALLED_S = 60.0
RATE_OVER_S = 5.0


class DemoFailed(Exception):
    """The demonstration cannot go on, or its numbers do not add up; the text says what to look at."""


class Rate:
    """How fast a count has grown lately."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, count: int) -> float:
        """Note a count; returns its growth per second over the last few seconds."""
        now = time.monotonic()
        self._seen.append((now, count))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RATE_OVER_S:
            self._seen.popleft()
        since, before = self._seen[0]
        return (count - before) / (now - since) if now > since else 0.0


@dataclass
class Watcher:
    """Looks at one worker and its group, and keeps the board up to date."""

    worker: WorkerProcess
    lags: Lags
    stopper: Stopper
    screen: Screen
    board: Board
    started_at: float
    events: EventCounts | None = None
    delivered_shown: bool = False
    _produced: Rate = field(default_factory=Rate)
    _consumed: Rate = field(default_factory=Rate)
    _events: dict[str, Rate] = field(default_factory=dict)

    @property
    def pause_s(self) -> float:
        """How long to wait before the next look."""
        return LOOK_EVERY_S if self.delivered_shown else LOOK_AT_FIRST_S

    @property
    def elapsed_s(self) -> float:
        """Since the command was given."""
        return time.monotonic() - self.started_at

    def show(self) -> None:
        """Show how things stand now."""
        self.board.elapsed_s = self.elapsed_s
        self.screen.show(self.board)

    async def until_ready(self) -> None:
        """Wait until the worker holds all its partitions.

        Raises:
            DemoFailed: it has ended, or takes longer than READY_S.
        """
        deadline = time.monotonic() + READY_S
        while not await self._about(all_ready):
            self.require_worker()
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"the worker was not ready within {READY_S:.0f} s:\n{self.worker.last_words()}"
                )
            self.show()
            await self.stopper.sleep(LOOK_AT_FIRST_S)
        self.board.ready = True
        self.screen.say(f"worker ready after {self.elapsed_s:.1f} s: {self.worker.url}")

    def require_worker(self) -> None:
        """Raises DemoFailed when the worker has ended."""
        if not self.worker.alive:
            raise DemoFailed(f"the worker has ended. Its last words:\n{self.worker.last_words()}")

    async def until_processed(self, expected: int) -> Metrics:
        """Wait until `expected` records are committed, or the group has none left.

        Looks seldom: the worker needs the processor more than we do. Returns the metrics at the end.

        Raises:
            DemoFailed: the worker has ended, or nothing was committed for STALLED_S.
        """
        moved_at, last = time.monotonic(), -1
        while True:
            metrics = await self.look()
            through = self.board.lag == 0 and metrics.consumed == last
            if metrics.consumed >= expected or through:
                return metrics
            if metrics.consumed != last:
                moved_at, last = time.monotonic(), metrics.consumed
            if time.monotonic() - moved_at > STALLED_S:
                raise DemoFailed(
                    f"nothing was committed for {STALLED_S:.0f} s: {metrics.consumed:,} of {expected:,} "
                    f"records, lag {self.board.lag}\n{self.worker.last_words()}"
                )
            await self.stopper.sleep(self.pause_s)

    async def look(self) -> Metrics:
        """Read everything once and show it."""
        self.require_worker()
        board = self.board
        metrics = (await self._about(fetch_metrics)) or Metrics()
        stats = await self._ask("/v1/stats") or {}
        board.lag = await self.stopper.wait(self.lags.read())
        board.consumed, board.outcomes = metrics.consumed, metrics.outcomes
        board.messages = stats.get("totalMessages", board.messages)
        board.by_status = +Counter(stats.get("byStatus", {}))  # without the zeros
        self._note_rates()
        if not self.delivered_shown:
            await self._show_delivered()
        self.show()
        return metrics

    def _note_rates(self) -> None:
        board = self.board
        board.produced_per_s = self._produced(board.produced)
        board.consumed_per_s = self._consumed(board.consumed)
        for status, count in (self.events.by_status if self.events else {}).items():
            board.events_per_s[status] = self._events.setdefault(status, Rate())(count)

    async def _show_delivered(self) -> None:
        page = await self._ask("/v1/messages?status=DELIVERED&limit=1")
        if page and page.get("items"):
            self.delivered_shown = True
            text = summaries.delivered(page["items"][0])
            self.screen.say(f"first delivered message after {self.elapsed_s:.1f} s: {text}")

    async def _about(self, ask: Callable[[list[str]], T]) -> T:
        return await self.stopper.wait(in_thread(lambda: ask(self.worker.urls)))

    async def _ask(self, path: str) -> Any:
        return await self.stopper.wait(in_thread(lambda: fetch_json(self.worker.url + path)))
