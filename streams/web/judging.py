"""Has the providers judged: asks for the statistics of a while ago, and requests a judgement of each.

One worker does so for all, the one that holds the first partition. What it requests is a record like any
other, so that the state of a provider lies in a table, and an alarm is told in the transaction that changes
it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from streams.domain.delivery import Judge
from streams.domain.health import Figures
from streams.domain.histogram import CURVE_MS
from streams.domain.placement import partition_of
from streams.domain.statistics import MINUTE_MS
from streams.domain.statuses import EXPIRED, NAMES
from streams.domain.summaries import CURVE_NAMES
from streams.engine.reading import Reader
from streams.engine.units import Output
from streams.messages import encode
from streams.web.problems import Problem
from streams.web.queries import Period, StatsQuery
from streams.web.statistics import Statistics

__all__ = ["Judging"]

log = logging.getLogger(__name__)

LEADER: Final = 0
"""Who holds this partition has the providers judged."""


@dataclass(frozen=True)
class Judging:
    """Requests judgements.

    Attributes:
        produce: produces requests to a partition.
        window_ms: how long a time the messages were sent in.
        slow: what is late, by its name on the delivery curve.
        least: messages by which a provider is judged.
    """

    reader: Reader
    statistics: Statistics
    produce: Callable[[int, list[Output]], Awaitable[object]]
    window_ms: int
    slow: str
    least: int

    async def judge(self, now: int) -> None:
        """Have each provider judged that has sent anything; what cannot be answered now is left for later."""
        if LEADER not in self.reader.held():
            return
        # what was sent just now cannot have arrived yet
        end = now - CURVE_MS[CURVE_NAMES.index(self.slow)]
        end -= end % MINUTE_MS
        query = StatsQuery(Period(end - self.window_ms, end), "sent", ("provider",), None, {})
        try:
            groups = json.loads(await self.statistics.stats(query))["groups"]
        except Problem as problem:
            log.info("providers are not judged now: %s", problem.detail)
            return
        for group in groups:
            if group["totalMessages"] < self.least or not group["provider"]:
                continue
            key = group["provider"].encode()
            request = encode(Judge(group["provider"], self._figures(group)))
            await self.produce(partition_of(key, self.reader.partitions), [(key, request, [], now)])

    def _figures(self, group: dict[str, Any]) -> Figures:
        messages, by_status = group["totalMessages"], group["byStatus"]
        return Figures(
            messages,
            sum(by_status[name] for name in NAMES[EXPIRED:]),
            round(group["deliveryRate"] * messages / 100),
            by_status["FAILED"],
            round(group["deliveryCurve"][self.slow] * messages / 100),
        )
