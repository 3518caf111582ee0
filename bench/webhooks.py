"""Webhooks while callbacks flow: how many a second, and what lanes and other receivers notice of it."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import latency, reports
from bench.brokers import callbacks, fill_topics, fresh_place, make_topics, same_topics
from bench.ours import BenchFailed, until_processed, until_ready, worker
from bench.soak import slope
from streams.demo.places import Place
from streams.demo.producing import bootstrap_servers
from streams.demo.readings import Metrics, fetch_json, post_json
from streams.demo.traffic import ROUTES, Sample
from streams.kafka.probe import free_ports

Figures = dict[str, Any]
Route = tuple[str, str]
"""Provider and channel."""

EVENTS = {"READ": "message.read", "CLICKED": "message.clicked", "FAILED": "message.failed"}
"""What endpoints want, by the status that callbacks say."""

GOAL_RATIO = 0.85
"""What lanes should do at least of what they do without webhooks."""

PACE_RUNS = 3
"""Runs that tell how fast lanes are: a broker that has just begun is slower, so one says too little."""

ENVIRONMENT = {
    "TRACKER_SECRET_KEYS": f"bench:{b64encode(bytes(32)).decode()}",
    "TRACKER_WEBHOOK_ALLOW": "127.0.0.1",
}
SENT_WITHIN_S = 120.0
GOOD, EVENTS_PER_S = 18, 50
"""Good receivers beside a slow one and one that is not there; each of the 20 gets every event."""


def lanes(url: str, count: int, rounds: int, per_s: float | None, say: Callable[[str], None]) -> Figures:
    """Let workers process the same callbacks with and without endpoints that want some of their events.

    Args:
        per_s: how many webhooks callbacks shall cause if lanes are as fast as they should be; endpoints, one
            for each provider and channel, want as many events as that takes. None: all that there are.

    Returns: medians; `lanes_ratio` of the rounds' own ratios. `sent_per_s_meanwhile` is what had come to the
        receivers when the lanes were through, by the time that they took.
    """
    bare = fresh_place("without-webhooks")
    places = [fresh_place(f"webhooks-{number}") for number in range(rounds)]
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="delivery-tracker-bench-"))
        say(f"filling {count:,} callbacks, 1 of {rounds + 1} times")
        fill_topics(url, bare, callbacks(count, "adjacent"))
        wanted: Mapping[Route, Sequence[str]] = {route: [*EVENTS.values()] for route in ROUTES}
        if per_s is not None:
            pace = pace_of(url, bare, Path(name), count)
            wanted = wanted_for(per_s / (GOAL_RATIO * pace) * count, callbacks(count, "adjacent"))
            say(f"{pace:,.0f} callbacks a second; {len(wanted)} endpoints make enough webhooks")
        ports = free_ports(len(wanted))
        stack.enter_context(receivers(ports))
        for place in places:
            make_topics(url, place)
            with worker(url, place, data_dir=Path(name) / place.app_id, environment=ENVIRONMENT) as process:
                until_ready(process)
                for port, ((provider, channel), events) in zip(ports, wanted.items(), strict=True):
                    filters = {"providers": [provider], "channels": [channel]}
                    register(process.url, port, events=events, **filters)
        for number, place in enumerate(places):
            say(f"filling {count:,} callbacks, {number + 2} of {rounds + 1} times")
            fill_topics(url, place, callbacks(count, "adjacent"))
        taken: list[dict[str, float]] = []
        for number, place in enumerate(places):
            without_hooks = same_topics(bare, str(number)), Path(name) / f"bare-{number}", count
            with_hooks = place, Path(name) / place.app_id, count, ports
            # who is first changes: the machine may be faster at one time than at another
            if number % 2:
                figures, without = drained(url, *with_hooks), drained(url, *without_hooks)
            else:
                without, figures = drained(url, *without_hooks), drained(url, *with_hooks)
            figures["without_per_s"] = without["per_s"]
            figures["lanes_ratio"] = figures["per_s"] / without["per_s"]
            taken.append(figures)
            say(f"round {number + 1}: {reports.line(figures)}")
    return {
        "callbacks": count,
        "endpoints": len(ports),
        **{what: statistics.median(figures[what] for figures in taken) for what in taken[0]},
    }


def pace_of(url: str, place: Place, directory: Path, count: int) -> float:
    """How many callbacks a second lanes take without webhooks: the median of some runs."""
    names = [f"pace-{number}" for number in range(PACE_RUNS)]
    return statistics.median(
        drained(url, same_topics(place, name), directory / name, count)["per_s"] for name in names
    )


def wanted_for(webhooks: float, samples: Iterable[Sample]) -> dict[Route, list[str]]:
    """Which events of which routes make at least so many webhooks and hardly more; or all."""
    caused = Counter[tuple[Route, str]]()
    for sample in samples:
        said = msgspec.json.decode(sample.value)
        if said["status"] in EVENTS:
            caused[(said["provider"], said["channel"]), EVENTS[said["status"]]] += 1
    chosen: dict[Route, list[str]] = {}
    rest: tuple[Route, str] | None = None
    for (route, event), causes in caused.most_common():
        if causes <= webhooks:
            webhooks -= causes
            chosen.setdefault(route, []).append(event)
        else:
            rest = route, event
    if webhooks > 0 and rest is not None:
        chosen.setdefault(rest[0], []).append(rest[1])
    return chosen


def others(url: str, seconds: float, say: Callable[[str], None]) -> Figures:
    """Tell 20 endpoints of every event, two of which are bad: how late are the others told, in ms.

    Memory and processor time are the worker's and its sender's. A quarter is one of the time: bad ones must
    not cost more the longer they are bad.
    """
    place = fresh_place("webhooks-others")
    make_topics(url, place)
    slow, nobody, *ports = free_ports(2 + GOOD)
    samples: list[tuple[int, int]] = []
    with receivers(ports, [slow]), worker(url, place, environment=ENVIRONMENT) as process:
        until_ready(process)
        for port in (*ports, slow, nobody):
            register(process.url, port, events=["status.updated"])
        say(f"{EVENTS_PER_S} events a second to {GOOD + 2} endpoints for {seconds:g} s")
        produced, quarters = 0, []
        began = time.monotonic()
        for number in range(4):
            since_s, end_s = time.monotonic(), began + seconds * (number + 1) / 4
            taken, used_s = received(ports), process.cpu_s() or 0.0
            while (left := end_s - time.monotonic()) > 0:
                step = min(5.0, left)
                name = f"hooks-{len(samples)}"
                produced += len(latency.produce(bootstrap_servers(url), place, EVENTS_PER_S, step, name))
                samples.append((round(time.monotonic() - began), process.memory_bytes() or 0))
            found = fetch_json(f"http://127.0.0.1:{ports[0]}/{taken}") or {}
            cores = ((process.cpu_s() or 0.0) - used_s) / (time.monotonic() - since_s)
            late = {f"{name}_ms": found.get(name, 0.0) for name in ("p50", "p99", "max")}
            quarters.append({"quarter": number + 1, **late, "core_ratio": cores, "end_bytes": samples[-1][1]})
            say(reports.line(quarters[-1]))
        deadline = time.monotonic() + SENT_WITHIN_S
        while (found := fetch_json(f"http://127.0.0.1:{ports[0]}/") or {"taken": 0})[
            "taken"
        ] < produced * GOOD:
            if time.monotonic() > deadline:
                raise BenchFailed(f"{found['taken']:,} of {produced * GOOD:,} have come")
            time.sleep(0.1)
    half = samples[len(samples) // 2 :]
    return {
        "events": produced,
        "quarters": quarters,
        "webhooks_to_good_ones": found["taken"],
        **{f"{name}_ms": found[name] for name in ("p50", "p90", "p99", "max")},
        "half_bytes": half[0][1],
        "end_bytes": half[-1][1],
        "bytes_per_minute": slope(half) * 60,
    }


@contextlib.contextmanager
def receivers(ports: Sequence[int], slow: Sequence[int] = ()) -> Iterator[None]:
    """Receivers, all of one process; those at `slow` never answer."""
    command = [sys.executable, "-m", "bench.receiving", *map(str, ports), "--slow", *map(str, slow)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 10
        while fetch_json(f"http://127.0.0.1:{ports[-1]}/") is None:
            if time.monotonic() > deadline:
                raise BenchFailed("the receivers did not start")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def register(url: str, port: int, **filters: Any) -> None:
    """Have some events sent to a receiver."""
    post_json(f"{url}/v1/endpoints", {"url": f"http://127.0.0.1:{port}/", **filters})


def drained(
    url: str, place: Place, data_dir: Path, count: int, ports: list[int] | None = None
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
    return 0 if ports is None else int((fetch_json(f"http://127.0.0.1:{ports[0]}/") or {"taken": 0})["taken"])
