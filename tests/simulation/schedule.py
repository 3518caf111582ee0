"""What a seed decides: which faults a run has, how often, and the fate of each request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

__all__ = ["ERRORS", "Fate", "Schedule"]

#: The error codes that a broker may answer, by API. Source: Kafka's ``Errors`` and the brokers' handlers.
#: OUT_OF_ORDER_SEQUENCE_NUMBER and DUPLICATE_SEQUENCE_NUMBER are answered by the simulated logs themselves.
ERRORS: Final[Mapping[str, tuple[int, ...]]] = {
    "Produce": (-1, 2, 3, 6, 7, 10, 19, 20, 29, 32, 47, 48, 53, 56, 59, 74, 76, 87, 89),
    "InitProducerId": (-1, 7, 14, 15, 16, 51, 53, 90),
    "AddPartitionsToTxn": (-1, 3, 7, 14, 15, 16, 29, 47, 48, 49, 51, 53),
    "AddOffsetsToTxn": (-1, 7, 14, 15, 16, 30, 47, 48, 49, 51, 53),
    "TxnOffsetCommit": (-1, 3, 7, 12, 14, 15, 16, 24, 28, 30, 47, 48, 53),
    "EndTxn": (-1, 7, 14, 15, 16, 47, 48, 49, 51, 53),
    "FindCoordinator": (-1, 15, 24, 30, 53),
    "Fetch": (-1, 2, 3, 6, 29, 56, 74, 75),
    "ListOffsets": (-1, 3, 6, 29, 43, 74, 78),
    "OffsetFetch": (-1, 14, 15, 16, 30),
    "Metadata": (5,),
}

#: REQUEST_TIMED_OUT and NOT_ENOUGH_REPLICAS_AFTER_APPEND: the records may have been, or were, appended.
MAYBE_APPENDED: Final = 7
APPENDED: Final = 20

#: The greatest rate of each kind of fault: of a request, a delivery, a transaction's marker, or a second.
MOST: Final[Mapping[str, float]] = {
    "error": 0.04,
    "produce error": 0.10,
    "lost request": 0.03,
    "lost response": 0.03,
    "no response": 0.01,
    "refused connection": 0.1,
    "slow message": 0.1,
    "slow marker": 0.3,
    "dropped batch": 0.1,
    "repeated batch": 0.1,
    "late batch": 0.1,
    "kill": 0.15,
    "stop": 0.1,
    "partition": 0.1,
    "rebalance": 0.2,
    "election": 0.3,
    "coordinator move": 0.3,
    "outage": 0.1,
    "wrong clock": 0.1,
    "poison": 0.05,
    "sender kill": 0.2,
    "failing receiver": 0.3,
    "odd header": 0.3,
}


@dataclass(frozen=True, slots=True)
class Fate:
    """The fate of one request.

    Args:
        there_s: seconds that the request is on its way.
        back_s: seconds that its response is on its way.
        kind: ok; error; "lost request" and "lost response", with their connection; "no response", on a
            connection that stays.
        code: the error code of an error.
        applied: whether the broker applies a request that fails.
    """

    there_s: float
    back_s: float
    kind: str = "ok"
    code: int = 0
    applied: bool = True


class Schedule:
    """The decisions of one run, drawn in the order in which they are asked for.

    Args:
        seed: decides all.

    Attributes:
        active: whether there are faults (still).
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.active = True
        self.faults: Counter[str] = Counter()
        chance = self.random
        # most runs have few kinds of faults, or each would hide the others
        self.rates = {
            kind: most * chance.random() ** 2 for kind, most in MOST.items() if chance.random() < 0.35
        }

    def __repr__(self) -> str:
        return ", ".join(f"{kind} {rate:.1%}" for kind, rate in self.rates.items())

    def happens(self, kind: str, times: float = 1.0) -> bool:
        """Say whether a kind of fault happens now."""
        rate = self.rates.get(kind)
        if rate is None or not self.active or self.random.random() >= rate * times:
            return False
        self.faults[kind] += 1
        return True

    def latency_s(self) -> float:
        """Return how long a message is on its way."""
        if self.happens("slow message"):
            return self.random.uniform(0.05, 2.0)
        return self.random.uniform(0.0002, 0.004)

    def marker_s(self) -> float:
        """Return how long a transaction's marker is on its way to one partition."""
        if self.happens("slow marker"):
            return self.random.uniform(0.05, 3.0)
        return self.random.uniform(0.0005, 0.008)

    def error(self, api: str) -> int:
        """Return the error code that an API answers without being asked for a fate; 0: none."""
        return self.random.choice(ERRORS[api]) if self.happens("error") else 0

    def fate(self, api: str) -> Fate:
        """Decide the fate of a request."""
        there, back = self.latency_s(), self.latency_s()
        if api in ERRORS and self.happens("produce error" if api == "Produce" else "error"):
            code = self.random.choice(ERRORS[api])
            applied = code == APPENDED or (code == MAYBE_APPENDED and self.random.random() < 0.5)
            return Fate(there, back, "error", code, applied)
        if self.happens("lost request"):
            return Fate(there, back, "lost request", applied=False)
        if self.happens("lost response"):
            return Fate(there, back, "lost response")
        if self.happens("no response"):
            return Fate(there, back, "no response", applied=self.random.random() < 0.5)
        return Fate(there, back)
