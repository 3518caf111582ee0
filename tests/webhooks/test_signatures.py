"""Rules of signatures; implementations that are not ours have the last word."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import standardwebhooks
import svix.webhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.secrets import InvalidSecret, new_secret_problem
from streams.webhooks.signatures import (
    HmacKey,
    InvalidSignature,
    key_of,
    kmsg_headers,
    new_secret,
    sign,
    standard_headers,
    verify,
    verifying_key_of,
)

BODY = json.dumps({"type": "status.updated", "data": {"text": "전달됨", "n": 1}}, ensure_ascii=False).encode()
ID = "statuses-3-17-0"
OLD, NEW = (new_secret(bytes([n]) * 32) for n in (1, 2))

Verifying = Callable[[str, bytes, dict[str, str]], object]


def by_standardwebhooks(secret: str, body: bytes, headers: dict[str, str]) -> object:
    return standardwebhooks.Webhook(secret).verify(body.decode(), headers)


def by_svix(secret: str, body: bytes, headers: dict[str, str]) -> object:
    svix.webhooks.Webhook(secret).verify(body, headers)
    return json.loads(body)


OTHERS = pytest.mark.parametrize("verified", [by_standardwebhooks, by_svix])


def now_s() -> int:
    # the others look at the machine's clock themselves
    return int(datetime.now(UTC).timestamp())


def test_the_example_of_the_specification_is_signed_as_it_stands_there() -> None:
    """Standard Webhooks 1.0, "Signature scheme"."""
    # its secret is shorter than the text around it asks for
    key = HmacKey(b64decode("plJ3nmyCDGBKInavdOK15jsl"))
    body = b'{"event_type":"ping","data":{"success":true}}'

    assert (
        sign([key], "msg_loFOjxBNrRLzqYUf", 1_731_705_121, body)
        == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
    )


@OTHERS
def test_others_verify_what_we_sign(verified: Verifying) -> None:
    """Body and headers are accepted as they are sent, whatever letters the body has."""
    headers = standard_headers([key_of(NEW)], ID, now_s(), BODY)

    assert verified(NEW, BODY, headers) == json.loads(BODY)


@OTHERS
def test_others_refuse_what_was_altered(verified: Verifying) -> None:
    """So that the test before this one can fail."""
    headers = standard_headers([key_of(NEW)], ID, now_s(), BODY)

    for body, secret in ((BODY + b" ", NEW), (BODY, OLD)):
        with pytest.raises(
            (standardwebhooks.WebhookVerificationError, svix.webhooks.WebhookVerificationError)
        ):
            verified(secret, body, headers)


@pytest.mark.parametrize("webhook", [standardwebhooks.Webhook, svix.webhooks.Webhook])
def test_we_verify_what_others_sign(webhook: Callable[[str], object]) -> None:
    """Their signature, under their id and time."""
    at = now_s()
    signature = webhook(NEW).sign(ID, datetime.fromtimestamp(at, UTC), BODY.decode())  # type: ignore[attr-defined]
    headers = {"webhook-id": ID, "webhook-timestamp": str(at), "webhook-signature": signature}

    assert verify([verifying_key_of(NEW)], headers, BODY, at) == ID


@OTHERS
def test_a_secret_is_replaced_without_a_gap(verified: Verifying) -> None:
    """While both are live each receiver is served, whichever it has; who had the new one first, too."""
    for live, served in (([OLD], [OLD]), ([NEW, OLD], [OLD, NEW]), ([NEW], [NEW])):
        headers = standard_headers(list(map(key_of, live)), ID, now_s(), BODY)
        for secret in served:
            verified(secret, BODY, headers)
            assert verify([verifying_key_of(secret)], headers, BODY, now_s()) == ID


def test_ed25519_is_verified_with_the_public_half() -> None:
    """Who can verify cannot sign; beside it an HMAC may stand."""
    private = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    seed = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    shown = "whpk_" + b64encode(public).decode()

    for secret in (seed, seed + public):
        keys = [key_of("whsk_" + b64encode(secret).decode()), key_of(OLD)]
        headers = standard_headers(keys, ID, 1_000, BODY)
        assert headers["webhook-signature"].startswith("v1a,")
        assert verify([verifying_key_of(shown)], headers, BODY, 1_000) == ID
        assert verify([verifying_key_of(OLD)], headers, BODY, 1_000) == ID
        with pytest.raises(InvalidSignature):
            verify([verifying_key_of(shown)], headers, BODY + b" ", 1_000)
    with pytest.raises(InvalidSecret, match="cannot sign"):
        key_of(shown)


@given(
    body=st.binary(max_size=60),
    other=st.binary(max_size=60),
    webhook_id=st.text("abc-0", min_size=1),
    at=st.integers(0, 2**39),
)
def test_what_was_signed_is_the_id_the_time_and_the_body(
    body: bytes, other: bytes, webhook_id: str, at: int
) -> None:
    """A signature holds for all three together."""
    keys = [key_of(NEW)]
    headers = standard_headers(keys, webhook_id, at, body)

    assert verify(keys, headers, body, at) == webhook_id
    altered = [
        (headers | {"webhook-id": webhook_id + "x"}, body),
        (headers | {"webhook-timestamp": str(at + 1)}, body),
    ]
    for said, sent in altered + ([(headers, other)] if other != body else []):
        with pytest.raises(InvalidSignature):
            verify(keys, said, sent, at)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({}, "without webhook-id, webhook-timestamp, webhook-signature"),
        ({"webhook-timestamp": "soon"}, "cannot be read"),
        ({"webhook-timestamp": "9" * 400}, "cannot be read"),
        ({"webhook-timestamp": "1_0"}, "cannot be read"),
        ({"webhook-timestamp": "٣"}, "cannot be read"),
        ({"webhook-id": "a.b"}, "cannot be read"),
        ({"webhook-timestamp": "9999"}, "off"),
        ({"webhook-signature": "v1,AAAA v1a,\udc80 v9,x"}, "no signature"),
    ],
)
def test_who_verifies_is_told_what_is_wrong(headers: dict[str, str], problem: str) -> None:
    """Something missing, unreadable, late, or by a key that is not known."""
    whole = standard_headers([key_of(NEW)], ID, 1_000, BODY) | headers if headers else {}

    with pytest.raises(InvalidSignature, match=problem):
        verify([verifying_key_of(OLD), verifying_key_of(NEW)], whole, BODY, 1_000)


def test_receivers_of_k_msg_get_headers_that_they_know() -> None:
    """With an HMAC by hand; the secret itself is in none of them, and a text is its own bytes."""
    headers = kmsg_headers([key_of("top secret")], ID, "message.delivered", 1_000, BODY)
    timed, plain = (
        hmac.new(b"top secret", signed, hashlib.sha256).hexdigest() for signed in (b"1000." + BODY, BODY)
    )

    assert headers == {
        "X-Webhook-ID": ID,
        "X-Webhook-Event": "message.delivered",
        "X-Webhook-Timestamp": "1000",
        "X-Webhook-Signature": f"sha256={timed}",
        "X-Signature": f"sha256={plain}",
    }


@pytest.mark.parametrize(
    "secret", ["", "whsec_!!!!", "whsec_" + "A" * 8, "whsec_" + "A" * 100, "whsk_AAAA", "whpk_A"]
)
def test_a_secret_that_cannot_be_used_is_refused_and_not_shown(secret: str) -> None:
    """What is wrong is said, and what it was is not."""
    for read in (key_of, verifying_key_of):
        with pytest.raises(InvalidSecret) as refused:
            read(secret)
        assert len(secret) < 7 or secret[6:] not in str(refused.value)


@pytest.mark.parametrize(
    "secret",
    [
        f"{NEW}\n",
        f" {NEW}",
        f"v1,{NEW}",
        f"whsec_{NEW}",
        "v1a,whpk_" + b64encode(b"\x07" * 32).decode(),
        "of 23 bytes in the text",
    ],
)
def test_a_new_secret_has_nothing_around_it_and_is_long_enough(secret: str) -> None:
    """As pasted with a line end or with the prefix of a signature, no signature would be accepted."""
    problem = new_secret_problem(secret)

    assert problem is not None
    assert secret.strip() not in problem
    assert new_secret_problem(secret + " ") is not None


@pytest.mark.parametrize(
    "secret", [NEW, "whsk_" + b64encode(b"\x07" * 32).decode(), "of 24 bytes as one sees.", "열쇠" * 4]
)
def test_a_new_secret_is_a_key_or_any_long_text(secret: str) -> None:
    """Bytes are counted, not letters."""
    assert new_secret_problem(secret) is None


def test_keys_do_not_show_what_they_are() -> None:
    """They come into tracebacks and logs by accident."""
    for secret in (OLD, "top secret", "whsk_" + b64encode(b"\x07" * 32).decode()):
        key = key_of(secret)
        for shown in (repr(key), str(key), f"{[key]}"):
            assert secret not in shown
            assert "\\x" not in shown
