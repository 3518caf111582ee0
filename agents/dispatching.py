"""Who is told when: what is due is sent, side by side only so much of each endpoint.

The tables say what is due; here is only known what is under way. What came of it is a record that the lane
of the message applies, and until it has, the queue stays as it was and must not be sent once more. So nothing
that is lost here is lost: whoever has the partition next reads it anew.

The tables are a worker's, in another process. It says how they change, and answers what it is asked; both
come here in the order in which they became so, so an answer is as true as a look into the tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections import OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from agents.waiting import Waiting
from streams.domain.endpoints import MOST_TIMEOUT_MS, Endpoint
from streams.domain.retries import verdict_of
from streams.domain.routing import Routing
from streams.domain.webhooks import (
    MOST_PAUSE_MS,
    MOST_TIME_MS,
    OWN,
    Abandon,
    Attempted,
    Queue,
    Told,
    event_id,
    owner_of,
    queue_names,
)
from streams.messages import encode
from streams.webhooks.jobs import Done, Job
from streams.webhooks.pipe import Answer, Due, Firsts, Groups, Listed, Look, Question, Read, Waits

__all__ = ["Dispatcher", "Pace", "Post", "Worker"]

log = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 16
"""Attempts of one endpoint that a worker makes side by side."""

LEAST_FAILING: Final = 4
"""The same while it fails without saying that it is too much: others get through, it may come back."""

MOST_UNDER_WAY: Final = 2_000
"""Attempts that a worker makes side by side."""

MOST_KNOWN: Final = 2_000
"""Queues that need not be read, for they were just written; of those that became due last."""

UNKNOWN_MS: Final = 60_000
"""How long an endpoint is unknown until what waits for it is forgotten; a new one is known a moment later."""

ROUNDING: Final = 1e-6
MOST_IDLE: Final = 1_000
"""Endpoints, and times to wake, that may be remembered though nothing waits there."""

HUNG_MS: Final = 3 * MOST_TIMEOUT_MS
"""What no attempt takes: who makes it says nothing any more."""

THROTTLED_MS: Final = 1_000
LONGEST_PAUSE_MS: Final = 3_600_000
AGAIN_MS: Final = 1_000
LOOK_S: Final = 0.25
GATHER_S: Final = 0.015
"""How long what is due is gathered until it is sent."""

RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 30.0
"""The first pause before outcomes are produced again, and the longest; each is twice the one before."""

TELL_S: Final = 0.05
"""How long what came of attempts is gathered until it is produced; only what waits behind it notices."""

BUSY_GATHER_S: Final = 0.03
BUSY_TELL_S: Final = 0.5
"""The same while lanes lag.

Records wait for longer than that, and lanes notice how often something is done more than how much."""

#: Where what is due is found: a partition, and what stands for an endpoint in the index.
Place = tuple[int, bytes]


class Worker(Protocol):
    """Whose partitions these are, as far as it has said.

    Attributes:
        partitions: how many there are in all.
        held: those that it holds.
        generation: changes whenever they may have been elsewhere.
        is_busy: whether its lanes lag behind their inputs.
    """

    partitions: int
    held: frozenset[int]
    generation: int
    is_busy: bool

    def stand(self, partition: int) -> int:
        """Return up to which offset of a partition all is applied that came of attempts."""

    def ask(self, question: Question) -> None:
        """Ask; the answer is told to `Dispatcher.found`, in order with all else that it says."""

    async def produce(self, partition: int, records: list[tuple[bytes, bytes]]) -> int:
        """Have records produced to a partition of the topic of webhooks; return the last one's offset."""


class Post(Protocol):
    """Who makes attempts."""

    def post(self, jobs: list[Job]) -> None: ...  # noqa: D102
    def end(self) -> None: ...  # noqa: D102


@dataclass
class Pace:
    """How much an endpoint takes, as far as this worker has seen.

    Attributes:
        width: attempts side by side; fewer after it said that it is too much, more as they arrive.
        under_way: attempts that are being made.
        not_before: when it can be tried again, ms.
        allowance: attempts that its rate still lets through, and when that was counted, ms.
        url: of the endpoint; empty until the first attempt.
    """

    width: int = MOST_AT_ONCE
    under_way: int = 0
    not_before: int = 0
    allowance: float = 1.0
    counted_at: int = 0
    url: str = ""

    def go_to(self, url: str) -> None:
        """Reset the limits when the endpoint has another URL: they describe the previous receiver."""
        if self.url not in ("", url):
            self.width, self.not_before = MOST_AT_ONCE, 0
        self.url = url

    def room(self, now: int, per_second: float | None) -> int:
        """Return how many attempts can be begun."""
        if now < self.not_before:
            return 0
        room = self.width - self.under_way
        if per_second is None:
            # what was sent without a rate does not count against one that is set later
            self.allowance, self.counted_at = float(MOST_AT_ONCE), now
            return room
        grown = self.allowance + max(0, now - self.counted_at) * per_second / 1000
        self.allowance, self.counted_at = min(grown, max(1.0, per_second)), now
        return min(room, int(self.allowance + ROUNDING))

    def opens_at(self, now: int, per_second: float | None, room: int) -> int | None:
        """Return when there is more room, ms, if time alone makes it; None: an attempt must end first."""
        if now < self.not_before:
            return self.not_before
        lacking = max(0, room) + 1 - self.allowance
        if per_second is not None and lacking > 0:
            return now + max(1, round(lacking * 1000 / per_second))
        return None

    def is_idle(self, now: int) -> bool:
        """Whether it is as if nothing was ever sent."""
        return not self.under_way and self.width == MOST_AT_ONCE and self.not_before <= now

    def began(self) -> None:
        """Count an attempt that begins."""
        self.under_way += 1
        self.allowance -= 1

    def took_back(self) -> None:
        """Count an attempt no more that was not made after all."""
        self.under_way -= 1
        self.allowance += 1

    def ended(self, status: int | None, retry_after_ms: int | None, now: int) -> None:
        """Take what an attempt came to."""
        self.under_way -= 1
        verdict = "failed" if status is None else verdict_of(status)
        if verdict == "delivered":
            self.width = min(MOST_AT_ONCE, self.width + 1)
        elif verdict == "throttled":
            self.width = max(1, self.width // 2)
            self.not_before = now + min(max(THROTTLED_MS, retry_after_ms or 0), LONGEST_PAUSE_MS)
        else:
            self.width = max(min(self.width, LEAST_FAILING), self.width - 1)


@dataclass(slots=True)
class Flight:
    """A queue that is under way, and what will be said of it.

    Attributes:
        begun_at: when it was handed over, ms.
        offset: where that lies; None: nowhere yet.
        waits: whether events wait in the queue, as last reported by its lane; None: no report came.
    """

    partition: int
    key: bytes
    group: bytes
    said: Attempted | Abandon | None = None
    begun_at: int = 0
    offset: int | None = None
    waits: bool | None = None


@dataclass
class Dispatcher:
    """Has sent what is due in the partitions that a worker holds.

    Attributes:
        routing: the endpoints, as they are known here.
        now: what time it is, ms.
        chance: from 0 up to 1, evenly.
        pause: waits for so many seconds.
    """

    worker: Worker
    routing: Routing
    post: Post
    now: Callable[[], int]
    chance: Callable[[], float]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    _places: dict[Place, Waiting] = field(default_factory=dict)
    _dirty: dict[Place, None] = field(default_factory=dict)
    # by partition and key, queues and their firsts; whatever changes these is noted, so they are as they are
    _known: OrderedDict[tuple[int, bytes], tuple[Queue, Told]] = field(default_factory=OrderedDict)
    _paces: dict[bytes, Pace] = field(default_factory=lambda: defaultdict(Pace))
    _held: frozenset[int] = frozenset()
    _generation: int = 0
    _wakes: list[tuple[int, Place]] = field(default_factory=list)
    # by the pause before it, ms: what is looked at again though nobody says so, and when, ms; in order
    _agains: dict[int, deque[tuple[int, Flight]]] = field(default_factory=lambda: defaultdict(deque))
    _flights: dict[int, Flight] = field(default_factory=dict)
    _numbers: int = 0
    # what the worker was asked, by number, and who wants to hear the answer
    _asked: dict[int, Callable[[Any], None]] = field(default_factory=dict)
    # how many have begun that are no attempts yet
    _begun: int = 0
    # by partition, queues that are not sent now: what came of them is not applied yet
    _busy: dict[int, dict[bytes, Flight]] = field(default_factory=lambda: defaultdict(dict))
    _stands: dict[int, int] = field(default_factory=dict)
    _turn: int = 0
    _unknown: dict[str, int] = field(default_factory=dict)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    # by partition, what came of attempts that the broker has not acknowledged
    _unsaid: dict[int, list[Flight]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def under_way(self) -> int:
        """How many attempts are being made."""
        return len(self._flights)

    async def run(self) -> None:
        """Dispatch whenever something is due, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._idle_s()):
                    await self._woken.wait()
            self._woken.clear()
            self.step()
            # what comes meanwhile is dispatched together
            await self.pause(BUSY_GATHER_S if self.worker.is_busy else GATHER_S)

    def _idle_s(self) -> float:
        next_at = self._wakes[0][0] if self._wakes else None
        return LOOK_S if next_at is None else min(LOOK_S, max(0, next_at - self.now()) / 1000)

    def note(self, partition: int, due: Iterable[Due]) -> None:
        """Take how queues of a partition stand now."""
        known, busy = self._known, self._busy[partition]
        for (group, key), standing in due:
            queue, told = standing or (None, None)
            if queue is None or told is None:
                known.pop((partition, key), None)
            else:
                known[partition, key] = queue, told
            if key in busy:
                # it is looked at when its flight has ended
                busy[key].waits = queue is not None
            elif queue is not None:
                self._take(partition, group, key, queue)
        self._release(partition)
        while len(known) > MOST_KNOWN:
            known.popitem(last=False)
        self._woken.set()

    def _take(self, partition: int, group: bytes, key: bytes, queue: Queue) -> None:
        """Take how a queue stands in which something waits."""
        if queue.is_fresh:
            self._place(partition, group).is_fresh(key, queue)
            self._dirty[partition, group] = None
        else:
            self._wait(partition, key, queue)

    def _place(self, partition: int, group: bytes) -> Waiting:
        place = partition, group
        waiting = self._places.get(place)
        if waiting is None:
            waiting = self._places[place] = Waiting(group)
        return waiting

    def _is_due(self, partition: int, group: bytes, key: bytes) -> None:
        """Look at a queue that was under way."""
        self._place(partition, group).keys.append(key)
        self._dirty[partition, group] = None

    def changed(self, endpoint_id: str, group: bytes) -> None:
        """Look anew at what waits for an endpoint, for it is not as it was."""
        self._unknown.pop(endpoint_id, None)
        self._open({group})

    def step(self) -> None:
        """Hand over what is due and has room."""
        self._follow_the_group()
        now = self.now()
        for partition in self._held:
            self._release(partition)
        self._forget_idle(now)
        self._end_who_hangs(now)
        self._wake_up(now)
        if not self._dirty:
            return
        places, self._dirty = list(self._dirty), {}
        chosen: dict[int, list[Flight]] = defaultdict(list)
        for place in places:
            if place[0] in self._held and place in self._places:
                chosen[place[0]] += self._choose(place, self._places[place], now)
        self._post(
            [job for partition, flights in chosen.items() for job in self._jobs(partition, flights, now)]
        )

    def _post(self, jobs: list[Job]) -> None:
        if jobs:
            self.post.post(jobs)

    def _ask(self, question: Question, then: Callable[[Any], None]) -> None:
        self._numbers += 1
        question.number = self._numbers
        self._asked[self._numbers] = then
        self.worker.ask(question)

    def found(self, answer: Answer) -> None:
        """Take what the worker answered."""
        self._asked.pop(answer.number)(answer)
        self._woken.set()

    def _wake_up(self, now: int) -> None:
        """Look where something is due by now."""
        while self._wakes and self._wakes[0][0] <= now:
            _, place = heapq.heappop(self._wakes)
            waiting = self._places.get(place)
            if waiting is not None and waiting.wakes_at is not None and waiting.wakes_at <= now:
                waiting.wakes_at = None
                self._dirty[place] = None
        # none can be further away, unless the clock was
        for pause, agains in self._agains.items():
            while agains and not now < agains[0][0] <= now + pause:
                _, flight = agains.popleft()
                if flight.partition in self._held:
                    self._is_due(flight.partition, flight.group, flight.key)

    def _end_who_hangs(self, now: int) -> None:
        """Have a sender ended that does not say what came of its jobs; what it had is sent again."""
        oldest = next(iter(self._flights.values()), None)
        if oldest is not None and now - oldest.begun_at > HUNG_MS:
            log.error("the sender of webhooks has not answered for %d s and is ended", HUNG_MS // 1000)
            oldest.begun_at = now  # once: soon it is heard that it has ended
            self.post.end()

    def _forget_idle(self, now: int) -> None:
        """Forget endpoints that nothing is known of but their name, and times that nothing waits for."""
        if len(self._wakes) > MOST_IDLE + 2 * len(self._places):
            waits = [(waiting.wakes_at, place) for place, waiting in self._places.items()]
            self._wakes = [(at, place) for at, place in waits if at is not None]
            heapq.heapify(self._wakes)
        if len(self._paces) > MOST_IDLE + 2 * len(self._places):
            used = {group for _, group in self._places}
            for group in [g for g, pace in self._paces.items() if g not in used and pace.is_idle(now)]:
                del self._paces[group]

    def _follow_the_group(self) -> None:
        """Begin with the partitions that have come, and let go of those that went."""
        held, generation = self.worker.held, self.worker.generation
        if generation != self._generation:
            # a partition that went and came back may have been elsewhere
            self._held, self._generation = frozenset(), generation
            self._busy.clear()
            self._stands.clear()
        if held == self._held:
            return
        self._known.clear()
        for partition in self._held - held:
            self._busy.pop(partition, None)
            self._stands.pop(partition, None)
        self._places = {place: waits for place, waits in self._places.items() if place[0] in held}
        for partition in held - self._held:
            # what is under way since before is known by its flight, be it made or to be told
            for flight in (*self._flights.values(), *self._unsaid.get(partition, ())):
                if flight.partition == partition:
                    # the last report of the queue may be out of date
                    flight.waits = True
                    self._busy[partition][flight.key] = flight
            self._ask(Groups(0, partition), partial(self._begin, partition))
        self._held = held

    def _begin(self, partition: int, answer: Waits) -> None:
        """Look at all that waits in a partition."""
        if partition not in self._held:
            return
        if answer.groups is None:
            # the worker has it no longer, and says so soon; or it is asked again
            self._held -= {partition}
            return
        known = [group for place, group in self._places if place == partition]
        for group in {*answer.groups, *known}:
            self._place(partition, group).begin_anew()
            self._dirty[partition, group] = None

    def _choose(self, place: Place, waiting: Waiting, now: int) -> Iterator[Flight]:
        """Yield what may be begun in a place, as far as there is room."""
        partition, group = place
        busy, keys, pace = self._busy[partition], waiting.keys, self._paces[group]
        room: int | None = None
        while keys or self._refill(place, waiting, now):
            key = keys[0]
            if key in busy:
                keys.popleft()
                continue
            if room is None:
                room = self._room(place, waiting, key, now)
            if room <= 0:
                return
            room -= 1
            pace.began()
            self._begun += 1
            busy[key] = flight = Flight(partition, key, group)
            keys.popleft()
            yield flight
        if waiting.is_empty:
            del self._places[place]

    def _refill(self, place: Place, waiting: Waiting, now: int) -> bool:
        """Look for what else is due in a place, and see that what is due later is looked for then."""
        is_any = waiting.refill(self._busy[place[0]], now)
        if not is_any and not waiting.is_looked_up and (look := waiting.unknown(place[0], now)) is not None:
            waiting.is_looked_up = True
            self._ask(look, partial(self._looked_up, place, waiting, look))
        self._wake_when_due(place, waiting)
        return is_any

    def _looked_up(self, place: Place, waiting: Waiting, asked: Look, answer: Listed) -> None:
        """Take what the index lists of a place."""
        waiting.is_looked_up = False
        if answer.retries is not None:
            waiting.found(asked, answer, self._busy[place[0]])
        self._dirty[place] = None

    def _room(self, place: Place, waiting: Waiting, key: bytes, now: int) -> int:
        """Return how many attempts can begin; if none can, see that it is asked again when that changes.

        Args:
            key: of a queue of the place; all of them are of one endpoint.
        """
        if len(self._unsaid.get(place[0], ())) >= MOST_UNDER_WAY:
            return 0  # the place is looked at again when these outcomes are produced
        endpoint_id, _ = queue_names(key)
        endpoint = self.routing.endpoints.get(endpoint_id)
        rate = None
        if endpoint is not None:
            if endpoint.state != "active":
                return 0  # it is changed before it is active
            rate = self._share(endpoint)
            self._paces[place[1]].go_to(endpoint.url)
        elif not endpoint_id.startswith(OWN) and not self._is_gone(endpoint_id, now):
            self._wake(place, waiting, now + UNKNOWN_MS)
            return 0
        pace, left = self._paces[place[1]], MOST_UNDER_WAY - len(self._flights) - self._begun
        room = pace.room(now, rate)
        if room > left:
            self._dirty[place] = None
            return left
        if room <= 0 or rate is not None:
            opens_at = pace.opens_at(now, rate, room)
            if opens_at is not None:
                self._wake(place, waiting, opens_at)
        return room

    def _jobs(self, partition: int, flights: list[Flight], now: int) -> Iterator[Job]:
        """Make jobs of the firsts of queues; what is not known is asked for together."""
        known: list[tuple[Flight, Queue, Told | None]] = []
        unknown: list[Flight] = []
        for flight in flights:
            standing = self._known.pop((partition, flight.key), None)
            if standing is None:
                unknown.append(flight)
            else:
                known.append((flight, *standing))
        if unknown:
            asked = Read(0, partition, [flight.key for flight in unknown])
            self._ask(asked, partial(self._read, partition, unknown))
        return self._jobs_of(partition, known, now)

    def _read(self, partition: int, flights: list[Flight], answer: Firsts) -> None:
        """Have sent what was not known of flights that have begun."""
        now, busy = self.now(), self._busy[partition]
        due: list[tuple[Flight, Queue, Told | None]] = []
        for number, flight in enumerate(flights):
            if busy.get(flight.key) is not flight:
                # its partition went meanwhile
                self._give_back(flight)
                continue
            queue, told = (None, None) if answer.rows is None else answer.rows[number]
            if queue is not None and (queue.is_fresh or queue.due_at <= now):
                due.append((flight, queue, told))
                continue
            self._give_back(flight)
            if answer.rows is None:
                self._again(flight)
                continue
            del busy[flight.key]
            if queue is not None:
                self._wait(partition, flight.key, queue)
        self._post(list(self._jobs_of(partition, due, now)))

    def _jobs_of(
        self, partition: int, firsts: Iterable[tuple[Flight, Queue, Told | None]], now: int
    ) -> Iterator[Job]:
        """Make jobs of the firsts of queues that are due."""
        abandoned: list[Flight] = []
        for flight, queue, told in firsts:
            endpoint_id, message_id = queue_names(flight.key)
            endpoint = queue.endpoint or self.routing.endpoints.get(endpoint_id)
            if endpoint is None:
                self._give_back(flight)
                flight.said = Abandon(message_id, endpoint_id)
                abandoned.append(flight)
            elif told is None:
                # a unit writes one table after the other
                self._give_back(flight)
                self._again(flight)
            else:
                id_ = event_id(partition, queue.waiting[0])
                number = queue.attempts + 1
                flight.said = Attempted(message_id, id_, endpoint_id, number, told.at, 0, 0, self.chance())
                self._numbers += 1
                self._begun -= 1
                flight.begun_at = now
                self._flights[self._numbers] = flight
                owner = endpoint_id if queue.endpoint is None else owner_of(message_id)
                yield Job(self._numbers, owner, endpoint, id_, told.type, told.body)
        if abandoned:
            self._say(partition, abandoned)

    def _give_back(self, flight: Flight) -> None:
        """Take note that no attempt is made: there is room for another, wherever that waits."""
        self._begun -= 1
        self._paces[flight.group].took_back()
        self._open({flight.group})

    def _share(self, endpoint: Endpoint) -> float | None:
        """Return this worker's part of an endpoint's rate: that of its partitions."""
        if endpoint.rate is None:
            return None
        return endpoint.rate * len(self._held) / self.worker.partitions

    def _wait(self, partition: int, key: bytes, queue: Queue) -> None:
        """Look at a queue that was tried when it is due again."""
        waiting = self._place(partition, queue.group)
        waiting.is_later(key, queue)
        self._wake_when_due((partition, queue.group), waiting)

    def _wake_when_due(self, place: Place, waiting: Waiting) -> None:
        """Look at a place again when the first is due of what is known to be later."""
        if waiting.later:
            self._wake(place, waiting, waiting.later[0][0])

    def _wake(self, place: Place, waiting: Waiting, at: int) -> None:
        """Look at a place again at a time, if not before."""
        if waiting.wakes_at is None or at < waiting.wakes_at:
            waiting.wakes_at = at
            heapq.heappush(self._wakes, (at, place))

    def _is_gone(self, endpoint_id: str, now: int) -> bool:
        """Say whether an endpoint was not known for so long that it is not just new."""
        return now - self._unknown.setdefault(endpoint_id, now) >= UNKNOWN_MS

    def done(self, results: Iterable[Done]) -> None:
        """Take what came of jobs, and say so."""
        now = self.now()
        ended: dict[int, list[Flight]] = defaultdict(list)
        for result in results:
            flight = self._flights.pop(result.number, None)
            if flight is None:
                continue
            self._paces[flight.group].ended(result.status, result.retry_after_ms, now)
            assert isinstance(flight.said, Attempted)
            _fill(flight.said, result)
            ended[flight.partition].append(flight)
        self._open({flight.group for flights in ended.values() for flight in flights})
        for partition, flights in ended.items():
            self._say(partition, flights)

    def _open(self, groups: set[bytes]) -> None:
        """Look at what waits for endpoints that have room: not always first in the same partition."""
        self._turn += 1
        held = sorted(self._held)
        begin = self._turn % len(held) if held else 0
        for partition in (*held[begin:], *held[:begin]):
            for group in groups:
                if (partition, group) in self._places:
                    self._dirty[partition, group] = None
        self._woken.set()

    def _again(self, flight: Flight, after_ms: int = AGAIN_MS) -> None:
        """Look at a queue again after a pause, for how it stands is not known."""
        busy = self._busy[flight.partition]
        if busy.get(flight.key) is flight:
            del busy[flight.key]
        self._agains[after_ms].append((self.now() + after_ms, flight))

    def _say(self, partition: int, flights: Iterable[Flight]) -> None:
        """Have produced what came of attempts; one batch after the other, or they would push each other."""
        waiting = self._unsaid.get(partition)
        if waiting is not None:
            waiting.extend(flights)
            return
        self._unsaid[partition] = list(flights)
        task = asyncio.get_running_loop().create_task(self._say_all(partition))
        self._tasks.add(task)
        task.add_done_callback(self._has_said)

    def _has_said(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what came of attempts cannot be told", exc_info=error)
            self.post.end()

    async def _say_all(self, partition: int) -> None:
        """Produce the outcomes of a partition, in batches, until none is left.

        What cannot be produced stays and is produced again after a pause: a receiver must not get a webhook
        once more because the broker has a problem. That holds if the partition has gone, too: its new holder
        learns from the outcome what was delivered.
        """
        waiting, failures = self._unsaid[partition], 0
        while waiting:
            await self._moment_to_tell()
            # they wait until they are told: partitions may change meanwhile
            flights = waiting.copy()
            offset = await self._produced(partition, flights)
            if offset is not None:
                failures = 0
                self._told(partition, flights, offset)
            else:
                await self.pause(min(RETRY_S * 2**failures, LONGEST_RETRY_S))
                failures = min(failures + 1, 10)
        del self._unsaid[partition]

    async def _produced(self, partition: int, flights: Sequence[Flight]) -> int | None:
        """Produce outcomes and return the offset of the last one; None if that failed."""
        records = [
            (flight.said.message_id.encode(), encode(flight.said))
            for flight in flights
            if flight.said is not None
        ]
        try:
            return await self.worker.produce(partition, records)
        except Exception as error:
            log.warning("the outcomes of %d webhooks could not be produced: %r", len(flights), error)
            return None

    def _told(self, partition: int, flights: Sequence[Flight], offset: int) -> None:
        """Take note of the offset up to which outcomes lie in the log."""
        waiting, is_applied = self._unsaid[partition], self.worker.stand(partition) > offset
        was_full = len(waiting) >= MOST_UNDER_WAY
        del waiting[: len(flights)]
        for flight in flights:
            flight.offset = offset
        if is_applied:
            self._free(partition, flights)
        if was_full:
            self._dirty |= dict.fromkeys(place for place in self._places if place[0] == partition)
            self._woken.set()

    async def _moment_to_tell(self) -> None:
        """Wait until it is time to produce: the same time for all partitions, so that one request has all."""
        every = BUSY_TELL_S if self.worker.is_busy else TELL_S
        await self.pause(every - asyncio.get_running_loop().time() % every)

    def _release(self, partition: int) -> None:
        """Let go of what is applied."""
        stand = self.worker.stand(partition)
        if stand != self._stands.get(partition):
            self._stands[partition] = stand
            flights = self._busy[partition].values()
            self._free(partition, [f for f in flights if f.offset is not None and f.offset < stand])

    def _free(self, partition: int, flights: Iterable[Flight]) -> None:
        """Let queues be sent whose outcomes the lane has passed, if they are due again.

        A result that went to the dead letters changes no queue, so no state of the queue is reported. The
        queue is read after a long pause: not at once, for the next result probably goes there as well.
        """
        busy = self._busy[partition]
        for flight in flights:
            if busy.get(flight.key) is not flight:
                continue
            del busy[flight.key]
            if flight.waits:
                self._is_due(partition, flight.group, flight.key)
                self._woken.set()
            elif flight.waits is None:
                self._again(flight, LONGEST_PAUSE_MS)


def _fill(said: Attempted, result: Done) -> None:
    """Complete an outcome within the limits of its type, for a lane buries what is beyond them."""
    said.started_at = _within(MOST_TIME_MS, result.started_at)
    said.duration = _within(MOST_PAUSE_MS, result.duration_ms)
    said.status, said.trouble = result.status, result.trouble
    said.body = result.body
    asked_ms = result.retry_after_ms
    said.retry_after = None if asked_ms is None else _within(MOST_PAUSE_MS, asked_ms)


def _within(most: int, ms: int) -> int:
    return max(-most, min(ms, most))
