"""What becomes of record batches that other clients wrote."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.engine.parsing import PARSED_BYTES, FetchedRecords, ParsedRecords

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
READ_COMMITTED = 1
INPUT = TopicPartition("input", 3)
#: A name of as many bytes as the one that is not UTF-8.
PLACEHOLDER, NAME = b"XXXX", b"a\xff\xc3b"


def batch(offset: int, *names: str, codec: int = NONE) -> bytes:
    """A batch with a record for each header name."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for number, name in enumerate(names):
        assert builder.append(number, 1000 + number, b"key", b"value %d" % number, [(name, b"h")]) is not None
    built = bytearray(builder.build())
    built[:8] = offset.to_bytes(8, "big")
    return bytes(built)


def parsed(raw: bytes, offset: int = 0, check_crcs: bool = False) -> list[Any]:
    records = ParsedRecords(INPUT, FetchedRecords(raw), [], offset, None, None, check_crcs, READ_COMMITTED)
    return list(records)


def shape(record: Any) -> tuple[int, int, bytes, bytes, list[tuple[str, bytes]]]:
    return record.offset, record.timestamp, record.key, record.value, list(record.headers)


def spoiled(raw: bytes) -> bytes:
    """Write a name that is not UTF-8 over the placeholder."""
    assert PLACEHOLDER in raw
    return raw.replace(PLACEHOLDER, NAME)


def test_a_header_name_that_is_not_utf8_costs_no_record() -> None:
    """Its odd bytes become surrogates; its record and all around it are read as they are."""
    raw = batch(0, "one", "two") + spoiled(batch(2, "three", "XXXX", "five")) + batch(5, "six")

    assert [shape(record) for record in parsed(raw)] == [
        (0, 1000, b"key", b"value 0", [("one", b"h")]),
        (1, 1001, b"key", b"value 1", [("two", b"h")]),
        (2, 1000, b"key", b"value 0", [("three", b"h")]),
        (3, 1001, b"key", b"value 1", [("a\udcff\udcc3b", b"h")]),
        (4, 1002, b"key", b"value 2", [("five", b"h")]),
        (5, 1000, b"key", b"value 0", [("six", b"h")]),
    ]


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_so_it_is_in_compressed_batches(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever client compressed them."""
    from aiokafka import codec as codecs

    name = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}[codec]
    plain = spoiled(batch(7, "one", "XXXX"))
    header, payload = bytearray(plain[:61]), plain[61:]
    packed = getattr(codecs, f"{name}_encode")(payload)
    header[8:12] = (len(packed) + 61 - 12).to_bytes(4, "big")
    header[22] = codec
    raw = bytes(header) + packed

    assert [(record.offset, record.headers[0][0]) for record in parsed(raw)] == [
        (7, "one"),
        (8, "a\udcff\udcc3b"),
    ]


def test_reading_goes_on_in_the_midst_of_such_a_batch() -> None:
    """Records before the position are passed over."""
    assert [record.offset for record in parsed(spoiled(batch(10, "one", "XXXX", "three")), offset=11)] == [
        11,
        12,
    ]


def test_a_corrupt_batch_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """The checksum does not match; the log says where to look."""
    raw = bytearray(batch(0, "one") + batch(1, "two"))
    raw[-1] ^= 1

    with pytest.raises(CorruptRecordException):
        parsed(bytes(raw), check_crcs=True)
    assert "input/3 cannot be read on from offset 1" in caplog.text


def test_a_fetch_is_parsed_in_parts_when_its_values_are_large() -> None:
    """Compressed bytes bound a fetch, but not what they unpack to; reading goes on where it ended."""
    size = PARSED_BYTES // 4
    raw = b""
    for offset in range(10):
        builder = DefaultRecordBatchBuilder(2, GZIP, 0, -1, -1, -1, 2 * size)
        builder.append(0, 1000, b"key", bytes(size), [])
        built = bytearray(builder.build())
        built[:8] = offset.to_bytes(8, "big")
        raw += bytes(built)
    records = ParsedRecords(INPUT, FetchedRecords(raw), [], 0, None, None, False, READ_COMMITTED)

    assert [record.offset for record in records] == [0, 1, 2, 3]
    assert records.next_fetch_offset == 4


def transactional(offset: int, key: bytes, attributes: int) -> bytes:
    """A batch of one record in a transaction of producer 7."""
    builder = DefaultRecordBatchBuilder(2, NONE, 1, 7, 0, 0, 1 << 20)
    assert builder.append(0, 1000, key, b"", []) is not None
    built = bytearray(builder.build())
    built[:8] = offset.to_bytes(8, "big")
    built[22] |= attributes
    return bytes(built)


def test_records_of_an_aborted_transaction_are_passed_over() -> None:
    """A marker ends it; what the same producer writes after it counts."""
    control, abort = 0x20, b"\0\0\0\0"
    raw = transactional(0, b"aborted", 0) + transactional(1, abort, control) + transactional(2, b"kept", 0)
    records = ParsedRecords(INPUT, FetchedRecords(raw), [(7, 0)], 0, None, None, False, READ_COMMITTED)

    assert [record.key for record in records] == [b"kept"]
    assert records.next_fetch_offset == 3
