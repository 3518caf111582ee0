"""A webhook of an endpoint, as it goes out: its body, its headers, and one attempt to deliver it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from streams.domain.endpoints import Endpoint, live_secrets
from streams.domain.times import iso
from streams.webhooks.posting import Attempt, Poster
from streams.webhooks.sealing import Sealer
from streams.webhooks.signatures import Key, key_of, kmsg_headers, standard_headers

__all__ = ["PING", "Sender", "body_of"]

MOST_KEYS: Final = 10_000

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
        now: what time it is, ms.
    """

    poster: Poster
    sealer: Sealer
    now: Callable[[], int]
    _keys: dict[tuple[str, bytes], Key] = field(default_factory=dict, repr=False)

    async def send(
        self, endpoint_id: str, endpoint: Endpoint, webhook_id: str, type_: str, body: bytes
    ) -> Attempt:
        """Send a webhook once.

        Args:
            webhook_id: the same for all attempts.
            body: the exact bytes; the same, too.

        Raises:
            Unsealable: its secrets cannot be opened with the keys that are there.
        """
        headers = self._headers(endpoint_id, endpoint, webhook_id, type_, body)
        return await self.poster.post(endpoint.url, headers, body, endpoint.timeout_ms / 1000)

    def _headers(
        self, endpoint_id: str, endpoint: Endpoint, webhook_id: str, type_: str, body: bytes
    ) -> dict[str, str]:
        """Return the headers of an attempt that is made now: each has a signature of its own time."""
        now = self.now()
        keys = [self._key(endpoint_id, secret.sealed) for secret in live_secrets(endpoint.secrets, now)]
        given: dict[str, str] = {}
        if endpoint.headers is not None:
            given = msgspec.json.decode(self.sealer.open(endpoint.headers, endpoint_id), type=dict[str, str])
        ours = standard_headers(keys, webhook_id, now // 1000, body)
        kmsg = kmsg_headers(keys, webhook_id, type_, now // 1000, body) if endpoint.kmsg_headers else {}
        return given | kmsg | ours

    def _key(self, endpoint_id: str, sealed: bytes) -> Key:
        """Return what a secret signs with; opened once."""
        key = self._keys.get((endpoint_id, sealed))
        if key is None:
            if len(self._keys) >= MOST_KEYS:
                self._keys.clear()
            key = key_of(self.sealer.open(sealed, endpoint_id).decode())
            self._keys[endpoint_id, sealed] = key
        return key
