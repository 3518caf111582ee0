"""The independent judge: what must be committed, given what the input logs hold.

It reads the simulated logs only, and shares no code with the handlers: counts are sums, not increments.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.simulation.cluster import Cluster
from tests.simulation.logs import Log

__all__ = ["Wrong", "judge", "judge_store", "judge_webhooks", "undelivered"]

#: As many records of a key as one cycle of its counter has.
CYCLE = 6

Origin = bytes


class Wrong(AssertionError):
    """The run broke a promise."""


def judge(cluster: Cluster, acknowledged: Iterable[tuple[int, bytes]]) -> None:
    """Compare everything that is committed with the input logs.

    Args:
        acknowledged: partition and value of each command whose producer was told that it is stored.

    Raises:
        Wrong: the first difference.
    """
    stored = defaultdict(set)
    for number in range(cluster.topics["commands"]):
        stored[number] = {record.value for record in cluster.logs["commands", number].committed()}
    for number, value in acknowledged:
        if value not in stored[number]:
            raise Wrong(f"command {value!r} was acknowledged, but commands/{number} does not hold it")
    forwards: dict[int, Counter[Origin]] = defaultdict(Counter)
    for number in range(cluster.topics["orders"]):
        forwards[(number + 1) % cluster.topics["orders"]] += _judge_partition(cluster, number)
    for number in range(cluster.topics["orders"]):
        found = Counter(record.value for record in cluster.logs["forwards", number].committed())
        _same(f"forwards/{number}", forwards[number], found)


def _judge_partition(cluster: Cluster, number: int) -> Counter[Origin]:
    """Judge one partition; return the origins that it must have forwarded."""
    keys: dict[Origin, bytes] = {}
    repeated: Counter[Origin] = Counter()
    letters: Counter[Origin] = Counter()
    seen: set[bytes] = set()
    for topic in ("orders", "commands"):
        log = cluster.logs[topic, number]
        committed = cluster.offsets.committed.get((topic, number), 0)
        if committed != log.end:
            raise Wrong(f"{topic}/{number} ends at {log.end}, the group's offset is {committed}")
        for record in log.committed():
            origin = b"%s/%d" % (topic.encode(), record.offset)
            if record.value == b"poison":
                letters[origin] += 1
            elif topic == "commands" and record.value in seen:
                repeated[origin] += 1
            else:
                keys[origin] = record.key
            if topic == "commands":
                seen.add(record.value)
    events = _events(cluster.logs["events", number])
    _same(f"events/{number}", Counter(list(keys)), Counter(origin for _, origin, _ in events))
    found = Counter(record.value for record in cluster.logs["repeated", number].committed())
    _same(f"repeated/{number}", repeated, found)
    found = Counter(record.value for record in cluster.logs["letters", number].committed())
    _same(f"letters/{number}", letters, found)
    _in_order(number, keys, events)
    totals = Counter(keys.values())
    counts = {key: total % CYCLE for key, total in totals.items() if total % CYCLE}
    _same(f"counts-changelog/{number}", counts, _numbers(cluster.logs["counts-changelog", number]))
    _same(
        f"seen-changelog/{number}", dict.fromkeys(seen, 1), _numbers(cluster.logs["seen-changelog", number])
    )
    return Counter(origin for origin in keys if int(origin.split(b"/")[1]) % 5 == 0)


def _events(log: Log) -> list[tuple[bytes, Origin, int]]:
    """Return key, origin and count of each event."""
    events = []
    for record in log.committed():
        origin, count = record.value.split()
        events.append((record.key, origin, int(count)))
    return events


def _in_order(number: int, keys: Mapping[Origin, bytes], events: list[tuple[bytes, Origin, int]]) -> None:
    """Check that events follow their topic's offsets, and their key's counts."""
    last: dict[bytes, int] = {}
    counts: Counter[bytes] = Counter()
    for key, origin, count in events:
        topic, offset = origin.split(b"/")
        if int(offset) <= last.get(topic, -1):
            raise Wrong(f"events/{number}: {origin!r} comes after {topic!r}/{last[topic]}")
        last[topic] = int(offset)
        if key != keys[origin]:
            raise Wrong(f"events/{number}: {origin!r} has the key {key!r}")
        if count != counts[key] % CYCLE + 1:
            raise Wrong(
                f"events/{number}: {origin!r} is number {count} of {key!r}, not {counts[key] % CYCLE + 1}"
            )
        counts[key] += 1


def _numbers(log: Log) -> dict[bytes, int]:
    """Replay the changelog of a table of numbers."""
    return {key: int(value) for key, value in _rows(log).items()}


def _rows(log: Log, until: int | None = None) -> dict[bytes, bytes]:
    """Replay a changelog up to an offset (inclusive)."""
    rows: dict[bytes, bytes] = {}
    for record in log.committed():
        if until is not None and record.offset > until:
            break
        rows.pop(record.key, None)
        if record.value is not None:
            rows[record.key] = record.value
    return rows


def judge_store(
    cluster: Cluster, table: str, number: int, rows: Mapping[bytes, bytes], offset: int | None
) -> None:
    """Compare a store with its changelog up to the store's offset.

    Raises:
        Wrong: a row differs, or the store is ahead of the changelog.
    """
    log = cluster.logs[f"{table}-changelog", number]
    if offset is not None and offset >= log.end:
        raise Wrong(f"the store {table}/{number} is at {offset}, its changelog ends at {log.end}")
    expected = {} if offset is None else _rows(log, offset)
    _same(f"store {table}/{number} at {offset}", expected, rows)


def _webhooks(cluster: Cluster) -> dict[tuple[str, bytes], list[str]]:
    """Return the ids of the webhooks that orders must have made, in order, by endpoint and message."""
    expected: dict[tuple[str, bytes], list[str]] = defaultdict(list)
    for number in range(cluster.topics["orders"]):
        for record in cluster.logs["orders", number].committed():
            if record.value == b"poison":
                continue
            webhook_id = f"statuses-{number}-{record.offset}-0"
            expected["https://first", record.key].append(webhook_id)
            if record.offset % 3 == 0:
                expected["https://second", record.key].append(webhook_id)
    return expected


def _reported(cluster: Cluster) -> Counter[tuple[str, str, str]]:
    """Return how often each event says of a webhook that it was delivered, or that it failed."""
    reported: Counter[tuple[str, str, str]] = Counter()
    for number in range(cluster.topics["webhook-events"]):
        for record in cluster.logs["webhook-events", number].committed():
            event = json.loads(record.value)
            reported[event["type"], f"https://{event['endpointId']}", event["eventId"]] += 1
    return reported


def undelivered(cluster: Cluster) -> list[str]:
    """Return the webhooks of which no event says that they were delivered."""
    reported = _reported(cluster)
    return [
        webhook_id
        for (url, _), ids in _webhooks(cluster).items()
        for webhook_id in ids
        if not reported["webhook.delivered", url, webhook_id]
    ]


def judge_webhooks(cluster: Cluster, arrivals: Sequence[Any]) -> None:
    """Compare what receivers got with the orders.

    Args:
        arrivals: with ``endpoint``, ``webhook_id`` and ``status`` of the answer, in order.

    Raises:
        Wrong: a webhook did not arrive, came before one that it follows, or was reported twice.
    """
    expected = _webhooks(cluster)
    first: dict[tuple[str, str], int] = {}
    accepted: dict[tuple[str, str], int] = {}
    for place, arrival in enumerate(arrivals):
        webhook = arrival.endpoint, arrival.webhook_id
        first.setdefault(webhook, place)
        if arrival.status == 200:
            accepted.setdefault(webhook, place)
    for (url, key), ids in expected.items():
        before = -1
        for webhook_id in ids:
            webhook = url, webhook_id
            if webhook not in accepted:
                raise Wrong(f"{webhook_id} of {key!r} was never accepted by {url}")
            if first[webhook] < before:
                raise Wrong(f"{webhook_id} of {key!r} reached {url} before the one before it was accepted")
            before = accepted[webhook]
    every = [("webhook.delivered", url, one) for (url, _), ids in expected.items() for one in ids]
    _same("webhook-events", Counter(every), _reported(cluster))


def _same(what: str, expected: Any, found: Any) -> None:
    if expected == found:
        return
    lost = {key: value for key, value in expected.items() if found.get(key) != value}
    other = {key: value for key, value in found.items() if expected.get(key) != value}
    raise Wrong(f"{what}: expected {_some(lost)}, found {_some(other)}")


def _some(rows: Mapping[Any, Any]) -> str:
    shown = ", ".join(f"{key!r}: {value!r}" for key, value in sorted(rows.items())[:5])
    return f"{{{shown}}}" if len(rows) <= 5 else f"{{{shown}, …}} ({len(rows)})"
