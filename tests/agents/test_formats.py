"""How tables are stored."""

from __future__ import annotations

import msgspec
import pytest

from streams.domain.delivery import Delivery
from streams.domain.endpoints import Endpoint, Secret
from streams.domain.statistics import Cell
from streams.domain.webhooks import Queue, Sending, Told, Try, event_key
from tables.formats import (
    DELIVERIES,
    ENDPOINTS,
    PENDING_STATS,
    PERIOD_STATS,
    WEBHOOK_EVENTS,
    WEBHOOK_QUEUES,
    WEBHOOK_SENDINGS,
    created_from,
    due_by,
)
from tests.agents.flowing import NOON, Partition, request, status


def stored() -> Partition:
    partition = Partition().ask(request(createdAt=NOON, receipt=NOON + 5))
    return partition.say(status("SENT", timestamp=NOON + 10, provider="solapi", attempt=1, receipt=NOON + 15))


def test_records_are_arrays_that_begin_with_a_version_a_status_and_a_time() -> None:
    """A golden value: they stand in changelogs, and a light reader may stop after the third element."""
    value = stored().stored["deliveries"][b"m-1"]

    assert msgspec.msgpack.decode(value) == [
        2,
        2,
        NOON + 15,
        [NOON, None, NOON + 10, None, None, None, None, None, None],
        5,
        [
            [0, NOON, NOON, NOON + 5, "solapi", 0, "system", None, None],
            [2, NOON + 10, NOON + 10, NOON + 15, "solapi", 1, "provider", None, None],
        ],
        [
            ["solapi", NOON, 0b1, "solapi", NOON, None, NOON, True],
            [1, NOON + 10, 0b100, "solapi", NOON + 10, None, NOON + 10, False],
        ],
        "solapi",
        None,
        0,
        0,
        None,
        {},
        [NOON, "+82100000001", "tpl", "solapi", None, None, 72 * 3_600_000, None, None],
        None,
        None,
        None,
        None,
        False,
        NOON + 72 * 3_600_000,
    ]


def test_cells_are_arrays_that_begin_with_a_version() -> None:
    """A golden value."""
    cell = Cell(updated_at=NOON, counts={2: 1, 16 + 2: 1}, names={"cp:a": 1})

    assert msgspec.msgpack.decode(PERIOD_STATS.encode(cell), strict=False) == [
        3,
        NOON,
        {2: 1, 18: 1},
        {"cp:a": 1},
    ]


def test_endpoints_are_arrays_that_begin_with_a_version() -> None:
    """A golden value."""
    endpoint = Endpoint(url="https://example.com/", created_at=1, updated_at=2, secrets=[Secret(b"s", 3)])

    assert msgspec.msgpack.decode(ENDPOINTS.encode(endpoint)) == [
        1,
        "https://example.com/",
        1,
        2,
        [],
        [None, [], []],
        [[b"s", 3, None]],
        None,
        [],
        15_000,
        None,
        None,
        False,
        "active",
        None,
        None,
    ]


def test_what_is_told_and_what_came_of_it_are_arrays_that_begin_with_a_version() -> None:
    """Golden values."""
    key = event_key("statuses-3-5-1")
    assert key == b"s" + bytes(7) + b"\x05\x01"
    told = Told(1, "m-1", "status.updated", NOON, ["ep_1"], b"{}")
    queue = Queue(1, b"12345678", [key], NOON, 2)
    sending = Sending(
        1, "m-1", "failed", b"12345678", NOON, 1, [Try(1, NOON, 20, 500, None, "no"), Try(2, NOON, 1)]
    )

    assert msgspec.msgpack.decode(WEBHOOK_EVENTS.encode(told)) == [
        1,
        "m-1",
        "status.updated",
        NOON,
        ["ep_1"],
        b"{}",
    ]
    assert msgspec.msgpack.decode(WEBHOOK_QUEUES.encode(queue)) == [1, b"12345678", [key], NOON, 2, 0, None]
    assert msgspec.msgpack.decode(WEBHOOK_SENDINGS.encode(sending)) == [
        1,
        "m-1",
        "failed",
        b"12345678",
        NOON,
        1,
        [[1, NOON, 20, 500, None, "no"], [2, NOON, 1, None, None, ""]],
        None,
    ]


def test_what_is_pending_is_a_row_of_each_unit_and_one_that_counts_them() -> None:
    """A golden value: the row says where it belongs, minute by minute and group by group."""
    group = [None, None, "solapi", "tpl"]
    happened = {48 + 2: 1, 80: 5}
    head = [0, [0, 0, 0], [0, 0, 0], 0, 0]
    pending = stored().stored["pending_stats"]

    assert msgspec.msgpack.decode(pending[b"\x00"]) == [2, 0, 2, 2, [], [], *head]
    assert msgspec.msgpack.decode(pending[b"\x01\x01"]) == [
        2,
        1,
        2,
        1,
        [[group, {NOON // 60_000: [3, NOON + 15, {16: -1, 2: 1} | happened, {}]}]],
        [],
        *head,
    ]


def entries(delivery: Delivery) -> tuple[bytes, ...]:
    assert DELIVERIES.index is not None
    return DELIVERIES.index(b"m-1", delivery)


def test_deliveries_are_listed_by_status_and_what_changed_last_first() -> None:
    """The entry is one byte of precedence and eight that fall as time goes on."""
    delivery = stored().delivery()

    entry = entries(delivery)[0]
    delivery.updated_at += 1

    assert entry == b"\x02" + (2**63 - 1 - NOON - 15).to_bytes(8)
    assert len(entry) == DELIVERIES.index_bytes
    assert entries(delivery)[0] < entry


def test_deliveries_are_listed_by_when_they_are_due() -> None:
    """What is to expire apart from what is to be removed; a marker by that alone."""
    delivery = stored().delivery()
    due = (NOON + 72 * 3_600_000).to_bytes(8)

    assert entries(delivery)[2] == b"\x80" + due
    assert entries(delivery)[2] < due_by(b"\x80", NOON + 72 * 3_600_000) < b"\x81"
    assert entries(delivery)[2] >= due_by(b"\x80", NOON + 72 * 3_600_000 - 1)
    delivery.precedence = 6
    assert entries(delivery)[2] == b"\x81" + due
    delivery.precedence = -1
    assert entries(delivery) == (b"\x81" + due,)


def test_deliveries_are_listed_by_when_they_were_created() -> None:
    """As the period of a question is cut: from its begin on, until before its end."""
    entry = entries(stored().delivery())[1]

    assert created_from(NOON) <= entry < created_from(NOON + 1)


@pytest.mark.parametrize(
    "format_",
    [DELIVERIES, PERIOD_STATS, PENDING_STATS],
    ids=["deliveries", "period_stats", "pending_stats"],
)
def test_a_value_of_another_version_is_refused(format_: object) -> None:
    """An old worker must not read, and then overwrite, what a newer one wrote."""
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 99"):
        format_.decode(msgspec.msgpack.encode([99, 0, 0]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("receipt", [-1, 0, 2**63 - 1])
def test_any_timestamp_of_a_record_can_be_stored_listed_and_shown(receipt: int) -> None:
    """Brokers may accept any timestamp; none may stop a lane."""
    partition = Partition().say(status("SENT", receipt=receipt))
    delivery = partition.delivery()

    assert [len(entry) for entry in entries(delivery)] == [DELIVERIES.index_bytes] * 3
    assert len(partition.events) == 1
