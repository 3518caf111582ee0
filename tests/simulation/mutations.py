"""Faults of the engine, put back one by one to see that the simulation finds them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from agents import dispatching
from streams.domain import retries
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


async def _send_again(self: Any, partition: int) -> None:
    """Produce the outcomes of a partition once; have the webhooks sent again if that fails."""
    waiting = self._unsaid[partition]
    while waiting:
        await self._moment_to_tell()
        flights = waiting.copy()
        offset = await self._produced(partition, flights)
        if offset is not None:
            self._told(partition, flights, offset)
            continue
        for flight in flights:
            self._again(flight)
        del waiting[: len(flights)]
    del self._unsaid[partition]


@contextmanager
def _without_limits() -> Iterator[None]:
    """Take whatever pause a receiver asks for."""
    with (
        patch.object(retries, "MOST_RETRY_AFTER_MS", 10**15),
        patch.object(dispatching, "_within", lambda most, ms: ms),
    ):
        yield


#: By name, what puts a fault back.
MUTATIONS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "refused-batch": lambda: patch.object(transactions, "acknowledged", _of_changelogs_only),
    "failed-producer": lambda: patch.object(producing.Producer, "_replace", _keep),
    "last-batch": lambda: patch.object(producing, "acknowledged", _of_last_batch_only),
    "unproduced-outcome": lambda: patch.object(dispatching.Dispatcher, "_say_all", _send_again),
    "retry-after": _without_limits,
    "redelivery": lambda: patch.object(inputs, "uncovered", lambda batch, position: batch),
}
