"""Settings of topics: reading them, and altering some without touching the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import AlterConfigsResponse_v0
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Schema, String

__all__ = ["alter_configs", "read_configs"]

_UNREADABLE: Final = {
    ClusterAuthorizationFailedError.errno,
    TopicAuthorizationFailedError.errno,
    # without the right to describe a topic its existence is not disclosed
    UnknownTopicOrPartitionError.errno,
}
_SET: Final = 0


class _IncrementalAlterConfigsResponse(Response):  # type: ignore[misc]
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = AlterConfigsResponse_v0.SCHEMA


class _IncrementalAlterConfigsRequestV0(RequestStruct):  # type: ignore[misc]
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _IncrementalAlterConfigsResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(
                        ("name", String("utf-8")),
                        ("config_operation", Int8),
                        ("value", String("utf-8")),
                    ),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class _IncrementalAlterConfigs(Request[_IncrementalAlterConfigsRequestV0]):  # type: ignore[misc]
    """KIP-339, brokers from 2.3 on. aiokafka has only AlterConfigs, which resets every setting not given."""

    API_KEY = 44

    def __init__(self, changes: Mapping[str, Mapping[str, str]]) -> None:
        self._changes = changes

    def build(self, struct: type[RequestStruct]) -> RequestStruct:
        resources = [
            (int(ConfigResourceType.TOPIC), topic, [(name, _SET, value) for name, value in settings.items()])
            for topic, settings in self._changes.items()
        ]
        return struct(resources, False)


async def read_configs(
    admin: AIOKafkaAdminClient, topics: Iterable[str]
) -> dict[str, Mapping[str, str] | None]:
    """Return all settings of each topic, Kafka's defaults included; None where they may not be read.

    Raises:
        KafkaError: the broker refused for another reason.
    """
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    found: dict[str, Mapping[str, str] | None] = {}
    for answer in await admin.describe_configs(resources):
        for code, message, _type, topic, entries in answer.resources:
            if code and code not in _UNREADABLE:
                raise for_code(code)(f"settings of topic {topic}: {message}")
            found[topic] = None if code else _readable(entries)
    return found


def _readable(entries: Iterable[Any]) -> dict[str, str]:
    return {name: value for name, value, *_rest in entries if value is not None}


async def alter_configs(
    admin: AIOKafkaAdminClient, changes: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Set settings of topics, by topic and name. All others stay as they are.

    Returns: the broker's reason for each topic whose settings it did not alter.
    """
    answer = await admin._send_request(_IncrementalAlterConfigs(changes))
    return {
        topic: message or for_code(code).__name__ for code, message, _type, topic in answer.resources if code
    }
