import re
from pathlib import Path

import pytest
import yaml

from streams.kafka import jars, properties
from streams.settings import VARIABLES

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture
def broker(compose):
    return compose["services"]["kafka"]


@pytest.fixture
def tracker(compose):
    return compose["services"]["tracker"]


def test_the_broker_is_the_embedded_ones_version(broker):
    """Whoever uses Docker runs the Kafka that the tests ran on."""
    assert broker["image"] == f"apache/kafka:{jars.KAFKA_VERSION}"


def test_the_broker_is_configured_as_the_embedded_one(broker):
    """The image takes each property as KAFKA_ and its name in capitals, dots as underscores."""
    said = broker["environment"]

    for name, value in properties.FIXED.items():
        assert str(said[f"KAFKA_{name.upper().replace('.', '_')}"]) == str(value), name


def test_every_listener_has_a_protocol_and_the_brokers_own_are_advertised(broker):
    """The broker refuses to start otherwise, or sends its clients to an address that is not there."""
    said = broker["environment"]
    listeners = set(re.findall(r"(\w+)://", said["KAFKA_LISTENERS"]))
    mapped = {pair.split(":")[0] for pair in said["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")}
    advertised = set(re.findall(r"(\w+)://", said["KAFKA_ADVERTISED_LISTENERS"]))

    assert listeners == mapped == advertised | {said["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    assert said["KAFKA_INTER_BROKER_LISTENER_NAME"] in advertised


def test_the_tracker_connects_where_the_broker_advertises(broker, tracker):
    """The tracker's address is an advertised one, and it waits until the broker is healthy."""
    address = tracker["environment"]["TRACKER_BROKER_URL"].removeprefix("kafka://")

    assert f"INSIDE://{address}" in broker["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert tracker["depends_on"]["kafka"]["condition"] == "service_healthy"


def test_the_tracker_is_told_only_settings_that_exist(tracker):
    """A variable that nobody reads would be a setting without effect."""
    known = {variable.name for variable in VARIABLES}
    image = set(re.findall(r"\bTRACKER_\w+", (ROOT / "Dockerfile").read_text()))

    assert set(tracker["environment"]) | image <= known


def test_every_service_tells_whether_it_is_well(compose):
    """Each has a health check that needs no shell."""
    for service in compose["services"].values():
        assert service["healthcheck"]["test"][0] == "CMD"


def test_ports_are_published_on_the_loopback_only(compose):
    """Broker and views ask for no password, so the network must not reach them."""
    for service in compose["services"].values():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")


def test_every_named_volume_is_declared(compose):
    """Each volume that is used is declared, and none besides."""
    used = {v.split(":")[0] for service in compose["services"].values() for v in service.get("volumes", [])}

    assert used == set(compose["volumes"])


def test_the_image_holds_what_the_application_is_made_of():
    """Packages are named in the Dockerfile, so that tests and benchmarks stay out."""
    copied = set(re.findall(r"^COPY (\S+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))

    assert copied == {"requirements/run.txt", "streams", "agents", "tables"}
    assert all((ROOT / path).exists() for path in copied)
