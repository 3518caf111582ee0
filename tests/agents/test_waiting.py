"""Rules of what is known of what waits in a place: over an index in memory."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Container

import pytest

from agents.waiting import LATER, PAGE, Waiting, looked_up
from streams.domain.webhooks import Queue
from tables.formats import WEBHOOK_QUEUES, queue_listing

GROUP = b"\x07" * 8
WIDTH = WEBHOOK_QUEUES.index_bytes


class Index:
    """The queues of a place and of its neighbours, and how they are listed."""

    def __init__(self) -> None:
        self.queues: dict[bytes, Queue] = {}
        self.read_from: list[bytes] = []

    def put(self, key: bytes, due_at: int, attempts: int, group: bytes = GROUP) -> Queue:
        queue = self.queues[key] = Queue(1, group, [b"event"], due_at, attempts)
        return queue

    def __call__(self, first: bytes, end: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        self.read_from.append(first)
        listings = sorted(queue_listing(key, queue) for key, queue in self.queues.items())
        found = listings[bisect_left(listings, first) : bisect_left(listings, end)][:limit]
        return [(listing[:WIDTH], listing[WIDTH:]) for listing in found]


def refill(waiting: Waiting, index: Index, now: int, busy: Container[bytes] = ()) -> bool:
    """Have what is due, be it known or looked up; False if there is nothing."""
    while not waiting.refill(busy, now):
        asked = waiting.unknown(0, now)
        if asked is None:
            return False
        waiting.found(asked, looked_up(asked, index), busy)
    return True


def drained(waiting: Waiting, index: Index, now: int) -> list[bytes]:
    """Take what is due until nothing is."""
    found: list[bytes] = []
    while waiting.keys or refill(waiting, index, now):
        found.append(waiting.keys.popleft())
        index.queues.pop(found[-1], None)
    return found


def hear_of(waiting: Waiting, index: Index, key: bytes, now: int, chance: random.Random) -> None:
    """Let a queue wait that was not there before."""
    if chance.random() < 0.5:
        waiting.is_fresh(key, index.put(key, now + chance.randint(-50, 50), 0))
    else:
        due_at = now + chance.choice([1, 100, 10_000]) + chance.randint(0, 50)
        waiting.is_later(key, index.put(key, due_at, 1))
    assert len(waiting.later) <= 2 * LATER
    assert len(waiting.keys) <= 2 * PAGE + 2 * LATER


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_heard_when_all_that_waits_is_found(seed: int) -> None:
    """When it is due, not before; and no more is remembered than is allowed."""
    chance = random.Random(seed)
    index, waiting, now = Index(), Waiting(GROUP), 1_000_000
    for neighbour in (b"\x06" * 8, b"\x07" * 7 + b"\x08"):
        for attempts in range(2):
            index.put(neighbour + bytes([attempts]), now, attempts, neighbour)
    others = set(index.queues)
    for step in range(60):
        for number in range(chance.choice([1, 50, PAGE])):
            hear_of(waiting, index, b"%d-%d" % (step, number), now, chance)
        now += chance.choice([0, 10, 1_000])
        if chance.random() < 0.1:
            waiting.begin_anew()
        for _ in range(chance.choice([0, 10, PAGE])):
            if waiting.keys or refill(waiting, index, now):
                key = waiting.keys.popleft()
                queue = index.queues.pop(key)
                assert queue.is_fresh or queue.due_at <= now

    left = set(index.queues) - others
    late = {key for key in left if not index.queues[key].is_fresh and index.queues[key].due_at > now}
    assert set(drained(waiting, index, now)) == left - late
    assert set(drained(waiting, index, now + 20_000)) == late
    assert set(index.queues) == others
    assert waiting.is_empty


def test_the_index_is_read_from_there_on_where_what_is_known_ends() -> None:
    """Not over what was deleted before, and not for each that becomes due."""
    index, waiting = Index(), Waiting(GROUP)
    waiting.begin_anew()
    for number in range(10 * LATER):
        index.put(b"%d" % number, 1_000 + number, 1)
    found = [key for now in range(1_000, 1_000 + 10 * LATER) for key in drained(waiting, index, now)]

    assert found == [b"%d" % number for number in range(10 * LATER)]
    retries = [first for first in index.read_from if first[:1] == b"\x81"]
    assert retries == sorted(retries)
    assert len(retries) <= 11


def test_what_is_due_at_no_time_that_can_be_listed_is_found_all_the_same() -> None:
    """Records may carry any time; nothing of them may be passed over, however many there are."""
    index, waiting = Index(), Waiting(GROUP)
    for number in range(5 * LATER):
        key = b"%d" % (7 * number % (5 * LATER))
        waiting.is_later(key, index.put(key, number % 11 - 5, 1))

    assert len(drained(waiting, index, 1_000)) == 5 * LATER


def test_neither_kind_makes_the_other_wait() -> None:
    """However much is due again, what was not tried yet is found with it."""
    index, waiting = Index(), Waiting(GROUP)
    waiting.begin_anew()
    for number in range(2 * PAGE):
        index.put(b"again-%d" % number, 1_000, 1)
    index.put(b"fresh", 1_000, 0)

    assert refill(waiting, index, 2_000)
    assert waiting.keys[0] == b"again-0"
    assert waiting.keys[-1] == b"fresh"


def test_what_need_not_be_found_is_left_out() -> None:
    """Of what is under way it will be heard how it stands, be it a page of it."""
    index, waiting = Index(), Waiting(GROUP)
    waiting.begin_anew()
    for number in range(PAGE + 1):
        index.put(b"%04d" % number, 1_000, 0)
    index.put(b"again", 1_000, 1)
    busy = {b"again", *(b"%04d" % number for number in range(PAGE))}

    assert refill(waiting, index, 2_000, busy)
    assert list(waiting.keys) == [b"%04d" % PAGE]
