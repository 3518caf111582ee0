"""Rules of secrets at rest."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.webhooks.sealing import Sealer, Unsealable, sealer_of

KEYS = {"k2": b"\x02" * 32, "k1": b"\x01" * 32}


@given(secret=st.binary(max_size=100), owner=st.text(max_size=20))
def test_what_was_sealed_opens_for_its_owner_and_does_not_show(secret: bytes, owner: str) -> None:
    """Twice the same secret is not sealed to the same bytes."""
    sealer = Sealer(KEYS)
    sealed = sealer.seal(secret, owner)

    assert sealer.open(sealed, owner) == secret
    assert len(secret) < 4 or secret not in sealed
    assert sealer.seal(secret, owner) != sealed
    with pytest.raises(Unsealable):
        sealer.open(sealed, owner + "x")


@given(st.data())
def test_what_was_altered_does_not_open(data: st.DataObject) -> None:
    """Whichever byte it was; nor what is cut off."""
    sealer = Sealer(KEYS)
    sealed = bytearray(sealer.seal(b"a secret", "endpoint"))
    at = data.draw(st.integers(0, len(sealed) - 1))
    with pytest.raises(Unsealable):
        sealer.open(bytes(sealed[:at]), "endpoint")
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unsealable):
        sealer.open(bytes(sealed), "endpoint")


def test_a_new_key_takes_over_while_the_old_one_still_opens() -> None:
    """The first key seals; what another sealed is read as long as that is there."""
    before = Sealer({"k1": KEYS["k1"]}).seal(b"a secret", "endpoint")
    both, after = Sealer(KEYS), Sealer({"k2": KEYS["k2"]})

    assert both.open(before, "endpoint") == b"a secret"
    assert after.open(both.seal(b"new", "endpoint"), "endpoint") == b"new"
    with pytest.raises(Unsealable, match="k1"):
        after.open(before, "endpoint")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "name"), ("a:AAAA", "3 bytes"), ("a:?", "base64"), (":AAAA", "name"), ("a b:AAAA", "name")],
)
def test_a_setting_that_cannot_be_used_says_why(text: str, problem: str) -> None:
    """And not what the key is."""
    with pytest.raises(ValueError, match=problem):
        sealer_of(text)


def test_keys_are_written_by_name() -> None:
    """The first seals; nothing of them is shown."""
    key = b64encode(KEYS["k1"]).decode()
    sealer = sealer_of(f"new:{b64encode(KEYS['k2']).decode()}, old:{key}")

    assert sealer.open(Sealer({"old": KEYS["k1"]}).seal(b"s", "e"), "e") == b"s"
    assert repr(sealer) == "<Sealer new, old>"
    with pytest.raises(ValueError, match="name of its own") as refused:
        sealer_of(f"a:{key},a:{key}")
    assert key not in str(refused.value)
