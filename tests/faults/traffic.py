"""Hostile traffic from a seed: late, doubled, out of order, contradictory, malformed, misplaced."""

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from aiokafka.partitioner import murmur2

from .inputs import Json, iso

PROVIDERS = ("acme", "bravo", "charlie", "한국통신")
CHANNELS = ("sms", "lms", "alimtalk", "rcs", "email")
PATHS = (
    ("SENDING", "SENT", "DELIVERED"),
    ("SENT", "DELIVERED", "READ", "CLICKED"),
    ("SENDING", "SENT", "FAILED"),
    ("SENDING", "SENT", "FAILED", "SENT", "DELIVERED"),
    ("CANCELLED",),
    ("SENT", "EXPIRED", "DELIVERED"),
    ("DELIVERED", "FAILED"),
    ("QUEUED", "FAILED", "QUEUED", "FAILED", "SENT"),
    ("CLICKED",),
)
SECRET = "whsec_" + "A" * 32
HUGE_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class Sent:
    """A record to produce; `at` is its Kafka timestamp, in ms."""

    stream: str
    partition: int
    at: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def traffic(seed: int, messages: int, partitions: int, start_ms: int, huge: bool = False) -> list[Sent]:
    """Return the records of so many messages, in the order of their timestamps from `start_ms` on."""
    rng = random.Random(seed)
    records: list[Sent] = []
    for n in range(messages):
        lifecycle = Lifecycle(rng, f"m-{seed}-{n:06d}", partitions, start_ms + n * 10)
        records.extend(lifecycle.records())
        if rng.random() < 0.06:
            records.append(lifecycle.send("statuses", lifecycle.now, rng.choice(MALFORMED_STATUSES)))
        if rng.random() < 0.03:
            records.append(lifecycle.send("requests", lifecycle.now, rng.choice(MALFORMED_REQUESTS)))
    if huge:
        half = records[len(records) // 2]
        # noise, so that no compression makes it small on its way
        records.append(replace(half, stream="statuses", value=rng.randbytes(HUGE_BYTES)))
    return sorted(records, key=lambda record: record.at)


class Lifecycle:
    """What is said about one message."""

    def __init__(self, rng: random.Random, message_id: str, partitions: int, start_ms: int) -> None:
        self.rng = rng
        self.id = message_id
        self.partitions = partitions
        self.now = start_ms
        self.provider = rng.choice(PROVIDERS)
        self.ids = rng.random() < 0.3  # providers either number their callbacks or do not

    def records(self) -> Iterator[Sent]:
        rng = self.rng
        if rng.random() < 0.8:
            yield from self.tracks()
        if rng.random() < 0.1:  # among the callbacks, or before them
            yield from self.ends()
        path = list(rng.choice(PATHS))
        if rng.random() < 0.25:
            rng.shuffle(path)
        attempt = rng.choice((None, 1))
        for n, status in enumerate(path):
            self.now += rng.randrange(1, 400)
            said = self.status(status, n, attempt)
            late = rng.choice((0, 0, 0, rng.randrange(5_000)))
            yield self.send("statuses", self.now + late, said)
            while rng.random() < 0.2:
                yield self.send("statuses", self.now + late + rng.randrange(2_000), said)
            if status == "FAILED" and rng.random() < 0.8:  # another one tries, numbered or not
                attempt = attempt and attempt + 1
                self.provider = rng.choice(PROVIDERS)

    def tracks(self) -> Iterator[Sent]:
        rng = self.rng
        said = {
            "type": "track",
            "messageId": self.id,
            "phoneNumber": f"+8210{rng.randrange(10**8):08d}",
            "templateId": rng.choice(("otp", "notice")),
            "provider": self.provider,
            "createdAt": iso(self.now),
            # tried again and again, and never let out of the worker
            "webhooks": [{"url": "https://127.0.0.1:9/hook", "secret": SECRET, "headers": {"a": "b"}}],
            "metadata": {"campaign": rng.choice("abc"), "tags": ["x", {"y": rng.randrange(3)}]},
        }
        for name, value in (
            ("channel", rng.choice(CHANNELS)),
            ("tenant", "t-1"),
            ("initialStatus", "SENDING"),
        ):
            if rng.random() < 0.3:
                said[name] = value
        if rng.random() < 0.3:
            said["maxTrackingDuration"] = 1_000 * rng.randrange(1, 100)
        if rng.random() < 0.2:
            said["scheduledAt"] = iso(self.now + rng.randrange(-60_000, 120_000))
        if rng.random() < 0.1:
            del said["createdAt"]
        yield self.send("requests", self.now + rng.choice((0, 0, 300)), said)
        while rng.random() < 0.15:
            yield self.send("requests", self.now + rng.randrange(3_000), self.again(said))

    def ends(self) -> Iterator[Sent]:
        rng = self.rng
        said: Json = {"type": rng.choice(("stop", "erase")), "messageId": self.id}
        if said["type"] == "stop" and rng.random() < 0.5:
            said["reason"] = "asked by the customer"
        at = self.now + rng.randrange(1_500)
        yield self.send("requests", at, said)
        if rng.random() < 0.3:
            yield self.send(
                "requests", at + rng.randrange(1_000), said | {"type": rng.choice(("stop", "erase"))}
            )

    def again(self, said: Json) -> Json:
        """The same request once more, or one that says something else of the same message."""
        rng = self.rng
        earlier = {"createdAt": iso(self.now - rng.randrange(1, 5_000))}
        metadata = {"metadata": {"campaign": rng.choice("abc"), "more": None, "후속": rng.random() < 0.5}}
        webhook = {"url": "http://[::1]:8080/?a=b", "events": ["message.*"], "timeout": 5, "retries": 0}
        webhooks = {"webhooks": rng.choice(([], [webhook], [webhook, {"url": "https://10.0.0.1"}]))}
        further = {"initialStatus": rng.choice(("SENT", "QUEUED", "DELIVERED"))}
        return said | rng.choice((earlier, metadata, further, webhooks, {}))

    def status(self, status: str, n: int, attempt: int | None) -> Json:
        rng = self.rng
        said: Json = {"messageId": self.id, "status": status, "unknownField": [1, {"a": "b"}]}
        ways = (iso(self.now), self.now, self.now / 1000, self.now // 1000, self.abroad(), None, self.odd())
        said["timestamp"] = rng.choices(ways, (10, 5, 5, 3, 2, 3, 3))[0]
        if rng.random() < 0.04:  # no clock is to be believed
            said["timestamp"] = rng.choice(
                ("1999-12-31T23:59:59.999Z", "2999-01-01T00:00:00Z", 0, self.now + 90_000_000, 10**30)
            )
        if rng.random() < 0.85:
            said["provider"] = rng.choice((self.provider, self.provider, self.provider.upper()))
        if attempt:
            said["attempt"] = attempt
        if self.ids:
            said["id"] = f"cb-{n}"
        if status == "FAILED":
            details = {"raw": rng.randrange(9)} if rng.random() < 0.3 else None
            number = rng.randrange(5)
            said["error"] = rng.choice(
                ({"code": f"E{number}", "message": "no route", "details": details}, {"code": number})
            )
        optional = {
            "sentAt": iso(self.now - 50),
            "deliveredAt": self.now - 5,
            "failedAt": "1990-01-01T00:00:00Z",
            "metadata": {"cost": rng.randrange(4), "campaign": rng.choice("xyz")},
            "source": rng.choice(("manual", "webhook", "system")),
            "channel": rng.choice((*CHANNELS, "SMS", "Email")),
            "tenant": rng.choice(("t-1", "t-2")),
            "phoneNumber": f"+8210{rng.randrange(10**8):08d}",
            "templateId": "guess",
            "providerMessageId": f"p-{rng.randrange(1000)}",
        }
        return said | {name: value for name, value in optional.items() if rng.random() < 0.1}

    def odd(self) -> str | int:
        """The time in one of the rarer ways to write it."""
        seconds = str(iso(self.now))[:19]
        return self.rng.choice(
            (
                *(self.now * 1_000, self.now * 1_000_000 + 500_000, str(self.now), str(self.now / 1000)),
                *(f"{seconds.replace('T', ' ')}+00", f"{seconds[:17]}60Z", f"{seconds}.123456789z"),
            )
        )

    def abroad(self) -> str:
        return str(iso(self.now + 9 * 3_600_000)).replace("Z", "+09:00")

    def send(self, stream: str, at: int, said: Json | bytes | None) -> Sent:
        """Place a record as one of several producers would: not all of them know murmur2, or the key."""
        rng = self.rng
        value = json.dumps(said, ensure_ascii=rng.random() < 0.5).encode() if isinstance(said, dict) else said
        key: bytes | None = self.id.encode()
        partition = (murmur2(key) & 0x7FFFFFFF) % self.partitions
        headers = (("trace", b"t-%d" % rng.randrange(100)),) if rng.random() < 0.2 else ()
        way = rng.random()
        if way < 0.06:  # librdkafka's default, consistent_random
            partition = zlib.crc32(key) % self.partitions
        elif way < 0.08:
            key, partition = None, rng.randrange(self.partitions)
        elif way < 0.10:
            key = b"+8210" + b"%08d" % rng.randrange(10**8)
            partition = rng.choice((partition, zlib.crc32(key) % self.partitions))
        return Sent(stream, partition, at, key, value, headers)


def _status(**fields: object) -> Json:
    return {"messageId": "bad", "status": "SENT", **fields}


def _track(**fields: object) -> Json:
    said = {"type": "track", "messageId": "bad", "phoneNumber": "1", "templateId": "t", "provider": "acme"}
    return said | fields


MALFORMED: tuple[Json | bytes | None, ...] = (
    None,
    b"",
    b"not json",
    b"\xff\xfe{}",
    b'{"messageId": "bad"',
    b'{"messageId": "bad", "status": "SENT", "deep": ' + b"[" * 5_000,
    b'"text"',
    b"x" * 65_537,
)
MALFORMED_STATUSES = (
    *MALFORMED,
    {"status": "SENT"},
    {"messageId": "bad"},
    _status(messageId=7),
    _status(messageId=""),
    _status(messageId="x" * 257),
    _status(status="DELIVRD"),
    _status(status=3),
    _status(timestamp="yesterday"),
    _status(timestamp="2026-11-23T09:00:00"),
    _status(timestamp=[]),
    _status(timestamp=True),
    _status(attempt=0),
    _status(attempt="1"),
    _status(provider="p" * 257),
    _status(source="oracle"),
    _status(error="E1"),
    _status(error={"message": "no code"}),
    _status(error={"code": True}),
    _status(error={"code": "E", "message": 5}),
    _status(metadata=[1]),
    _status(sentAt="soon"),
)
MALFORMED_REQUESTS = (
    *MALFORMED,
    {"type": "stop", "messageId": "bad"},
    {"type": "erase", "messageId": "bad"},
    {"messageId": "bad"},
    _track(type=1),
    {"type": "track", "messageId": "bad", "phoneNumber": "1", "templateId": "t"},
    _track(phoneNumber=1),
    _track(initialStatus="NEW"),
    _track(createdAt="2026-11-23 09:00"),
    _track(maxTrackingDuration=0),
    _track(webhooks={}),
    _track(webhooks=[{"url": "https://example.com"}] * 11),
    _track(webhooks=["https://example.com"]),
    _track(webhooks=[{}]),
    _track(webhooks=[{"url": "ftp://example.com"}]),
    _track(webhooks=[{"url": "https://user:word@example.com"}]),
    _track(webhooks=[{"url": "https://example.com", "timeout": 0}]),
    _track(webhooks=[{"url": "https://example.com", "retries": 21}]),
    _track(webhooks=[{"url": "https://example.com/a b"}]),
    _track(webhooks=[{"url": "https://example.com", "secret": "v1,whsec_" + "A" * 32}]),
    _track(webhooks=[{"url": "https://example.com", "secret": "too short"}]),
    _track(webhooks=[{"url": "https://example.com", "events": ["message.Delivered"]}]),
    _track(webhooks=[{"url": "https://example.com", "headers": {"X-Shop": "가게"}}]),
    _track(provider="p" * 257),
)
