"""An empty data directory beside a full changelog: how long until the worker is ready again?"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from bench.brokers import PARTITIONS, fill_topics, fresh_place, log_length
from bench.ours import until_processed, until_ready, worker
from streams.demo.readings import fetch_json
from streams.demo.traffic import NO_FAULTS, Tally, Traffic, generate

TABLES = ("deliveries", "period_stats")


@dataclass
class Restore:
    messages: int
    changelog_records: int
    """What lies in the changelogs; markers of transactions count too."""
    ready_s: float
    """From the process's start until it says that it is ready: imports and joining the group included."""
    empty_ready_s: float
    """The same of a worker that has nothing to restore."""

    @property
    def rate(self) -> float:
        """Changelog records a second over what restoring adds to an empty start."""
        return self.changelog_records / max(1e-3, self.ready_s - self.empty_ready_s)


def measure(url: str, messages: int) -> dict[str, Any]:
    """Make the changelog by processing that many messages, then start anew without their tables."""
    place = fresh_place("restore")
    empty_place = fresh_place("restore-empty")
    count = fill_topics(url, place, _adjacent(messages))
    fill_topics(url, empty_place, ())
    with worker(url, place) as process:
        until_processed(process, count)
    records = sum(log_length(url, f"{place.app_id}-{table}-changelog", PARTITIONS) for table in TABLES)
    empty_s = _ready_s(url, empty_place)
    ready_s = _ready_s(url, place, messages)
    restore = Restore(messages, records, ready_s, empty_s)
    return {**asdict(restore), "records_per_s": restore.rate}


def _adjacent(messages: int) -> Any:
    start_ms = int((time.time() - 4 * 3600) * 1000)
    traffic = Traffic(
        messages,
        messages / 3600,
        start_ms=start_ms,
        arrangement="adjacent",
        tracked=False,
        faults=NO_FAULTS,
    )
    return generate(traffic, Tally())


def _ready_s(url: str, place: Any, messages: int = 0) -> float:
    started_at = time.monotonic()
    with worker(url, place) as process:
        until_ready(process)
        seconds = time.monotonic() - started_at
        stats = fetch_json(f"{process.url}/v1/stats")
        found = (stats or {}).get("totalMessages")
        if found != messages:
            raise SystemExit(f"restored {found} messages of {messages:,}")
    return seconds
