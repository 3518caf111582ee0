"""The independent judge: what must be committed, given what the input logs hold.

It reads the simulated logs only, and shares no code with the handlers: counts are sums, not increments.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tests.simulation.cluster import Cluster
from tests.simulation.logs import Log

__all__ = ["Wrong", "judge", "judge_store"]

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


def _numbers(log: Log, until: int | None = None) -> dict[bytes, int]:
    """Replay a changelog up to an offset (inclusive)."""
    numbers: dict[bytes, int] = {}
    for record in log.committed():
        if until is not None and record.offset > until:
            break
        numbers.pop(record.key, None)
        if record.value is not None:
            numbers[record.key] = int(record.value)
    return numbers


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
    expected = {} if offset is None else _numbers(log, offset)
    _same(f"store {table}/{number} at {offset}", expected, {key: int(value) for key, value in rows.items()})


def _same(what: str, expected: Any, found: Any) -> None:
    if expected == found:
        return
    lost = {key: value for key, value in expected.items() if found.get(key) != value}
    other = {key: value for key, value in found.items() if expected.get(key) != value}
    raise Wrong(f"{what}: expected {_some(lost)}, found {_some(other)}")


def _some(rows: Mapping[Any, Any]) -> str:
    shown = ", ".join(f"{key!r}: {value!r}" for key, value in sorted(rows.items())[:5])
    return f"{{{shown}}}" if len(rows) <= 5 else f"{{{shown}, …}} ({len(rows)})"
