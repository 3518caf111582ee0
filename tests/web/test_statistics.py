"""Any period, put together from windows and single messages, against a count of all records."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.domain.delivery import Delivery
from streams.domain.reports import report
from streams.domain.statistics import DAY, HOUR, MINUTE, Cell, Held, Windows
from streams.domain.statuses import FIRST_FINAL, NAMES, NOTHING
from streams.domain.times import to_ms
from streams.web import counting
from streams.web.counting import StatsPart
from streams.web.queries import DIMENSIONS, Period, StatsQuery
from streams.web.statistics import TURN_CELLS, Statistics, unpacked
from tables.formats import DELIVERIES
from tests.agents.flowing import COUNTING, TABLES, record, request, status
from tests.faults.views import not_exceeded

from .workers import RETENTION_MS, STATS_TABLES, Data, Group, MemoryReader

T0 = 1_700_000_000_000
HOUR_MS = 3_600_000
HOURS_30 = 30 * HOUR_MS
PARTITIONS = 3
#: So few changes may be pending that most of what is counted stands in cells.
OFTEN = TABLES._replace(counting=COUNTING._replace(most_entries=6))
#: And most windows are soon kept no longer.
BRIEFLY = TABLES._replace(
    counting=COUNTING._replace(most_entries=6, windows=Windows(2 * HOUR_MS, 6 * HOUR_MS, 400 * HOUR_MS))
)

moments = st.integers(0, HOURS_30).map(lambda ms: T0 + ms) | st.sampled_from(
    [T0, T0 + 1, T0 + 59_999, T0 + 60_000, T0 + 3_600_000]
)
providers = st.sampled_from(["a", "b", None])
names = st.sampled_from([f"m-{n}" for n in range(8)])


def said(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


callbacks = st.builds(
    lambda name, message_id, at, late, **more: status(
        name, message_id, timestamp=at, receipt=at + late, **said(**more)
    ),
    st.sampled_from(["QUEUED", "SENT", "SENT", "DELIVERED", "DELIVERED", "FAILED", "READ", "CLICKED"]),
    names,
    moments,
    st.sampled_from([0, 3, 70_000, 4_000_000]),
    provider=providers,
    attempt=st.none() | st.integers(1, 2),
    channel=st.sampled_from(["sms", "email", None]),
    error=st.sampled_from([{"code": "E1", "message": "x"}, {"code": "E2", "message": "x"}, None]),
)
requests = st.builds(
    lambda message_id, at, late, **more: request(message_id, createdAt=at, receipt=at + late, **said(**more)),
    names,
    moments,
    st.sampled_from([0, 3, 70_000]),
    provider=st.sampled_from(["a", "b"]),
    templateId=st.sampled_from(["x", "y"]),
    tenant=st.sampled_from(["t", None]),
)
ticks = st.builds(lambda n, at: record(f"tick-{n}", type="tick", receipt=at), st.integers(0, 9), moments)
ends = st.builds(
    lambda kind, message_id, at: record(message_id, type=kind, receipt=at),
    st.sampled_from(["stop", "erase"]),
    names,
    moments,
)
queries = st.builds(
    lambda ends, by, group_by, filters: StatsQuery(
        Period(*sorted(ends)), by, tuple(d for d in DIMENSIONS if d in group_by), None, filters
    ),
    st.tuples(moments, moments),
    st.sampled_from(["created", "sent"]),
    st.sets(st.sampled_from(DIMENSIONS), max_size=2),
    st.sampled_from([{}, {}, {"provider": "a"}, {"templateId": "x"}, {"tenant": "t", "channel": "sms"}]),
)


def asked_of(data: Data) -> Statistics:
    """A worker that holds a part of the partitions and asks another one for the rest, as bytes."""
    own, others = MemoryReader(data, [0]), MemoryReader(data, range(1, data.partitions))

    async def scatter(
        kind: type[StatsPart],
        local: Callable[[Sequence[int]], Awaitable[StatsPart]],
        path: Callable[[Sequence[int]], str],
        within_s: float,
    ) -> list[StatsPart]:
        asked = path(sorted(others.own)).partition("&inquiry=")[2]
        part = await other.part(sorted(others.own), unpacked(asked))
        return [await local([0]), msgspec.msgpack.decode(msgspec.msgpack.encode(part), type=kind)]

    other = Statistics(others, STATS_TABLES, scatter, RETENTION_MS, lambda: T0 + HOURS_30)
    return Statistics(own, STATS_TABLES, scatter, RETENTION_MS, lambda: T0 + HOURS_30)


def applied(records: list[Any], tables: Any) -> Data:
    data = Data(PARTITIONS, tables)
    apply(records, data)
    return data


def apply(records: list[Any], data: Data) -> None:
    for one in records:
        part = data.parts[data.partition_of(one.key.decode())]
        (part.ask if b'"type"' in one.value else part.say)(one)


def deliveries_of(data: Data) -> Iterator[Delivery]:
    for part in data.parts:
        for stored in part.stored.get("deliveries", {}).values():
            delivery = DELIVERIES.decode(stored)
            if delivery.precedence != NOTHING:
                yield delivery


def group_of(delivery: Delivery) -> dict[str, str | None]:
    return {
        "tenant": delivery.tenant,
        "channel": delivery.channel,
        "provider": delivery.provider or "unknown",
        "templateId": delivery.template_id,
    }


def brute(some: list[Delivery]) -> dict[str, Any]:
    """What is to be answered about these, counted one by one."""
    total = len(some)
    timed = [
        (d.delivered_at - d.sent_at, has_arrived(d))
        for d in some
        if d.sent_at is not None and d.delivered_at is not None and not d.is_delivery_inferred
    ]
    took = sorted(ms for ms, arrived in timed if arrived and ms >= 0)
    arrived = sum(map(has_arrived, some))
    final = [d for d in some if d.precedence >= FIRST_FINAL]
    failed = [d for d in some if d.status == "FAILED"]
    codes = Counter(failure_code(d) for d in failed)
    return {
        "totalMessages": total,
        "byStatus": {name: sum(d.status == name for d in some) for name in NAMES},
        "byProvider": dict(Counter(group_of(d)["provider"] for d in some)),
        "byErrorCode": dict(codes),
        "averageDeliveryTime": sum(took) / len(took) if took else 0,
        "deliveryRate": 100 * arrived / total if total else 0,
        "deliveryRateOfFinal": 100 * sum(map(has_arrived, final)) / len(final) if final else 0,
        "failureRate": 100 * len(failed) / total if total else 0,
        "deliveryTime": {f"p{percent}": not_exceeded(took, percent) for percent in (50, 90, 95, 99)},
        "deliveryCurve": {
            name: 100 * sum(ms <= limit * 1000 for ms in took) / total if total else 0
            for name, limit in (
                ("5s", 5),
                ("30s", 30),
                ("1m", 60),
                ("5m", 300),
                ("1h", 3600),
                ("24h", 86_400),
            )
        },
        "clockSkew": len(timed) - len(took),
    }


def has_arrived(delivery: Delivery) -> bool:
    return any(NAMES[e.precedence] in ("DELIVERED", "READ", "CLICKED") for e in delivery.history)


def failure_code(delivery: Delivery) -> str:
    error = report("m", delivery).error
    return "unknown" if error is None else error.code


def of_period(data: Data, query: StatsQuery, begin: int, end: int) -> list[Delivery]:
    def at(delivery: Delivery) -> int | None:
        return delivery.created_at if query.by == "created" else delivery.sent_at

    return [
        delivery
        for delivery in deliveries_of(data)
        if (time := at(delivery)) is not None
        and begin <= time < end
        and all(group_of(delivery)[name] == value for name, value in query.filters.items())
    ]


def without_time(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in brute([])}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(callbacks | callbacks | requests | ends | ticks, max_size=40),
    st.lists(queries, min_size=1, max_size=4),
    st.sampled_from([OFTEN, TABLES, BRIEFLY]),
)
def test_every_period_is_counted_as_one_by_one(
    records: list[Any], asked: list[StatsQuery], tables: Any
) -> None:
    """Whatever was said in whatever order: each message once, where it stands, in its period."""
    data, half = Data(PARTITIONS, tables), len(records) // 2
    answers = asked_of(data)
    for some in (records[:half], records[half:]):
        # the second time from what was kept of the first, as far as that still holds
        apply(some, data)
        for query in asked:
            check_answer(data, query, json.loads(asyncio.run(answers.stats(query))), tables)


def check_answer(data: Data, query: StatsQuery, answer: dict[str, Any], tables: Any) -> None:
    """Compare an answer with a count of all records, in the period that it says it is about."""
    assert query.period is not None
    begin, end = (to_ms(answer[name], name) for name in ("from", "to"))
    assert begin <= query.period.begin
    assert end >= query.period.end
    assert (answer["resolution"] == "exact") == ((begin, end) == query.period)
    if tables != BRIEFLY:
        assert answer["resolution"] in (("exact",) if query.by == "created" else ("exact", "minute"))
    messages = of_period(data, query, begin, end)
    assert without_time(answer) == brute(messages)
    for counted in (answer, *answer.get("groups", [])):
        rates = [counted[name] for name in ("deliveryRate", "deliveryRateOfFinal", "failureRate")]
        assert all(0 <= rate <= 100 for rate in (*rates, *counted["deliveryCurve"].values()))
    assert (answer["lastUpdated"] is None) == (not messages)
    by_group: dict[tuple[str | None, ...], list[Delivery]] = {}
    for delivery in messages:
        stated = group_of(delivery) | {"provider": delivery.provider}
        by_group.setdefault(tuple(stated[n] for n in query.group_by), []).append(delivery)
    groups = {
        tuple(group[name] for name in query.group_by): without_time(group)
        for group in answer.get("groups", [])
    }
    assert groups == ({group: brute(some) for group, some in by_group.items()} if query.group_by else {})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(callbacks | requests, max_size=30),
    st.tuples(moments, moments),
    st.sampled_from([(MINUTE, 60_000), (HOUR, 3_600_000), (DAY, 86_400_000)]),
    st.sampled_from([(), ("provider",), ("templateId",)]),
)
def test_a_series_has_every_interval_of_the_period(
    records: list[Any], ends: tuple[int, int], interval: tuple[bytes, int], group_by: Any
) -> None:
    """Those in which nothing was created too; together they are the period."""
    data = applied(records, OFTEN)
    begin, end = sorted(ends)
    if interval[0] == MINUTE:
        end = min(end, begin + 10 * 60_000)
    query = StatsQuery(Period(begin, end), "created", group_by, interval[0], {})

    answer = json.loads(asyncio.run(asked_of(data).stats(query)))

    at = begin
    for row in answer["series"]:
        since, until = to_ms(row["from"], "from"), to_ms(row["to"], "to")
        assert (since, until) == (at, min(end, at - at % interval[1] + interval[1]))
        assert without_time(row) == brute(of_period(data, query, since, until))
        at = until
    assert at == end
    for group in answer.get("groups", []):
        assert sum(row["totalMessages"] for row in group["series"]) == group["totalMessages"]


@settings(max_examples=100, deadline=None)
@given(st.lists(callbacks | requests | ticks, max_size=30), st.lists(moments, min_size=2, max_size=2))
def test_activity_counts_what_happened_by_event_time(records: list[Any], ends: list[int]) -> None:
    """Each entry of a history in the minute in which it happened, whatever became of the message since."""
    data = applied(records, BRIEFLY)
    query = StatsQuery(Period(*sorted(ends)), "created", (), None, {})

    answer = json.loads(asyncio.run(asked_of(data).activity(query)))

    begin, end = (to_ms(answer[name], name) for name in ("from", "to"))
    entries = [e for d in deliveries_of(data) for e in d.history if begin <= e.at < end]
    callbacks = [entry for entry in entries if entry.attempt != 0]
    assert begin <= query.period.begin and query.period.end <= end  # type: ignore[union-attr]
    assert answer["transitions"] == {n: sum(NAMES[e.precedence] == n for e in entries) for n in NAMES}
    assert answer["callbacks"]["applied"] == len(callbacks)
    late = [e.receipt - e.at for e in callbacks]
    assert math.isclose(answer["averageLateness"], sum(late) / len(late) if late else 0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most_entries", [0, 40, 10_000])
async def test_groups_without_room_are_answered_as_one(
    seed: int, most_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it pending or not, no group counts less than nothing, and together they are the whole."""
    monkeypatch.setattr("streams.domain.statistics.MOST_GROUPS", 4)
    chance = random.Random(seed)
    data = Data(PARTITIONS, TABLES._replace(counting=COUNTING._replace(most_entries=40)))
    last = Data(PARTITIONS, TABLES._replace(counting=COUNTING._replace(most_entries=most_entries)))
    for part, same in zip(data.parts, last.parts, strict=True):
        same.stored = part.stored
    for number in range(240):
        # the last of it is pending, or folded with all that was
        here = data if number < 200 else last
        group = chance.randrange(15)
        here.say(
            f"m-{group}-{chance.randrange(4)}",
            chance.choice(["SENT", "DELIVERED", "FAILED", "READ"]),
            T0 + chance.randrange(3) * 60_000,
            f"p-{group}",
            templateId=f"t-{group}",
        )
    asked = asked_of(last)
    for period in (None, Period(T0 - T0 % 60_000, T0 + HOUR_MS)):
        for by in (("provider",), ("provider", "templateId")):
            answer = json.loads(await asked.stats(StatsQuery(period, "created", by, None, {})))  # type: ignore[arg-type]
            counts = [group["byStatus"] for group in answer["groups"]]
            assert min(n for count in counts for n in count.values()) >= 0
            for name, total in answer["byStatus"].items():
                assert sum(count[name] for count in counts) == total
            assert sum(group["totalMessages"] for group in answer["groups"]) == answer["totalMessages"]
            assert answer["totalMessages"] == sum(1 for _ in deliveries_of(last))
            assert any(group["provider"] == "other" for group in answer["groups"])


async def test_of_many_groups_a_worker_tells_so_many_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is one group, so an answer has an end however many there are."""
    monkeypatch.setattr(counting, "MOST_PART_GROUPS", 10)
    data = Data(PARTITIONS, TABLES)
    for number in range(60):
        data.say(f"m-{number}", "SENT", T0, templateId=f"t-{number}")
    answer = json.loads(await asked_of(data).stats(StatsQuery(None, "created", ("templateId",), None, {})))

    assert len(answer["groups"]) <= 11
    assert answer["totalMessages"] == 60 == sum(group["totalMessages"] for group in answer["groups"])
    assert answer["groups"][0]["templateId"] == "other"


async def test_who_adds_up_many_groups_lets_others_have_their_turn() -> None:
    """The loop also feeds the consumer."""
    cell = Cell(counts={2: 1})
    part = StatsPart((0,), Held(), [(0, (f"t-{number}",), cell) for number in range(10 * TURN_CELLS)])

    async def scatter(*_: Any) -> list[StatsPart]:
        return [part]

    asked = Statistics(MemoryReader(Data(1), [0]), STATS_TABLES, scatter, RETENTION_MS, lambda: T0)
    turns = 0

    async def have_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(have_turns())
    answer = json.loads(await asked.stats(StatsQuery(None, "created", ("templateId",), None, {})))
    others.cancel()

    assert (answer["totalMessages"], answer["groupsLeftOut"]) == (10 * TURN_CELLS, 10 * TURN_CELLS - 1_000)
    # to add up, to sum each group, the whole, and to rank; and one for each group that is shown
    assert turns >= 4 * 10 + 1_000


async def test_what_is_asked_twice_is_the_same_whoever_answers(group: Group) -> None:
    """Every worker gives the same statistics of a period, with groups and a series, and so does one alone."""
    workers = await group.start([[0, 1], [2, 3], [4, 5]])
    for number in range(40):
        group.data.say(f"m-{number}", "SENT", T0 + number * 1_000, f"p-{number % 3}")
    paths = [
        f"/v1/stats?from={T0 + 1}&to={T0 + 30_000}&groupBy=provider&interval=minute",
        f"/v1/activity?from={T0}&to={T0 + 60_000}&provider=p-1&interval=hour",
        "/v1/stats?provider=p-1&groupBy=channel,templateId",
    ]
    for path in paths:
        replies = [await group.get(worker, path) for worker in workers]
        assert {reply.status for reply in replies} == {200}
        assert len({reply.body for reply in replies}) == 1

    assert replies[0].json["totalMessages"] == 13
    assert replies[0].json["groups"][0]["channel"] is None
    assert replies[0].json["groups"][0]["totalMessages"] == 13


@pytest.mark.parametrize(
    "path", ["/v1/internal/stats?partitions=0&inquiry=x", "/v1/internal/stats?partitions=0"]
)
async def test_an_inquiry_that_is_none_is_refused(group: Group, path: str) -> None:
    """Nobody but workers asks so."""
    (worker,) = await group.start([range(6)])

    assert (await group.get(worker, path)).status == 400
