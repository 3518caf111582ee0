"""Messages of one status, newest first, over the partitions of all workers."""

import asyncio
import itertools
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.domain.statuses import NAMES
from streams.web.gathering import Gathering, Unreachable
from streams.web.queries import Listing, Period, StatsQuery, cursor
from streams.web.statistics import Statistics

from .workers import NOBODY, RETENTION_MS, STATS_TABLES, Data, Group, MemoryReader, ids

SHARES = ([0, 1], [2, 3], [4, 5])
T0 = 1_700_000_000_000


async def nobody(url: str, path: str) -> tuple[int, bytes]:
    raise Unreachable(url)


async def test_newest_first_over_all_partitions(group: Group) -> None:
    """The order is that of updatedAt, whichever partition a message lies in; items are tracking records."""
    workers = await group.start(SHARES)
    names = group.data.one_per_partition() + group.data.one_per_partition("n")
    for at, name in enumerate(names):
        group.data.say(name, "SENT", T0 + at * 1000)
    group.data.say("failed", "FAILED", T0)

    for worker in workers:
        reply = await group.get(worker, "/v1/messages?status=SENT")
        assert reply.status == 200
        assert ids(reply.json["items"]) == names[::-1]
        assert reply.json["nextCursor"] is None
        shown = await group.get(worker, f"/v1/messages/{names[0]}")
        assert reply.json["items"][-1] == shown.json


@pytest.mark.parametrize("limit", [1, 2, 7, 30, 31, 200])
async def test_pages_over_ties_show_each_message_once(group: Group, limit: int) -> None:
    """Messages of the same millisecond stand in the order of their ids; none is missed or doubled."""
    workers = await group.start(SHARES)
    names = {f"m-{number}" for number in range(31)}
    for name in names:
        group.data.say(name, "SENT", T0)

    pages = await group.walk(f"/v1/messages?status=SENT&limit={limit}", itertools.cycle(workers))

    assert sorted(ids(itertools.chain(*pages))) == sorted(names)
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert 0 < len(pages[-1]) <= limit


async def test_a_cursor_outlives_a_rebalance(group: Group) -> None:
    """A cursor holds a place in the order, not a partition or a worker."""
    workers = await group.start(SHARES)
    names = [f"m-{number}" for number in range(40)]
    for at, name in enumerate(names):
        group.data.say(name, "SENT", T0 + at // 5)

    seen: list[str] = []
    cursor = ""
    for shares in itertools.cycle([SHARES, ([4], [0, 1, 2, 3], [5]), ([], [1, 3, 5], [0, 2, 4])]):
        group.assign(shares)
        page = (await group.get(workers[len(seen) % 3], f"/v1/messages?status=SENT&limit=7{cursor}")).json
        seen += ids(page["items"])
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"

    assert sorted(seen) == sorted(names)


@settings(deadline=None, max_examples=60)
@given(
    times=st.lists(st.integers(0, 3), max_size=25),
    limit=st.integers(1, 9),
    shares=st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_any_share_of_partitions_gives_the_same_list(times: list[int], limit: int, shares: list[int]) -> None:
    """The pages together are the one sorted list, however partitions, ties and page ends fall."""
    data = Data()
    for number, at in enumerate(times):
        data.say(f"m-{number}", "SENT", T0 + at)
    expected = sorted(((-at, f"m-{number}".encode()) for number, at in enumerate(times)))

    assert asyncio.run(_walk_over_http(data, limit, shares)) == [name.decode() for _, name in expected]


async def _walk_over_http(data: Data, limit: int, shares: list[int]) -> list[str]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        group = Group(stack, client, data)
        workers = await group.start([[p for p, owner in enumerate(shares) if owner == n] for n in range(3)])
        pages = await group.walk(f"/v1/messages?status=SENT&limit={limit}", itertools.cycle(workers))
        return ids(itertools.chain(*pages))


@pytest.mark.parametrize("holder", [None, NOBODY])
async def test_a_missing_worker_gives_503_and_no_shorter_list(group: Group, holder: str | None) -> None:
    """A list without the messages of some partitions is not an answer."""
    workers = await group.start([[0, 1], [2, 3]])
    for name in group.data.one_per_partition():
        group.data.say(name, "SENT", T0)
    for worker in workers:
        worker.reader.believed |= {4: holder, 5: holder}

        reply = await group.get(worker, "/v1/messages?status=SENT&limit=1")

        assert reply.status == 503
        assert reply.json["missingPartitions"] == [4, 5]
        assert reply.json["holders"] == {"4": holder, "5": holder}
        assert "items" not in reply.json


async def test_a_worker_that_lost_one_of_its_partitions_answers_for_none(group: Group) -> None:
    """A part is about all the partitions that were asked for, or it does not count."""
    one, other = await group.start([[0, 1, 2], [3, 4, 5]])
    other.reader.own.discard(4)

    reply = await group.get(one, "/v1/messages?status=SENT")

    assert reply.status == 503
    assert reply.json["missingPartitions"] == [3, 4, 5]


@pytest.mark.parametrize("step", range(1, 10))
async def test_a_partition_revoked_during_the_reading_gives_503(group: Group, step: int) -> None:
    """Whenever it goes, before the last row is read, the list is not given."""
    (worker,) = await group.start([range(6)])
    for name in group.data.one_per_partition()[:3]:
        group.data.say(name, "SENT", T0)
    countdown = itertools.count(1)

    def revoke() -> None:
        if next(countdown) == step:
            worker.reader.own.discard(2)

    worker.reader.after_read = revoke
    reply = await group.get(worker, "/v1/messages?status=SENT")

    assert (reply.status, "items" in reply.json) == (503, False)
    assert 2 in reply.json["missingPartitions"]


async def test_a_message_that_leaves_the_list_while_it_is_read_is_left_out() -> None:
    """An item is shown as it is; what is no longer of the status asked for is not shown under it."""
    data = Data()
    for number in range(5):
        data.say(f"m-{number}", "SENT", T0 + number)
    reader = MemoryReader(data, range(6))
    gathering = Gathering(reader, STATS_TABLES.deliveries, nobody)

    def deliver() -> None:
        if len(reader.steps) == 6:
            data.say("m-3", "DELIVERED", T0 + 10)

    reader.after_read = deliver
    page = json.loads(await gathering.listing(Listing("SENT", 3)))

    assert ids(page["items"]) == ["m-4", "m-2"]
    assert page["nextCursor"] is not None


async def test_a_message_that_changes_during_a_walk_is_not_shown_twice(group: Group) -> None:
    """It moves to the front, which the walk has passed."""
    workers = await group.start(SHARES)
    for number in range(6):
        group.data.say(f"m-{number}", "SENT", T0 + number)
    path = "/v1/messages?status=SENT&limit=2"
    first = (await group.get(workers[0], path)).json
    for name in ("m-5", "m-0"):
        group.data.say(name, "QUEUED", T0 + 100)

    rest = await group.walk(path, itertools.cycle(workers), first["nextCursor"])

    assert ids(first["items"]) == ["m-5", "m-4"]
    assert ids(itertools.chain(*rest)) == ["m-3", "m-2", "m-1"]


async def test_reading_lets_the_loop_go_on_between_small_steps() -> None:
    """A step reads 200 rows at most; after some, others of the loop have their turn."""
    data = Data(1)
    for number in range(1_300):
        data.say(f"m-{number}", "SENT", T0 + 1, provider=f"p-{number}")
    reader = MemoryReader(data, [0])
    gathering = Gathering(reader, STATS_TABLES.deliveries, nobody)
    statistics = Statistics(reader, STATS_TABLES, gathering.scatter, RETENTION_MS, lambda: T0)
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(reader.steps))
            await asyncio.sleep(0)

    ticking = asyncio.create_task(others())
    await gathering.listing(Listing("SENT", 200))
    await statistics.stats(StatsQuery(Period(T0 + 1, T0 + 2), "created", (), None, {}))
    ticking.cancel()

    assert reader.steps == [200, 1, *[200] * 8]
    assert set(turns) >= {1, 2}
    assert len(set(turns) & {*range(3, 9)}) >= 2


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "status"),
        ("status=", "status"),
        ("status=sent", "status"),
        ("status=ARRIVED", "status"),
        ("status=SENT&status=FAILED", "status"),
        ("status=SENT&limit=0", "limit"),
        ("status=SENT&limit=201", "limit"),
        ("status=SENT&limit=", "limit"),
        ("status=SENT&limit=-1", "limit"),
        ("status=SENT&limit=1_0", "limit"),
        ("status=SENT&limit=1e2", "limit"),
        ("status=SENT&limit=%D9%A1", "limit"),
        ("status=SENT&limit=" + "9" * 5000, "limit"),
        ("status=SENT&cursor=", "cursor"),
        ("status=SENT&cursor=AQ", "cursor"),
        ("status=SENT&cursor=%ED%95%9C", "cursor"),
        ("status=SENT&cursor=****", "cursor"),
        (f"status=SENT&cursor={cursor(bytes([3]) + bytes(8) + b'm')}", "cursor"),
        (f"status=SENT&cursor={cursor(bytes([2]) + bytes(8))}", "cursor"),
        ("status=SENT&provider=kt", "provider"),
        ("status=SENT&partitions=0", "partitions"),
    ],
)
async def test_a_parameter_to_blame_is_named(group: Group, query: str, field: str) -> None:
    """A value that cannot be meant, and a filter that is not applied, are refused."""
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, f"/v1/messages?{query}")

    assert reply.status == 400
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json["field"] == field
    assert reply.json.keys() >= {"type", "title", "status", "detail"}
    assert worker.reader.steps == []


@pytest.mark.parametrize("status", NAMES)
async def test_each_status_has_its_own_list(group: Group, status: Any) -> None:
    """Statuses of the same rank do not share a list."""
    (worker,) = await group.start([range(6)])
    for name in NAMES:
        group.data.say(f"m-{name}", name, T0)

    reply = await group.get(worker, f"/v1/messages?status={status}")

    assert ids(reply.json["items"]) == [f"m-{status}"]


@pytest.mark.parametrize("partitions", ["", "6", "0,0", "x", "0,", "-1"])
async def test_workers_ask_each_other_for_partitions_that_exist(group: Group, partitions: str) -> None:
    """The internal path refuses what is not a set of partitions."""
    (worker,) = await group.start([range(6)])

    reply = await group.get(worker, f"/v1/internal/messages?status=SENT&partitions={partitions}")

    assert (reply.status, reply.json["field"]) == (400, "partitions")
