"""Faults of the engine, put back one by one to see that the simulation finds them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from streams.engine import inputs, producing, transactions

__all__ = ["MUTATIONS"]

Stored = dict[tuple[str, int], transactions.Stored]


async def _of_changelogs_only(sent: Sequence[Any]) -> Stored:
    """Wait for all batches, but look at those of the changelogs only."""
    await asyncio.wait([batch.stored for batch in sent])
    return {
        (batch.topic, batch.partition): _last_of(batch)
        for batch in sent
        if batch.topic.endswith("-changelog") or batch.stored.exception() is None
    }


async def _of_last_batch_only(sent: Sequence[Any]) -> Stored:
    """Wait for the last batch of each partition only."""
    last = {(batch.topic, batch.partition): batch for batch in sent}
    for batch in last.values():
        await batch.stored
    return {place: _last_of(batch) for place, batch in last.items()}


def _last_of(batch: Any) -> transactions.Stored:
    return transactions.Stored(batch.stored.result().offset + batch.records - 1, None)


def _keep(self: Any, producer: Any, error: BaseException) -> None:
    """Keep a producer that has failed."""


#: By name, what puts a fault back.
MUTATIONS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "refused-batch": lambda: patch.object(transactions, "acknowledged", _of_changelogs_only),
    "failed-producer": lambda: patch.object(producing.Producer, "_replace", _keep),
    "last-batch": lambda: patch.object(producing, "acknowledged", _of_last_batch_only),
    "redelivery": lambda: patch.object(inputs, "uncovered", lambda batch, position: batch),
}
