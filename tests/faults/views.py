"""Compare what the workers' HTTP views answer with the reference."""

import random
from collections import Counter
from collections.abc import Iterable
from urllib.parse import quote

from .checker import same
from .cluster import Worker
from .inputs import STATUSES, Json, iso, to_ms
from .logs import Names, of_messages, read_topic
from .reference import Expected

SAMPLE = 60
ARRIVED = ("DELIVERED", "READ", "CLICKED")

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
    durations = [d for record in records if (d := duration(record)) is not None]
    providers = Counter(record.get("provider", "unknown") for record in records)
    arrived = sum(by_status[status] for status in ARRIVED)
    return {
        "totalMessages": len(records),
        "byStatus": {status: by_status[status] for status in STATUSES},
        "byProvider": dict(providers),
        "averageDeliveryTime": sum(durations) / len(durations) if durations else 0,
        "deliveryRate": 100 * arrived / len(records),
        "failureRate": 100 * by_status["FAILED"] / len(records),
        "lastUpdated": iso(max(cell["updatedAt"] for part in parts for cell in part.totals.values())),
    }


def duration(record: Json) -> int | None:
    report = record["deliveryReport"]
    if "sentAt" not in report or "deliveredAt" not in report or "deliveredAtInferred" in report:
        return None
    return max(0, to_ms(report["deliveredAt"]) - to_ms(report["sentAt"]))
