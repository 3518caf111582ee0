"""What tests on the real broker share: one broker a run, and names of its own for each test."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from streams.kafka.broker import EmbeddedKafka


@dataclass(frozen=True)
class Broker:
    """A running broker: `url` for Faust and the settings, `bootstrap` for Kafka clients."""

    url: str

    @property
    def bootstrap(self) -> str:
        return self.url.removeprefix("kafka://")


@dataclass(frozen=True)
class Names:
    """Names that no other test uses, on a broker that all share."""

    prefix: str
    app_id: str

    def topic(self, name: str) -> str:
        return self.prefix + name


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests on a broker run one after the other, where several processes run tests."""
    for item in items:
        if item.get_closest_marker("kafka"):
            item.add_marker(pytest.mark.xdist_group("broker"))


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """One broker for the whole run: an embedded one, or that of TRACKER_TEST_BROKER_URL."""
    given = os.environ.get("TRACKER_TEST_BROKER_URL")
    if given:
        yield Broker(given)
        return
    with EmbeddedKafka(say=print) as embedded:
        yield Broker(embedded.url)


@pytest.fixture
def names() -> Names:
    unique = f"t{uuid.uuid4().hex[:10]}"
    return Names(prefix=f"{unique}.", app_id=f"{unique}-app")
