"""Records that nobody should send, of more than 40 kinds, and some that no client lets one send."""

import asyncio
import json
import random
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy as Builder

from tests.faults.inputs import Json
from tests.faults.logs import Names
from tests.faults.traffic import MALFORMED, MALFORMED_REQUESTS, MALFORMED_STATUSES

Headers = list[tuple[str, bytes | None]]
#: Stream, partition, key, value, headers.
Record = tuple[str, int, bytes | None, bytes | None, Headers | None]


class Poison(NamedTuple):
    """One kind."""

    name: str
    stream: str
    value: bytes | None
    key: bytes | None = b"bad"
    headers: Headers | None = None


def _status(**fields: object) -> bytes:
    return json.dumps({"messageId": "bad", "status": "SENT", **fields}).encode()


def _track(**fields: object) -> bytes:
    said = {"type": "track", "messageId": "bad", "phoneNumber": "1", "templateId": "t", "provider": "acme"}
    return json.dumps(said | fields).encode()


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


#: What a reader of JSON, a store or a codec may stumble over although it is no worse than odd.
ODD = (
    Poison("an integer of 31 digits", "statuses", _status(metadata={"n": 10**30})),
    Poison("a negative one", "statuses", _status(metadata={"n": -(10**30)})),
    Poison("an integer of 400 digits", "statuses", _status(metadata={"n": 10**400})),
    Poison("an integer of 2^63", "statuses", _status(metadata={"n": 2**63})),
    Poison("an integer of 2^64", "statuses", _status(metadata={"n": 2**64})),
    Poison("a huge attempt", "statuses", _status(attempt=10**30)),
    Poison("a huge timestamp", "statuses", _status(timestamp=10**30)),
    Poison("a timestamp of 1e300", "statuses", _status(timestamp=1e300)),
    Poison("a date that is none", "statuses", _status(timestamp="2026-02-30T00:00:00Z")),
    Poison("the year 0", "statuses", _status(timestamp="0000-01-01T00:00:00Z")),
    Poison(
        "huge details",
        "statuses",
        _status(status="FAILED", error={"code": "E", "message": "", "details": 10**30}),
    ),
    Poison("a huge duration", "requests", _track(maxTrackingDuration=10**30)),
    Poison("metadata with an integer of 31 digits", "requests", _track(metadata={"n": 10**30})),
    Poison(
        "a webhook with a huge timeout",
        "requests",
        _track(webhooks=[{"url": "https://a.example", "timeout": 10**30}]),
    ),
    Poison("NaN", "statuses", b'{"messageId": "bad", "status": "SENT", "metadata": {"n": NaN}}'),
    Poison("Infinity", "statuses", b'{"messageId": "bad", "status": "SENT", "metadata": {"n": -Infinity}}'),
    Poison("1e400", "statuses", b'{"messageId": "bad", "status": "SENT", "metadata": {"n": 1e400}}'),
    Poison("a name twice", "statuses", b'{"messageId": "bad", "status": "SENT", "status": "DELIVERED"}'),
    Poison("a byte order mark", "statuses", b'\xef\xbb\xbf{"messageId": "bad", "status": "SENT"}'),
    Poison("UTF-16", "statuses", '{"messageId": "bad", "status": "SENT"}'.encode("utf-16")),
    Poison(
        "a truncated character", "statuses", b'{"messageId": "bad", "status": "SENT", "provider": "\xed\x95"}'
    ),
    Poison(
        "a lone surrogate in text",
        "statuses",
        b'{"messageId": "bad", "status": "SENT", "provider": "\\ud800"}',
    ),
    Poison("a lone surrogate in an id", "statuses", b'{"messageId": "\\ud800", "status": "SENT"}'),
    Poison("NUL in an id", "statuses", b'{"messageId": "b\\u0000d", "status": "SENT"}'),
    Poison("NUL in a provider", "statuses", _status(provider="a\0b")),
    Poison("an id of blanks", "statuses", _status(messageId=" \n\t")),
    Poison("an id of 256 astral characters", "statuses", _status(messageId="\U0001f600" * 256)),
    Poison("metadata 900 deep", "statuses", _status(metadata={"n": _nested(900)})),
    Poison("metadata 100 deep", "statuses", _status(metadata={"n": _nested(100)})),
    Poison("metadata with 5,000 names", "statuses", _status(metadata={f"n{n}": n for n in range(5_000)})),
    Poison("metadata with a name of 60,000", "statuses", _status(metadata={"n" * 60_000: 1})),
    Poison("an empty object", "statuses", b"{}"),
    Poison("null", "statuses", b"null"),
    Poison("a number", "requests", b"7"),
    Poison("blanks", "requests", b" \n "),
    Poison("two objects", "requests", _track() + b"{}"),
    Poison("bytes of zero", "requests", bytes(100)),
    Poison("a type of another case", "requests", _track(type="TRACK")),
    Poison("webhooks that are null", "requests", _track(webhooks=None)),
    Poison(
        "a webhook with a port of 99999", "requests", _track(webhooks=[{"url": "https://a.example:99999/"}])
    ),
    Poison("a webhook with blanks", "requests", _track(webhooks=[{"url": "https://a b.example/ c"}])),
    Poison("no key", "statuses", _status(messageId="keyless"), key=None),
    Poison("an empty key", "statuses", _status(messageId="keyless"), key=b""),
    Poison("a key that is not UTF-8", "statuses", _status(messageId="keyless"), key=b"\xff\xfe"),
    Poison("a key of 10,000 bytes", "statuses", _status(messageId="keyless"), key=b"k" * 10_000),
    Poison("a header without a value", "statuses", _status(), headers=[("h", None)]),
    Poison("a header without a name", "statuses", _status(), headers=[("", b"x")]),
    Poison("1,000 headers", "statuses", b"not json", headers=[("h", b"x" * 20)] * 1_000),
    Poison("headers of a dead letter", "statuses", b"not json", headers=[("tracker-dead-letter-id", b"x")]),
)


def _bytes(said: Json | bytes | None) -> bytes | None:
    return json.dumps(said).encode() if isinstance(said, dict) else said


KINDS = (
    *(Poison(f"malformed {n}", "statuses", _bytes(said)) for n, said in enumerate(MALFORMED_STATUSES)),
    *(
        Poison(f"malformed request {n}", "requests", _bytes(said))
        for n, said in enumerate(MALFORMED_REQUESTS[len(MALFORMED) :])
    ),
    *ODD,
)


def records(rng: random.Random, partitions: int) -> list[Record]:
    """Return one record of each kind, anywhere and in any order."""
    found = [(one.stream, rng.randrange(partitions), one.key, one.value, one.headers) for one in KINDS]
    rng.shuffle(found)
    return found


class Raw(str):
    """A header name that is encoded as bytes that are no UTF-8."""

    def encode(self, *_how: str) -> bytes:  # type: ignore[override]
        return b"\xff\xfe-" + super().encode()


INVALID = Raw("name")


def produce_with_invalid_headers(names: Names, rng: random.Random) -> int:
    """Produce statuses, and one thing that is no status, with a header whose name is not UTF-8."""
    values = [_status(messageId=f"h-{rng.randrange(10**9)}"), b"not json"]
    asyncio.run(_produce(names, values))
    return len(values) * names.partitions


async def _produce(names: Names, values: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=names.bootstrap.split(",")) as producer:
        for partition in range(names.partitions):
            for value in values:
                batch = producer.create_batch()
                # the builder in Python takes any string for a name
                batch._builder = Builder(2, 0, 0, -1, -1, -1, 1 << 20)
                batch._builder.append(0, None, b"bad", value, [(INVALID, b"x")])
                batch._relative_offset = 1
                batch.close()
                sent = await producer.send_batch(batch, names.input("statuses"), partition=partition)
                await sent
