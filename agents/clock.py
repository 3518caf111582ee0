"""This machine's clock, which timers go by as long as the broker's clock agrees with it.

A clock that jumps ahead would have messages expire and records removed that are not due. So before anything
is requested because of the time, the clock is compared with the broker's, once a minute; in between a clock
that nobody can set says how much time has passed. While the two differ by more than five minutes, either may
be wrong, and nothing is requested. Due messages wait, so only the time of their expiry changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["EVERY_S", "MOST_OFF_MS", "Clock"]

log = logging.getLogger(__name__)

MOST_OFF_MS: Final = 300_000
"""By how much the clocks may differ."""

EVERY_S: Final = 60.0
"""How often they are compared while they agree."""

LOG_EVERY_S: Final = 600.0
"""How often the same trouble is logged."""

DIFFER: Final = (
    "this machine's clock and the broker's differ by %s s; until they agree, nothing expires or is removed, "
    "no time is reported and no provider is judged"
)
UNKNOWN: Final = (
    "the broker's time is not known (%r); until it is, nothing expires or is removed, no time is reported "
    "and no provider is judged"
)
NOT_COMPARED: Final = "this machine's clock could not be compared with the broker's: %r"


@dataclass
class Clock:
    """Says what time it is, if the broker agrees.

    Attributes:
        now: this machine's clock; ms.
        passed: a clock that is never set, and may stand still while the machine sleeps; s.
        ask: returns the time by the broker's clock; ms.
    """

    now: Callable[[], int]
    passed: Callable[[], float]
    ask: Callable[[], Awaitable[int]]
    # what the broker's clock said, and when that was by the one that is never set
    _compared: tuple[int, float] | None = None
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_wrong: bool = False
    # by message, when it was last logged
    _logged_at: dict[str, float] = field(default_factory=dict)

    @property
    def offset_ms(self) -> int | None:
        """By how much this machine's clock is ahead of the broker's; None: that is not known yet."""
        if self._compared is None:
            return None
        said, at = self._compared
        return self.now() - said - round((self.passed() - at) * 1000)

    def corrected(self) -> int:
        """Return the time for timestamps, ms: by this machine's clock, or the broker's while they differ.

        A broker refuses records from the future, and removes those that look old.
        """
        now, offset_ms = self.now(), self.offset_ms
        return now if offset_ms is None or abs(offset_ms) <= MOST_OFF_MS else now - offset_ms

    async def agreed(self) -> int | None:
        """Return the time, ms; None while the clocks differ, or as long as the broker's is not known."""
        async with self._one:
            if self._is_due():
                await self._compare()
            offset_ms = self.offset_ms
            if offset_ms is None:
                return None
            if abs(offset_ms) > MOST_OFF_MS:
                self._is_wrong = True
                self._log(DIFFER, abs(offset_ms) // 1000)
                return None
            if self._is_wrong:
                self._is_wrong = False
                self._logged_at.clear()
                log.warning("this machine's clock agrees with the broker's again")
            return self.now()

    def _is_due(self) -> bool:
        offset_ms = self.offset_ms
        if offset_ms is None or self._compared is None or abs(offset_ms) > MOST_OFF_MS:
            return True
        return self.passed() - self._compared[1] >= EVERY_S

    async def _compare(self) -> None:
        try:
            said = await self.ask()
        except Exception as error:
            # what was compared before holds on; without it, nothing is known
            self._log(UNKNOWN if self._compared is None else NOT_COMPARED, error)
            return
        self._compared = said, self.passed()

    def _log(self, message: str, detail: object) -> None:
        """Log a trouble when it begins, and now and then while it lasts."""
        passed = self.passed()
        if message not in self._logged_at or passed - self._logged_at[message] >= LOG_EVERY_S:
            self._logged_at[message] = passed
            log.error(message, detail)
