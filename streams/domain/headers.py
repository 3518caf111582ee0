"""Headers that a customer adds to webhooks: the rules for their names and values."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["header_problem"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_LINE: Final = re.compile(r"[!-~]([ -~]{0,4094}[!-~])?")
_OURS: Final = re.compile(
    r"(x-)?webhook-.*|x-signature|host|content-.*|transfer-encoding|connection|keep-alive|upgrade|te|trailer"
    r"|expect|cookie|proxy-.*|user-agent|accept-encoding",
    re.IGNORECASE,
)
"""Headers that belong to the signature or to the connection."""


def header_problem(name: str, value: str) -> str | None:
    """Return what is wrong with a header; None if it is fine."""
    if not _TOKEN.fullmatch(name) or _OURS.fullmatch(name):
        return "Expected the name of a header that is not ours to set"
    if not _LINE.fullmatch(value):
        return "Expected one line of at most 4096 ASCII characters; encode others, as RFC 8187 does"
    return None
