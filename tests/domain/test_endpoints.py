"""Rules of which events go to an endpoint, and of how its secrets follow one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.endpoints import (
    STATUS_EVENTS,
    Change,
    Endpoint,
    Filters,
    Secret,
    changed,
    is_pattern,
    is_wanted,
    live_secrets,
    names_of,
    rotated,
)

DELIVERED = names_of("status.updated", "DELIVERED")


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        ([], True),
        (["*"], True),
        (["status.updated"], True),
        (["status.*"], True),
        (["message.delivered"], True),
        (["message.*"], True),
        (["message.failed", "message.delivered"], True),
        (["message.failed"], False),
        (["tracking.*", "status.amended"], False),
        (["status"], False),
        (["message.deliver"], False),
    ],
)
def test_an_event_goes_where_one_of_its_names_is_meant(patterns: list[str], wanted: bool) -> None:
    """By our type or by k-msg's name of the status; all, if nothing is said."""
    assert is_wanted(patterns, DELIVERED) is wanted


def test_what_reached_no_status_has_no_name_of_k_msg() -> None:
    """A later detail is not told to who asks for messages that were delivered."""
    assert names_of("status.amended", None) == ("status.amended",)
    assert not is_wanted(["message.*"], names_of("status.amended", None))


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        *((text, True) for text in ("*", "message.*", "message.delivered", "status.updated", "status.*")),
        *((text, False) for text in ("", "**", "*.updated", "message*", "message.", ".x", "a.*.b", "a b")),
        *(
            (text, False)
            for text in ("Message.*", "message.Delivered", "status", "tracking.*", "status.update")
        ),
    ],
)
def test_a_pattern_matches_at_least_one_name(text: str, usable: bool) -> None:
    """Anything else would match nothing, in silence."""
    assert is_pattern(text, ["status.updated", *STATUS_EVENTS]) is usable


def test_filters_all_hold() -> None:
    """An endpoint of one tenant gets no other's, nor nobody's."""
    filters = Filters("t", ["sms", "lms"], ["solapi"])

    assert Filters().let(None, None, None)
    assert filters.let("t", "lms", "solapi")
    for message in (
        ("u", "lms", "solapi"),
        (None, "lms", "solapi"),
        ("t", "rcs", "solapi"),
        ("t", "sms", None),
    ):
        assert not filters.let(*message)


@given(st.lists(st.tuples(st.integers(1, 1_000), st.integers(0, 500)), min_size=1, max_size=8))
def test_secrets_follow_one_another_without_a_gap(turns: list[tuple[int, int]]) -> None:
    """At any time the newest signs, and each of the few before it until its overlap is over; never longer."""
    now, secrets = 0, [Secret(b"0", 0)]
    promised = {b"0": 0}
    for number, (later, overlap) in enumerate(turns, 1):
        now += later
        live = {secret.sealed for secret in live_secrets(secrets, now)}
        for sealed in live:
            promised[sealed] = min(promised[sealed] or now + overlap, now + overlap)
        secrets = rotated(secrets, b"%d" % number, now, overlap)
        promised[b"%d" % number] = 0

        assert secrets[0] == Secret(b"%d" % number, now)
        assert len(secrets) <= 5
        for secret in secrets[1:]:
            assert secret.until == promised[secret.sealed]
        for at in (now, now + overlap // 2, now + overlap):
            signs = {secret.sealed for secret in live_secrets(secrets, at)}
            assert secrets[0].sealed in signs
            assert signs - {secrets[0].sealed} == {s.sealed for s in secrets[1:] if at < promised[s.sealed]}


def test_a_change_touches_what_it_says() -> None:
    """A limit can be taken back; a secret takes the place of another; the same once more changes nothing."""
    before = Endpoint(
        url="https://example.com/a", rate=5, retries=3, secrets=[Secret(b"old", 1)], created_at=1
    )

    after = changed(
        before, Change("ep", url="https://example.com/b", rate=None, secret=b"new", overlap_ms=50), 100
    )

    assert after == Endpoint(
        url="https://example.com/b",
        retries=3,
        secrets=[Secret(b"new", 100), Secret(b"old", 1, 150)],
        created_at=1,
        updated_at=100,
    )
    assert changed(before, Change("ep", rate=5), 100) is None
    assert before.secrets == [Secret(b"old", 1)]


@pytest.mark.parametrize(
    ("change", "failing_since"),
    [
        (Change("ep", url="https://example.com/b"), None),
        (Change("ep", url="https://example.com/a", rate=5), 1),
        (Change("ep", state="active", rate=5), None),
        (Change("ep", state="paused"), 1),
    ],
)
def test_another_url_has_not_failed_yet(change: Change, failing_since: int | None) -> None:
    """The time until an endpoint is disabled begins anew, as it does when someone activates it."""
    after = changed(Endpoint(url="https://example.com/a", failing_since=1), change, 100)

    assert after is not None
    assert after.failing_since == failing_since


def test_filters_change_one_by_one() -> None:
    """Two changes at a time are applied one after the other: neither takes the other's back."""
    before = Endpoint(url="https://example.com/a", filters=Filters(None, [], ["p"]))

    tenant = changed(before, Change("ep", tenant="t"), 1)
    assert tenant is not None
    both = changed(tenant, Change("ep", channels=["sms"]), 2)

    assert both is not None
    assert both.filters == Filters("t", ["sms"], ["p"])
    assert before.filters == Filters(None, [], ["p"])
