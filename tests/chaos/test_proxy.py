"""What a proxy does to a connection is what the fault that uses it is named after."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from .proxy import Network, Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that answers what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while piece := connection.recv(1000):
                        connection.sendall(piece)
                except OSError:
                    pass

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def proxy(network: Network, echo: int) -> Proxy:
    return network.proxy(echo)


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def asked(connection: socket.socket, what: bytes = b"ping") -> bytes:
    connection.sendall(what)
    return connection.recv(100)


def test_bytes_pass_both_ways(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert asked(connection) == b"ping"


def test_a_cut_resets_what_is_connected_and_lets_others_connect(network: Network, proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert asked(connection) == b"ping"
        assert network.cut(proxy) == 2
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with connected(proxy) as another:
        assert asked(another) == b"ping"


def test_silence_loses_nothing_and_ends(proxy: Proxy) -> None:
    """The bytes come once it ends, as after a link that was down for less than TCP's patience."""
    with connected(proxy) as connection:
        proxy.silent = True
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            asked(connection)
        proxy.heal()
        connection.settimeout(5)
        assert connection.recv(100) == b"ping"


def test_a_delay_keeps_each_piece(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        proxy.delay_s = 0.1
        began = time.monotonic()
        assert asked(connection) == b"ping"
        assert time.monotonic() - began >= 0.2  # there and back


def test_who_is_refused_is_not_connected(proxy: Proxy) -> None:
    proxy.refusing = True
    with pytest.raises(ConnectionResetError), connected(proxy) as connection:
        connection.recv(1)


def test_a_target_that_is_away_refuses(network: Network) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = server.getsockname()[1]
    with pytest.raises(ConnectionResetError), connected(network.proxy(gone)) as connection:
        connection.recv(1)
