"""Ask a broker, over a plain socket, whether it serves: no client library, no event loop."""

import contextlib
import random
import socket
import struct
from pathlib import Path

_METADATA = 3
_VERSION = 1
_CORRELATION = 7
#: Metadata v1, null client id, and no topic asked for. Source: Kafka protocol guide, "Metadata".
_REQUEST = struct.pack(">hhihi", _METADATA, _VERSION, _CORRELATION, -1, 0)

#: Below are many ports of well-known services.
_LOWEST_LASTING = 15_000


def serves(port: int, timeout_s: float = 1.0) -> bool:
    """Tell whether a broker on 127.0.0.1 answers, and lists itself as a broker (in KRaft: is unfenced)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(struct.pack(">i", len(_REQUEST)) + _REQUEST)
            (size,) = struct.unpack(">i", _read(connection, 4))
            answer = _read(connection, size)
    except OSError:
        return False
    correlation, brokers = struct.unpack_from(">ii", answer)
    return bool(correlation == _CORRELATION and brokers > 0)


def free_ports(count: int) -> list[int]:
    """Return so many ports of 127.0.0.1, no two the same, that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on now."""
    return free_ports(1)[0]


def lasting_ports(count: int) -> list[int]:
    """Return so many free ports that stay free while their servers are away for a while.

    The kernel gives none of them to an outgoing connection: a client that tries a port of that range again
    and again, while nothing listens there, may get it for itself.
    """
    candidates = list(range(_LOWEST_LASTING, _first_ephemeral_port()))
    random.SystemRandom().shuffle(candidates)
    found = [port for port in candidates[: 20 * count] if is_free(port)][:count]
    return found if len(found) == count else free_ports(count)


def _first_ephemeral_port() -> int:
    """Return where the range of outgoing connections begins; IANA's own where the system does not say."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 49_152


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        # As Kafka does: connections in TIME_WAIT from a broker that stopped just now are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _read(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionError("the peer closed the connection")
        received += chunk
    return bytes(received)
