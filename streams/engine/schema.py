"""Faust's schema of a batch: nothing is decoded, the event's value is the batch."""

from __future__ import annotations

from typing import Any

from faust.serializers.schemas import Schema

__all__ = ["BatchSchema"]


class BatchSchema(Schema[Any, Any]):
    """Hands a polled batch to the stream whole; handlers decode its records themselves."""

    def compile(self, app: Any, **kwargs: Any) -> Any:
        """Return the function that makes an event of a message whose value is a `Batch`."""
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return create_event(None, message.value, None, message)

        return decode
