"""Whatever the readers of the inputs accept can be applied, stored and published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.domain.endpoints import Endpoint
from streams.domain.routing import Routing
from streams.engine.transactions import Packer
from tests.agents.flowing import NOON, TABLES, Output, Partition, Record, record, request, status, telling

ENDPOINT = [
    1,
    "https://a.example",
    0,
    0,
    [],
    [None, [], []],
    [["c2VhbGVk", 0, None]],
    None,
    [],
    15_000,
    3,
    10,
]
FIGURES = {"messages": 60, "final": 50, "arrived": 1, "failed": 49, "inTime": 1}
ATTEMPTED = {
    "type": "webhook.attempted",
    "messageId": "m-1",
    "eventId": "statuses-0-0-0",
    "endpointId": "ep_a",
    "number": 1,
    "madeAt": NOON,
    "startedAt": NOON,
    "duration": 5,
    "random": 0.5,
    "status": 500,
    "trouble": None,
    "body": "no",
    "retryAfter": 1_000,
}
TIMES = ["timestamp", "sentAt", "deliveredAt", "readAt", "clickedAt", "failedAt"]
VALUES: dict[str, list[dict[str, Any]]] = {
    "statuses": [
        {
            "messageId": "m-1",
            "status": "SENT",
            "provider": "p",
            "attempt": 1,
            "source": "provider",
            "id": "c-1",
        }
        | dict.fromkeys(TIMES, NOON),
        {
            "messageId": "m-1",
            "status": "FAILED",
            "error": {"code": "E1", "message": "no", "details": {"a": 1}},
            "metadata": {"a": 1},
            "channel": "sms",
            "tenant": "t",
            "phoneNumber": "+821",
            "templateId": "tpl",
        },
    ],
    "requests": [
        {
            "type": "track",
            "messageId": "m-1",
            "phoneNumber": "+821",
            "templateId": "tpl",
            "provider": "p",
            "initialStatus": "QUEUED",
            "metadata": {"a": 1},
            "createdAt": NOON,
            "maxTrackingDuration": 1_000,
            "webhooks": [
                {
                    "url": "https://a.example",
                    "events": ["*"],
                    "timeout": 1_000,
                    "retries": 3,
                    "headers": {"a": "b"},
                }
            ],
        },
        {"type": "stop", "messageId": "m-1", "reason": "why"},
        *({"type": name, "messageId": "m-1"} for name in ("erase", "expire", "purge", "tick")),
        {"type": "judge", "messageId": "p", "figures": FIGURES},
        {"type": "endpoint.register", "messageId": "ep_b", "endpoint": ENDPOINT},
        {
            "type": "endpoint.change",
            "messageId": "ep_a",
            "url": "https://b.example",
            "events": ["*"],
            "tenant": "t",
            "channels": ["sms"],
            "providers": ["p"],
            "headerNames": ["a"],
            "timeoutMs": 1_000,
            "retries": 3,
            "rate": 5,
            "kmsgHeaders": True,
            "state": "paused",
            "reason": "why",
            "secret": "c2VhbGVk",
            "overlapMs": 1_000,
        },
        {"type": "endpoint.heard", "messageId": "ep_a", "verdict": "failed"},
        {"type": "endpoint.heard", "messageId": "ep_a", "verdict": "gone"},
        {"type": "endpoint.remove", "messageId": "ep_a"},
    ],
    "webhooks": [
        ATTEMPTED,
        {"type": "webhook.resend", "messageId": "m-1", "eventId": "statuses-0-0-0", "endpointId": "ep_a"},
        {"type": "webhook.abandon", "messageId": "m-1", "endpointId": "ep_a"},
    ],
}
"""One value of each kind, with all that it may say."""

EDGES = [
    n + by for n in (0, 2**31, 2**32, 2**40, 2**53, 2**62, 2**63, 2**64, 10**30, 10**12) for by in (-1, 0, 1)
]
WHOLE = st.one_of(st.sampled_from([*EDGES, *(-edge for edge in EDGES)]), st.integers(-(10**40), 10**40))
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Cc", "Lo", "So"]), max_size=8),
    st.sampled_from(["\0", "@0", "a\0b", "\ud800", "x" * 255, "x" * 257, "\U0001f600" * 300, "9" * 4_000]),
)
ODD: st.SearchStrategy[Any] = st.one_of(
    WHOLE,
    st.floats(),
    TEXTS,
    st.none(),
    st.booleans(),
    st.lists(WHOLE, max_size=3),
    st.dictionaries(TEXTS, WHOLE, max_size=3),
)
ANY_TIME = st.one_of(
    st.sampled_from([-(2**63), 2**63 - 1, 2**62, -(2**62), 0, -1, NOON, NOON + 10**10]),
    st.integers(-(2**63), 2**63 - 1),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, inner in items:
        yield (*path, name)
        yield from places(inner, (*path, name))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """The value with something else in one place."""
    if not path:
        return by
    copied = value.copy()
    copied[path[0]] = replaced(value[path[0]], path[1:], by)
    return copied


@st.composite
def records(draw: st.DrawFn) -> tuple[str, Record]:
    """A record of one of the inputs, with odd values in up to three places, mostly under its own key."""
    stream = draw(st.sampled_from(sorted(VALUES)))
    value = draw(st.sampled_from(VALUES[stream]))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from([*places(value)]))
        try:
            value = replaced(value, path, draw(WHOLE if draw(st.booleans()) else ODD))
        except (TypeError, LookupError, AttributeError):
            continue  # what was there has been replaced
    message_id = value.get("messageId")
    key = message_id.encode(errors="replace") if isinstance(message_id, str) else b"m-1"
    key = draw(st.sampled_from([key, key, key, key, key, None, b"", b"\xff\0"]))
    return stream, Record(json.dumps(value).encode(), key, draw(ANY_TIME))


def world() -> Partition:
    """A partition in which a message is tracked, and in which one endpoint is told of everything."""
    routing = Routing()
    routing.put("ep_a", Endpoint())
    partition = Partition(tables=TABLES._replace(telling=telling(routing)))
    partition.ask(record("ep_a", type="endpoint.register", endpoint=ENDPOINT))
    partition.ask(request("m-1", webhooks=[{"url": "https://a.example"}]))
    return partition.say(status("SENT"), status("DELIVERED"))


class Producer:
    """Makes batches as aiokafka's producer does."""

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(900_000, 0, is_transactional=True)


def published(topic: str, outputs: list[Output]) -> list[tuple[bytes | None, bytes | None]]:
    """Pack outputs into batches and read these."""
    packer = Packer(Producer())  # type: ignore[arg-type]
    packer.pack({(topic, 0): [(out.key, out.value, out.headers, out.timestamp) for out in outputs]})
    read = []
    for batches in packer._batches.values():
        for batch in batches:
            batch.close()
            found = MemoryRecords(bytes(batch._build())).next_batch()
            assert found is not None
            read += [(one.key, one.value) for one in found]
    return read


def check(partition: Partition) -> None:
    """All that is stored can be read and is stored alike again, and all that is emitted can be published."""
    tables = partition.tables
    webhooks, counting = tables.telling.tables, tables.counting
    for table in (
        tables.deliveries,
        tables.endpoints,
        tables.provider_health,
        counting.period_stats,
        counting.pending_stats,
        *webhooks,
    ):
        for stored in partition.stored.get(table.name, {}).values():
            assert table.format.encode(table.format.decode(stored)) == stored
    for topic, outputs in partition.outputs.items():
        read = published(topic, outputs)
        assert read == [(out.key, out.value) for out in outputs]


@settings(max_examples=500, deadline=None)
@given(st.lists(records(), min_size=1, max_size=6))
def test_whatever_is_accepted_can_be_applied_stored_and_published(said: list[tuple[str, Record]]) -> None:
    """Integers of forty digits, odd texts, any timestamp, any key: an input never stops a worker."""
    partition = world()
    for stream, one in said:
        partition._apply(stream, [one])
        check(partition)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(VALUES)), st.binary(max_size=200), st.none() | st.binary(max_size=20), ANY_TIME)
@example("requests", b"\xff", None, 0)
def test_whatever_bytes_come_they_are_applied_or_buried(
    stream: str, value: bytes, key: bytes | None, timestamp: int
) -> None:
    """A record need not be JSON, nor have a key."""
    partition = world()
    partition._apply(stream, [Record(value, key, timestamp)])
    check(partition)


def with_number(stream: str, number: int, path: tuple[Any, ...], value: Any) -> Record:
    changed = replaced(VALUES[stream][number], path, value)
    return Record(json.dumps(changed).encode(), changed["messageId"].encode(), NOON)


def whole_numbers() -> Iterator[tuple[str, int, tuple[Any, ...]]]:
    """Where whole numbers stand: the input, which of its values, and the place in that."""
    for stream, values in VALUES.items():
        for number, value in enumerate(values):
            for path in places(value):
                if type(reduce(lambda inner, name: inner[name], path, value)) is int:
                    yield stream, number, path


@pytest.mark.parametrize(("stream", "number", "path"), [*whole_numbers()])
@pytest.mark.parametrize("value", [10**30, -(10**30), 2**63, 2**64 - 1, -(2**63), 2**63 - 1])
def test_each_whole_number_has_bounds(stream: str, number: int, path: tuple[Any, ...], value: int) -> None:
    """Of each kind of record and in each place: it is applied, or it is a dead letter."""
    partition = world()
    partition._apply(stream, [with_number(stream, number, path, value)])
    check(partition)


@pytest.mark.parametrize("name", ["", "@0", "a\0b", "x" * 257])
def test_no_endpoint_is_registered_under_a_name_that_keys_cannot_hold(name: str) -> None:
    """A NUL ends the name in the keys of queues; with an at sign begin those that messages name."""
    partition = Partition().ask(record(name, type="endpoint.register", endpoint=ENDPOINT))

    assert partition.counts == {"dead-lettered": 1}
