"""Many messages whose time is up at once: how fast they are worked off, and what others notice of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench import latency
from bench.brokers import fill_topics, fresh_place
from bench.ours import BenchFailed, until_processed, until_ready, worker
from streams.demo.readings import fetch_json, fetch_metrics
from streams.demo.traffic import Sample
from streams.demo.workers import WorkerProcess

AGE_MS = 4 * 3_600_000
"""How long ago the messages were sent; nothing was heard of them since."""

WORKED_OFF_S = 3_600.0


def measure(url: str, messages: int, rate: int, seconds: float) -> dict[str, Any]:
    """Let a worker take in that many messages, then start it anew with all of them due.

    expired_per_s: from the first look at the metrics that shows any to the last one.
    latency_meanwhile, latency_after: from a produced callback to its event, ms, at that rate.
    """
    place = fresh_place("due")
    count = fill_topics(url, place, _sent(messages))
    with tempfile.TemporaryDirectory(prefix="delivery-tracker-bench-") as name:
        data_dir = Path(name)
        waits = {"TRACKER_MAX_TRACKING": "1h", "TRACKER_SWEEP_INTERVAL": "1d"}
        with worker(url, place, data_dir=data_dir, environment=waits) as process:
            until_processed(process, count)
        with worker(url, place, data_dir=data_dir, environment={"TRACKER_SWEEP_INTERVAL": "1s"}) as process:
            until_ready(process)
            began = time.monotonic()
            meanwhile = latency.measure_now(url, place, rate, seconds, "meanwhile")
            expired_meanwhile, stretch = _expired(process), time.monotonic() - began
            took = _until_worked_off(process, messages, began)
            peak = process.peak_bytes()
            after = latency.measure_now(url, place, rate, seconds, "after")
    return {
        "messages": messages,
        "expired_per_s_under_load": expired_meanwhile / stretch,
        "still_due_after_load": messages - expired_meanwhile,
        "worked_off_s": took,
        "expired_per_s": messages / took,
        "peak_bytes": peak,
        **{f"latency_meanwhile_{quantile}": ms for quantile, ms in meanwhile.items()},
        **{f"latency_after_{quantile}": ms for quantile, ms in after.items()},
    }


def _sent(messages: int) -> Iterator[Sample]:
    at = int(time.time() * 1000) - AGE_MS
    for number in range(messages):
        key = f"due-{number}"
        said = {"messageId": key, "status": "SENT", "timestamp": at + number // 1000, "provider": "twilio"}
        yield Sample("statuses", key.encode(), msgspec.json.encode(said), at, 0)


def _expired(process: WorkerProcess) -> int:
    stats = fetch_json(f"{process.url}/v1/stats") or {}
    return int(stats.get("byStatus", {}).get("EXPIRED", 0))


def _until_worked_off(process: WorkerProcess, messages: int, began: float) -> float:
    """Return how long it took until the last one has expired, seconds."""
    while _expired(process) < messages:
        if time.monotonic() - began > WORKED_OFF_S or fetch_metrics(process.urls) is None:
            raise BenchFailed(f"not worked off:\n{process.last_words()}")
        time.sleep(0.5)
    return time.monotonic() - began
