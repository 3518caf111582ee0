"""The delivery law once more: naive, sequential, and written apart from the code that it judges.

It must never import ``streams``, ``agents`` or ``tables``: one misunderstanding shared by both would hide
itself. Everything is recomputed from plain dicts at every input record; speed is no aim here.
"""

import heapq
import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from aiokafka.partitioner import murmur2

from .inputs import (
    FINAL,
    HINTS,
    HOUR_MS,
    MARKS,
    NORMAL_AGES,
    STATUSES,
    Ages,
    Json,
    Malformed,
    Raw,
    compact,
    iso,
    parse,
    present,
    to_ms,
    within,
)

ARRIVED = frozenset(("DELIVERED", "READ", "CLICKED"))


#: Tenant, channel, provider and template.
Group = tuple[str | None, str | None, str, str | None]
NOBODY: Group = (None, None, "unknown", None)
#: Window, level of grouping, first minute, and what of the group is told apart.
CellKey = tuple[str, str, int, tuple[str | None, ...]]
WINDOWS = {"m": 1, "h": 60, "d": 1440, "a": 2**32}
LONGEST_MS = 30 * 24 * HOUR_MS
LATE_MS = (5_000, 30_000, 60_000, 300_000, HOUR_MS, 24 * HOUR_MS)

#: What one topic says of a message: input id, record, and what it says.
Queue = deque[tuple[str, Raw, Json]]


@dataclass(frozen=True)
class Forward:
    """The copy that must be made, once, of a misplaced input."""

    input_id: str
    partition: int
    key: bytes
    raw: Raw


@dataclass
class Expected:
    """What one partition must have come to."""

    events: dict[str, list[Json]] = field(default_factory=dict)  # by message, in order; {id, value, headers}
    records: dict[str, Json] = field(default_factory=dict)  # by message, as HTTP shows them
    past: dict[str, list[Json]] = field(default_factory=dict)  # by message, what its record once was
    cells: dict[CellKey, Counter[str]] = field(default_factory=dict)  # what each counts, by name
    updated_at: int = 0  # of all time
    dead: dict[str, tuple[str, Raw]] = field(default_factory=dict)  # by dead letter id
    forwarded: dict[str, Forward] = field(default_factory=dict)  # by topic/partition/offset
    outcomes: dict[str, str] = field(default_factory=dict)  # by input id
    removed: dict[str, Json] = field(default_factory=dict)  # by message, its record when it was removed
    unordered: list[str] = field(default_factory=list)  # events whose inputs are in no order of the logs


def expect(
    partition: int,
    partitions: int,
    requests: Iterable[Raw],
    statuses: Iterable[Raw],
    order: Mapping[str, Sequence[str]] | None = None,
    ages: Ages = NORMAL_AGES,
) -> Expected:
    """Apply one partition's logs.

    Args:
        order: by message, the ids of the inputs that produced events, as the events lie in their log:
            Kafka leaves open how two topics interleave. Inputs that are absent from it are applied at the
            last moment that their own log allows: what once repeats a record repeats it ever after. A
            timer's request that is absent came too early or too late, and changed nothing.
    """
    expected = Expected()
    logs = readable(partition, partitions, {"requests": requests, "statuses": statuses}, expected)
    for message_id in logs["requests"] | logs["statuses"]:
        queues = {stream: log.get(message_id, deque()) for stream, log in logs.items()}
        message = Message(message_id, ages)
        told = (order or {}).get(message_id, ())
        for input_id, raw, body in interleave(queues, told, expected.unordered):
            if "timer" in body and input_id not in told:
                expected.outcomes[input_id] = "repeated"
            else:
                message.apply(input_id, raw, body, expected)
        message.count(expected)
        left = message.record or message.marker()
        if left:
            expected.records[message_id] = left
    return expected


def readable(
    partition: int, partitions: int, topics: Mapping[str, Iterable[Raw]], expected: Expected
) -> dict[str, dict[str, Queue]]:
    """Return what can be read and lies in its place, by stream and message; note what becomes of the rest."""
    logs: dict[str, dict[str, Queue]] = {"requests": {}, "statuses": {}}
    for stream, records in topics.items():
        for raw in records:
            input_id = f"{stream}-{raw.partition}-{raw.offset}"
            try:
                body = parse(raw.value, stream)
            except Malformed as error:
                expected.outcomes[input_id] = "dead-lettered"
                expected.dead[input_id] = (error.code, raw)
                if stream == "statuses":
                    count(expected, raw.timestamp, NOBODY, Counter({"callbacks.deadLettered": 1}))
                continue
            message_id = body["messageId"]
            key = message_id.encode()
            home = (murmur2(key) & 0x7FFFFFFF) % partitions
            if raw.key != key or home != partition:
                expected.outcomes[input_id] = "forwarded"
                source = f"{raw.topic}/{raw.partition}/{raw.offset}"
                expected.forwarded[source] = Forward(input_id, home, key, raw)
                continue
            logs[stream].setdefault(message_id, deque()).append((input_id, raw, body))
    return logs


def interleave(
    queues: dict[str, Queue], order: Sequence[str], unordered: list[str]
) -> Iterator[tuple[str, Raw, Json]]:
    requests = queues["requests"]
    while requests and {"ends", "timer"} & requests[0][2].keys() and requests[0][0] not in order:
        yield requests.popleft()  # nothing tells of the end of what had not begun, so it was the first
    for input_id in order:
        queue = queues.get(input_id.split("-")[0], deque())
        if not any(input_id == waiting[0] for waiting in queue):
            unordered.append(input_id)
            continue
        while True:
            item = queue.popleft()
            yield item
            if item[0] == input_id:
                break
    yield from heapq.merge(*queues.values(), key=lambda item: item[1].timestamp)


class Message:
    """One message's entries and track requests, and what follows from them."""

    def __init__(self, message_id: str, ages: Ages) -> None:
        self.id = message_id
        self.ages = ages
        self.named: str | None = None  # who made the attempt that speaks
        self.entries: list[Json] = []
        self.requests: list[Json] = []
        self.metadata: dict[str, tuple[int, str]] = {}
        self.updated_at = 0
        self.record: Json | None = None
        self.completed = False
        self.stopped = False
        self.erased = False
        self.counted: Json | None = None  # its last record, whatever became of it
        self.vanished = False  # it counts among the messages no longer

    def apply(self, input_id: str, raw: Raw, body: Json, expected: Expected) -> None:
        if self.stopped:
            expected.outcomes[input_id] = "repeated" if body.get("ends") == "stop" else "refused"
            self.count_callback("unapplied", raw, body, expected)
            return
        if "ends" in body:
            self.end(input_id, raw, body, expected)
            return
        if "timer" in body:
            self.time_is_up(input_id, raw, body, expected)
            return
        self.say(input_id, raw, body, expected)

    def time_is_up(self, input_id: str, raw: Raw, body: Json, expected: Expected) -> None:
        """Expire, or be removed: what comes of it is told, so it must have been due."""
        record = self.record
        expected.outcomes[input_id] = "applied"
        if record is None or self.ages.due_at(record) > raw.timestamp:
            return  # its events have no right to be there
        is_final = record["currentStatus"] in FINAL
        if body["timer"] == "expire" and not is_final:
            due_at = self.ages.due_at(record)
            said = {"status": "EXPIRED", "id": "expired", "source": "system", "given": due_at, "track": False}
            nothing = dict.fromkeys((*MARKS, *HINTS, "provider", "attempt", "error", "metadata"))
            self.say(input_id, raw, nothing | said, expected, expires=True)
        if body["timer"] == "purge" and is_final:
            expected.past.setdefault(self.id, []).append(record)
            expected.removed[self.id] = record
            self.stopped, self.record = True, None
            self.tell_end(input_id, raw, "tracking.removed", record, record, "retention", expected)

    def say(self, input_id: str, raw: Raw, body: Json, expected: Expected, expires: bool = False) -> None:
        before, named = self.record, self.named
        first_request = body["track"] and not self.requests
        entry = make_entry(body, raw.timestamp)
        is_new = entry["identity"] not in [e["identity"] for e in self.entries]
        if not self.absorb(entry, body, is_new):
            expected.outcomes[input_id] = "repeated"
            self.count_callback("unapplied", raw, body, expected)
            return
        self.updated_at = max(self.updated_at, raw.timestamp)
        expected.updated_at = max(expected.updated_at, self.updated_at)
        after = self.record = self.counted = self.shown()
        contradicted = before is not None and "contradiction" in before["deliveryReport"]
        if not contradicted and "contradiction" in after["deliveryReport"]:
            self.count_callback("contradictory", raw, body, expected)
        if before:
            expected.past.setdefault(self.id, []).append(before)
        previous = before["currentStatus"] if before else None
        moved = after["currentStatus"] != previous
        expected.outcomes[input_id] = "applied" if moved else "amended"
        completes = after["currentStatus"] in FINAL and not self.completed
        self.completed |= completes
        types = event_types(
            previous, after["currentStatus"], body["track"], first_request, expires, completes
        )
        for n, kind in enumerate(types):
            reason = REASONS.get(kind) or self.why(entry, before, named)
            expected.events.setdefault(self.id, []).append(
                make_event(f"{input_id}-{n}", kind, entry, previous, after, reason)
            )

    def why(self, entry: Json, before: Json | None, named: str | None) -> str:
        """Why the status moved, or what else was amended."""
        assert self.record is not None
        if before is None:
            return "first"
        ranks = [STATUSES.index(one["currentStatus"]) for one in (before, self.record)]
        if ranks[0] != ranks[1]:
            if named is not None and named != self.named:
                return "failover"
            return "progress" if ranks[1] > ranks[0] else "correction"
        if entry["track"]:
            return "requested"
        contradicts = [one["deliveryReport"].get("contradiction", False) for one in (before, self.record)]
        if contradicts == [False, True]:
            return "contradiction"
        return "late" if STATUSES.index(entry["status"]) < ranks[1] else "detail"

    def end(self, input_id: str, raw: Raw, body: Json, expected: Expected) -> None:
        """Stop, or erase: a record that was not there yet will not be, or not with what is personal."""
        before = self.record
        if body["ends"] == "erase" and self.erased:
            expected.outcomes[input_id] = "repeated"
            return
        expected.outcomes[input_id] = "applied" if before else "marked"
        self.updated_at = max(self.updated_at, raw.timestamp)
        if before:
            expected.past.setdefault(self.id, []).append(before)
        if body["ends"] == "erase":
            self.erased = True
            for request in self.requests:
                request["tuple"] = (*request["tuple"][:-1], "")
            self.record = self.shown() if before else None
        else:
            self.stopped = True
            self.record = None
            self.vanished = True
        if before:
            kind = "tracking.erased" if self.erased and self.record else "tracking.stopped"
            reason = body.get("reason") or "requested"
            self.tell_end(input_id, raw, kind, before, self.record or before, reason, expected)

    def tell_end(
        self, input_id: str, raw: Raw, kind: str, before: Json, shown: Json, reason: str, expected: Expected
    ) -> None:
        entry = {"at": raw.timestamp, "status": before["currentStatus"], "source": "system"}
        entry["provider"] = before.get("provider")
        event = make_event(f"{input_id}-0", kind, entry, None, shown, reason)
        expected.events.setdefault(self.id, []).append(event)

    def absorb(self, entry: Json, body: Json, is_new: bool) -> bool:
        """Take in what is new; False when the input repeats what is known."""
        changed = is_new
        if body["track"]:
            request = make_request(body, entry["at"], self.ages)
            if self.erased:
                request["tuple"] = (*request["tuple"][:-1], "")
            winner = min((r["tuple"] for r in self.requests), default=None)
            if winner is None or request["tuple"] < winner:
                self.requests.append(request)
                changed = True
        if is_new:
            self.entries.append(entry)
        if (is_new or body["track"]) and not self.erased:
            for key, value in (body.get("metadata") or {}).items():
                said = (entry["at"], compact(value))
                if key not in self.metadata or said > self.metadata[key]:
                    self.metadata[key] = said
                    changed = True
        return changed

    def count(self, expected: Expected) -> None:
        """Count the message where it stands, and what happened to it under what is known of it at last."""
        record = self.counted
        if record is None:
            return
        group: Group = (
            *(record.get(name) for name in ("tenant", "channel")),
            *(record.get("provider", "unknown"), record.get("templateId")),
        )
        if not self.vanished:
            count(expected, to_ms(record["createdAt"]), group, standing("created", record))
            if sent_at := record["deliveryReport"].get("sentAt"):
                count(expected, to_ms(sent_at), group, standing("sent", record))
        for entry in self.entries:
            what = Counter({f"entries.{entry['status']}": 1})
            if not entry["track"] and not (entry["status"] == "EXPIRED" and entry["id"] == "expired"):
                late = entry["receipt"] - entry["at"]
                within = next((ms for ms in LATE_MS if late <= ms), "later")
                what.update(
                    {"callbacks.applied": 1, "late.ms": min(max(0, late), LONGEST_MS), f"late.{within}": 1}
                )
            provider = entry["provider"] or "unknown"
            count(expected, entry["at"], (group[0], group[1], provider, group[3]), what)

    def count_callback(self, outcome: str, raw: Raw, body: Json, expected: Expected) -> None:
        """Count a callback that was not plainly applied, under what it says itself; requests are none."""
        if not raw.topic.endswith("statuses"):
            return
        at = make_entry(body, raw.timestamp)["at"]
        said = (body["tenant"], body["channel"], body["provider"] or "unknown", body["templateId"])
        count(expected, at, said, Counter({f"callbacks.{outcome}": 1}))

    def marker(self) -> Json:
        """What is kept of a message that has no record."""
        if not self.stopped and not self.erased:
            return {}
        return {"stopped": self.stopped, "erased": self.erased and not self.stopped}

    def shown(self) -> Json:
        entries = sorted(
            self.entries,
            key=lambda e: (
                *(e["at"], STATUSES.index(e["status"]), shown_id(self.id, e), e["provider"] or ""),
                *(e["given"] is not None, e["given"] or 0),
            ),
        )
        request = min(self.requests, key=lambda r: r["tuple"], default=None)
        record: Json = {"messageId": self.id, "tracked": request is not None}
        for hint in HINTS:
            values = [e["hints"][hint] for e in entries if e["hints"][hint] is not None]
            record[hint] = (request or {}).get(hint) or min(values, default=None)
        tries = attempts(entries, record["channel"])
        speaks = speaking(tries)
        self.named = speaks["provider"]
        record["currentStatus"] = speaks["status"]
        record["provider"] = speaks["provider"] or (request or {}).get("provider")
        created_at = request["createdAt"] if request else min(e["at"] for e in entries)
        record["createdAt"] = iso(created_at)
        record["updatedAt"] = iso(self.updated_at)
        record["scheduledAt"] = iso(request["scheduled"]) if request else None
        begin = max(created_at, request["scheduled"] or created_at) if request else created_at
        record["expiresAt"] = iso(begin + request["duration"]) if request else None
        record["metadata"] = {key: json.loads(said[1]) for key, said in self.metadata.items()} or None
        record["statusHistory"] = [shown_entry(self.id, e) for e in entries]
        record["webhooks"] = request["webhooks"] if request else None
        record["deliveryReport"] = self.report(record, entries, tries, speaks)
        return present(without_the_personal(record) if self.erased else record)

    def report(self, record: Json, entries: list[Json], tries: list[Json], speaks: Json) -> Json:
        report = {
            "messageId": self.id,
            "phoneNumber": record["phoneNumber"],
            "status": record["currentStatus"],
        }
        for mark, status in MARKS.items():
            explicit = [e["marks"][mark] for e in entries if e["marks"][mark] is not None]
            report[mark] = iso(
                min(explicit or [e["at"] for e in entries if e["status"] == status], default=None)
            )
        used = [report[mark] for mark in ("readAt", "clickedAt") if report[mark]]
        if used and not report["deliveredAt"]:
            report |= {"deliveredAt": min(used), "deliveredAtInferred": True}
        report["error"] = speaks["error"]
        shown = ("provider", "attemptedAt", "status", "error")
        report["attempts"] = [
            {"attemptNumber": n} | present({name: one[name] for name in shown})
            for n, one in enumerate(tries, start=1)
        ]
        report["contradiction"] = any(one["contradiction"] for one in tries) or None
        report["metadata"] = record["metadata"]
        return present(report)


def without_the_personal(record: Json) -> Json:
    """The same without recipient and free text."""
    record = deepcopy(record)  # what is shown of an entry is the entry's own
    report = record["deliveryReport"]
    for one in (record, report):
        one |= {"phoneNumber": None, "metadata": None}
    failures = [one.get("error") for one in (report, *report["attempts"])]
    failures += [(entry.get("details") or {}).get("error") for entry in record["statusHistory"]]
    for failure in filter(None, failures):
        failure["message"] = ""
        failure.pop("details", None)
    return record | {"deliveryReport": present(report), "erased": True}


def make_entry(body: Json, receipt: int) -> Json:
    given = body["given"]
    at, time_source = (receipt, "record") if given is None else (given, "given")
    if not within(at, receipt):
        at, time_source = receipt, "clamped"
    code = (body.get("error") or {}).get("code")
    identity: tuple[Any, ...] = (
        body["status"],
        body["provider"],
        body["attempt"],
        given,
        code,
        body["source"],
    )
    if body["track"]:
        identity = ("track", body["status"], body["provider"], given)
    elif body["id"] is not None:
        identity = (body["id"], body["status"])
    marks = {mark: body[mark] if within(body[mark], receipt) else None for mark in MARKS}
    said = {name: body[name] for name in ("id", "status", "provider", "attempt", "source", "given", "track")}
    hints = {hint: None if body["track"] else body[hint] for hint in HINTS}
    more = {"at": at, "timeSource": time_source, "receipt": receipt, "identity": identity}
    return said | more | {"error": body.get("error"), "marks": marks, "hints": hints}


def make_request(body: Json, created_at: int, ages: Ages) -> Json:
    names = ("phoneNumber", "templateId", "provider", "channel", "tenant")
    optional = ((body[name] is not None, body[name] or "") for name in ("channel", "tenant"))
    duration = body["duration"] or ages.tracking_ms
    order = (
        *(created_at, body["templateId"], body["provider"], *optional),
        *(duration, (body["scheduled"] is not None, body["scheduled"] or 0)),
        *([webhook_order(said) for said in body["webhooks"]], body["phoneNumber"]),
    )
    return {name: body[name] for name in names} | {
        "createdAt": created_at,
        "tuple": order,
        "duration": duration,
        "scheduled": body["scheduled"],
        "webhooks": body["webhooks"] or None,
    }


def webhook_order(said: Json) -> tuple[Any, ...]:
    return said["url"], said.get("events", []), said.get("timeout", -1), said.get("retries", -1)


REASONS = {
    "tracking.started": "requested",
    "tracking.expired": "timeout",
    "tracking.completed": "final",
}


def event_types(
    previous: str | None, current: str, track: bool, first_request: bool, expires: bool, completes: bool
) -> list[str]:
    moved = current != previous
    rules = {
        "tracking.started": first_request,
        "status.updated": moved and (previous is not None or not track),
        "tracking.expired": expires,
        "tracking.completed": completes,
        "status.amended": not moved and not first_request,
    }
    return [kind for kind, happened in rules.items() if happened]


def make_event(
    event_id: str, kind: str, entry: Json, previous: str | None, after: Json, reason: str | None = None
) -> Json:
    at = iso(entry["at"])
    value = {
        "id": event_id,
        "type": kind,
        "messageId": after["messageId"],
        "occurredAt": at,
        "previousStatus": previous,
        "currentStatus": after["currentStatus"],
        "status": entry["status"],
        "provider": entry["provider"],
        "source": entry["source"],
        "deliveryReport": after["deliveryReport"],
        "trackingCompleted": kind == "tracking.completed" or None,
        "reason": reason,
    }
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": "/delivery-tracker",
        "ce_type": kind,
        "ce_time": at,
        "ce_subject": after["messageId"],
        "content-type": "application/json",
    }
    return {"id": event_id, "value": present(value), "headers": headers}


def attempts(entries: list[Json], channel: str | None) -> list[Json]:
    """What was tried, first to last: by number where one is given, else by provider.

    A provider that has numbers means its last one when it gives none, and what names neither is of the last
    of all; neither dates the attempt. The provider that was asked is the first.
    """
    groups: dict[int | str | None, list[Json]] = {}
    for entry in entries:
        groups.setdefault(entry["provider"] if entry["attempt"] is None else entry["attempt"], []).append(
            entry
        )
    nameless = groups.pop(None, [])
    if not groups:
        return [attempt(nameless, [], channel)]
    numbers = sorted(name for name in groups if isinstance(name, int))
    joining: dict[int | str, list[Json]] = {}
    begins, latest = {}, -math.inf
    by_provider = {first_named(groups[number]): number for number in numbers}
    for number in numbers:
        latest = begins[number] = max(latest, min(e["at"] for e in groups[number]))
    for name in [name for name in groups if isinstance(name, str)]:
        if name in by_provider:
            joining[by_provider[name]] = groups.pop(name)

    def place(name: Any) -> tuple[bool, float, int, str]:
        group = groups[name]
        if isinstance(name, int):
            return True, begins[name], name, ""
        return not any(e["track"] for e in group), min(e["at"] for e in group), 0, name

    names = sorted(groups, key=place)
    joining[names[-1]] = joining.get(names[-1], []) + nameless
    return [attempt(groups[name], joining.get(name, []), channel) for name in names]


def first_named(group: list[Json]) -> str | None:
    said = [(e["at"], e["provider"]) for e in group if e["provider"] is not None]
    return min(said)[1] if said else None


def attempt(own: list[Json], joining: list[Json], channel: str | None) -> Json:
    group = own + joining
    statuses = {e["status"] for e in group}
    bounced = channel == "email" and "FAILED" in statuses and not statuses & {"READ", "CLICKED"}
    return {
        "attemptedAt": iso(min(e["at"] for e in own)),
        "provider": first_named(own),
        "status": "FAILED" if bounced else max(statuses, key=STATUSES.index),
        "error": latest_error(group),
        "contradiction": "FAILED" in statuses and bool(statuses & ARRIVED),
    }


def speaking(tries: list[Json]) -> Json:
    """Of those that arrived the furthest, and of those the last; of none that arrived the last."""
    arrived = [one for one in tries if one["status"] in ARRIVED]
    furthest = max((STATUSES.index(one["status"]) for one in arrived), default=0)
    return [one for one in arrived if STATUSES.index(one["status"]) == furthest][-1] if arrived else tries[-1]


def count(expected: Expected, at: int, group: Group, what: Counter[str]) -> None:
    """Add what was counted at a time, and of a group, to every cell that it belongs to."""
    minute, provider = min(max(at // 60_000, 0), 2**32 - 1), group[2]
    for window, length in WINDOWS.items():
        for level, part in (("w", ()), ("p", (provider,)), ("f", group)):
            more = Counter(what)
            if level == "w":
                for family in ("created", "sent"):
                    more[f"{family}.by {provider}"] += sum(what[f"{family}.{status}"] for status in STATUSES)
            cell = expected.cells.setdefault((window, level, minute - minute % length, part), Counter())
            cell.update(more)


def standing(family: str, record: Json) -> Counter[str]:
    """What a record counts for among those created, or sent, in the same minute."""
    report = record["deliveryReport"]
    statuses = {entry["status"] for entry in record["statusHistory"]}
    what = Counter({f"{family}.{record['currentStatus']}": 1})
    if statuses & ARRIVED:
        what[f"{family}.arrived {'final' if record['currentStatus'] in FINAL else 'open'}"] = 1
    if "sentAt" in report and "deliveredAt" in report and "deliveredAtInferred" not in report:
        took = to_ms(report["deliveredAt"]) - to_ms(report["sentAt"])
        if took < 0 or not statuses & ARRIVED:
            what[f"{family}.skewed"] = 1
        else:
            counted = min(took, LONGEST_MS)
            what.update({f"{family}.ms": counted, f"{family}.within {bound_of(counted)}": 1})
    if record["currentStatus"] == "FAILED":
        what[f"{family}.for {report.get('error', {}).get('code', 'unknown')}"] += 1
    return what


def bounds() -> Iterator[int]:
    """Of a histogram's buckets: each at most 2 percent above the last, and what people ask for."""
    bound = 0
    while True:
        yield bound
        if bound == LONGEST_MS:
            return
        bound = min(max(bound + 1, bound * 102 // 100), *(m for m in (*LATE_MS, LONGEST_MS) if m > bound))


BOUNDS = tuple(bounds())


def bound_of(ms: int) -> int:
    """The longest duration that counts as this one does."""
    return next((bound for bound in BOUNDS if ms <= bound), LONGEST_MS)


def shown_entry(message_id: str, entry: Json) -> Json:
    shown = {name: entry[name] for name in ("status", "provider", "attempt", "source", "timeSource")}
    shown |= {"timestamp": iso(entry["at"]), "receivedAt": iso(entry["receipt"])}
    shown["details"] = {"error": entry["error"]} if entry["error"] else None
    return present({"id": shown_id(message_id, entry)} | shown)


def shown_id(message_id: str, entry: Json) -> str:
    if entry["id"] is not None:
        return str(entry["id"])
    said = [entry["status"], entry["provider"], entry["attempt"], entry["given"]]
    identity = [message_id, *said, (entry["error"] or {}).get("code"), entry["source"]]
    return blake2b(compact(identity).encode(), digest_size=8).hexdigest()


def latest_error(entries: list[Json]) -> Json | None:
    errors = [e for e in entries if e["error"]]
    return max(errors, key=error_rank)["error"] if errors else None


def error_rank(entry: Json) -> tuple[int, str, str, str]:
    error = entry["error"]
    details = compact(error["details"]) if "details" in error else ""
    return entry["at"], error["code"], error["message"], details
