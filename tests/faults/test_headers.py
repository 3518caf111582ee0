"""The checker reads what a client would not: header names of any bytes."""

import random
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from tests.chaos import poison

from .logs import Names, read_topic


@pytest.fixture
def names() -> Iterator[Names]:
    """Topics on the broker that librdkafka simulates within this process."""
    broker = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
    (address,) = (f"{one.host}:{one.port}" for one in broker.list_topics(timeout=10).brokers.values())
    found = Names(address, "app", "p.", 1)
    broker.produce(found.input("statuses"), b"before", partition=0, headers=[("plain", b"1")])
    assert broker.flush(10) == 0
    yield found


def test_header_names_that_are_not_utf8_are_read_with_their_bytes(names: Names) -> None:
    count = poison.produce_with_invalid_headers(names, random.Random(1))

    first, *others = read_topic(names, names.input("statuses"))[0]

    assert first.headers == (("plain", b"1"),)
    assert len(others) == count
    for record in others:
        ((name, value),) = record.headers
        assert name.encode("utf-8", "surrogateescape") == b"\xff\xfe-name"
        assert value == b"x"
