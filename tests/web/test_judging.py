"""Providers are judged by what became of the messages that they sent a while ago."""

from __future__ import annotations

from typing import Any

from streams.messages import read_request
from streams.web.judging import Judging
from tests.agents.flowing import Partition, Record, record

from .test_statistics import asked_of
from .workers import Data, MemoryReader

NOW = 1_700_006_400_000
MINUTE = 60_000


def judging(data: Data, own: list[int], requested: list[tuple[int, Any, int]]) -> Judging:
    async def produce(partition: int, records: list[Any]) -> None:
        for key, value, _, at in records:
            what = read_request(value)
            assert key == what.message_id.encode()
            requested.append((partition, what, at))

    return Judging(MemoryReader(data, own), asked_of(data), produce, 15 * MINUTE, "5m", 2)


async def test_each_provider_that_sent_enough_is_judged_by_one_worker() -> None:
    """By what was sent from twenty to five minutes ago; not by one message, nor by what came later."""
    data = Data(3)
    for number in range(6):
        data.say(f"m-{number}", "SENT", NOW - 10 * MINUTE, "a")
        if number < 4:
            data.say(f"m-{number}", "DELIVERED", NOW - 10 * MINUTE + (1 + 8 * (number == 3)) * MINUTE, "a")
    data.say("m-4", "FAILED", NOW - 9 * MINUTE, "a")
    data.say("lonely", "SENT", NOW - 10 * MINUTE, "b")
    for number in range(3):
        data.say(f"late-{number}", "SENT", NOW - MINUTE, "a")
        data.say(f"early-{number}", "SENT", NOW - 30 * MINUTE, "c")
    requested: list[tuple[int, Any, int]] = []

    await judging(data, [1, 2], requested).judge(NOW)
    assert requested == []
    await judging(data, [0], requested).judge(NOW)

    ((partition, what, at),) = requested
    assert (partition, what.message_id, at) == (data.partition_of("a"), "a", NOW)
    figures = what.figures
    assert (figures.messages, figures.final, figures.arrived, figures.failed, figures.in_time) == (
        6,
        5,
        4,
        1,
        3,
    )


def judge(minute: int, **figures: int) -> Record:
    said = {"messages": 100, "final": 100, "arrived": 10, "failed": 90, "inTime": 10} | figures
    return record("a", type="judge", figures=said, receipt=NOW + minute * MINUTE)


def test_an_alarm_is_told_once_and_so_is_its_end() -> None:
    """Under the provider's name, with why and by what figures."""
    partition = Partition()
    for minute in range(6):
        partition.ask(judge(minute))
    assert partition.types() == ["provider.degraded"]
    for minute in range(6, 60):
        partition.ask(judge(minute, arrived=99, failed=1, inTime=99))

    assert partition.types() == ["provider.degraded", "provider.recovered"]
    degraded, recovered = (event.json for event in partition.events)
    assert {event.key for event in partition.events} == {b"a"}
    assert degraded == {
        "id": "requests-0-2-0",
        "type": "provider.degraded",
        "provider": "a",
        "occurredAt": "2023-11-15T00:02:00.000Z",
        "reason": "failing",
        "figures": {"messages": 100, "final": 100, "arrived": 10, "failed": 90, "inTime": 10},
    }
    assert (recovered["reason"], recovered["occurredAt"]) == ("failing", "2023-11-15T00:32:00.000Z")
    assert partition.counts == {"judged": 60}


def test_a_judgement_that_comes_again_is_told_of_as_repeated() -> None:
    """A replay of the log gives the same state."""
    partition = Partition().ask(judge(0), judge(1), judge(1), judge(0))

    assert partition.counts == {"judged": 2, "repeated": 2}
