"""The judge of local stores sees a stale value, a missing listing and one too many."""

import random
from collections.abc import Callable

import pytest

from .decoding import listing
from .inputs import Raw
from .memory import PARTITIONS, START_MS, Logs
from .stores import INDEX, OFFSET, judge_store
from .traffic import traffic

Stored = dict[bytes, bytes]
Damage = Callable[[Stored], None]


@pytest.fixture(scope="module")
def changelog() -> list[Raw]:
    logs = Logs(random.Random(8))
    logs.run(traffic(8, 30, PARTITIONS, START_MS))
    table = logs.tables["deliveries", 1]
    return [Raw("changelog", 1, n, START_MS, *entry) for n, entry in enumerate(table.items())]


@pytest.fixture
def stored(changelog: list[Raw]) -> Stored:
    data = {record.key or b"": record.value or b"" for record in changelog}
    listings = {INDEX + entry: b"" for item in data.items() for entry in listing("deliveries", *item)}
    return data | listings | {OFFSET: b"%d" % changelog[-1].offset}


def lose_a_value(stored: Stored) -> None:
    del stored[next(iter(stored))]


def exchange_values(stored: Stored) -> None:
    first, second, *_ = stored
    stored[first], stored[second] = stored[second], stored[first]


def claim_more(stored: Stored) -> None:
    stored[OFFSET] = b"0"


def lose_a_listing(stored: Stored) -> None:
    del stored[next(key for key in stored if key.startswith(INDEX))]


def leave_an_old_listing(stored: Stored) -> None:
    listed = next(key for key in stored if key.startswith(INDEX))
    stored[INDEX + b"\x00" + listed[2:]] = b""


def test_a_right_store_passes(stored: Stored, changelog: list[Raw]) -> None:
    """A store that holds its changelog, and lists each record once, is right."""
    assert list(judge_store("deliveries", changelog, stored)) == []


DAMAGE = (lose_a_value, exchange_values, claim_more, lose_a_listing, leave_an_old_listing)


@pytest.mark.parametrize("damage", DAMAGE, ids=[damage.__name__ for damage in DAMAGE])
def test_damage_to_a_store_is_reported(stored: Stored, changelog: list[Raw], damage: Damage) -> None:
    """Whatever separates a store from its changelog or its own index is named."""
    damage(stored)

    assert list(judge_store("deliveries", changelog, stored))
