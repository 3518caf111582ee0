"""What is said when a request cannot be answered (RFC 9457, application/problem+json)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from streams.domain.errors import MalformedRecord

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
"""About what a rebalance takes when nothing has to be restored."""

UNKNOWN_MESSAGE = "urn:delivery-tracker:unknown-message"
INVALID_PARAMETER = "urn:delivery-tracker:invalid-parameter"
MALFORMED = "urn:delivery-tracker:malformed-record"
PARTITIONS_UNAVAILABLE = "urn:delivery-tracker:partitions-unavailable"
NOT_READY = "urn:delivery-tracker:not-ready"


class Problem(Exception):
    """A request that is not answered, and the reason as it goes over the wire.

    ``type`` is ``about:blank`` where the status says it all (RFC 9457, section 4.2.1).
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        type: str = "about:blank",
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.type = type
        self.title = title or HTTPStatus(status).phrase
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def body(self) -> bytes:
        """Return the problem document."""
        standard = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return msgspec.json.encode(standard | self.members)


def unknown_message(message_id: str) -> Problem:
    """Say so only on the word of the worker that holds the message's partition."""
    return Problem(
        404,
        f"No delivery is known for message {message_id!r}.",
        type=UNKNOWN_MESSAGE,
        title="Unknown message",
        messageId=message_id,
    )


def invalid_parameter(field: str, detail: str) -> Problem:
    """Name the query parameter that is to blame."""
    return Problem(400, detail, type=INVALID_PARAMETER, title="Invalid parameter", field=field)


def malformed(error: MalformedRecord) -> Problem:
    """Name the field that is to blame, and the code that a dead letter would have."""
    return Problem(
        400, error.problem, type=MALFORMED, title="Malformed record", field=error.field, code=error.code
    )


def not_produced() -> Problem:
    """Say that nobody knows whether the broker has it."""
    return Problem(
        503,
        "The broker did not acknowledge the record in time; it may have it all the same. A status with an id "
        "or a timestamp, and a request, may be sent again: it counts once.",
        title="Not acknowledged",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def partitions_unavailable(missing: Iterable[int], holders: Mapping[int, str | None]) -> Problem:
    """Name the partitions nobody answered for, and who was expected to (null: nobody is known)."""
    numbers = sorted(missing)
    return Problem(
        503,
        f"No worker answers for partitions {', '.join(map(str, numbers))}; a partial answer is not given.",
        type=PARTITIONS_UNAVAILABLE,
        title="Partitions unavailable",
        headers={"Retry-After": str(RETRY_AFTER_S)},
        missingPartitions=numbers,
        holders={str(number): holders.get(number) for number in numbers},
    )


def busy() -> Problem:
    """Say that another question of the kind is being answered."""
    return Problem(
        503,
        "Another period is being counted; one is counted at a time.",
        title="Busy",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def not_ready(detail: str) -> Problem:
    """Say what this worker still waits for."""
    return Problem(
        503, detail, type=NOT_READY, title="Not ready", headers={"Retry-After": str(RETRY_AFTER_S)}
    )
