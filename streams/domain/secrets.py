"""Secrets of webhooks as texts: their forms, and the rules for new ones."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Final

__all__ = [
    "ED25519_BYTES",
    "HMAC_PREFIX",
    "PRIVATE_PREFIX",
    "PUBLIC_PREFIX",
    "InvalidSecret",
    "new_secret_problem",
    "read_secret",
]

HMAC_PREFIX: Final = "whsec_"
PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"
PREFIXES: Final = (HMAC_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX)

ED25519_BYTES: Final = 32
LEAST_BYTES: Final = 24
LENGTHS: Final[Mapping[str, range | tuple[int, ...]]] = {
    HMAC_PREFIX: range(LEAST_BYTES, 65),
    PRIVATE_PREFIX: (ED25519_BYTES, 2 * ED25519_BYTES),
    PUBLIC_PREFIX: (ED25519_BYTES,),
}
"""How many bytes the base64 of a secret may have (Standard Webhooks 1.0); of a private key also with its
public half."""


class InvalidSecret(ValueError):
    """A secret cannot be used; the message says why, and does not contain it."""


def read_secret(secret: str) -> tuple[str, bytes]:
    """Return the prefix of a secret, or "", and its bytes.

    The base64 of a key follows a prefix; any other text, as k-msg's users have it, is its own bytes (UTF-8).

    Raises:
        InvalidSecret: it is empty, no base64, or has another length.
    """
    if not secret:
        raise InvalidSecret("a secret is not empty")
    prefix = next((known for known in PREFIXES if secret.startswith(known)), None)
    if prefix is None:
        return "", secret.encode()
    try:
        raw = b64decode(secret[len(prefix) :], validate=True)
    except ValueError:
        raise InvalidSecret(f"what follows {prefix} is not base64") from None
    allowed = LENGTHS[prefix]
    if len(raw) not in allowed:
        raise InvalidSecret(f"a {prefix} secret has {_shown(allowed)} bytes, not {len(raw)}")
    return prefix, raw


def _shown(lengths: range | tuple[int, ...]) -> str:
    if isinstance(lengths, range):
        return f"{lengths[0]} to {lengths[-1]}"
    return " or ".join(map(str, lengths))


def new_secret_problem(secret: str) -> str | None:
    """Return why a new secret is refused; None if it is fine. The text does not contain the secret.

    Secrets that are in use already need not follow these rules.
    """
    if secret != secret.strip():
        return "Expected no blanks or line ends around the secret"
    if misplaced := next((prefix for prefix in PREFIXES if prefix in secret[1:]), None):
        return f"Expected nothing before {misplaced}"
    try:
        prefix, raw = read_secret(secret)
    except InvalidSecret as error:
        return str(error)
    if prefix == PUBLIC_PREFIX:
        return f"Expected the {PRIVATE_PREFIX} key; a {PUBLIC_PREFIX} key cannot sign"
    return None if len(raw) >= LEAST_BYTES else f"Expected {LEAST_BYTES} bytes or more"
