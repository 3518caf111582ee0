"""Where names lead: each is looked up once at a time, and what was found is known for a moment."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

__all__ = ["AddressInfo", "Look", "Names", "look_up"]

AddressInfo: TypeAlias = tuple[int, int, int, str, Any]
"""As ``getaddrinfo`` has it: family, type, protocol, canonical name, address."""

Look: TypeAlias = Callable[[str, int], Awaitable[Sequence[AddressInfo]]]
"""Finds the addresses of a host and port; OSError if there are none."""

KNOWN_S: Final = 10.0
"""How long an answer counts: names change their addresses, and nobody tells how long one holds."""

MOST_KNOWN: Final = 10_000


async def look_up(host: str, port: int) -> Sequence[AddressInfo]:
    """Ask the system, in a thread of the event loop's.

    Raises:
        OSError: there is no such name, or nobody who knows it.
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "a label is empty or too long") from None


class Names:
    """The addresses of names.

    However many ask for a name whose servers do not answer, one thread waits for these.
    """

    def __init__(self, look: Look = look_up) -> None:
        self._look = look
        self._known: dict[tuple[str, int], tuple[float, Sequence[AddressInfo]]] = {}
        self._looking: dict[tuple[str, int], asyncio.Task[Sequence[AddressInfo]]] = {}

    async def addresses(self, host: str, port: int) -> Sequence[AddressInfo]:
        """Return the addresses of a name, at least one.

        Raises:
            OSError: there are none.
        """
        where = host, port
        until, found = self._known.get(where, (0.0, ()))
        if time.monotonic() < until:
            return found
        looking = self._looking.get(where)
        if looking is None:
            looking = self._looking[where] = asyncio.create_task(self._find(host, port))
            looking.add_done_callback(_seen)
        # who does not want to wait any longer leaves it to the others
        return await asyncio.shield(looking)

    async def _find(self, host: str, port: int) -> Sequence[AddressInfo]:
        try:
            found = await self._look(host, port)
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "no address")
        finally:
            del self._looking[host, port]
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[host, port] = time.monotonic() + KNOWN_S, found
        return found


def _seen(looking: asyncio.Task[Sequence[AddressInfo]]) -> None:
    """Take note of how it ended, in case that nobody waits any more."""
    if not looking.cancelled():
        looking.exception()
