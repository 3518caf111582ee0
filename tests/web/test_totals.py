"""Statistics of all messages, added up over the partitions of all workers."""

from typing import Any

import msgspec
import pytest
from aiohttp import web

from streams.domain.statistics import Cell, Held
from streams.domain.times import iso
from streams.web.counting import StatsPart

from .workers import NOBODY, Data, Group

T0 = 1_700_000_000_000


def fill(data: Data) -> None:
    for number in range(60):
        name, provider = f"m-{number}", f"p-{number % 3}"
        data.say(name, "SENT", T0 + number, provider)
        if number % 2:
            data.say(name, "DELIVERED" if number % 5 else "FAILED", T0 + number + 1000, provider)


async def test_every_worker_gives_the_same_totals(group: Group) -> None:
    """However the partitions are shared out, each message counts once."""
    workers = await group.start([[0, 1], [2, 3], [4, 5]])
    fill(group.data)
    replies = [await group.get(worker, "/v1/stats") for worker in workers]
    group.assign([range(6), [], []])
    alone = await group.get(workers[0], "/v1/stats")

    assert {reply.body for reply in replies} == {alone.body}
    said = alone.json
    assert said["totalMessages"] == 60
    assert [said["byStatus"][status] for status in ("SENT", "DELIVERED", "FAILED")] == [30, 24, 6]
    assert said["byProvider"] == {"p-0": 20, "p-1": 20, "p-2": 20}
    assert said["averageDeliveryTime"] == 1000
    assert (said["deliveryRate"], said["failureRate"]) == (40, 10)


@pytest.mark.parametrize("holder", [None, NOBODY])
async def test_a_partition_without_a_holder_gives_503_and_no_smaller_total(
    group: Group, holder: str | None
) -> None:
    """A total that leaves messages out is not a total."""
    (worker,) = await group.start([[0, 1, 2, 3, 4]])
    fill(group.data)
    worker.reader.believed[5] = holder

    reply = await group.get(worker, "/v1/stats")

    assert reply.status == 503
    assert (reply.json["missingPartitions"], reply.json["holders"]) == ([5], {"5": holder})
    assert "totalMessages" not in reply.json


async def test_a_partition_revoked_during_the_reading_gives_503(group: Group) -> None:
    """What goes while others are still read is missing, though it was read before."""
    (worker,) = await group.start([range(6)])
    fill(group.data)

    def revoke() -> None:
        if len(worker.reader.steps) == 4:
            worker.reader.own.discard(0)

    worker.reader.after_read = revoke
    reply = await group.get(worker, "/v1/stats")

    assert reply.status == 503
    assert "totalMessages" not in reply.json


@pytest.mark.parametrize("answered", [(), (4,), (4, 5, 5), (3, 4, 5), (0, 1)])
async def test_each_partition_is_answered_exactly_once(group: Group, answered: tuple[int, ...]) -> None:
    """A part about fewer, more or other partitions than were asked for does not count."""
    (worker,) = await group.start([[0, 1, 2, 3]])

    async def part(request: web.Request) -> web.Response:
        return web.Response(body=msgspec.msgpack.encode(StatsPart(answered, Held(), [(0, (), Cell())])))

    application = web.Application()
    application.router.add_get("/v1/internal/stats", part)
    worker.reader.believed |= dict.fromkeys([4, 5], await group.serve(application))

    reply = await group.get(worker, "/v1/stats")

    assert reply.status == 503
    assert reply.json["missingPartitions"] == [4, 5]


async def test_no_messages_are_no_error(group: Group) -> None:
    """Before the first message all totals are zero."""
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, "/v1/stats")

    assert (reply.status, reply.json["totalMessages"], reply.json["averageDeliveryTime"]) == (200, 0, 0)


async def test_a_period_counts_what_was_created_in_it(group: Group) -> None:
    """From its begin on, until before its end, wherever the messages are; times in any of their forms."""
    workers = await group.start([[0, 1], [2, 3], [4, 5]])
    fill(group.data)
    group.data.mark("m-12", stopped=True)
    group.data.mark("unknown", stopped=False)
    begin, end = T0 + 10, T0 + 20

    asked = [
        f"from={begin}&to={end}",
        f"from={begin / 1000}&to={end / 1000}",
        f"from={iso(begin)}&to={iso(end)}",
    ]
    replies = [
        await group.get(worker, f"/v1/stats?{query}") for worker, query in zip(workers, asked, strict=True)
    ]

    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    said = replies[0].json
    assert said["totalMessages"] == 9
    assert [said["byStatus"][status] for status in ("SENT", "DELIVERED", "FAILED")] == [4, 4, 1]
    everything = (await group.get(workers[0], f"/v1/stats?from=0&to={T0 + 99}")).json
    assert everything["totalMessages"] == 59
    assert everything["byStatus"] | {"SENT": 0} == (await totals_of(group))["byStatus"] | {"SENT": 0}


async def totals_of(group: Group) -> Any:
    return (await group.get(group.workers[0], "/v1/stats")).json


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=0", "to"),
        ("to=0", "from"),
        ("from=2&to=1", "to"),
        ("from=yesterday&to=1", "from"),
        ("from=2026-11-23T09:00:00&to=1", "from"),
        ("from=0&to=1e99", "to"),
        ("from=0&to=noon", "to"),
        ("from=0&to=1&by=read", "by"),
        ("from=0&to=1&groupBy=status", "groupBy"),
        ("from=0&to=1&groupBy=provider,provider", "groupBy"),
        ("from=0&to=1&interval=week", "interval"),
        ("interval=hour", "from"),
        ("from=0&to=1700000000&interval=hour", "interval"),
        ("status=SENT", "status"),
    ],
)
async def test_a_period_that_is_none_is_refused(group: Group, query: str, field: str) -> None:
    """A filter that is passed over would give a wrong answer."""
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, f"/v1/stats?{query}")

    assert (reply.status, reply.json["field"]) == (400, field)
