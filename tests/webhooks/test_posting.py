"""Rules of one attempt: whatever a receiver does, it is an outcome, and costs no more than it must."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme

from streams.webhooks.guard import networks_of
from streams.webhooks.posting import MOST_READ_BYTES, Poster, Trouble

HERE = networks_of("127.0.0.0/8")
HEAD = b"HTTP/1.1 200 OK\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A receiver that is no more than a socket; its port."""
    running: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in running:
        task.cancel()


async def answered(serve: Serve, timeout_s: float = 5.0) -> tuple[int | None, bytes, Trouble | None]:
    async with serving(serve) as port:
        poster = Poster(HERE, body_s=0.05)
        attempt = await poster.post(f"http://127.0.0.1:{port}/", {"webhook-id": "1"}, b"{}", timeout_s)
        await poster.close()
    return attempt.status, attempt.body, attempt.trouble


async def test_what_is_sent_is_what_was_signed() -> None:
    """The exact bytes, as JSON, under the headers that were given."""
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.readexactly(len(BODY)))
        writer.write(b"HTTP/1.1 202 Accepted\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nok")

    BODY = '{"text":"전달됨"}'.encode()
    async with serving(serve) as port:
        poster = Poster(HERE)
        attempt = await poster.post(f"http://127.0.0.1:{port}/", {}, BODY, 5.0)
        await poster.close()

    assert bytes(got) == BODY
    assert (attempt.status, attempt.body, attempt.retry_after, attempt.trouble) == (202, b"ok", "7", None)
    assert attempt.duration_ms >= 0


async def test_an_endless_answer_is_cut_off() -> None:
    """Its status counts; no more is read of it than a little."""
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD + b"\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    status, body, trouble = await answered(serve)

    assert (status, body, trouble) == (200, b"x" * 1024, None)
    # what lies in the buffers of two sockets, and not what could be sent in a second
    assert sent < 64 * 1024 * 1024


async def test_a_slow_body_is_not_waited_for() -> None:
    """A byte now and then holds nothing up: the status is known."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\nx")
        await asyncio.Event().wait()

    assert await answered(serve) == (200, b"x", None)


async def test_what_is_packed_is_not_unpacked() -> None:
    """A few kilobytes may unfold to gigabytes."""
    packed = gzip.compress(b"\0" * 10_000_000)
    assert len(packed) < MOST_READ_BYTES

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)

    assert await answered(serve) == (200, packed[:1024], None)


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        (b"", "disconnected"),
        (b"HTTP/1.1 200", "disconnected"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol"),
        (HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n", "protocol"),
        (b"HTTP/1.1 " + b"9" * 100_000 + b"\r\n\r\n", "protocol"),
    ],
)
async def test_what_is_no_answer_is_a_trouble(said: bytes, trouble: Trouble) -> None:
    """Nothing, half of it, another protocol, headers without end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    assert await answered(serve) == (None, b"", trouble)


async def test_who_does_not_answer_is_not_waited_for_any_longer() -> None:
    """So long a timeout as the endpoint has."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    assert await answered(serve, timeout_s=0.05) == (None, b"", "timeout")


async def test_a_connection_that_is_reset_or_refused_is_a_trouble() -> None:
    """While the answer is awaited; and where nobody listens."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    assert await answered(serve) == (None, b"", "disconnected")
    async with serving(serve) as port:
        pass
    poster = Poster(HERE)
    attempt = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
    await poster.close()
    assert (attempt.status, attempt.trouble) == (None, "refused")


async def test_certificates_are_verified() -> None:
    """One that is trusted and of this name; not another name's, nor what nobody knows."""
    trusted, other = trustme.CA(), trustme.CA()
    client = ssl.create_default_context()
    trusted.configure_trust(client)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")

    found = []
    for authority, name in ((trusted, "127.0.0.1"), (trusted, "example.com"), (other, "127.0.0.1")):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(tls)
        async with serving(serve, tls) as port:
            poster = Poster(HERE, tls=client)
            attempt = await poster.post(f"https://127.0.0.1:{port}/", {}, b"{}", 5.0)
            await poster.close()
        found.append((attempt.status, attempt.trouble))

    assert found == [(200, None), (None, "tls"), (None, "tls")]


async def test_connections_are_used_again() -> None:
    """One for many webhooks in a row."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readexactly(2)
            writer.write(HEAD + b"Content-Length: 2\r\n\r\nok")
            await reader.readuntil(b"\r\n\r\n")

    async with serving(serve) as port:
        poster = Poster(HERE)
        for _ in range(5):
            attempt = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
            assert attempt.body == b"ok"
        await poster.close()

    assert connections == 1
