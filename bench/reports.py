"""The figures as tables, with the machine and the date they belong to."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Figures = dict[str, Any]


def machine() -> Figures:
    """What the figures depend on."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "cpu": _line_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": _line_of("/proc/meminfo", "MemTotal") or "?",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "faust-streaming": version("faust-streaming"),
        "aiokafka": version("aiokafka"),
        "confluent-kafka": version("confluent-kafka"),
    }


def _line_of(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def heading(about: Figures) -> str:
    return ", ".join(
        f"{name} {value}" if name not in ("date", "cpu") else str(value) for name, value in about.items()
    )


def throughput(rows: list[Figures]) -> Table:
    table = Table(title="callbacks a second (median; least to greatest)", title_justify="left")
    for name in ("callbacks", "who"):
        table.add_column(name)
    for name in (
        "median/s",
        "least–greatest",
        "of bare",
        "CPU µs each",
        "peak",
        "transactions",
        "gc",
        "empty polls",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["arrangement"],
            row["contender"],
            f"{row['callbacks_per_s']:,.0f}",
            f"{row['least']:,.0f}–{row['greatest']:,.0f}",
            f"{row['ratio']:.2f}",
            "-" if row["cpu_us_per_callback"] is None else f"{row['cpu_us_per_callback']:.1f}",
            megabytes(row["peak_bytes"]),
            "-" if row["units"] is None else f"{row['units']:,.0f}",
            "-" if row["gc_ratio"] is None else f"{row['gc_ratio']:.1%}",
            "-" if row["empty_polls"] is None else f"{row['empty_polls']:,.0f}",
        )
    return table


def latency(figures: Figures) -> Table:
    table = Table(title=f"callback to committed event at {figures['rate']:,}/s, ms", title_justify="left")
    names = [name for name in figures if name not in ("rate", "callbacks")]
    table.add_column("callbacks", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    table.add_row(f"{figures['callbacks']:,}", *(f"{figures[name]:,.1f}" for name in names))
    return table


def plain(title: str, figures: Figures) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in figures.items():
        if not isinstance(value, list):
            table.add_row(name.replace("_", " "), readable(name, value))
    return table


def line(figures: Figures) -> str:
    """Figures in one line, as they are told while others are taken."""
    return ", ".join(f"{name.replace('_', ' ')} {readable(name, value)}" for name, value in figures.items())


def readable(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("_bytes") or name.startswith("bytes_"):
        return megabytes(value)
    if name.endswith("_ratio"):
        return f"{value:.2%}"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def megabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:,.1f} MB"


def console() -> Console:
    """Wide enough for the tables even where nobody says how wide it is."""
    found = Console()
    return found if found.is_terminal else Console(width=140)
