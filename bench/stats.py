"""A month of messages, and questions about periods of it while callbacks flow."""

from __future__ import annotations

import http.client
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bench import latency
from bench.brokers import fill_topics, fresh_place
from bench.ours import BenchFailed, until_processed, until_ready, worker
from streams.demo.places import Place
from streams.demo.producing import bootstrap_servers
from streams.demo.readings import Metrics, fetch_metrics
from streams.demo.traffic import Sample
from streams.demo.workers import WorkerProcess

DAY_MS = 86_400_000
DAYS = 30
PROVIDERS = ("solapi", "aligo", "nhn", "twilio", "meta")
TEMPLATES = 20
PAUSE_S = 0.05
SETTLED_S = 25.0
QUESTIONS: dict[str, Callable[[int, int], str]] = {
    "month": lambda begin, end: f"/v1/stats?from={begin}&to={end}",
    "month_by_provider": lambda begin, end: f"/v1/stats?from={begin}&to={end}&groupBy=provider",
    "month_of_sent_by_day": lambda begin, end: f"/v1/stats?from={begin}&to={end}&by=sent&interval=day",
    "all_time": lambda begin, end: "/v1/stats",
}


def measure(url: str, messages: int, rate: int, seconds: float) -> dict[str, Any]:
    """Let a worker take in a month, then ask for periods at random, each question in its turn.

    Every figure is ms from the question to the whole answer, while callbacks come at `rate`.
    """
    place = fresh_place("stats")
    ended = int(time.time() * 1000)
    count = fill_topics(url, place, _month(messages, ended), config={"retention.ms": "-1"})
    with tempfile.TemporaryDirectory(prefix="delivery-tracker-bench-") as name:
        data_dir = Path(name)
        # windows that are kept no longer go before anything is measured
        with worker(url, place, data_dir=data_dir, environment={"TRACKER_STATS_INTERVAL": "1d"}) as process:
            until_processed(process, count)
        with worker(url, place, data_dir=data_dir) as process:
            until_ready(process)
            latency.produce(bootstrap_servers(url), place, 10, 3, "first")
            _until_settled(process)
            taken = _measure(url, place, process, ended, rate, seconds)
    return {"messages": messages, "callbacks": count, "rate": rate} | {
        f"{name}_{quantile}_ms": sorted(times)[int(share * (len(times) - 1))]
        for name, times in taken.items()
        for quantile, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def _until_settled(process: WorkerProcess) -> None:
    """Wait until the worker has told itself the time for the last time."""
    ticks, since = -1, time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        found = (fetch_metrics(process.urls) or Metrics()).outcomes["ticked"]
        if found != ticks:
            ticks, since = found, time.monotonic()
        time.sleep(0.5)


def _measure(
    url: str, place: Place, process: WorkerProcess, ended: int, rate: int, seconds: float
) -> dict[str, list[float]]:
    produced = (bootstrap_servers(url), place, rate, seconds + 4, "now")
    load = threading.Thread(target=latency.produce, args=produced)
    load.start()
    time.sleep(2)
    taken = _ask(process.url, ended, seconds)
    load.join()
    return taken


def _month(messages: int, ended: int) -> Iterator[Sample]:
    """Two callbacks of each message, evenly over the days before; of 5 providers, each with 20 templates."""
    encode, step = msgspec.json.Encoder().encode, (DAYS - 1) * DAY_MS / messages
    for number in range(messages):
        at = int(ended - DAYS * DAY_MS + number * step)
        key = f"month-{number}"
        said = {"messageId": key, "provider": PROVIDERS[number % 5], "templateId": f"tpl-{number // 5 % 20}"}
        for status, later in (("SENT", 0), ("DELIVERED", 1_000 + number * 7919 % 40_000)):
            value = encode(said | {"status": status, "timestamp": at + later})
            yield Sample("statuses", key.encode(), value, at + later, 0)


def _ask(url: str, ended: int, seconds: float) -> dict[str, list[float]]:
    """Ask for a month with ragged ends, each time another one."""
    rng = random.Random(10)
    taken: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for name, question in QUESTIONS.items():
            begin = ended - DAYS * DAY_MS + rng.randrange(DAY_MS)
            path = question(begin, begin + (DAYS - 1) * DAY_MS + rng.randrange(DAY_MS))
            began = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            taken[name].append((time.perf_counter() - began) * 1000)
            if answer.status != 200 or not json.loads(body)["totalMessages"]:
                raise BenchFailed(f"{path}: {answer.status} {body[:300]!r}")
            time.sleep(PAUSE_S)
    return taken
