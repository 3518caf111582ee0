"""Compare what the workers' HTTP views answer with the reference."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from urllib.parse import quote

from .checker import same
from .cluster import Worker
from .inputs import FINAL, STATUSES, Json, iso, to_ms
from .logs import Names, of_messages, read_topic
from .reference import ARRIVED, BOUNDS, LATE_MS, LONGEST_MS, Expected, bound_of

SAMPLE = 60
PERIODS = 6

Answers = dict[str, tuple[int, Json]]  # by worker and path


def ask(workers: list[Worker], names: Names, rng: random.Random) -> Answers:
    """Ask any worker for any message, and each for the statistics."""
    events = read_topic(names, f"{names.prefix}events").values()
    keys = {record.key for log in events for record in of_messages(log)}
    sample = rng.sample(sorted(key for key in keys if key), min(SAMPLE, len(keys)))
    asked = [(rng.choice(workers), f"/v1/messages/{quote(key.decode(), safe='')}") for key in sample]
    asked += [(worker, "/v1/stats") for worker in workers]
    asked += [
        (rng.choice(workers), f"/v1/stats?{period(names, rng)}&groupBy=provider") for _ in range(PERIODS)
    ]
    return {f"{worker.name} {path}": worker.get(path) for worker, path in asked}


def period(names: Names, rng: random.Random) -> str:
    """Any part of the time that callbacks came in."""
    logs = read_topic(names, names.input("statuses")).values()
    times = [record.timestamp for log in logs for record in log]
    begin, end = sorted(rng.randrange(min(times) - 60_000, max(times) + 60_000) for _ in range(2))
    return f"from={begin}&to={end}&by={rng.choice(('created', 'sent'))}"


def wrong(answers: Answers, expected: list[Expected]) -> list[str]:
    right: dict[str, Json | None] = {"/v1/stats": stats(expected)}
    for part in expected:
        for message_id, record in part.records.items():
            right[f"/v1/messages/{quote(message_id, safe='')}"] = record if is_shown(record) else None
    return [
        f"{asked}: {status} {json.dumps(body)[:400]}"
        for asked, (status, body) in answers.items()
        if not (
            period_right(status, body, expected)
            if "?from=" in asked
            else answers_right(status, body, right[asked.partition(" ")[2]])
        )
    ]


def period_right(status: int, body: Json, expected: list[Expected]) -> bool:
    """Whether it is what all records of the period that it is about come to, in all and by provider."""
    if status != 200:
        return False
    begin, end = to_ms(body["from"]), to_ms(body["to"])
    name = "createdAt" if body["by"] == "created" else "sentAt"
    records = []
    for record in counted_records(expected):
        at = record.get(name) or record["deliveryReport"].get(name)
        if at is not None and begin <= to_ms(at) < end:
            records.append(record)
    by_provider: dict[str | None, list[Json]] = {}
    for record in records:
        by_provider.setdefault(record.get("provider"), []).append(record)
    groups = {group["provider"]: group for group in body["groups"]}
    right = {"all": records, **by_provider}
    found = {"all": body, **groups}
    return right.keys() == found.keys() and all(
        same(figures(some), {figure: found[who][figure] for figure in figures(some)})
        for who, some in right.items()
    )


def is_shown(record: Json) -> bool:
    """Markers of what is tracked no longer are kept, but never shown."""
    return "currentStatus" in record


def answers_right(status: int, body: Json, right: Json | None) -> bool:
    return status == 404 if right is None else status == 200 and same(body, right)


def stats(parts: Iterable[Expected]) -> Json:
    """What all records come to, counted one by one."""
    parts = list(parts)
    return figures(counted_records(parts)) | {"lastUpdated": iso(max(part.updated_at for part in parts))}


def counted_records(parts: Iterable[Expected]) -> list[Json]:
    """All records; those removed by now have not gone from the past."""
    parts = list(parts)
    records = [record for part in parts for record in part.records.values() if is_shown(record)]
    return records + [record for part in parts for record in part.removed.values()]


def figures(records: list[Json]) -> Json:
    """What records come to."""
    by_status = Counter(record["currentStatus"] for record in records)
    durations = sorted(d for record in records if (d := duration(record)) is not None)
    providers = Counter(record.get("provider", "unknown") for record in records)
    failed = [record for record in records if record["currentStatus"] == "FAILED"]
    codes = Counter(record["deliveryReport"].get("error", {}).get("code", "unknown") for record in failed)
    arrived = [record for record in records if has_arrived(record)]

    def percent(part: int, whole: int) -> float:
        return 100 * part / whole if whole else 0

    total = len(records)
    final = [record for record in records if record["currentStatus"] in FINAL]
    return {
        "totalMessages": len(records),
        "byStatus": {status: by_status[status] for status in STATUSES},
        "byProvider": dict(providers),
        "byErrorCode": dict(codes),
        "averageDeliveryTime": sum(durations) / len(durations) if durations else 0,
        "deliveryRate": percent(len(arrived), total),
        "deliveryRateOfFinal": percent(sum(map(has_arrived, final)), len(final)),
        "failureRate": percent(by_status["FAILED"], total),
        "deliveryTime": {f"p{rank}": not_exceeded(durations, rank) for rank in (50, 90, 95, 99)},
        "deliveryCurve": {
            name: percent(sum(d <= ms for d in durations), total)
            for name, ms in zip(("5s", "30s", "1m", "5m", "1h", "24h"), LATE_MS, strict=True)
        },
        "clockSkew": sum(took(record) is not None and duration(record) is None for record in records),
    }


def has_arrived(record: Json) -> bool:
    return not ARRIVED.isdisjoint(entry["status"] for entry in record["statusHistory"])


def not_exceeded(durations: list[int], percent: int) -> float | None:
    """The duration of that rank, as well as a bucket of the histogram tells it."""
    if not durations:
        return None
    longest = bound_of(durations[-(-len(durations) * percent // 100) - 1])
    shortest = max((bound + 1 for bound in BOUNDS if bound < longest), default=0)
    return float(longest) if shortest == longest else 2 * shortest * longest / (shortest + longest)


def duration(record: Json) -> int | None:
    """From sent to delivered, if that can be."""
    ms = took(record)
    return min(ms, LONGEST_MS) if ms is not None and ms >= 0 and has_arrived(record) else None


def took(record: Json) -> int | None:
    """From sent to delivered, as it was said."""
    report = record["deliveryReport"]
    if "sentAt" not in report or "deliveredAt" not in report or "deliveredAtInferred" in report:
        return None
    return to_ms(report["deliveredAt"]) - to_ms(report["sentAt"])
