"""Compare what lies in Kafka with the reference, and name every difference.

Pure: `logs` reads the topics into a `World`, `check` judges it.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from .inputs import NORMAL_AGES, Ages, Json, Raw
from .reference import CellKey, Expected, Forward, expect

FORWARDED_FROM = "tracker-forwarded-from"


@dataclass
class World:
    """The topics and tables of one application, by partition, as a read_committed consumer finds them."""

    partitions: int
    requests: dict[int, list[Raw]]
    statuses: dict[int, list[Raw]]
    events: dict[int, list[Raw]]
    dead_letters: dict[int, list[Raw]]
    deliveries: dict[int, dict[str, Json]]  # by message id, as HTTP shows them
    cells: dict[int, dict[CellKey, Counter[str]]]  # with what is pending
    updated_at: dict[int, int]  # when anything last changed
    committed: dict[tuple[str, int], int]  # by stream and partition; absent: nothing was committed
    ages: Ages = NORMAL_AGES
    hanging: list[str] = field(default_factory=list)  # topic/partition whose last transaction is open


#: Outcomes that nothing tells of: what was known, what came too late, what ended before it began.
SILENT = ("repeated", "refused", "marked")


@dataclass
class Report:
    """What is wrong, by kind; each item names the id, key or partition."""

    invalid: list[str] = field(default_factory=list)  # there is no verdict
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    misordered: list[str] = field(default_factory=list)
    records_missing: list[str] = field(default_factory=list)
    records_extra: list[str] = field(default_factory=list)
    records_stale: list[str] = field(default_factory=list)
    records_wrong: list[str] = field(default_factory=list)
    cells_wrong: list[str] = field(default_factory=list)
    dead_missing: list[str] = field(default_factory=list)
    dead_doubled: list[str] = field(default_factory=list)
    dead_altered: list[str] = field(default_factory=list)
    forwards_missing: list[str] = field(default_factory=list)
    forwards_doubled: list[str] = field(default_factory=list)
    forwards_altered: list[str] = field(default_factory=list)
    partitions_absent: list[str] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)  # inputs with no outcome, or with two
    stores_wrong: list[str] = field(default_factory=list)
    views_wrong: list[str] = field(default_factory=list)
    overdue: list[str] = field(default_factory=list)  # what should have expired, or been removed
    consumed: int = 0
    expired: int = 0
    removed: int = 0
    events: int = 0

    def faults(self) -> dict[str, list[str]]:
        lists = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: found for name, found in lists.items() if isinstance(found, list) and found}

    def __str__(self) -> str:
        found = [f"{name} {len(items)}: {', '.join(items[:5])}" for name, items in self.faults().items()]
        return "\n".join(found) or f"{self.consumed} inputs, {self.events} events: all as expected"


def check(world: World, expected: list[Expected] | None = None) -> Report:
    """Judge a world; `expected` is what `expected_of` made of it, if the caller has that already."""
    report = Report()
    report.invalid = [f"open transaction in {where}" for where in world.hanging]
    report.invalid += unfinished(world)
    if report.invalid:
        return report
    copies = forwarded_copies(world)
    parts = expected or expected_of(world)
    for p, part in enumerate(parts):
        judge_partition(world, p, part, copies, report)
    report.forwards_altered += sorted(copies.keys() - {source for part in parts for source in part.forwarded})
    return report


def unfinished(world: World) -> Iterator[str]:
    """Control records may lie behind the last record: the commit need not have passed them."""
    for stream, log in (("requests", world.requests), ("statuses", world.statuses)):
        for partition, records in log.items():
            committed = world.committed.get((stream, partition), 0)
            if records and committed <= records[-1].offset:
                yield f"{stream}/{partition}: committed {committed}, last record {records[-1].offset}"


def expected_of(world: World) -> list[Expected]:
    """What each partition must have come to, given the order that its events tell."""
    return [
        expect(
            p,
            world.partitions,
            world.requests.get(p, []),
            world.statuses.get(p, []),
            order_of(world.events.get(p, [])),
            world.ages,
        )
        for p in range(world.partitions)
    ]


def judge_partition(
    world: World, p: int, expected: Expected, copies: dict[str, list[Raw]], report: Report
) -> None:
    events = world.events.get(p, [])
    report.consumed += len(expected.outcomes)
    report.events += len(events)
    told = Counter(dict(event.headers).get("ce_type") for event in events)
    report.expired += told[b"tracking.expired"]
    report.removed += told[b"tracking.removed"]
    absent(world, p, expected, report)
    report.misordered += expected.unordered
    judge_events(expected, events, report)
    judge_records(expected, world.deliveries.get(p, {}), report)
    judge_cells(p, expected, world.cells.get(p, {}), world.updated_at.get(p, 0), report)
    judge_dead_letters(p, expected, world.dead_letters.get(p, []), report)
    for source, forward in expected.forwarded.items():
        judge_copies(source, forward, copies.get(source, []), report)
    judge_balance(expected, events, world.dead_letters.get(p, []), copies, report)


def order_of(events: list[Raw]) -> dict[str, list[str]]:
    """The inputs that produced events, by message, in the order in which they were applied."""
    order: dict[str, dict[str, None]] = {}
    for event in events:
        order.setdefault(text(event.key), {})[input_of(event_id(event))] = None
    return {message_id: list(inputs) for message_id, inputs in order.items()}


def absent(world: World, p: int, expected: Expected, report: Report) -> None:
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("events", expected.events, world.events.get(p)),
        ("deliveries", expected.records, world.deliveries.get(p)),
        ("period_stats", expected.cells, world.cells.get(p)),
        ("dead letters", expected.dead, world.dead_letters.get(p)),
    )
    report.partitions_absent += [f"{name}/{p}" for name, wanted, found in pairs if wanted and not found]


def judge_events(expected: Expected, events: list[Raw], report: Report) -> None:
    wanted = {
        event["id"]: (message_id, event) for message_id, log in expected.events.items() for event in log
    }
    seen = Counter(event_id(event) for event in events)
    report.lost += [i for i in wanted if i not in seen]
    report.phantom += [i for i in seen if i not in wanted]
    report.doubled += [i for i, times in seen.items() if times > 1]
    order: dict[str, dict[str, None]] = {}
    for event in events:
        found = event_id(event)
        if found in wanted:
            message_id, right = wanted[found]
            order.setdefault(message_id, {})[found] = None
            if not same_event(message_id, right, event):
                report.altered.append(found)
    for message_id, ids in order.items():
        if list(ids) != [e["id"] for e in expected.events[message_id] if e["id"] in ids]:
            report.misordered.append(message_id)


def same_event(message_id: str, right: Json, event: Raw) -> bool:
    headers = {name: value.encode() for name, value in right["headers"].items()}
    return (
        event.key == message_id.encode()
        and same(parsed(event.value), right["value"])
        and dict(event.headers) == headers
        and len(event.headers) == len(headers)
    )


def judge_records(expected: Expected, records: dict[str, Json], report: Report) -> None:
    report.records_missing += expected.records.keys() - records.keys()
    report.records_extra += records.keys() - expected.records.keys()
    for message_id in expected.records.keys() & records.keys():
        record = records[message_id]
        if same(record, expected.records[message_id]):
            continue
        is_stale = any(same(record, past) for past in expected.past.get(message_id, ()))
        (report.records_stale if is_stale else report.records_wrong).append(message_id)


def judge_cells(
    p: int, expected: Expected, cells: dict[CellKey, Counter[str]], updated_at: int, report: Report
) -> None:
    for key in expected.cells.keys() | cells.keys():
        if counts(expected.cells.get(key)) != counts(cells.get(key)):
            report.cells_wrong.append(f"{p}/{key}")
    if updated_at != expected.updated_at:
        report.cells_wrong.append(f"{p}/last change")


def judge_dead_letters(p: int, expected: Expected, letters: list[Raw], report: Report) -> None:
    seen = Counter(letter_id(letter) for letter in letters)
    report.dead_missing += [i for i in expected.dead if i not in seen]
    report.dead_doubled += [i for i, times in seen.items() if times > 1]
    for letter in letters:
        found = letter_id(letter)
        if found not in expected.dead or not same_letter(p, found, *expected.dead[found], letter):
            report.dead_altered.append(found)


def same_letter(p: int, letter_id: str, code: str, raw: Raw, letter: Raw) -> bool:
    ours = {
        "__connect.errors.topic": raw.topic,
        "__connect.errors.partition": str(raw.partition),
        "__connect.errors.offset": str(raw.offset),
        "tracker-error-code": code,
        "tracker-dead-letter-id": letter_id,
    }
    headers = dict(letter.headers[len(raw.headers) :])
    original = (raw.timestamp, raw.key, raw.value)
    return (
        letter.partition == p
        and (letter.timestamp, letter.key, letter.value) == original
        and letter.headers[: len(raw.headers)] == raw.headers
        and all(headers.get(name) == value.encode() for name, value in ours.items())
        and {f"__connect.errors.exception.{name}" for name in ("class.name", "message")} <= headers.keys()
    )


def forwarded_copies(world: World) -> dict[str, list[Raw]]:
    copies: dict[str, list[Raw]] = {}
    for log in (*world.requests.values(), *world.statuses.values()):
        for raw in log:
            if raw.headers and raw.headers[-1][0] == FORWARDED_FROM:
                copies.setdefault(text(raw.headers[-1][1]), []).append(raw)
    return copies


def judge_copies(source: str, forward: Forward, copies: list[Raw], report: Report) -> None:
    raw = forward.raw
    right = (raw.topic, forward.partition, raw.timestamp, forward.key, raw.value, raw.headers)
    if not copies:
        report.forwards_missing.append(source)
    if len(copies) > 1:
        report.forwards_doubled.append(source)
    for copy in copies:
        found = (copy.topic, copy.partition, copy.timestamp, copy.key, copy.value, copy.headers[:-1])
        if found != right:
            report.forwards_altered.append(source)


def judge_balance(
    expected: Expected,
    events: list[Raw],
    letters: list[Raw],
    copies: dict[str, list[Raw]],
    report: Report,
) -> None:
    """applied + amended + repeated + forwarded + dead-lettered = consumed: each input is in one of them."""
    told = Counter({input_of(event_id(event)) for event in events})
    told.update({letter_id(letter) for letter in letters})
    told.update({forward.input_id for source, forward in expected.forwarded.items() if source in copies})
    report.unbalanced += [i for i, times in told.items() if times > 1]
    silent = expected.outcomes.keys() - told.keys()
    report.unbalanced += [i for i in silent if expected.outcomes[i] not in SILENT]


def counts(cell: Counter[str] | None) -> dict[str, int]:
    return {name: n for name, n in (cell or {}).items() if n}


def event_id(event: Raw) -> str:
    body = parsed(event.value)
    return (
        str(body.get("id")) if isinstance(body, dict) else f"unreadable at {event.partition}/{event.offset}"
    )


def letter_id(letter: Raw) -> str:
    return text(dict(letter.headers).get("tracker-dead-letter-id"))


def input_of(event_id: str) -> str:
    return event_id.rpartition("-")[0]


def parsed(value: bytes | None) -> Any:
    try:
        return json.loads(value or b"")
    except ValueError:
        return None


def text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


def same(left: Any, right: Any) -> bool:
    """Equal as JSON: unlike ``==``, 1, 1.0 and true differ."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
