"""Where a webhook may not go: a customer names the address, and our network is not the customer's.

The guard looks at the address of every connection as it is made, after names were resolved, so that a name
whose address changes between a look and a connection (rebinding), a literal in whatever notation, and a
second try at another address all pass through it (source: OWASP, "Server-Side Request Forgery Prevention";
Stripe's smokescreen). What is checked when an endpoint is registered is only early feedback.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, TypeAlias

from yarl import URL

__all__ = [
    "SCHEMES",
    "Address",
    "ForbiddenAddress",
    "Network",
    "guarded_sockets",
    "is_allowed",
    "is_public",
    "networks_of",
    "trouble_with",
    "url_of",
]

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

SPECIAL: Final[Sequence[Network]] = tuple(
    map(
        ip_network,
        (
            # what `is_global` of Python 3.11 takes for public, by the IANA registries of special-purpose
            # addresses, RFC 7526 (6to4 and its relays), RFC 4291 (site-local, IPv4-compatible), RFC 4380
            # (Teredo), RFC 9637 (documentation)
            "192.88.99.0/24",
            "2001::/32",
            "2002::/16",
            "3fff::/20",
        ),
    )
)
_UNICAST: Final = ip_network("2000::/3")
"""All that has been given out of IPv6 (RFC 4291, IANA); the rest is special, or nobody's yet."""
_NAT64: Final = ip_network("64:ff9b::/96")
_LOW_BITS: Final = 0xFFFF_FFFF


SCHEMES: Final = ("http", "https")
_HOST: Final = re.compile(r"[0-9A-Za-z:_-][0-9A-Za-z.:_-]*")
"""Names and addresses, these without a zone: that is a link of our own."""


class ForbiddenAddress(OSError):
    """A connection was not made: its address is not public, nor one that is allowed."""

    def __init__(self, address: str) -> None:
        # the same for all of a name's addresses, or connecting would raise no more than a summary
        super().__init__("connections to this address are not allowed")
        self.address = address


def is_public(address: Address) -> bool:
    """Say whether an address belongs to the public internet.

    One that has an IPv4 address within it is judged by that: the gateway that unwraps it stands in our
    network. NAT64 is how hosts without IPv4 reach the others; older ways to wrap are not used any more, and
    never public.
    """
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & _LOW_BITS))
    if address.version == 6 and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast and not any(address in some for some in SPECIAL)


def is_allowed(address: Address, allowed: Iterable[Network], *, public: bool = True) -> bool:
    """Say whether webhooks may go to an address: one of our own that is said to be fine, or a public one.

    Args:
        public: whether public ones are fine.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return (public and is_public(address)) or any(address in network for network in allowed)


def networks_of(text: str) -> tuple[Network, ...]:
    """Read a list of networks, as in ``10.1.0.0/16,fd00::/8``.

    Raises:
        ValueError: one of them is none.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def url_of(url: str) -> URL:
    """Return the parts of a URL that webhooks could go to: with a scheme, a host and a port.

    The path and the query of what is returned are not those that were written: yarl decodes and encodes.

    Raises:
        ValueError: it is none.
    """
    if not url.isprintable() or " " in url:
        raise ValueError("it has blanks or control characters")
    try:
        parts = URL(url)
    except IndexError:
        # yarl's, of brackets in the wrong order
        raise ValueError("its host cannot be read") from None
    if parts.scheme not in SCHEMES or not _HOST.fullmatch(parts.raw_host or "") or not parts.port:
        raise ValueError("it leads to no host over http")
    return parts


def trouble_with(url: str, allowed: Sequence[Network] = ()) -> str | None:
    """Say why webhooks cannot go to a URL, as far as the URL tells; None if it may be fine.

    Early feedback for who registers it: a name may come to mean any address later.
    """
    try:
        parts = url_of(url)
    except ValueError:
        return "Expected a URL such as https://example.com/hook"
    if "@" in parts.authority:
        return "Expected no user or password; send them as a header"
    if parts.fragment:
        return "Expected no fragment; it is not sent"
    if parts.scheme == "http" and not allowed:
        return "Expected https; plain http goes only to networks that TRACKER_WEBHOOK_ALLOW names"
    try:
        address = ip_address(parts.raw_host or "")
    except ValueError:
        return None
    if not is_allowed(address, allowed, public=parts.scheme == "https"):
        return "Expected a public address, over https, or one that TRACKER_WEBHOOK_ALLOW names"
    return None


def guarded_sockets(
    allowed: Sequence[Network] = (),
    *,
    public: bool = True,
) -> Callable[[Any], socket.socket]:
    """Return what makes the socket of a connection, if it may be made; for aiohttp's ``socket_factory``.

    It is called with the resolved address of each try.

    Args:
        allowed: networks besides the public ones.
        public: whether public addresses are fine.

    Raises (what is returned):
        ForbiddenAddress: the address is neither public nor allowed, or is none at all.
    """

    def make(address_info: Any) -> socket.socket:
        family, kind, protocol, _, where = address_info
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise ForbiddenAddress(str(where))
        host = str(where[0])
        try:
            address = ip_address(host)
        except ValueError:
            raise ForbiddenAddress(host) from None
        # a scope names one of our own links
        scoped = "%" in host or (family == socket.AF_INET6 and where[3])
        if scoped or not is_allowed(address, allowed, public=public):
            raise ForbiddenAddress(host)
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    return make
