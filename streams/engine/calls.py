"""Waiting for what becomes of records: who produces one can learn how the lane of this worker took it.

A record that is waited for carries a token in a header; the lane that has committed it tells the token and
the outcome. Nothing is kept of it: when nobody waits here any more, or the partition went to another worker,
the outcome is told to nobody.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

__all__ = ["CALL_HEADER", "Call", "Calls"]

CALL_HEADER: Final = "tracker-call"


class Call:
    """Some records that were produced, all with one token, and what became of them so far."""

    def __init__(self, token: bytes) -> None:
        self.token: Final = token
        self.outcomes: Counter[str] = Counter()
        self._told = asyncio.Event()

    @property
    def header(self) -> tuple[str, bytes]:
        """The header that the records must carry."""
        return CALL_HEADER, self.token

    def tell(self, outcome: str) -> None:
        """Take the outcome of one record."""
        self.outcomes[outcome] += 1
        self._told.set()

    async def until(self, records: int, within_s: float) -> bool:
        """Wait until so many outcomes are known; False when that takes longer."""
        try:
            async with asyncio.timeout(within_s):
                while self.outcomes.total() < records:
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            return False
        return True


class Calls:
    """The calls of this process that wait."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Call] = {}
        # another process must not take ours for its own
        self._tokens = (b"%s-%d" % (os.urandom(8).hex().encode(), number) for number in count())

    @contextmanager
    def expect(self) -> Iterator[Call]:
        """Begin to wait, before anything is produced."""
        call = Call(next(self._tokens))
        self._waiting[call.token] = call
        try:
            yield call
        finally:
            del self._waiting[call.token]

    def tell(self, told: Iterable[tuple[bytes, str]]) -> None:
        """Tell those who wait what became of their records."""
        for token, outcome in told:
            call = self._waiting.get(token)
            if call is not None:
                call.tell(outcome)
