"""Webhooks while callbacks flow: how many a second, and how much slower the lanes are for it."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.brokers import callbacks, fill_topics, fresh_place, make_topics, same_topics
from bench.ours import BenchFailed, until_processed, until_ready, worker
from streams.demo.places import Place
from streams.demo.readings import Metrics, fetch
from streams.demo.traffic import ROUTES
from streams.kafka.probe import free_port

EVENTS = ["message.read", "message.failed"]
"""Of the traffic one event in fourteen; as many webhooks as can be sent while the lanes work."""

ENVIRONMENT = {
    "TRACKER_SECRET_KEYS": f"bench:{b64encode(bytes(32)).decode()}",
    "TRACKER_WEBHOOK_ALLOW": "127.0.0.1",
}
SENT_WITHIN_S = 120.0


def measure(url: str, count: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Let workers process the same callbacks with and without endpoints that want some of their events.

    Returns: medians; `lanes_ratio` of the rounds' own ratios. `sent_per_s_meanwhile` is what had come to the
        receivers when the lanes were through, by the time that they took.
    """
    place = fresh_place("webhooks")
    make_topics(url, place)
    groups = [same_topics(place, str(number)) for number in range(rounds)]
    with tempfile.TemporaryDirectory(prefix="delivery-tracker-bench-") as name, receivers() as ports:
        for group in groups:
            data_dir = Path(name) / group.app_id
            with worker(url, group, data_dir=data_dir, environment=ENVIRONMENT) as process:
                until_ready(process)
                for port, (provider, channel) in zip(ports, ROUTES, strict=True):
                    register(process.url, port, provider, channel)
        say(f"filling {count:,} callbacks")
        fill_topics(url, place, callbacks(count, "adjacent"))
        taken: list[dict[str, float]] = []
        for number, group in enumerate(groups):
            without = drained(url, same_topics(place, f"{number}-bare"), count, Path(name) / f"bare-{number}")
            figures = drained(url, group, count, Path(name) / group.app_id, ports)
            figures["without_per_s"] = without["per_s"]
            figures["lanes_ratio"] = figures["per_s"] / without["per_s"]
            taken.append(figures)
            say(
                f"round {number + 1}: " + ", ".join(f"{what} {value:,.2f}" for what, value in figures.items())
            )
    return {
        "callbacks": count,
        "endpoints": len(ports),
        **{what: statistics.median(figures[what] for figures in taken) for what in taken[0]},
    }


@contextlib.contextmanager
def receivers() -> Iterator[list[int]]:
    """The ports of one receiver for each endpoint."""
    ports = [free_port() for _ in ROUTES]
    command = [sys.executable, "-m", "bench.receiving", *map(str, ports)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 10
        while fetch(f"http://127.0.0.1:{ports[-1]}/") is None:
            if time.monotonic() > deadline:
                raise BenchFailed("the receivers did not start")
            time.sleep(0.05)
        yield ports
    finally:
        process.terminate()
        process.wait(10)


def register(url: str, port: int, provider: str, channel: str) -> None:
    """Have the events of a route sent to a receiver."""
    said = {
        "url": f"http://127.0.0.1:{port}/",
        "events": EVENTS,
        "providers": [provider],
        "channels": [channel],
    }
    request = urllib.request.Request(
        f"{url}/v1/endpoints", json.dumps(said).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


def drained(
    url: str, place: Place, count: int, data_dir: Path, ports: list[int] | None = None
) -> dict[str, float]:
    """What a worker does with callbacks that lie ready, and with the webhooks that come of them."""
    before = received(ports)
    with worker(url, place, data_dir=data_dir, environment=ENVIRONMENT) as process:
        began: list[float] = []

        def look(metrics: Metrics) -> None:
            if metrics.first_unit_s and not began:
                began.append(metrics.first_unit_s)

        metrics = until_processed(process, count, look)
        took = time.time() - began[0]
        figures = {"per_s": metrics.consumed / took}
        if ports is None:
            return figures
        meanwhile = received(ports) - before
        last, moved_at = -1, time.monotonic()
        while (now := received(ports)) > last or time.monotonic() - moved_at < 2:
            if now > last:
                last, moved_at = now, time.monotonic()
            if time.time() - began[0] > SENT_WITHIN_S:
                raise BenchFailed(f"webhooks are still sent:\n{process.last_words()}")
            time.sleep(0.25)
        return figures | {
            "sent_per_s_meanwhile": meanwhile / took,
            "sent_meanwhile": meanwhile,
            "sent": last - before,
            "until_all_sent_s": time.time() - 2 - began[0],
        }


def received(ports: list[int] | None) -> int:
    """How many webhooks have come, to all receivers: they are one process."""
    return 0 if ports is None else int(fetch(f"http://127.0.0.1:{ports[0]}/") or 0)
