"""Records, formats and tables to feed the engine with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streams.engine.formats import Format


@dataclass(frozen=True)
class Record:
    offset: int
    key: bytes | None = b"k"
    value: bytes | None = b"v"
    topic: str = "input"
    partition: int = 0
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True)
class Table:
    name: str
    format: Format[Any]


#: Whole numbers, listed by their value.
NUMBERS = Format(encode=lambda n: b"%d" % n, decode=int, index=lambda key, n: (b"%04d" % n,), index_bytes=4)
