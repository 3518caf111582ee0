"""Headers that someone wants to go along with webhooks: which can, and which are not theirs to set."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["trouble_with_header"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_LINE: Final = re.compile(r"[\x21-\x7e\x80-\xff]([\x20-\x7e\x80-\xff]{0,4094}[\x21-\x7e\x80-\xff])?")
_OURS: Final = re.compile(
    r"(x-)?webhook-.*|x-signature|host|content-.*|transfer-encoding|connection|keep-alive|upgrade|te|trailer"
    r"|expect|cookie|proxy-.*|user-agent|accept-encoding",
    re.IGNORECASE,
)
"""Headers that belong to the signature or to the connection."""


def trouble_with_header(name: str, value: str) -> str | None:
    """Say what is wrong with a header, None: nothing."""
    if not _TOKEN.fullmatch(name) or _OURS.fullmatch(name):
        return "Expected the name of a header that is not ours to set"
    if not _LINE.fullmatch(value):
        return "Expected one line of at most 4096 Latin characters"
    return None
