"""Rules of who is told when: the dispatcher over tables in memory, its clock and sender moved by tests."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from aiokafka.errors import KafkaTimeoutError

from agents import dispatching, waiting
from agents.dispatching import (
    BUSY_GATHER_S,
    BUSY_TELL_S,
    HUNG_MS,
    LONGEST_PAUSE_MS,
    MOST_AT_ONCE,
    MOST_IDLE,
    MOST_KNOWN,
    UNKNOWN_MS,
    Dispatcher,
)
from agents.feeding import MOST_UNHEARD, Feed
from agents.sender import Told, hear
from agents.telling import DUE
from agents.waiting import PAGE
from streams.domain.endpoints import Endpoint
from streams.domain.routing import Routing
from streams.domain.webhooks import Attempted, group_of
from streams.engine.units import Output
from streams.messages import encode, read_said
from streams.webhooks.jobs import Done, Job
from streams.webhooks.pipe import LENGTH_BYTES, TIDINGS, Said, Tidings
from tests.web.workers import Data, MemoryReader

from .flowing import NOON, TABLES, Record, record, request, telling

HEARD = msgspec.msgpack.Decoder(list[Tidings])


class World:
    """A worker and its sender: tables, lanes, and what passes between the two; nothing happens by itself."""

    unheard_bytes = 0

    def __init__(self, partitions: int = 2, **endpoints: Endpoint) -> None:
        self.routing = Routing()
        self.data = Data(partitions, TABLES._replace(telling=telling(self.routing)))
        self.reader = MemoryReader(self.data, range(partitions))
        self.now = NOON
        self.jobs: list[Job] = []
        self.wanted = 0
        self.ended = 0
        self.produced: list[tuple[int, list[Output]]] = []
        self.stands = Counter[int]()
        self.ends = Counter[int]()
        self.fails = 0
        self.acknowledged = asyncio.Event()
        self.acknowledged.set()
        self.generation = 0
        self.is_busy = False
        self.sent: list[str] = []
        self.feed = Feed(
            self,
            self.reader,
            self.data.tables.telling.tables,
            self.routing,
            lambda partition, records: self.produce(partition, records),
            lambda partition: self.stands[partition],
            lambda: self.generation,
            lambda: self.is_busy,
        )
        self.start_sender()
        for name, endpoint in endpoints.items():
            self.know(name, endpoint)
        self.step()

    def start_sender(self) -> None:
        """Let there be one that knows nothing; the one before has gone with all that it had."""
        self.jobs.clear()
        self.told: deque[bytes] = deque()
        self.said: deque[Said] = deque()
        self.worker = Told(self.said.append)
        self.dispatcher = Dispatcher(
            self.worker,
            Routing(),
            self,
            lambda: self.now,
            lambda: 0.5,
            pause=lambda seconds: asyncio.sleep(0),
        )
        self.is_there = False
        self.feed.lost()
        self.is_there = True
        self.feed.begin()

    def want(self) -> None:
        self.wanted += 1

    def tell(self, tidings: list[Tidings]) -> None:
        self.told.append(TIDINGS.frame(tidings)[LENGTH_BYTES:])

    def pass_on(self, *, is_answered_first: bool = False) -> bool:
        """Let the sender hear one frame, or the worker a question; False if there is neither."""
        if self.told and not (is_answered_first and self.said):
            for one in HEARD.decode(self.told.popleft()):
                hear(one, self.worker, self.dispatcher)
        elif self.said:
            self.feed.hear([self.said.popleft()])
        else:
            return False
        return True

    def know(self, name: str, endpoint: Endpoint | None) -> None:
        self.routing.put(name, endpoint)
        self.feed.changed(name, endpoint)

    def post(self, jobs: list[Job]) -> None:
        self.jobs += jobs
        self.sent += [f"{job.owner} {job.webhook_id}" for job in jobs]

    def end(self) -> None:
        self.ended += 1

    async def produce(self, partition: int, records: list[Output]) -> int:
        if self.fails:
            self.fails -= 1
            raise KafkaTimeoutError
        self.produced.append((partition, records))
        end = self.ends[partition] = self.ends[partition] + len(records)
        await self.acknowledged.wait()
        return end - 1

    def say(self, message: str, *statuses: Any) -> None:
        """Have statuses of a message applied, each in a unit of its own."""
        for status in statuses:
            self.data.say(message, status, self.now)
            self._tell(self.data.partition_of(message))

    def _tell(self, partition: int) -> None:
        """As lanes do: nobody hears of a unit that has noted nothing, nor of one elsewhere."""
        if partition in self.reader.own and (due := self.data.parts[partition].notes.get(DUE)):
            self.feed.note(partition, due)

    async def answer(self, status: int | None = 204, jobs: Sequence[Job] | None = None, **said: Any) -> None:
        """Let attempts end, all that are being made if it is not said which; and have that produced."""
        ended = list(self.jobs if jobs is None else jobs)
        self.jobs = [job for job in self.jobs if job not in ended]
        self.dispatcher.done(
            [Done(job.number, self.now, 5, status, None, "", said.get("retry_after")) for job in ended]
        )
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
            while self.pass_on():
                pass

    async def apply_unacknowledged(self, status: int | None) -> None:
        """Send what is due, let it end so, and have that applied before its producer knows where it lies."""
        self.step()
        self.acknowledged.clear()
        await self.answer(status)
        self.apply()

    async def acknowledge(self) -> None:
        """Let the broker tell where what was produced lies."""
        self.acknowledged.set()
        await self.settle()

    def apply(self) -> None:
        """Have the lanes apply what was produced."""
        produced, self.produced = self.produced, []
        for partition, records in produced:
            part = self.data.parts[partition]
            part.hear(*(Record(value, key, self.now) for key, value, _, _ in records))
            self.stands[partition] += len(records)
            self._tell(partition)

    def step(self, after_ms: int = 0) -> list[str]:
        """Let time pass and both sides have their turns; return what is sent, as endpoint and event."""
        self.now += after_ms
        before = len(self.sent)
        self.feed.look()
        while True:
            while self.pass_on():
                pass
            self.dispatcher.step()
            if not self.said:
                return self.sent[before:]


async def test_what_is_due_is_sent_once_until_what_came_of_it_is_applied() -> None:
    """However long the lane takes, and in the order of the events of the message."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT", "READ")

    assert world.step() == ["ep_a statuses-0-0-0"]
    assert world.step(1_000) == []
    await world.answer()
    assert world.step(1_000) == []
    world.apply()
    assert world.step() == ["ep_a statuses-0-1-0"]
    await world.answer()
    world.apply()
    assert world.step() == ["ep_a statuses-0-1-1"]


async def test_a_lane_that_is_faster_than_the_brokers_answer_loses_nothing() -> None:
    """What came of an attempt may be applied before its producer knows where it lies."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT", "READ")
    await world.apply_unacknowledged(204)
    assert world.step() == []
    await world.acknowledge()

    assert world.step() == ["ep_a statuses-0-1-0"]


async def test_what_is_to_be_tried_again_is_not_lost_either() -> None:
    """Applied before its producer knows where it lies, it is looked at anew, and when it is due."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    await world.apply_unacknowledged(500)
    assert world.step() == []
    await world.acknowledge()

    assert world.step(1_000) == []
    assert world.step(5_000) == ["ep_a statuses-0-0-0"]


async def test_what_falls_due_before_its_producer_knows_is_not_lost_either() -> None:
    """The broker's answer may be late by more than the pause until the next attempt."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    await world.apply_unacknowledged(500)
    assert world.step(1_000) == []
    assert world.step(10_000) == []
    await world.acknowledge()

    assert world.step() == ["ep_a statuses-0-0-0"]


@pytest.mark.parametrize("status", [204, 500])
async def test_what_is_applied_before_partitions_change_and_its_producer_knows_is_not_lost(
    status: int,
) -> None:
    """How it stands was heard, and forgotten with all that was known of the partition."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT", "READ")
    await world.apply_unacknowledged(status)
    world.generation += 1
    assert world.step() == []
    await world.acknowledge()

    assert len(world.step(10_000)) == 1


async def test_what_another_worker_has_told_meanwhile_is_not_told_from_memory() -> None:
    """A partition that was elsewhere: what was known of its queues is not so any more."""
    world = World(1, ep_a=Endpoint(state="paused"))
    world.say("m", "SENT", "READ")
    world.step()
    world.reader.own.clear()
    world.step()
    elsewhere = Attempted("m", "statuses-0-0-0", "ep_a", 1, NOON, NOON, 5, 0.5, 204)
    world.data.parts[0].hear(Record(encode(elsewhere), b"m", NOON))
    world.reader.own.add(0)
    world.know("ep_a", Endpoint())

    assert world.step() == ["ep_a statuses-0-1-0"]


async def test_a_clock_that_was_ahead_holds_up_nothing() -> None:
    """What is looked at again soon is, though it was the time of tomorrow when that was decided."""
    world = World(1, ep_a=Endpoint())
    world.now += 86_400_000
    world.data.say("m", "SENT", NOON)
    events = world.data.parts[0].stored["webhook_events"]
    kept = dict(events)
    events.clear()
    world.generation = 1
    assert [sent for _ in range(5) for sent in world.step()] == []
    world.now -= 86_400_000
    events.update(kept)

    assert world.step() + world.step(2_000) == ["ep_a statuses-0-0-0"]


async def test_a_queue_whose_event_is_not_there_yet_is_looked_at_again() -> None:
    """Who recovers has one table before the other; and it takes nobody's room."""
    world = World(1, ep_a=Endpoint())
    for number in range(2 * MOST_AT_ONCE):
        world.data.say(f"m-{number}", "SENT", NOON)
    events = world.data.parts[0].stored["webhook_events"]
    kept = dict(events)
    events.clear()
    world.generation = 1
    assert [sent for _ in range(5) for sent in world.step()] == []
    events.update(kept)

    assert len(world.step(1_500)) == MOST_AT_ONCE
    await world.answer()
    world.apply()
    assert len(world.step()) == MOST_AT_ONCE


async def test_no_more_than_so_many_are_sent_to_an_endpoint_side_by_side() -> None:
    """Over all partitions together; each that ends makes room for one."""
    world = World(2, ep_a=Endpoint(), ep_b=Endpoint(events=["message.read"]))
    for number in range(40):
        world.say(f"m-{number}", "SENT")
    assert len(world.step()) == MOST_AT_ONCE
    world.say("other", "READ")
    assert [sent.split()[0] for sent in world.step()] == ["ep_b"]

    await world.answer(jobs=world.jobs[:3])
    assert len(world.step()) == 3


@pytest.mark.parametrize("seed", range(20))
async def test_all_are_sent_whatever_is_slow(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes, broker and receivers in any order: each event arrives at each endpoint."""
    chance = random.Random(seed)
    monkeypatch.setattr(waiting, "PAGE", chance.choice([2, 8, PAGE]))
    monkeypatch.setattr(waiting, "LATER", chance.choice([1, 5, waiting.LATER]))
    names = [f"ep_{n}" for n in range(3)]
    world = World(2, **{name: Endpoint() for name in names})
    for _ in range(chance.choice([100, 400])):
        await something(world, chance)
    world.acknowledged.set()
    world.reader.own = {0, 1}
    for name in names:
        world.know(name, Endpoint())
    for _ in range(600):
        await world.answer()
        world.apply()
        world.step(60_000)

    told = [event.json for part in world.data.parts for event in part.events]
    ids = {event["id"] for event in told if event["type"].startswith(("status.", "tracking."))}
    assert set(world.sent) == {f"{name} {id_}" for name in names for id_ in ids}
    assert not any(part.rows(world.data.tables.telling.tables.queues) for part in world.data.parts)


async def something(world: World, chance: random.Random) -> None:
    """Let one of the things happen that can."""
    weights = {
        say_something: 30,
        step: 15,
        pass_something_on: 40,
        decide: 20,
        look: 5,
        answer_some: 20,
        apply: 8,
        settle: 5,
        fail: 5,
        lose_the_sender: 1,
        change_the_group: 3,
        change_an_endpoint: 3,
        let_the_broker_think: 3,
    }
    (what,) = chance.choices([*weights], [*weights.values()])
    await what(world, chance)


async def say_something(world: World, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 1, 40])):
        world.say(f"m-{chance.randrange(300)}", chance.choice(["SENT", "DELIVERED", "READ"]))


async def step(world: World, chance: random.Random) -> None:
    world.step(1)


async def answer_some(world: World, chance: random.Random) -> None:
    jobs = chance.sample(world.jobs, min(len(world.jobs), chance.randint(1, 100)))
    await world.answer(chance.choice([204, 204, 500, 503, None]), jobs)


async def apply(world: World, chance: random.Random) -> None:
    world.apply()


async def settle(world: World, chance: random.Random) -> None:
    await world.settle()


async def fail(world: World, chance: random.Random) -> None:
    world.fails += 1


async def lose_the_sender(world: World, chance: random.Random) -> None:
    world.start_sender()


async def pass_something_on(world: World, chance: random.Random) -> None:
    for _ in range(chance.randrange(4)):
        world.pass_on(is_answered_first=chance.random() < 0.5)


async def decide(world: World, chance: random.Random) -> None:
    world.dispatcher.step()


async def look(world: World, chance: random.Random) -> None:
    world.feed.look()


async def change_the_group(world: World, chance: random.Random) -> None:
    world.generation += chance.randrange(2)
    world.reader.own ^= {chance.randrange(3)} & {0, 1}


async def change_an_endpoint(world: World, chance: random.Random) -> None:
    endpoint = Endpoint(state=chance.choice(["active", "paused", "disabled"]), rate=chance.choice([None, 50]))
    world.know(f"ep_{chance.randrange(3)}", endpoint)


async def let_the_broker_think(world: World, chance: random.Random) -> None:
    if world.acknowledged.is_set():
        world.acknowledged.clear()
    else:
        world.acknowledged.set()


async def test_a_failed_attempt_is_made_again_when_it_is_due() -> None:
    """Not before, and without anybody saying so."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    world.step()
    await world.answer(500)
    world.apply()

    assert world.step(4_900) == []
    assert world.step(200) == ["ep_a statuses-0-0-0"]
    await world.answer(500)
    world.apply()
    assert world.step(299_000) == []
    assert world.step(2_000) == ["ep_a statuses-0-0-0"]


async def test_a_dead_endpoint_costs_the_same_however_long_it_is_dead() -> None:
    """What is tried again is known: the index, and what was deleted there, is read once, at the beginning."""
    world = World(1, ep_a=Endpoint())
    world.step()
    read = len(world.reader.steps)
    for number in range(100):
        world.say(f"m-{number}", "SENT")
        world.step(1_000)
        await world.answer(None)
        world.apply()
    for _ in range(400):
        world.step(30_000)
        await world.answer(None)
        world.apply()

    assert len(world.sent) > 400
    assert len(world.reader.steps) == read


async def test_who_takes_over_sends_what_waits() -> None:
    """What is in the tables: fresh or due again, more than is known at a time."""
    world = World(1, ep_a=Endpoint())
    for number in range(PAGE + 50):
        world.data.say(f"m-{number}", "SENT", NOON)
    world.reader.own.clear()
    world.step()
    world.reader.own.add(0)
    sent = []
    for _ in range(200):
        sent += world.step()
        await world.answer()
        world.apply()

    assert len(sent) == len(set(sent)) == PAGE + 50


async def test_who_takes_over_tries_again_what_is_due_later() -> None:
    """Nobody says of it that it waits."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    world.step()
    await world.answer(500)
    world.apply()
    world.reader.own.clear()
    world.step()
    world.reader.own.add(0)

    assert world.step() == []
    assert world.step(5_100) == ["ep_a statuses-0-0-0"]


async def test_a_paused_endpoint_gets_nothing_until_it_is_active() -> None:
    """What waits is sent then; likewise if it was disabled."""
    world = World(1, ep_a=Endpoint(state="paused"))
    world.say("m", "SENT")
    assert world.step(10_000) == []
    world.know("ep_a", Endpoint(state="disabled"))
    assert world.step(10_000) == []
    world.know("ep_a", Endpoint())
    assert world.step() == ["ep_a statuses-0-0-0"]


async def test_what_says_that_it_is_too_much_gets_less() -> None:
    """Half as many side by side, and none for as long as it asked."""
    world = World(1, ep_a=Endpoint())
    for number in range(60):
        world.say(f"m-{number}", "SENT")
    world.step()
    await world.answer(429, jobs=world.jobs[:1], retry_after=30_000)
    await world.answer(204)
    assert world.step(29_000) == []
    assert 8 <= len(world.step(2_000)) <= MOST_AT_ONCE
    await world.answer(503)
    assert world.step(900) == []
    assert len(world.step(200)) == 1
    await world.answer()
    assert len(world.step()) == 2


async def test_another_url_is_sent_as_much_as_any_new_endpoint() -> None:
    """The limit belongs to the previous receiver; a change of another field keeps it."""
    world = World(1, ep_a=Endpoint(url="https://old.example"))
    for number in range(60):
        world.say(f"m-{number}", "SENT")
    world.step()
    await world.answer(429, retry_after=3_600_000)
    world.know("ep_a", Endpoint(url="https://old.example", timeout_ms=5_000))
    assert world.step() == []

    world.know("ep_a", Endpoint(url="https://new.example"))
    assert len(world.step()) == MOST_AT_ONCE


async def test_no_more_than_the_rate_are_sent_to_an_endpoint() -> None:
    """This worker's share of it: that of its partitions."""
    world = World(2, ep_a=Endpoint(rate=10))
    world.reader.own = {0}
    names = [name for name in (f"m-{n}" for n in range(200)) if world.data.partition_of(name) == 0]
    for name in names[:60]:
        world.say(name, "SENT")
    sent = len(world.step())
    for _ in range(100):
        await world.answer()
        sent += len(world.step(100))

    assert 50 <= sent <= 56


async def test_what_waits_for_an_endpoint_that_is_gone_is_forgotten_after_a_while() -> None:
    """Not at once: a worker may not know it yet."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT", "READ")
    world.know("ep_a", None)
    assert world.step() == []
    await world.settle()
    assert not world.produced
    world.step(UNKNOWN_MS + 1)
    await world.settle()
    world.apply()

    assert world.data.parts[0].rows(world.data.tables.telling.tables.queues) == {}
    assert not world.jobs


async def test_when_the_sender_ends_what_it_had_is_sent_again() -> None:
    """By the next one, which is told all that it has to know; with the same number, so it counts once."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    world.step()
    wanted = world.wanted
    world.start_sender()
    assert world.wanted > wanted
    assert world.step() == ["ep_a statuses-0-0-0"]
    assert world.step(5_000) == []


@pytest.mark.parametrize("is_acknowledged", [True, False])
async def test_what_was_produced_for_a_sender_that_ended_is_not_sent_by_the_next(
    is_acknowledged: bool,
) -> None:
    """It still looks as if it was due, until the lane has applied it; other partitions need not wait."""
    world = World(2, ep_a=Endpoint())
    name, other = world.data.name_in(0), world.data.name_in(1)
    world.say(name, "SENT", "READ")
    assert world.step() == ["ep_a statuses-0-0-0"]
    if not is_acknowledged:
        world.acknowledged.clear()
    await world.answer()
    world.start_sender()
    world.say(other, "SENT")
    assert world.step(1_000) == ["ep_a statuses-1-0-0"]
    await world.acknowledge()
    assert world.step(1_000) == []
    world.apply()

    assert world.step() == ["ep_a statuses-0-1-0"]


async def test_a_sender_that_hears_too_slowly_reads_what_it_sends() -> None:
    """What it is told waits in the worker's memory, so it is told in short."""
    world = World(1, ep_a=Endpoint())
    world.step()
    read = len(world.reader.steps)
    world.unheard_bytes = MOST_UNHEARD + 1
    world.say("m", "SENT")
    assert b"deliveryReport" not in b"".join(world.told)

    assert world.step() == ["ep_a statuses-0-0-0"]
    assert len(world.reader.steps) == read


async def test_no_more_than_so_many_are_sent_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """To however many endpoints, and though all of it is read at once."""
    monkeypatch.setattr(dispatching, "MOST_UNDER_WAY", 20)
    world = World(1, **{f"ep_{n}": Endpoint() for n in range(4)})
    for number in range(MOST_AT_ONCE):
        world.data.say(f"m-{number}", "SENT", NOON)
    world.generation += 1
    for left in (4 * MOST_AT_ONCE - 20 * n for n in range(3)):
        assert len(world.step()) == min(20, left)
        await world.answer()
        world.apply()
    assert len(world.step()) == 4 * MOST_AT_ONCE - 60


async def test_a_sender_that_hangs_is_ended() -> None:
    """It is one that has not told of a job for longer than any takes, whatever it tells of others."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    world.step()
    for number in range(4):
        world.say(f"m-{number}", "SENT")
        world.step(HUNG_MS // 4)
        await world.answer(jobs=world.jobs[1:])
        world.apply()
    world.say("late", "SENT")
    world.step()
    assert world.ended == 0
    world.step(1)
    world.step(1)
    assert world.ended == 1
    world.start_sender()
    assert world.step() == ["ep_a statuses-0-0-0", "ep_a statuses-0-5-0"]
    assert world.ended == 1


async def test_a_webhook_whose_outcome_cannot_be_produced_is_not_sent_again() -> None:
    """The outcome is kept and produced again; the receiver answered, and the fault is the broker's."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT", "READ")
    world.step()
    world.fails = 1_000
    await world.answer()
    sent = []
    for _ in range(60):
        sent += world.step(1_000)
        await world.answer()
    assert sent == []
    world.fails = 0
    await world.settle()
    world.apply()

    assert world.step() == ["ep_a statuses-0-1-0"]


async def test_an_outcome_is_produced_again_after_pauses_that_grow() -> None:
    """From a second to half a minute; once it was produced, the next failure begins with a second."""
    world = World(1, ep_a=Endpoint())
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        if seconds >= 1:
            pauses.append(seconds)
        await asyncio.sleep(0)

    world.dispatcher.pause = pause
    for message, fails in (("m", 7), ("n", 1)):
        world.say(message, "SENT")
        world.step()
        world.fails = fails
        await world.answer()
        for _ in range(5):
            await world.settle()

    assert pauses == [1, 2, 4, 8, 16, 30, 30, 1]


async def test_an_outcome_of_a_partition_that_has_gone_is_produced() -> None:
    """Its holder learns what was delivered; if the partition comes back, nothing is sent again."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    world.step()
    world.fails = 1
    world.worker.held = frozenset()
    await world.answer()
    await world.settle()
    assert not world.dispatcher._unsaid
    world.worker.held = frozenset({0})
    world.apply()

    assert world.step(1_500) == []


async def test_no_attempts_begin_while_too_many_outcomes_are_not_produced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of that partition; others go on, and so does it once they are produced."""
    monkeypatch.setattr(dispatching, "MOST_UNDER_WAY", 20)
    world = World(2, ep_a=Endpoint())
    names = [f"m-{n}" for n in range(200)]
    ours = [name for name in names if world.data.partition_of(name) == 0][:60]
    for name in ours:
        world.say(name, "SENT")
    world.fails = 10_000
    for _ in range(10):
        world.step(100)
        await world.answer()
    assert 20 <= len(world.sent) < 20 + MOST_AT_ONCE
    world.fails = 0
    world.say(world.data.name_in(1), "SENT")
    assert [sent.split("-")[1] for sent in world.step()] == ["1"]
    await world.settle()
    for _ in range(10):
        world.apply()
        world.step(100)
        await world.answer()

    assert len(set(world.sent)) == len(world.sent) == 61


async def test_a_queue_of_which_nothing_is_heard_is_read_after_a_long_pause() -> None:
    """Its outcome was buried: the queue must be neither forgotten nor sent again and again."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    for _ in range(3):
        assert world.step() == ["ep_a statuses-0-0-0"]
        await world.answer()
        ((partition, records),) = world.produced
        world.produced.clear()
        world.stands[partition] += len(records)
        assert [world.step(60_000) for _ in range(60)] == [[]] * 60
        world.now += 60_000
    world.step()
    await world.answer()
    world.apply()

    assert world.step(2 * LONGEST_PAUSE_MS) == []


@pytest.mark.parametrize("asked", [-(2**70), 2**70])
async def test_an_outcome_is_within_the_limits_of_its_type(asked: int) -> None:
    """Whatever a receiver asks for, and whatever the clocks of the sender say."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    world.step()
    world.dispatcher.done([Done(job.number, asked, asked, 503, None, "", asked) for job in world.jobs])
    await world.settle()
    ((_, ((_, value, _, _),)),) = world.produced

    assert isinstance(read_said(value), Attempted)


async def test_what_waits_is_sent_as_it_is_when_it_is_sent() -> None:
    """Not as it was when it came to wait: what was let go of meanwhile is not sent any more."""
    world = World(1, ep_a=Endpoint(state="paused"))
    world.say("m", "SENT")
    assert world.step() == []
    world.now += 8 * 86_400_000
    world.say("m", "READ")
    world.data.parts[0].ask(record("tick", type="tick", receipt=world.now))
    world.feed.note(0, world.data.parts[0].notes[DUE])
    world.know("ep_a", Endpoint())

    assert world.step() == ["ep_a statuses-0-1-0"]


async def test_what_is_kept_in_mind_of_what_waits_is_bounded() -> None:
    """Of more than so many queues the oldest are read again, and sent all the same."""
    paused = Endpoint(events=["message.sent"], state="paused")
    world = World(1, ep_a=paused, ep_b=paused)
    for number in range(count := MOST_KNOWN // 2 + MOST_AT_ONCE):
        world.say(f"m-{number}", "SENT")
    assert world.step() == []
    assert len(world.dispatcher._known) == MOST_KNOWN
    for name in ("ep_a", "ep_b"):
        world.know(name, Endpoint(events=["message.sent"]))
    for _ in range(count):
        world.step()
        await world.answer()
        world.apply()

    assert sorted(world.sent) == sorted(f"ep_{e} statuses-0-{n}-0" for e in "ab" for n in range(count))
    assert not world.dispatcher._known


async def test_partitions_that_went_are_left_alone() -> None:
    """Their new holder sends what waits."""
    world = World(2, ep_a=Endpoint())
    names = world.data.one_per_partition()
    for name in names:
        world.say(name, "SENT")
    world.reader.own = {1}

    assert world.step() == ["ep_a statuses-1-0-0"]
    assert world.step(1_000) == []


async def test_what_is_done_already_makes_room_for_what_waits_elsewhere() -> None:
    """A queue that is said to be due and is not there any more holds nobody up, in no partition."""
    world = World(2, ep_a=Endpoint())
    names = [f"m-{n}" for n in range(200)]
    first = [name for name in names if world.data.partition_of(name) == 0][: 2 * MOST_AT_ONCE]
    other = next(name for name in names if world.data.partition_of(name) == 1)
    for name in (*first, other):
        world.say(name, "SENT")
    gone = [f"ep_a\0{name}".encode() for name in first]
    for key in gone:
        world.data.parts[0].stored["webhook_queues"].pop(key)
    world.feed.note(0, {(group_of("ep_a"), key): None for key in gone})

    assert [sent for _ in range(4) for sent in world.step()] == ["ep_a statuses-1-0-0"]


async def test_what_a_message_itself_names_is_told_beside_what_is_registered() -> None:
    """Its secrets are the message's; those of one server share what that takes."""
    world = World(1, ep_a=Endpoint(events=["message.sent"]))
    for number in range(2 * MOST_AT_ONCE):
        hooks = [
            {"url": f"https://a.example/{number}", "events": ["message.sent"]},
            {"url": "https://b.example"},
        ]
        part = world.data.parts[0].ask(request(f"m-{number}", webhooks=hooks))
        world.feed.note(0, part.notes[DUE])
    # of each message the second one is told that it is tracked
    assert world.step() == [f"@m-{number} requests-0-{number}-0" for number in range(MOST_AT_ONCE)]
    world.say("m-0", "SENT")
    assert sorted(world.step()) == ["@m-0 statuses-0-0-0", "ep_a statuses-0-0-0"]
    await world.answer(410)
    world.apply()

    queues = world.data.parts[0].rows(world.data.tables.telling.tables.queues)
    # who is gone of a message gets nothing more of it; the one that is registered may be mended
    assert b"@0\0m-0" not in queues
    assert b"ep_a\0m-0" in queues


async def test_an_attempt_that_is_known_already_holds_up_nothing() -> None:
    """A former holder of the partition may have told of it before: what comes next is sent."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT", "READ")
    (before,) = world.step()
    other = Attempted("m", before.split()[1], "ep_a", 1, NOON, NOON, 5, 0.5, 204)
    world.produced.append((0, [(b"m", encode(other), [], None)]))
    world.ends[0] += 1
    world.apply()
    assert world.step() == []
    await world.answer()
    world.apply()

    assert world.step(1_000) == ["ep_a statuses-0-1-0"]


async def test_what_was_sent_without_a_rate_does_not_count_against_one() -> None:
    """An endpoint may get a rate after a busy hour without; and no attempt counts twice against it."""
    world = World(1, ep_a=Endpoint())
    for number in range(200):
        world.say(f"m-{number}", "SENT")
        world.step()
        await world.answer()
        world.apply()
    world.know("ep_a", Endpoint(rate=10))
    sent = 0
    for number in range(600):
        if number % 10:
            world.say(f"n-{number}", "SENT")
        sent += len(world.step(100))
        await world.answer()
        world.apply()

    assert sent > 530


async def test_410_is_not_tried_at_once_until_it_is_heard_everywhere() -> None:
    """Nor are its tries used up meanwhile: the event waits until the receiver is mended."""
    world = World(1, ep_a=Endpoint(retries=2))
    world.say("m", "SENT")
    sent = 0
    for _ in range(100):
        sent += len(world.step(20))
        await world.answer(410)
        world.apply()
    assert sent <= 2
    for _ in range(5):
        world.step(3_600_000)
        await world.answer(410)
        world.apply()

    queues = world.data.parts[0].rows(world.data.tables.telling.tables.queues)
    assert list(queues) == [b"ep_a\0m"]


async def test_whatever_keeps_an_outcome_from_being_produced_it_is_produced_again() -> None:
    """An error that nobody thought of must not silence a partition."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT", "READ")
    world.step()
    produce = world.feed.produce

    async def broken(partition: int, records: list[Output]) -> int:
        raise RuntimeError("closed")

    world.feed.produce = broken
    await world.answer()
    world.feed.produce = produce
    for _ in range(10):
        world.step(1_000)
        await world.answer()
        world.apply()

    assert world.sent == ["ep_a statuses-0-0-0", "ep_a statuses-0-1-0", "ep_a statuses-0-1-1"]


async def test_all_that_waits_for_an_endpoint_that_is_gone_is_forgotten() -> None:
    """More than a page, though the lane is slow."""
    world = World(1, ep_a=Endpoint(state="paused"))
    for number in range(2 * PAGE + 100):
        world.data.say(f"m-{number}", "SENT", NOON)
    world.reader.own.clear()
    world.step()
    world.reader.own.add(0)
    world.know("ep_a", None)
    world.step()
    world.step(UNKNOWN_MS + 1)
    for number in range(400):
        world.step(250)
        await world.settle()
        if number > 100:
            world.apply()

    assert world.data.parts[0].rows(world.data.tables.telling.tables.queues) == {}


async def test_what_is_forgotten_while_it_is_sent_does_not_hold_up_the_next() -> None:
    """Retention goes by the clock, whoever is under way."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT")
    world.step()
    world.now += 8 * 86_400_000
    world.say("m", "READ")
    world.data.parts[0].ask(record("tick", type="tick", receipt=world.now))
    world.feed.note(0, world.data.parts[0].notes.get(DUE, {}))
    assert world.step() == []
    await world.answer()
    world.apply()

    assert world.step(1_000) == ["ep_a statuses-0-1-0"]


async def test_a_partition_that_was_elsewhere_is_looked_at_anew() -> None:
    """Though it is back before anybody saw that it went."""
    world = World(1, ep_a=Endpoint())
    world.data.say("m", "SENT", NOON)
    assert world.step() == []
    world.generation = 1
    assert world.step() == ["ep_a statuses-0-0-0"]


async def test_what_is_not_told_yet_is_not_sent_again_when_partitions_change() -> None:
    """While more is gathered, and while the broker is awaited; then the lane applies it."""
    world = World(1, ep_a=Endpoint())
    world.say("m", "SENT", "READ")
    assert world.step() == ["ep_a statuses-0-0-0"]
    gathered = asyncio.Event()

    async def gather(seconds: float) -> None:
        await gathered.wait()

    world.dispatcher.pause = gather
    world.acknowledged.clear()
    await world.answer()
    for generation, goes_on in enumerate((gathered, world.acknowledged), 1):
        world.generation = generation
        assert world.step(1_000) == []
        goes_on.set()
        await world.settle()
    world.apply()

    assert world.step() == ["ep_a statuses-0-1-0"]


async def test_more_is_gathered_while_lanes_lag() -> None:
    """What is due, and what is to be told of it: lanes notice how often something is done."""
    world = World(1, ep_a=Endpoint())
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    world.dispatcher.pause = pause
    world.is_busy = True
    world.say("m", "SENT")
    while world.pass_on():
        pass
    running = asyncio.create_task(world.dispatcher.run())
    await world.settle()
    assert pauses == [BUSY_GATHER_S]
    running.cancel()
    began = asyncio.get_running_loop().time()
    await world.answer()
    took = asyncio.get_running_loop().time() - began
    moments = [(began // BUSY_TELL_S + number) * BUSY_TELL_S for number in (1, 2)]
    assert any(0 <= moment - pauses[-1] - began <= took for moment in moments)


async def test_servers_that_are_named_once_are_forgotten() -> None:
    """Anybody may name any server in a request."""
    world = World(1)
    for number in range(2 * MOST_IDLE):
        part = world.data.parts[0].ask(
            request(f"m-{number}", webhooks=[{"url": f"https://{number}.example"}])
        )
        world.feed.note(0, part.notes[DUE])
        world.step()
        await world.answer()
        world.apply()

    world.step()
    assert len(world.dispatcher._paces) <= MOST_IDLE + 10
    assert len(world.dispatcher._places) <= 10
