"""Simulated provider traffic: what several providers say about many messages, faults included.

Pure and seeded: the same `Traffic` gives the same records, byte for byte. A `Tally` counts along what a
tracker must make of them (how many messages, in which status, how many records repeated, forwarded,
dead-lettered), so that a run can be checked against it.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

Stream: TypeAlias = Literal["requests", "statuses"]
Arrangement: TypeAlias = Literal["scattered", "adjacent"]
Fields: TypeAlias = dict[str, Any]

DEFAULT_SEED = 7
PRECEDENCE = (
    "QUEUED",
    "SENDING",
    "SENT",
    "CANCELLED",
    "EXPIRED",
    "FAILED",
    "DELIVERED",
    "READ",
    "CLICKED",
)
"""The law's order, written down again on purpose: what is checked must not be the source of the check."""

ROUTES: tuple[tuple[str, str], ...] = (
    ("solapi", "alimtalk"),
    ("solapi", "sms"),
    ("aligo", "sms"),
    ("aligo", "alimtalk"),
    ("nhn", "rcs"),
    ("nhn", "sms"),
    ("twilio", "sms"),
    ("twilio", "whatsapp"),
    ("meta", "whatsapp"),
    ("sendgrid", "email"),
)
"""Provider and channel; each message takes one of these."""

TEMPLATES = 20
ROUTES_OF = [
    [route for route in ROUTES if route[1] == ROUTES[template % len(ROUTES)][1]]
    for template in range(TEMPLATES)
]
"""By template: it is written for one channel, and any of that channel's providers may send it."""

READABLE = frozenset({"alimtalk", "rcs", "whatsapp", "email"})
"""Channels whose providers report that a message was read."""

ERRORS: tuple[tuple[str, str], ...] = (
    ("30003", "Unreachable destination handset"),
    ("30005", "Unknown destination handset"),
    ("3018", "Recipient has blocked the sender"),
    ("E900", "Temporary failure of the carrier"),
)
CAMPAIGNS = ("spring-sale", "one-time-code", "order-shipped", "appointment", "newsletter")
OVERSIZE_BYTES = 70_000


class Sample(NamedTuple):
    """One record to produce."""

    stream: Stream
    key: bytes | None
    value: bytes
    at_ms: int
    """When it arrives; its Kafka timestamp."""
    shift: int
    """How many partitions past its key's own it is laid (0: where it belongs)."""


@dataclass(frozen=True)
class Faults:
    """How often providers misbehave, each a ratio: of messages, or (where it says so) of records."""

    late_sent: float = 0.03
    out_of_order: float = 0.03
    contradictory: float = 0.01
    failover: float = 0.015
    callback_first: float = 0.02
    untracked: float = 0.01
    silent: float = 0.02
    no_time: float = 0.01
    repeated: float = 0.03  # of records
    malformed: float = 0.003  # of messages: that many records more, of no message
    misplaced: float = 0.003  # of records


NO_FAULTS = Faults(**dict.fromkeys(Faults.__dataclass_fields__, 0.0))


@dataclass
class Tally:
    """What was produced, and what a tracker must have made of it."""

    messages: int = 0
    requests: int = 0
    statuses: int = 0
    repeated: int = 0
    forwarded: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    sample_id: str | None = None
    """A message with a long history, to be shown."""

    @property
    def records(self) -> int:
        """Records produced to both topics."""
        return self.requests + self.statuses

    @property
    def consumed(self) -> int:
        """Records a tracker consumes: a forwarded one comes twice."""
        return self.records + self.forwarded


@dataclass(frozen=True)
class Traffic:
    """A stretch of traffic: messages created at a steady rate from `start_ms` on."""

    messages: int | None
    """How many; None: without end."""
    messages_per_second: float = 200.0
    start_ms: int = 1_790_000_000_000
    seed: int = DEFAULT_SEED
    arrangement: Arrangement = "scattered"
    mean_delivery_s: float = 4.0
    """Mean time from sent to delivered; reads and clicks take a few times as long."""
    tracked: bool = True
    """Whether messages have track requests; otherwise the first callback says where the message goes."""
    faults: Faults = Faults()

    def message_id(self, number: int) -> str:
        """The id of one of its messages."""
        return f"msg-{self.seed}-{number:09d}"

    def ending_now(self) -> Traffic:
        """The same traffic, moved so that it has just ended: brokers refuse records of the future."""
        if self.messages is None:
            raise ValueError("traffic without end does not end now")
        tail_s = self.mean_delivery_s * 20
        span_ms = int((self.messages / self.messages_per_second + tail_s) * 1000)
        return replace(self, start_ms=time.time_ns() // 1_000_000 - span_ms)


def produced(traffic: Traffic) -> Tally:
    """Say what `traffic` holds, by going through it."""
    tally = Tally()
    for _ in generate(traffic, tally):
        pass
    return tally


def generate(traffic: Traffic, tally: Tally) -> Iterator[Sample]:
    """Yield the records of `traffic` in the order of their arrival, counting each message in `tally`.

    A message is counted as a whole, before its first record is yielded; at the end the tally is complete.
    """
    arrange = _scattered if traffic.arrangement == "scattered" else _adjacent
    return arrange(traffic, _Messages(traffic, tally))


def _adjacent(traffic: Traffic, messages: _Messages) -> Iterator[Sample]:
    """All records of a message, then those of the next one."""
    for _, samples in messages:
        samples.sort(key=_arrival)
        yield from samples


def _scattered(traffic: Traffic, messages: _Messages) -> Iterator[Sample]:
    """By time of arrival; a message's records lie as far apart as its provider took."""
    heap: list[tuple[int, int, Sample]] = []
    push, pop = heapq.heappush, heapq.heappop
    order = 0
    for created_ms, samples in messages:
        while heap and heap[0][0] < created_ms:
            yield pop(heap)[2]
        for sample in samples:
            order += 1  # equal times: as generated, and samples are never compared
            push(heap, (sample[3], order, sample))
    while heap:
        yield pop(heap)[2]


def _arrival(sample: Sample) -> int:
    return sample.at_ms


class _Messages:
    """The messages of a stretch of traffic, each as its creation time and its records (in no order)."""

    def __init__(self, traffic: Traffic, tally: Tally) -> None:
        self.traffic = traffic
        self.tally = tally
        self.random = Random(traffic.seed)
        self.encode = msgspec.json.Encoder().encode
        self.iso = _IsoClock()

    def __iter__(self) -> Iterator[tuple[int, list[Sample]]]:
        traffic = self.traffic
        step_ms = 1000.0 / traffic.messages_per_second
        number = 0
        while traffic.messages is None or number < traffic.messages:
            created_ms = traffic.start_ms + int(number * step_ms)
            yield created_ms, self.message(number, created_ms)
            number += 1

    def message(self, number: int, created_ms: int) -> list[Sample]:
        """All records of one message, and now and then a malformed one of no message at all."""
        chance, faults, tally = self.random.random, self.traffic.faults, self.tally
        routes = ROUTES_OF[number % TEMPLATES]
        route = routes[int(chance() * len(routes))]
        story = _tell(self.random, faults, route[1], created_ms, self.traffic.mean_delivery_s)
        message = _Message(self, number, created_ms, route, chance() >= faults.no_time)
        untracked = not self.traffic.tracked or chance() < faults.untracked
        samples = [message.callback(step) for step in story]
        if untracked:
            tally.statuses += len(samples)
        else:
            samples.append(message.track(early=chance() >= faults.callback_first))
            tally.requests += 1
            tally.statuses += len(samples) - 1
        tally.messages += 1
        current = _end(story, route[1])
        tally.by_status[current] += 1
        if tally.sample_id is None and current == "CLICKED" and not untracked:
            tally.sample_id = message.message_id
        self.disturb(samples, message)
        return samples

    def disturb(self, samples: list[Sample], message: _Message) -> None:
        """Repeat, misplace and spoil some records."""
        chance, faults = self.random.random, self.traffic.faults
        if faults.repeated:
            for sample in tuple(samples):
                if chance() < faults.repeated:
                    samples.append(sample._replace(at_ms=sample.at_ms + int(chance() * 20_000)))
                    self.count(sample)
                    self.tally.repeated += 1
        if faults.misplaced:
            for place, sample in enumerate(samples):
                if chance() < faults.misplaced:
                    samples[place] = _misplace(sample, chance())
                    self.tally.forwarded += 1
        if chance() < faults.malformed:
            code, spoil = SPOILERS[int(chance() * len(SPOILERS))]
            value = spoil(self.encode(message.fields("SENT", message.created_ms)))
            sample = Sample("statuses", b"spoilt-%d" % message.number, value, message.created_ms, 0)
            samples.append(sample)
            self.count(sample)
            self.tally.dead_letters[code] += 1

    def count(self, sample: Sample) -> None:
        if sample.stream == "requests":
            self.tally.requests += 1
        else:
            self.tally.statuses += 1


_RANK: Mapping[str, int] = {status: rank for rank, status in enumerate(PRECEDENCE)}


class _Step(NamedTuple):
    """One thing a provider says: what happened, when, when it says so, and in which attempt."""

    status: str
    at_ms: int
    arrival_ms: int
    attempt: int = 1


def _tell(
    random: Random, faults: Faults, channel: str, created_ms: int, mean_delivery_s: float
) -> list[_Step]:
    """The story of one message as its provider tells it: two to five callbacks."""
    chance = random.random
    sent_ms = created_ms + 50 + int(chance() * 600)
    queued = _Step("QUEUED", created_ms, created_ms + 10)
    sent = _Step("SENT", sent_ms, sent_ms + 20)
    if chance() < faults.silent:
        return [queued, sent]
    final_ms = sent_ms + 150 + int(random.expovariate(1.0) * mean_delivery_s * 1000)
    arrival_ms = final_ms + 20
    if chance() < faults.out_of_order:
        queued = queued._replace(arrival_ms=arrival_ms + int(chance() * 1000))
    if chance() < faults.late_sent:
        sent = sent._replace(arrival_ms=arrival_ms + int(chance() * 5000))
    if chance() < 0.05:
        return [queued, sent, _Step("FAILED", final_ms, arrival_ms)]
    return [queued, sent, *_delivered(chance, faults, channel, final_ms, mean_delivery_s)]


def _delivered(
    chance: Callable[[], float], faults: Faults, channel: str, final_ms: int, mean_delivery_s: float
) -> list[_Step]:
    """How the story ends when the message arrives: plainly, contradicted, by another provider, read."""
    arrival_ms = final_ms + 20
    delivered = _Step("DELIVERED", final_ms, arrival_ms)
    fate = chance()
    if fate < faults.contradictory:
        return [delivered, _Step("FAILED", final_ms + 400, arrival_ms + 700)]
    if fate < faults.contradictory + faults.failover:
        return [
            _Step("FAILED", final_ms, arrival_ms),
            _Step("SENT", final_ms + 300, arrival_ms + 300, 2),
            _Step("DELIVERED", final_ms + 1500, arrival_ms + 1500, 2),
        ]
    story = [delivered]
    read_ms = final_ms + int(chance() * mean_delivery_s * 4000)
    if channel in READABLE and chance() < 0.3:
        story.append(_Step("READ", read_ms, read_ms + 30))
    if chance() < 0.1:
        story.append(_Step("CLICKED", read_ms + 2000, read_ms + 2030))
    return story


def _end(story: list[_Step], channel: str) -> str:
    """The status that the story comes to, which is that of its last attempt.

    E-mail that was delivered has failed when it bounces; on other channels it stays delivered.
    """
    last = max(step.attempt for step in story)
    statuses = {step.status for step in story if step.attempt == last}
    if channel == "email" and {"FAILED", "DELIVERED"} <= statuses:
        return "FAILED"
    return max(statuses, key=_RANK.__getitem__)


class _Message:
    """One message; writes down what is said about it."""

    def __init__(
        self, messages: _Messages, number: int, created_ms: int, route: tuple[str, str], timed: bool
    ) -> None:
        self.encode = messages.encode
        self.iso = messages.iso
        self.tracked = messages.traffic.tracked
        self.number = number
        self.created_ms = created_ms
        self.timed = timed
        self.message_id = messages.traffic.message_id(number)
        self.key = self.message_id.encode()
        self.provider, self.channel = route
        self.phone_number = f"+8210{number * 7919 % 100_000_000:08d}"
        self.template_id = f"tpl-{number % TEMPLATES:02d}"

    def track(self, *, early: bool) -> Sample:
        """The request that this message be tracked; `early` is the normal case, before any callback."""
        request = {
            "type": "track",
            "messageId": self.message_id,
            "phoneNumber": self.phone_number,
            "templateId": self.template_id,
            "provider": self.provider,
            "channel": self.channel,
            "tenant": f"tenant-{self.number % TEMPLATES % 7}",  # a template is one tenant's
            "createdAt": self.iso(self.created_ms),
            "metadata": {"campaign": CAMPAIGNS[self.number % 5], "batch": self.number // 1000},
        }
        at_ms = self.created_ms if early else self.created_ms + 900
        return Sample("requests", self.key, self.encode(request), at_ms, 0)

    def callback(self, step: _Step) -> Sample:
        fields = self.fields(step.status, step.at_ms, step.attempt)
        if not self.tracked and step.status == "QUEUED":
            fields["phoneNumber"] = self.phone_number
            fields["templateId"] = self.template_id
        return Sample("statuses", self.key, self.encode(fields), step.arrival_ms, 0)

    def fields(self, status: str, at_ms: int, attempt: int = 1) -> Fields:
        at = self.iso(at_ms)
        provider = self.provider if attempt == 1 else "fallback"
        fields: Fields = {
            "messageId": self.message_id,
            "status": status,
            "timestamp": at,
            "provider": provider,
            "providerMessageId": f"{provider}-{self.number * 2654435761 % 4294967296:08x}",
            "channel": self.channel,
            "source": "webhook",
        }
        if attempt > 1:
            fields["attempt"] = attempt
        if not self.timed:
            del fields["timestamp"]
        elif status in _EXPLICIT:
            fields[_EXPLICIT[status]] = at
        if status == "FAILED":
            code, text = ERRORS[self.number % len(ERRORS)]
            fields["error"] = {"code": code, "message": text}
        elif status == "SENT":
            fields["metadata"] = {"region": "kr-1", "segments": 1 + self.number % 3}
        return fields


_EXPLICIT: Mapping[str, str] = {
    "SENT": "sentAt",
    "DELIVERED": "deliveredAt",
    "READ": "readAt",
    "CLICKED": "clickedAt",
    "FAILED": "failedAt",
}


class _IsoClock:
    """Writes epoch milliseconds as ISO 8601; formats each second once, since traffic stays within a few."""

    def __init__(self) -> None:
        self.seconds: dict[int, str] = {}

    def __call__(self, at_ms: int) -> str:
        second, millis = divmod(at_ms, 1000)
        text = self.seconds.get(second)
        if text is None:
            if len(self.seconds) > 100_000:
                self.seconds.clear()
            text = self.seconds[second] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{text}.{millis:03d}Z"


def _misplace(sample: Sample, chance: float) -> Sample:
    """Lay a record elsewhere: without a key, under another one, or where another partitioner would lay it."""
    if chance < 0.34:
        return sample._replace(key=None, shift=int(chance * 1000))
    if chance < 0.67:
        return sample._replace(key=b"order-%d" % int(chance * 1_000_000))
    return sample._replace(shift=1)


SPOILERS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("not-json", lambda value: value[:-20]),
    ("not-json", lambda value: b"\xff\xfe" + value),
    ("empty", lambda value: b""),
    ("wrong-type", lambda value: value.replace(b'"source":"webhook"', b'"source":17')),
    ("unknown-status", lambda value: value.replace(b'"status":"SENT"', b'"status":"LOST"')),
    ("missing-field", lambda value: value.replace(b'"status":"SENT",', b"")),
    ("too-large", lambda value: value[:-1] + b',"text":"' + b"x" * OVERSIZE_BYTES + b'"}'),
)
"""Dead-letter code, and how a good record is spoilt so that it deserves it."""
