"""The address of a worker's web view, tried before the worker starts."""

from __future__ import annotations

import errno
import socket

from streams.settings import refuse

__all__ = ["require_web_address"]


def require_web_address(host: str, port: int) -> None:
    """Refuse to start when nothing can listen at this address: Faust would end with a traceback.

    Another process may still take it in between.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as tried:
                # as the server does: connections of a worker before may linger
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            refuse(f"TRACKER_WEB_PORT: {port} is in use at {host}; set another port for this worker")
        refuse(
            f"TRACKER_WEB_BIND: cannot listen at {host!r}: {error.strerror}; name an address of this machine"
        )
