"""How a webhook is signed, and how a receiver finds out that it was.

Standard Webhooks 1.0 (``webhook-id``, ``webhook-timestamp``, ``webhook-signature``); beside it, for receivers
of k-msg, the headers of its webhook package with a real HMAC where its tracker sent the secret itself.
Pure: what time it is and what is random comes from outside.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature as NotSigned
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from streams.domain.secrets import (
    ED25519_BYTES,
    HMAC_PREFIX,
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    InvalidSecret,
    read_secret,
)

__all__ = [
    "TOLERANCE_S",
    "HmacKey",
    "InvalidSignature",
    "Key",
    "Verifier",
    "key_of",
    "kmsg_headers",
    "new_secret",
    "sign",
    "standard_headers",
    "verify",
    "verifying_key_of",
]

SECRET_BYTES: Final = 32

TOLERANCE_S: Final = 300
"""How far a timestamp may lie from the receiver's clock, against replays."""

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
_SECONDS: Final = re.compile(r"[0-9]{1,12}")


class InvalidSignature(ValueError):
    """What came is not what was signed, or not now; the message says which."""


class _Masked:
    """Nothing of it is shown: keys come into tracebacks and logs by accident."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__


@dataclass(frozen=True, repr=False)
class HmacKey(_Masked):
    """A secret that both sides have.

    Attributes:
        secret: raw bytes.
    """

    secret: bytes

    def sign(self, signed: bytes) -> str:
        """Return a signature of Standard Webhooks over all that is signed."""
        return f"v1,{b64encode(hmac.digest(self.secret, signed, sha256)).decode()}"

    def is_signature(self, signature: str, signed: bytes) -> bool:
        """Say whether a signature is this key's."""
        return hmac.compare_digest(self.sign(signed).encode(), signature.encode(errors="surrogateescape"))


@dataclass(frozen=True, repr=False)
class Ed25519Key(_Masked):
    """A key of which the receiver has the public half only."""

    private: Ed25519PrivateKey

    def sign(self, signed: bytes) -> str:
        """Return a signature of Standard Webhooks over all that is signed."""
        return f"v1a,{b64encode(self.private.sign(signed)).decode()}"

    def is_signature(self, signature: str, signed: bytes) -> bool:
        """Say whether a signature is this key's."""
        return Ed25519Verifier(self.private.public_key()).is_signature(signature, signed)


@dataclass(frozen=True, repr=False)
class Ed25519Verifier(_Masked):
    """The public half: it can tell, but not sign."""

    public: Ed25519PublicKey

    def is_signature(self, signature: str, signed: bytes) -> bool:
        """Say whether a signature is its other half's."""
        version, _, encoded = signature.partition(",")
        if version != "v1a":
            return False
        try:
            self.public.verify(b64decode(encoded, validate=True), signed)
        except (NotSigned, ValueError):
            return False
        return True


Key: TypeAlias = HmacKey | Ed25519Key
"""What signs."""
Verifier: TypeAlias = HmacKey | Ed25519Key | Ed25519Verifier
"""What tells whether something is signed."""


def new_secret(random: bytes) -> str:
    """Return a secret as it is shown, once.

    Args:
        random: `SECRET_BYTES` of them, from a source that nobody can guess.
    """
    if len(random) != SECRET_BYTES:
        raise ValueError(f"{SECRET_BYTES} random bytes make a secret, not {len(random)}")
    return HMAC_PREFIX + b64encode(random).decode()


def key_of(secret: str) -> Key:
    """Return the key that a secret stands for (`streams.domain.secrets`).

    Raises:
        InvalidSecret: it cannot be used.
    """
    prefix, raw = read_secret(secret)
    if prefix == PUBLIC_PREFIX:
        raise InvalidSecret(f"a {PUBLIC_PREFIX} key cannot sign; the sender needs the {PRIVATE_PREFIX} one")
    if prefix == PRIVATE_PREFIX:
        return Ed25519Key(Ed25519PrivateKey.from_private_bytes(raw[:ED25519_BYTES]))
    return HmacKey(raw)


def verifying_key_of(secret: str) -> Verifier:
    """Return what verifies signatures of a secret, or of the other half of a public key.

    Raises:
        InvalidSecret: it cannot be used.
    """
    prefix, raw = read_secret(secret)
    if prefix == PUBLIC_PREFIX:
        return Ed25519Verifier(Ed25519PublicKey.from_public_bytes(raw))
    return key_of(secret)


def sign(keys: Sequence[Key], webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of the ``webhook-signature`` header: a signature of each key, the newest first.

    Args:
        keys: several while one takes the place of another; a receiver looks for one that it knows.
        webhook_id: the same for all attempts; without a dot.
        timestamp_s: time of this attempt, whole seconds since the epoch.
        body: the exact bytes that are sent.
    Source: Standard Webhooks 1.0, "Signature scheme".
    """
    signed = _signed(webhook_id, timestamp_s, body)
    return " ".join(key.sign(signed) for key in keys)


def _signed(webhook_id: str, timestamp_s: int, body: bytes) -> bytes:
    if "." in webhook_id:
        raise ValueError(f"the id {webhook_id!r} has a dot, which would make what is signed ambiguous")
    return b"%s.%d.%s" % (webhook_id.encode(errors="surrogateescape"), timestamp_s, body)


def standard_headers(keys: Sequence[Key], webhook_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks for one attempt, unsigned without a key; see `sign`."""
    headers = {ID: webhook_id, TIMESTAMP: str(timestamp_s)}
    return headers | {SIGNATURE: sign(keys, webhook_id, timestamp_s, body)} if keys else headers


def kmsg_headers(
    keys: Sequence[Key], webhook_id: str, event: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """Return the headers that k-msg's packages send, for receivers that know these.

    ``X-Webhook-Signature`` is k-msg's (hex, over ``timestamp.body``). ``X-Signature`` has the form that its
    tracker gave it, over the body, but is an HMAC where that sent the secret itself. Both by the newest key
    that is an HMAC's; none if there is none.

    Args:
        event: the type of the event.
    """
    secret = next((key.secret for key in keys if isinstance(key, HmacKey)), None)
    headers = {
        "X-Webhook-ID": webhook_id,
        "X-Webhook-Event": event,
        "X-Webhook-Timestamp": str(timestamp_s),
    }
    if secret is not None:
        timed = hmac.digest(secret, b"%d.%s" % (timestamp_s, body), sha256).hex()
        headers["X-Webhook-Signature"] = f"sha256={timed}"
        headers["X-Signature"] = f"sha256={hmac.digest(secret, body, sha256).hex()}"
    return headers


def verify(
    keys: Sequence[Verifier],
    headers: Mapping[str, str],
    body: bytes,
    now_s: float,
    tolerance_s: float = TOLERANCE_S,
) -> str:
    """Return the id of a webhook that is signed by one of the keys, and now.

    Args:
        headers: names in lower case.
        body: the exact bytes that came.

    Raises:
        InvalidSignature: it is not, or something is missing.
    """
    missing = [name for name in (ID, TIMESTAMP, SIGNATURE) if not headers.get(name)]
    if missing:
        raise InvalidSignature(f"without {', '.join(missing)}")
    if not _SECONDS.fullmatch(headers[TIMESTAMP]) or "." in headers[ID]:
        raise InvalidSignature(f"{TIMESTAMP} or {ID} cannot be read")
    timestamp_s = int(headers[TIMESTAMP])
    signed = _signed(headers[ID], timestamp_s, body)
    if abs(now_s - timestamp_s) > tolerance_s:
        off_s = now_s - timestamp_s
        raise InvalidSignature(f"{TIMESTAMP} is {off_s:+.0f} s off; {tolerance_s:g} are allowed")
    if not any(key.is_signature(one, signed) for one in headers[SIGNATURE].split() for key in keys):
        raise InvalidSignature("no signature is one of a known key")
    return headers[ID]
