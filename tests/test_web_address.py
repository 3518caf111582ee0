"""Rules of the address of the web view."""

from __future__ import annotations

import socket

import pytest

from streams.settings import REFUSED
from streams.web_address import require_web_address


def refusal(host: str, port: int, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        require_web_address(host, port)
    assert ended.value.code == REFUSED
    return capsys.readouterr().err


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the variable that gives a worker its own; a free one is accepted."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert refusal("127.0.0.1", port, capsys).startswith(f"TRACKER_WEB_PORT: {port} is in use")

    require_web_address("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_of_another_machine_is_refused(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Addresses of documentation and names of no domain belong to nobody (RFC 5737, RFC 6761)."""
    assert refusal(host, 0, capsys).startswith(f"TRACKER_WEB_BIND: cannot listen at '{host}'")
