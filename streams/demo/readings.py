"""What can be read of a running worker: its metrics, its views, how far its group is behind."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

ANSWER_S = 3.0
POSTED_S = 15.0


@dataclass
class Metrics:
    """A worker's metrics that matter here, summed over partitions."""

    outcomes: Counter[str] = field(default_factory=Counter)
    units: int = 0
    first_unit_s: float = 0.0
    last_commit_s: float = 0.0
    gc_s: float = 0.0
    empty_polls: int = 0
    restored: int = 0
    """Changelog records applied by recovery."""

    @property
    def consumed(self) -> int:
        """Records whose effects are committed, but those that workers make of themselves."""
        own = (name for name in self.outcomes if name in ("ticked", "judged") or name.startswith("webhook-"))
        return self.outcomes.total() - sum(self.outcomes[name] for name in own)

    @property
    def elapsed_s(self) -> float:
        """From the first unit of work to the last commit."""
        return max(0.0, self.last_commit_s - self.first_unit_s)

    @property
    def rate(self) -> float:
        """Records a second over that time."""
        return self.consumed / self.elapsed_s if self.elapsed_s else 0.0


def parse_metrics(text: str) -> Metrics:
    """Read Prometheus' text format; what we do not know is passed over."""
    metrics = Metrics()
    seen: dict[str, list[float]] = defaultdict(list)
    for line in text.splitlines():
        if not line.startswith("tracker_"):
            continue
        name, _, number = line.rpartition(" ")
        name, _, labels = name.partition("{")
        seen[name].append(float(number))
        if name == "tracker_records_total":
            metrics.outcomes[labels.partition('outcome="')[2].partition('"')[0]] += int(float(number))
    metrics.units = int(sum(seen["tracker_units_total"]))
    metrics.first_unit_s = min(filter(None, seen["tracker_first_unit_timestamp_seconds"]), default=0.0)
    metrics.last_commit_s = max(seen["tracker_last_commit_timestamp_seconds"], default=0.0)
    metrics.gc_s = sum(seen["tracker_gc_seconds_total"])
    metrics.empty_polls = int(sum(seen["tracker_empty_polls_total"]))
    metrics.restored = int(sum(seen["tracker_restored_records_total"]))
    return metrics


def fetch(url: str) -> str | None:
    """GET a loopback URL; None when it does not answer 200 (yet)."""
    try:
        with _opener.open(url, timeout=ANSWER_S) as answer:
            body: bytes = answer.read()
    except (OSError, urllib.error.URLError, ValueError):
        return None
    return body.decode()


# A proxy of the environment must not stand between us and our own worker.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch_json(url: str) -> Any | None:
    """The same, decoded; None also when it is no JSON."""
    text = fetch(url)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None


def post_json(url: str, said: Any) -> Any:
    """POST a JSON document to a loopback URL, and return the answer's; an OSError when it is refused."""
    request = urllib.request.Request(url, json.dumps(said).encode(), {"Content-Type": "application/json"})
    with _opener.open(request, timeout=POSTED_S) as answer:
        return json.loads(answer.read())


def fetch_metrics(urls: Iterable[str]) -> Metrics | None:
    """The metrics of a worker whose web views are at `urls`, summed; None while one does not answer."""
    texts = [fetch(f"{url}/metrics") for url in urls]
    return None if None in texts else parse_metrics("".join(filter(None, texts)))


def all_ready(urls: Iterable[str]) -> bool:
    """Whether each web view says that all it has to do with is there."""
    return all(fetch(f"{url}/ready") is not None for url in urls)


class Lags:
    """How many offsets a group is behind the ends of its input topics."""

    def __init__(self, bootstrap: str, group: str, topics: Iterable[str], partitions: int) -> None:
        self.group = group
        self.places = [TopicPartition(topic, number) for topic in topics for number in range(partitions)]
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> Self:
        """Connect: one to ask about the group, one (without a group) to ask for ends."""
        await self._consumer.start()
        await self._admin.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def read(self) -> int:
        """Sum over partitions of end minus committed offset.

        The committed offsets are read first: the answer may be too large for a moment, never too small.
        """
        committed = await self._admin.list_consumer_group_offsets(self.group)
        ends = await self._consumer.end_offsets(self.places)
        done = {place: max(0, entry.offset) for place, entry in committed.items()}
        return sum(end - done.get(place, 0) for place, end in ends.items())


class EventCounts:
    """Counts events per status as a foreign consumer sees them (read_committed), from now on."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.by_status: Counter[str] = Counter()
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
        )

    async def run(self) -> None:
        """Count until cancelled."""
        await self._consumer.start()
        try:
            self._consumer.assign(self._places)
            while True:
                batches = await self._consumer.getmany(timeout_ms=500)
                for records in batches.values():
                    statuses = (_current_status(record.value) for record in records)
                    self.by_status.update(status for status in statuses if status)
                await asyncio.sleep(0.2)
        finally:
            await self._consumer.stop()


def _current_status(value: bytes) -> str:
    """Return the status of a message's event; what workers tell of themselves has none."""
    return str(json.loads(value).get("currentStatus", ""))
