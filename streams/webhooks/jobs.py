"""What one attempt is: what is to be sent, and what came of it."""

from __future__ import annotations

import msgspec

from streams.domain.endpoints import Endpoint
from streams.domain.webhooks import Trouble

__all__ = ["Done", "Job"]


class Job(msgspec.Struct, gc=False):
    """One attempt that is to be made.

    Attributes:
        number: says which job it is, and nothing else.
        owner: whose the endpoint's secrets are: its own, by its id, or a message's.
    """

    number: int
    owner: str
    endpoint: Endpoint
    webhook_id: str
    type: str
    body: bytes


class Done(msgspec.Struct, gc=False):
    """What came of a job; times in ms."""

    number: int
    started_at: int
    duration_ms: int
    status: int | None
    trouble: Trouble | None
    body: str
    retry_after_ms: int | None
