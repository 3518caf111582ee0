"""An empty data directory beside a full changelog: how long until the worker is ready again?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.brokers import PARTITIONS, fill_topics, fresh_place, log_length, make_topics
from bench.ours import BenchFailed, until_processed, until_ready, worker
from streams.demo.places import Place
from streams.demo.readings import Metrics, fetch_json, fetch_metrics
from streams.demo.traffic import NO_FAULTS, Sample, Tally, Traffic, generate
from streams.topics import TABLES


def measure(url: str, messages: int) -> dict[str, Any]:
    """Make the changelog by processing that many messages, then start anew without their tables.

    ready_s: from the process's start until it says that it is ready; imports and joining the group included.
    empty_ready_s: the same of a worker that has nothing to restore.
    records_per_s: changelog records applied, over the time from the first one to ready.
    """
    place, empty = fresh_place("restore"), fresh_place("restore-empty")
    count = fill_topics(url, place, _adjacent(messages))
    make_topics(url, empty)
    with worker(url, place) as process:
        until_processed(process, count)
    length = sum(log_length(url, f"{place.app_id}-{table}-changelog", PARTITIONS) for table in TABLES)
    first = _start(url, empty, 0)
    again = _start(url, place, messages)
    return {
        "messages": messages,
        "changelog_offsets": length,
        "restored_records": again.restored,
        "ready_s": again.ready_s,
        "empty_ready_s": first.ready_s,
        "restoring_s": again.restoring_s,
        "records_per_s": again.restored / again.restoring_s if again.restoring_s else None,
    }


def _adjacent(messages: int) -> Iterator[Sample]:
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


@dataclass(frozen=True)
class Start:
    ready_s: float
    restoring_s: float
    restored: int


def _start(url: str, place: Place, messages: int) -> Start:
    """Start a worker with an empty data directory and wait until it is ready."""
    started_at = time.monotonic()
    without = [started_at]

    with worker(url, place) as process:

        def look() -> None:
            at = time.monotonic()
            if not (metrics := fetch_metrics(process.urls)) or not metrics.restored:
                without[0] = at

        until_ready(process, look)
        ready_at = time.monotonic()
        metrics = fetch_metrics(process.urls) or Metrics()
        found = (fetch_json(f"{process.url}/v1/stats") or {}).get("totalMessages")
        if found != messages:
            raise BenchFailed(f"restored {found} messages of {messages:,}")
    return Start(ready_at - started_at, ready_at - without[0], metrics.restored)
