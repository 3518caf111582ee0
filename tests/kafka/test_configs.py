"""Reading and altering settings of topics, with a broker's answers given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from streams.kafka.configs import alter_configs, read_configs

TOPIC = 2


class Admin:
    """Answers with fixed resources and keeps the last request."""

    def __init__(self, *resources: tuple[Any, ...]) -> None:
        self.resources = resources
        self.sent: Any = None

    async def describe_configs(self, resources: list[Any]) -> list[Any]:
        return [SimpleNamespace(resources=self.resources)]

    async def _send_request(self, request: Any) -> Any:
        self.sent = request.prepare({44: (0, 1)})
        return SimpleNamespace(resources=self.resources)


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError, ClusterAuthorizationFailedError])
async def test_settings_that_may_not_be_read_are_unknown(error: type[KafkaError]) -> None:
    """Other topics' settings are returned all the same; values that Kafka hides are left out."""
    entries = [("retention.ms", "5", False, 1, False, []), ("secret", None, False, 1, True, [])]
    admin = Admin((error.errno, "denied", TOPIC, "a", []), (0, None, TOPIC, "b", entries))

    assert await read_configs(cast(Any, admin), ["a", "b"]) == {"a": None, "b": {"retention.ms": "5"}}


async def test_another_error_is_not_taken_for_a_missing_right() -> None:
    """Whatever else a broker refuses ends the start."""
    admin = Admin((42, "no such thing", TOPIC, "a", []))

    with pytest.raises(KafkaError, match="settings of topic a: no such thing"):
        await read_configs(cast(Any, admin), ["a"])


async def test_only_the_settings_given_are_sent() -> None:
    """Each as an assignment, which leaves the others alone; a refusal is returned in the broker's words."""
    admin = Admin((0, None, TOPIC, "a"), (29, "denied", TOPIC, "b"))

    refused = await alter_configs(cast(Any, admin), {"a": {"retention.ms": "5"}, "b": {"segment.ms": "6"}})

    assert refused == {"b": "denied"}
    assert admin.sent.to_object() == {
        "resources": [
            {
                "resource_type": TOPIC,
                "resource_name": name,
                "configs": [{"name": setting, "config_operation": 0, "value": value}],
            }
            for name, setting, value in (("a", "retention.ms", "5"), ("b", "segment.ms", "6"))
        ],
        "validate_only": False,
    }
