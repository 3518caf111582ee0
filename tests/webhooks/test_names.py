"""Rules of looking names up: one that nobody answers for costs one look, and holds up no other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from streams.webhooks import names
from streams.webhooks.names import AddressInfo, Names, look_up

FOUND: Sequence[AddressInfo] = [
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", 443))
]


class Service:
    """A name service that answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()
        self.found = FOUND

    async def __call__(self, host: str, port: int) -> Sequence[AddressInfo]:
        self.asked.append(host)
        if host != "good.example":
            await self.answers.wait()
        return self.found


async def test_a_name_that_many_want_is_looked_up_once() -> None:
    """While it is looked up, and for a moment after."""
    service = Service()
    known = Names(service)
    waiting = [asyncio.create_task(known.addresses("slow.example", 443)) for _ in range(100)]
    assert await known.addresses("good.example", 443) == FOUND
    service.answers.set()

    assert await asyncio.gather(*waiting) == [FOUND] * 100
    assert await known.addresses("slow.example", 443) == FOUND
    assert sorted(service.asked) == ["good.example", "slow.example"]


async def test_who_does_not_wait_any_longer_leaves_the_others_waiting() -> None:
    """The look goes on."""
    service = Service()
    known = Names(service)
    first, second = [asyncio.create_task(known.addresses("slow.example", 443)) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    service.answers.set()

    assert await second == FOUND
    assert service.asked == ["slow.example"]


async def test_what_was_not_found_is_looked_up_again() -> None:
    """A name may come to be; and an answer without addresses is none."""
    service = Service()
    service.answers.set()
    service.found = []
    known = Names(service)
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await known.addresses("new.example", 443)
    service.found = FOUND

    assert await known.addresses("new.example", 443) == FOUND
    assert service.asked == ["new.example"] * 3


async def test_an_answer_does_not_count_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names change their addresses."""
    monkeypatch.setattr(names, "KNOWN_S", 0.0)
    service = Service()
    known = Names(service)
    for _ in range(2):
        await known.addresses("good.example", 443)

    assert service.asked == ["good.example"] * 2


async def test_the_system_knows_this_machine() -> None:
    """Addresses as a socket takes them; and what is no name has none."""
    assert (await look_up("127.0.0.1", 80))[0][4] == ("127.0.0.1", 80)
    for host in ("nowhere.invalid", "a" * 70 + ".example", "a..example"):
        with pytest.raises(OSError):
            await look_up(host, 80)
