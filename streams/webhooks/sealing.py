"""Secrets at rest: sealed before they come into Kafka or RocksDB, opened only to sign.

AES-256-GCM with a random nonce for each secret. The name of the endpoint is bound to it, so a sealed secret
that is copied to another endpoint does not open there. Keys have names, so that a new one can take over while
what was sealed with the old one is still read.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KEY_BYTES", "Sealer", "Unsealable", "sealer_of"]

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Unsealable(Exception):
    """What was sealed cannot be opened: its key is not there, or it is not what was sealed."""


class Sealer:
    """Seals with the first of its keys, and opens with whichever one it was.

    Args:
        keys: by name, of `KEY_BYTES` each; the first seals.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ValueError("a sealer needs a key")
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        self._first = next(iter(keys))

    def __repr__(self) -> str:
        return f"<Sealer {', '.join(self._keys)}>"

    def seal(self, secret: bytes, owner: str) -> bytes:
        """Return a secret so that only who has the keys can read it, and only for its owner."""
        nonce = os.urandom(NONCE_BYTES)
        name = self._first.encode()
        return b"%c%s%s" % (len(name), name, nonce) + self._keys[self._first].encrypt(
            nonce, secret, owner.encode()
        )

    def open(self, sealed: bytes, owner: str) -> bytes:
        """Return the secret.

        Raises:
            Unsealable: it is another owner's, or was altered, or no key is of the name that sealed it.
        """
        name, nonce, rest = _parts(sealed)
        key = self._keys.get(name)
        if key is None:
            raise Unsealable(f"sealed with the key {name!r}, which is not among {', '.join(self._keys)}")
        try:
            return key.decrypt(nonce, rest, owner.encode())
        except InvalidTag:
            raise Unsealable("not what was sealed for this owner") from None


def _parts(sealed: bytes) -> tuple[str, bytes, bytes]:
    end = 1 + (sealed[0] if sealed else 0)
    name, nonce, rest = sealed[1:end], sealed[end : end + NONCE_BYTES], sealed[end + NONCE_BYTES :]
    if len(nonce) < NONCE_BYTES or not name.isascii():
        raise Unsealable("not a sealed secret")
    return name.decode(), nonce, rest


def sealer_of(text: str) -> Sealer:
    """Return the sealer that a setting tells of: ``name:base64[,name:base64…]``, the first seals.

    Raises:
        ValueError: it cannot be used; the message says why, and not what the keys are.
    """
    keys: dict[str, bytes] = {}
    for number, part in enumerate(text.split(","), 1):
        name, _, encoded = part.strip().partition(":")
        if not _NAME.fullmatch(name) or name in keys:
            raise ValueError(f"key {number} has no name of its own; expected name:base64")
        try:
            key = b64decode(encoded, validate=True)
        except ValueError:
            raise ValueError(f"what follows {name}: is not base64") from None
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key {name} has {len(key)} bytes; {KEY_BYTES} are needed")
        keys[name] = key
    return Sealer(keys)
