"""Many callbacks through one worker: does its memory stay flat, does the collector stay out of the way?"""

from __future__ import annotations

import time
from typing import Any

from bench.brokers import callbacks, fill_topics, fresh_place
from bench.ours import measured, until_processed, worker
from streams.demo.readings import Metrics

SAMPLE_EVERY_S = 2.0


def measure(url: str, count: int, days: float) -> dict[str, Any]:
    """Process `count` scattered callbacks of so many days of event time.

    Memory is sampled along, its slope taken over the second half.
    """
    place = fresh_place("soak")
    traffic = callbacks(count, "scattered", over_s=days * 86_400)
    # the broker would delete what is as old as that
    fill_topics(url, place, traffic, config={"retention.ms": "-1"})
    samples: list[tuple[float, int, int]] = []
    with worker(url, place) as process:

        def look(metrics: Metrics) -> None:
            now = time.monotonic()
            memory = process.memory_bytes()
            if memory is not None and (not samples or now - samples[-1][0] >= SAMPLE_EVERY_S):
                samples.append((now, metrics.consumed, memory))

        metrics = until_processed(process, count, look)
        figures = measured(process, metrics, idle_s=0.0)
    half = [sample for sample in samples if sample[1] >= count / 2]
    return {
        "callbacks": count,
        "days": days,
        "callbacks_per_s": figures.rate,
        "gc_ratio": figures.gc_ratio,
        "empty_polls": figures.empty_polls,
        "peak_bytes": figures.peak_bytes,
        "half_bytes": half[0][2] if half else None,
        "end_bytes": half[-1][2] if half else None,
        "bytes_per_million_callbacks": slope([(done, memory) for _, done, memory in half]) * 1e6,
        "samples": [{"callbacks": done, "bytes": memory} for _, done, memory in samples],
    }


def slope(points: list[tuple[int, int]]) -> float:
    """The least-squares slope of y over x; 0 of fewer than two points."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
