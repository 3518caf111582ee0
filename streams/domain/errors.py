"""What can be wrong with what users send."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["MalformedCode", "MalformedRecord", "TrackerError", "UnprocessableRecord"]

MalformedCode: TypeAlias = Literal[
    "empty",
    "too-large",
    "not-json",
    "missing-field",
    "wrong-type",
    "unknown-status",
    "unsupported-type",
    "invalid-value",
    "unexpected",
]


class TrackerError(Exception):
    """Anything that this application raises on purpose."""


class MalformedRecord(TrackerError):
    """An input record cannot be read.

    Attributes:
        code: the kind of fault, for programs.
        field: the dotted path of the field to blame, empty when it is the whole record.
        problem: what is wrong, for people; it holds no value of a field that may be personal.
    """

    def __init__(self, code: MalformedCode, field: str, problem: str) -> None:
        self.code = code
        self.field = field
        self.problem = problem
        super().__init__(f"{field}: {problem}" if field else problem)


class UnprocessableRecord(MalformedRecord):
    """An input record can be read, but not processed: a fault of this application."""

    def __init__(self, cause: str) -> None:
        super().__init__("unexpected", "", f"the record could not be processed: {cause}")
