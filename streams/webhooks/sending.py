"""A webhook of an endpoint, as it goes out: its body, its headers, and one attempt to deliver it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from streams.domain.endpoints import Endpoint, live_secrets
from streams.domain.headers import header_problem
from streams.domain.secrets import InvalidSecret
from streams.domain.times import iso
from streams.webhooks.posting import Attempt, Poster
from streams.webhooks.sealing import Sealer, Unsealable
from streams.webhooks.signatures import Key, key_of, kmsg_headers, standard_headers

__all__ = ["PING", "Sender", "body_of"]

MOST_KEYS: Final = 10_000


def _usable(packed: bytes) -> dict[str, str]:
    """Return the headers that can go along; a request that came by Kafka may name others."""
    given = msgspec.json.decode(packed, type=dict[str, str])
    return {name: value for name, value in given.items() if header_problem(name, value) is None}


PING: Final = "endpoint.ping"
"""The type of a webhook that tells nothing: whether it arrives is the question."""


def body_of(type_: str, at: int, data: Mapping[str, Any]) -> bytes:
    """Return the body of a webhook, as Standard Webhooks has it.

    Args:
        at: when what it tells of happened, ms.
    """
    return msgspec.json.encode({"type": type_, "timestamp": iso(at), "data": data})


@dataclass(frozen=True)
class Sender:
    """Signs webhooks with what an endpoint has, and posts them.

    Attributes:
        sealer: opens secrets; None: no keys are there.
        now: what time it is, ms.
    """

    poster: Poster
    sealer: Sealer | None
    now: Callable[[], int]
    _keys: dict[tuple[str, bytes], Key] = field(default_factory=dict, repr=False)

    async def send(self, owner: str, endpoint: Endpoint, webhook_id: str, type_: str, body: bytes) -> Attempt:
        """Send a webhook once.

        Args:
            owner: whose the endpoint's secrets are.
            webhook_id: the same for all attempts.
            body: the exact bytes; the same, too.

        Raises:
            Unsealable: its secrets cannot be opened with the keys that are there.
        """
        headers = self._headers(owner, endpoint, webhook_id, type_, body)
        return await self.poster.post(endpoint.url, headers, body, endpoint.timeout_ms / 1000)

    def _headers(
        self, owner: str, endpoint: Endpoint, webhook_id: str, type_: str, body: bytes
    ) -> dict[str, str]:
        """Return the headers of an attempt that is made now: each has a signature of its own time."""
        now = self.now()
        keys = [self._key(owner, secret.sealed) for secret in live_secrets(endpoint.secrets, now)]
        given: dict[str, str] = {}
        if endpoint.headers is not None:
            given = _usable(self._open(endpoint.headers, owner))
        ours = standard_headers(keys, webhook_id, now // 1000, body)
        kmsg = kmsg_headers(keys, webhook_id, type_, now // 1000, body) if endpoint.kmsg_headers else {}
        return given | kmsg | ours

    def _key(self, owner: str, sealed: bytes) -> Key:
        """Return what a secret signs with; opened once."""
        key = self._keys.get((owner, sealed))
        if key is None:
            if len(self._keys) >= MOST_KEYS:
                self._keys.clear()
            try:
                key = key_of(self._open(sealed, owner).decode())
            except InvalidSecret as error:
                raise Unsealable(str(error)) from None
            self._keys[owner, sealed] = key
        return key

    def _open(self, sealed: bytes, owner: str) -> bytes:
        if self.sealer is None:
            raise Unsealable("no keys are there")
        return self.sealer.open(sealed, owner)
