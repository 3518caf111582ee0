"""Where a key belongs."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as other
from hypothesis import given
from hypothesis import strategies as st

from streams.domain.placement import murmur2, partition_of


@given(st.binary(max_size=300))
def test_murmur2_is_that_of_aiokafka(key: bytes) -> None:
    """Both hash alike, so that what others produce is found in its place."""
    assert murmur2(key) == other(key)


@pytest.mark.parametrize("length", [*range(255, 262), 1_024])
def test_long_keys_too(length: int) -> None:
    """A messageId of 256 characters may have four times as many bytes."""
    key = bytes(n * 7 % 256 for n in range(length))

    assert murmur2(key) == other(key)


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_java(key: bytes, signed: int) -> None:
    """Golden values of Kafka's own UtilsTest.testMurmur2."""
    assert murmur2(key) == signed % 2**32
    assert partition_of(key, 7) == (signed & 0x7FFFFFFF) % 7
