"""Compare what the workers' HTTP views answer with the reference."""

import random
from collections import Counter
from collections.abc import Iterable
from urllib.parse import quote

from .checker import same
from .cluster import Worker
from .inputs import FINAL, STATUSES, Json, iso, to_ms
from .logs import Names, of_messages, read_topic
from .reference import ARRIVED, BOUNDS, LATE_MS, Expected, bound_of

SAMPLE = 60

Answers = dict[str, tuple[int, Json]]  # by worker and path


def ask(workers: list[Worker], names: Names, rng: random.Random) -> Answers:
    """Ask any worker for any message, and each for the statistics."""
    events = read_topic(names, f"{names.prefix}events").values()
    keys = {record.key for log in events for record in of_messages(log)}
    sample = rng.sample(sorted(key for key in keys if key), min(SAMPLE, len(keys)))
    asked = [(rng.choice(workers), f"/v1/messages/{quote(key.decode(), safe='')}") for key in sample]
    asked += [(worker, "/v1/stats") for worker in workers]
    return {f"{worker.name} {path}": worker.get(path) for worker, path in asked}


def wrong(answers: Answers, expected: list[Expected]) -> list[str]:
    right: dict[str, Json | None] = {"/v1/stats": stats(expected)}
    for part in expected:
        for message_id, record in part.records.items():
            right[f"/v1/messages/{quote(message_id, safe='')}"] = record if is_shown(record) else None
    return [
        f"{asked}: {status}"
        for asked, (status, body) in answers.items()
        if not answers_right(status, body, right[asked.partition(" ")[2]])
    ]


def is_shown(record: Json) -> bool:
    """Markers of what is tracked no longer are kept, but never shown."""
    return "currentStatus" in record


def answers_right(status: int, body: Json, right: Json | None) -> bool:
    return status == 404 if right is None else status == 200 and same(body, right)


def stats(parts: Iterable[Expected]) -> Json:
    """What all records come to, counted one by one; those removed by now have not gone from the past."""
    parts = list(parts)
    records = [record for part in parts for record in part.records.values() if is_shown(record)]
    records += [record for part in parts for record in part.removed.values()]
    by_status = Counter(record["currentStatus"] for record in records)
    durations = sorted(d for record in records if (d := duration(record)) is not None)
    providers = Counter(record.get("provider", "unknown") for record in records)
    failed = [record for record in records if record["currentStatus"] == "FAILED"]
    codes = Counter(record["deliveryReport"].get("error", {}).get("code", "unknown") for record in failed)
    arrived = sum(not ARRIVED.isdisjoint(e["status"] for e in record["statusHistory"]) for record in records)
    final = sum(by_status[status] for status in FINAL)
    return {
        "totalMessages": len(records),
        "byStatus": {status: by_status[status] for status in STATUSES},
        "byProvider": dict(providers),
        "byErrorCode": dict(codes),
        "averageDeliveryTime": sum(durations) / len(durations) if durations else 0,
        "deliveryRate": 100 * arrived / len(records),
        "deliveryRateOfFinal": 100 * arrived / final if final else 0,
        "failureRate": 100 * by_status["FAILED"] / len(records),
        "deliveryTime": {f"p{percent}": not_exceeded(durations, percent) for percent in (50, 90, 95, 99)},
        "deliveryCurve": {
            name: 100 * sum(d <= ms for d in durations) / len(records)
            for name, ms in zip(("5s", "30s", "1m", "5m", "1h", "24h"), LATE_MS, strict=True)
        },
        "lastUpdated": iso(max(part.updated_at for part in parts)),
    }


def not_exceeded(durations: list[int], percent: int) -> float | None:
    """The duration of that rank, as well as a bucket of the histogram tells it."""
    if not durations:
        return None
    longest = bound_of(durations[-(-len(durations) * percent // 100) - 1])
    shortest = max((bound + 1 for bound in BOUNDS if bound < longest), default=0)
    return float(longest) if shortest == longest else 2 * shortest * longest / (shortest + longest)


def duration(record: Json) -> int | None:
    report = record["deliveryReport"]
    if "sentAt" not in report or "deliveredAt" not in report or "deliveredAtInferred" in report:
        return None
    return max(0, to_ms(report["deliveredAt"]) - to_ms(report["sentAt"]))
