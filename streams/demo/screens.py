"""What a demonstration shows: a live table on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress, TaskID
from rich.table import Table

from streams.demo.traffic import PRECEDENCE

LINE_EVERY_S = 3.0


@dataclass
class Board:
    """What is known at a moment; None: not known yet."""

    elapsed_s: float = 0.0
    produced: int = 0
    produced_per_s: float = 0.0
    consumed: int = 0
    consumed_per_s: float = 0.0
    lag: int | None = None
    ready: bool = False
    messages: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    by_status: Counter[str] = field(default_factory=Counter)
    events_per_s: dict[str, float] = field(default_factory=dict)
    webhooks: int | None = None
    refused: int = 0
    """Webhooks that came and were signed, and those that were not."""
    expected: int | None = None
    """Records to be consumed in all, when the traffic has an end."""


class Screen(Protocol):
    """Somewhere to show it."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def show(self, board: Board) -> None:
        """Show how things stand; costs nothing when called too often."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class LineScreen:
    """For logs and pipes."""

    def __init__(self, out: Callable[[str], None]) -> None:
        self._out = out
        self._shown_at = time.monotonic()

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._out(text)

    def show(self, board: Board) -> None:
        """Show how things stand."""
        if time.monotonic() - self._shown_at >= LINE_EVERY_S:
            self._shown_at = time.monotonic()
            self._out(board_line(board))

    def close(self) -> None:
        """Leave the terminal as it was."""


class TableScreen:
    """For a terminal; redraws when told something new, without a thread that draws by the clock."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._console.print(text, highlight=False, markup=False)

    def show(self, board: Board) -> None:
        """Show how things stand."""
        self._live.update(board_table(board), refresh=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._live.stop()


class ProgressScreen:
    """For a terminal and traffic that has an end: one bar over the records."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(console=console, auto_refresh=False, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._console.print(text, highlight=False, markup=False)

    def show(self, board: Board) -> None:
        """Show how things stand."""
        if not board.ready:
            self._bar("producing", board.produced, None)
        else:
            self._bar("processing", board.consumed, board.expected)
        self._progress.refresh()

    def _bar(self, name: str, done: int, total: int | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done, total=total)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


def open_screen(console: Console, *, ends: bool) -> Screen:
    """The screen that suits where the output goes."""
    if not console.is_terminal:
        return LineScreen(lambda text: print(text, flush=True))
    return ProgressScreen(console) if ends else TableScreen(console)


def board_line(board: Board) -> str:
    """How things stand, on one line."""
    if not board.ready:
        return f"[{board.elapsed_s:6.1f} s] produced {board.produced:,}; the worker is starting"
    lag = "?" if board.lag is None else f"{board.lag:,}"
    statuses = " ".join(f"{name} {count:,}" for name, count in _ordered(board.by_status))
    return (
        f"[{board.elapsed_s:6.1f} s] produced {board.produced:,} ({board.produced_per_s:,.0f}/s)  "
        f"consumed {board.consumed:,} ({board.consumed_per_s:,.0f}/s)  lag {lag}  "
        f"dead letters {board.outcomes['dead-lettered']:,}  {_webhooks(board)}"
        f"messages {board.messages:,}: {statuses}"
    )


def _webhooks(board: Board) -> str:
    if board.webhooks is None:
        return ""
    refused = f" ({board.refused:,} not signed)" if board.refused else ""
    return f"webhooks {board.webhooks:,}{refused}  "


def board_table(board: Board) -> RenderableType:
    """How things stand, as two tables."""
    statuses = Table(title="messages by status", title_justify="left")
    statuses.add_column("status")
    statuses.add_column("messages", justify="right")
    statuses.add_column("events/s", justify="right")
    for status, count in _ordered(board.by_status):
        statuses.add_row(status, f"{count:,}", f"{board.events_per_s.get(status, 0.0):,.1f}")
    return Group(statuses, _flow(board))


def _flow(board: Board) -> Table:
    flow = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    lag = "?" if board.lag is None else f"{board.lag:,}"
    rows = [
        ("running", f"{board.elapsed_s:,.0f} s" + ("" if board.ready else " (the worker is starting)")),
        ("produced", f"{board.produced:,} records, {board.produced_per_s:,.0f}/s"),
        ("consumed", f"{board.consumed:,} records, {board.consumed_per_s:,.0f}/s, lag {lag}"),
        ("outcomes", ", ".join(f"{name} {count:,}" for name, count in sorted(board.outcomes.items())) or "-"),
    ]
    if board.webhooks is not None:
        rows.append(("webhooks", f"{board.webhooks:,} received and verified, {board.refused:,} not signed"))
    for row in rows:
        flow.add_row(*row)
    return flow


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _ordered(by_status: Counter[str]) -> list[tuple[str, int]]:
    rank = {status: number for number, status in enumerate(PRECEDENCE)}
    return sorted(by_status.items(), key=lambda row: rank.get(row[0], len(rank)))
