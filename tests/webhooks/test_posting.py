"""Rules of one attempt: whatever a receiver does, it is an outcome, and costs no more than it must."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
import uvloop

from streams.domain.webhooks import Trouble
from streams.webhooks import connections
from streams.webhooks.connections import MOST_READ_BYTES
from streams.webhooks.guard import networks_of, trouble_with
from streams.webhooks.names import AddressInfo
from streams.webhooks.posting import Poster

from .test_guard import URLS
from .test_guard import connections as tried_connections

HERE = networks_of("127.0.0.0/8")
HEAD = b"HTTP/1.1 200 OK\r\n"

#: Just as much as is read.
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % (MOST_READ_BYTES - 42) + b"x" * (MOST_READ_BYTES - 42)

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


def answering(said: bytes) -> Serve:
    """What answers each webhook, all of which are two bytes, with the same."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readexactly(2)
            writer.write(said)
            await reader.readuntil(b"\r\n\r\n")

    return serve


def certified(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    """What a receiver shows that an authority knows by a name."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(tls)
    return tls


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What takes an authority's word, as other than the system's."""
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    return tls


async def answered(serve: Serve, timeout_s: float = 5.0) -> tuple[int | None, bytes, Trouble | None]:
    async with serving(serve) as port:
        poster = Poster(HERE, body_s=0.05)
        attempt = await poster.post(f"http://127.0.0.1:{port}/", {"webhook-id": "1"}, b"{}", timeout_s)
        poster.close()
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
        poster.close()

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


async def test_only_what_was_asked_for_is_shown() -> None:
    """Not what comes with it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 2\r\n\r\nok" + HEAD + b"Content-Length: 5\r\n\r\nextra")

    assert await answered(serve) == (200, b"ok", None)


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
        (HEAD + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "protocol"),
        (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", "protocol"),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "protocol"),
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
    poster.close()
    assert (attempt.status, attempt.trouble) == (None, "refused")


async def test_who_hangs_up_at_once_is_not_waited_for() -> None:
    """As soon as it is connected, or the handshake is done."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    authority = trustme.CA()
    plain = await asyncio.start_server(leave, "127.0.0.1", 0)
    safe = await asyncio.start_server(leave, "127.0.0.1", 0, ssl=certified(authority))
    poster = Poster(HERE, tls=trusting(authority))
    for server, scheme in ((plain, "http"), (safe, "https")):
        port = server.sockets[0].getsockname()[1]
        made = [await poster.post(f"{scheme}://127.0.0.1:{port}/", {}, b"{}", 30.0) for _ in range(20)]
        assert {attempt.trouble for attempt in made} == {"disconnected"}
        server.close()


async def test_a_connection_that_has_ended_takes_no_webhook() -> None:
    """Whoever finds that out first."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(serve) as port:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: connections.Connection(1.0), "127.0.0.1", port
        )
        connection.close()
        with pytest.raises(ConnectionResetError):
            await connection.post(b"POST / HTTP/1.1\r\n\r\n", 30.0)


async def test_certificates_are_verified() -> None:
    """One that is trusted and of this name; not another name's, nor what nobody knows."""
    trusted, other = trustme.CA(), trustme.CA()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")

    found = []
    for authority, name in ((trusted, "127.0.0.1"), (trusted, "example.com"), (other, "127.0.0.1")):
        async with serving(serve, certified(authority, name)) as port:
            poster = Poster(HERE, tls=trusting(trusted))
            attempt = await poster.post(f"https://127.0.0.1:{port}/", {}, b"{}", 5.0)
            poster.close()
        found.append((attempt.status, attempt.trouble))

    assert found == [(200, None), (None, "tls"), (None, "tls")]


async def test_connections_are_used_again() -> None:
    """One for many webhooks in a row."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(HEAD + b"Content-Length: 2\r\n\r\nok")(reader, writer)

    async with serving(serve) as port:
        poster = Poster(HERE)
        for _ in range(5):
            attempt = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
            assert attempt.body == b"ok"
        poster.close()

    assert connections == 1


async def several(serve: Serve, count: int) -> tuple[list[tuple[int | None, Trouble | None]], int]:
    """What comes of webhooks one after the other, and how many connections these took."""
    connections = 0

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await serve(reader, writer)

    async with serving(one) as port:
        poster = Poster(HERE, body_s=0.05)
        made = [await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0) for _ in range(count)]
        poster.close()
    return [(attempt.status, attempt.trouble) for attempt in made], connections


@pytest.mark.parametrize(
    "said",
    [
        HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\n\r\nok and more",
        WHOLE + b"EVIL",
        HEAD + b"Content-Length: 20000\r\n\r\n" + b"x" * 20_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nHTTP/1.1 500 No\r\n\r\n",
        HEAD + b"Content-Length: 4\r\n\r\nok",
        HEAD + b"\r\nok",
    ],
)
async def test_a_connection_whose_answer_is_not_whole_or_not_alone_is_not_used_again(said: bytes) -> None:
    """What is left of one answer could be taken for the next one's beginning; the status counts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()

    assert await several(serve, 2) == ([(200, None)] * 2, 2)


@pytest.mark.parametrize(
    "said",
    [
        HEAD + b"Upgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nHTTP: 1.1 500\r\n\r\n",
        HEAD + b"HTTP: 1.1 500 no\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        HEAD + b"X-Folded: one\r\n and the same\r\nX-Control: a\x01b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nRetry-After: 5\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_is_taken_for_what_it_is(said: bytes) -> None:
    """Whatever its headers and trailers look like, and what was said before it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readexactly(2)
            # byte by byte: nothing depends on how it is cut
            for byte in said:
                writer.write(bytes((byte,)))
                await writer.drain()
            await reader.readuntil(b"\r\n\r\n")

    assert await several(serve, 3) == ([(200, None)] * 3, 1)


async def test_as_much_as_may_be_read_leaves_a_connection_whole() -> None:
    """There is no more to come."""

    assert len(WHOLE) == MOST_READ_BYTES
    assert await several(answering(WHOLE), 2) == ([(200, None)] * 2, 1)


async def test_what_is_said_before_an_answer_is_not_the_answer() -> None:
    """Neither its status nor when to come back; and without end it is none."""

    async def hints(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nRetry-After: 5\r\n\r\nHTTP/1.1 503 No\r\n\r\n")

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
            await writer.drain()

    async with serving(hints) as port:
        poster = Poster(HERE)
        attempt = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
        poster.close()
    assert (attempt.status, attempt.retry_after) == (503, None)
    assert await answered(endless) == (None, b"", "protocol")


async def test_another_protocol_is_an_answer_that_is_no_success() -> None:
    """Nobody asked for it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n\0\1\2")

    assert await answered(serve) == (101, b"", None)


def ending(times: int, partial: bytes = b"") -> tuple[Serve, list[int]]:
    """Answer the first request of each connection, and end it at the next one, so many times.

    Returns: what serves, and the number of requests that came.
    """
    came = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal times
        await reader.readexactly(2)
        came[0] += 1
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            came[0] += 1
            if times:
                times -= 1
                writer.write(partial)
                await writer.drain()
                writer.close()
                return
            writer.write(HEAD + b"Content-Length: 0\r\n\r\n")

    return serve, came


async def test_a_kept_connection_that_ends_at_once_is_replaced_within_the_attempt() -> None:
    """The receiver closed it while the request was on its way: no attempt is lost for that."""
    serve, came = ending(times=1)

    assert await several(serve, 2) == ([(200, None)] * 2, 2)
    assert came == [3]


async def test_a_webhook_that_was_answered_in_part_is_not_sent_again_within_the_attempt() -> None:
    """The receiver has taken it, so the schedule decides."""
    serve, came = ending(times=1, partial=b"HTTP/1.1 2")

    assert await several(serve, 2) == ([(200, None), (None, "disconnected")], 1)
    assert came == [2]


async def test_a_new_connection_that_ends_is_not_replaced() -> None:
    """Only a kept one may have been closed for being idle."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.transport.abort()

    assert await several(serve, 1) == ([(None, "disconnected")], 1)
    assert connections == 1


async def test_what_comes_unasked_ends_a_connection() -> None:
    """It would be the answer to the next webhook, which has not been sent."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        await asked.wait()
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        await reader.read()
        gone.set()

    asked = asyncio.Event()
    async with serving(serve) as port:
        poster = Poster(HERE)
        first = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
        asked.set()
        await gone.wait()
        asked.clear()
        waiting = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
        poster.close()

    assert (first.status, waiting.status) == (200, 200)


@pytest.mark.parametrize("left", [HEAD + b"Content-Length: 4\r\n\r\nEVIL", None])
async def test_what_lies_in_a_kept_connection_already_ends_it(left: bytes | None) -> None:
    """More than was asked for, or the end, though the loop has not come to read it yet."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await answering(HEAD + b"Content-Length: 2\r\n\r\nok")(reader, writer)

    async with serving(serve) as port:
        poster = Poster(HERE)
        for number in range(1, 4):
            attempt = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
            assert (attempt.body, len(writers)) == (b"ok", number)
            if left is None:
                writers[-1].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            else:
                writers[-1].write(left)
        poster.close()


async def test_whenever_who_posts_is_cancelled_no_connection_is_left() -> None:
    """Before the answer, as it comes, and after."""
    open_ones = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_ones
        open_ones += 1
        await reader.readexactly(2)
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        for _ in range(turns[-1]):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await reader.read()
        finally:
            open_ones -= 1
            if not open_ones:
                gone.set()

    gone = asyncio.Event()
    turns: list[int] = []
    ended = []
    async with serving(serve) as port, asyncio.timeout(10):
        poster = Poster(HERE)
        for number in range(8):
            turns.append(number)
            gone.clear()
            task = asyncio.create_task(poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0))
            await asyncio.wait([task])
            ended.append(task.cancelled())
            poster.close()
            await gone.wait()

    # some of each, or nothing was tried
    assert set(ended) == {True, False}


async def test_a_handshake_that_hangs_leaves_nothing_behind() -> None:
    """What comes after it has connections as before."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n")

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    mute = server.sockets[0].getsockname()[1]
    async with serving(serve) as port:
        poster = Poster(HERE)
        for turns in range(20):
            hanging = asyncio.create_task(poster.post(f"https://127.0.0.1:{mute}/", {}, b"{}", 5.0))
            for _ in range(turns):
                await asyncio.sleep(0)
            hanging.cancel()
            await asyncio.wait([hanging])
            made = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
            assert (made.status, made.trouble) == (200, None), turns
    server.close()


async def test_only_so_many_connections_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has waited longest makes room, be it used still or not."""
    monkeypatch.setattr(connections, "MOST_KEPT", 2)
    opened: list[int] = []

    def receiver(number: int) -> Serve:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opened.append(number)
            await answering(HEAD + b"Content-Length: 0\r\n\r\n")(reader, writer)

        return serve

    async with serving(receiver(0)) as a, serving(receiver(1)) as b, serving(receiver(2)) as c:
        poster = Poster(HERE)
        for port in (a, b, c, c, b, a):
            made = await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
            assert made.status == 200
        monkeypatch.setattr(connections, "KEEP_ALIVE_S", 0.0)
        await poster.post(f"http://127.0.0.1:{a}/", {}, b"{}", 5.0)
        poster.close()

    # the first had to go for the third; at last what is there has waited for too long
    assert opened == [0, 1, 2, 0, 0]


@pytest.mark.parametrize(
    "url",
    [
        "https://./",
        "https://../",
        "https://7]6[t@",
        "https://[2606:4700::1111%25lo]/",
        "https://user:password@example.com/",
        "https://exa mple.com/",
        "https:///hook",
    ],
)
async def test_what_is_no_host_is_not_looked_for(url: str) -> None:
    """A certificate could not be held against it."""

    async def look(host: str, port: int) -> list[AddressInfo]:
        raise AssertionError(host)

    assert (await Poster(look=look).post(url, {}, b"{}", 5.0)).trouble == "invalid-url"
    assert trouble_with(url) is not None


async def test_under_the_loop_of_production_it_is_the_same() -> None:
    """uvloop has transports of its own; here in a thread, for the tests have another."""

    async def through() -> list[tuple[int | None, Trouble | None]]:
        authority, taken = trustme.CA(), 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal taken
            while True:
                await reader.readexactly(2)
                taken += 1
                writer.write(HEAD + b"Content-Length: 2\r\n\r\nok" if taken % 4 else b"SSH-2.0\r\n")
                await reader.readuntil(b"\r\n\r\n")

        found = []
        poster, stranger = Poster(HERE, tls=trusting(authority)), Poster(HERE)
        async with serving(serve, certified(authority)) as safe, serving(serve) as plain:
            for _ in range(4):
                for url in (f"https://127.0.0.1:{safe}/", f"http://127.0.0.1:{plain}/"):
                    made = await poster.post(url, {}, b"{}", 5.0)
                    found.append((made.status, made.trouble))
            made = await stranger.post(f"https://127.0.0.1:{safe}/", {}, b"{}", 5.0)
            found.append((made.status, made.trouble))
        made = await poster.post(f"http://127.0.0.1:{plain}/", {}, b"{}", 5.0)
        found.append((made.status, made.trouble))
        for url in URLS:
            attempt = await Poster().post(url, {}, b"{}", 5.0)
            assert attempt.trouble in ("forbidden", "invalid-url", "dns"), url
        poster.close()
        return found

    with tried_connections() as tried:
        found = await asyncio.to_thread(uvloop.run, through())

    every_fourth = [(200, None)] * 3 + [(None, "protocol")]
    assert found == [*every_fourth * 2, (None, "tls"), (None, "refused")]
    # one each, again after what was no answer, the stranger's, and the last
    assert tried == ["127.0.0.1"] * 5


async def test_who_does_not_wait_any_longer_leaves_nothing_behind() -> None:
    """The answer to a webhook that nobody waits for is not the next one's."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        asked.set()
        await reader.read()
        gone.set()

    asked = asyncio.Event()
    async with serving(serve) as port:
        poster = Poster(HERE)
        posting = asyncio.create_task(poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0))
        await asked.wait()
        posting.cancel()
        await gone.wait()
        poster.close()

    assert posting.cancelled()


async def test_connections_that_are_not_needed_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, and with the one who posts."""
    monkeypatch.setattr(connections, "KEEP_ALIVE_S", 0.01)
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        await reader.read()
        gone.set()

    async with serving(serve) as port:
        poster = Poster(HERE)
        await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
        await gone.wait()
        gone.clear()
        monkeypatch.undo()
        await poster.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5.0)
        poster.close()
        await gone.wait()


@pytest.mark.parametrize("header", [("X-Key", "1\r\nX: 2"), ("X-Key", "1\nX: 2"), ("X\0", "1"), ("X\r", "")])
async def test_a_header_stays_one(header: tuple[str, str]) -> None:
    """Nothing is sent that a receiver would read as several."""
    poster = Poster(HERE)
    attempt = await poster.post("http://127.0.0.1:1/", dict([header]), b"{}", 5.0)

    assert attempt.trouble == "protocol"


async def head_sent(rest: str, headers: dict[str, str], body: bytes) -> tuple[int, list[str]]:
    """Post to a URL that ends with `rest`; return the port and the lines of the request's head."""
    got = bytearray()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    attempt = await Poster(HERE).post(f"http://127.0.0.1:{port}{rest}", headers, body, 5.0)
    server.close()
    assert attempt.status == 200
    return port, bytes(got).decode().split("\r\n")


async def test_what_is_sent_is_a_request_as_the_standard_has_it() -> None:
    """Every byte of its head: the path as it is in the URL, the host as it is written, with its port."""
    port, lines = await head_sent("/가/a%2Fb?q=x+y&r=%26", {"X-Key": "é"}, "전".encode())

    assert lines == [
        "POST /%EA%B0%80/a%2Fb?q=x+y&r=%26 HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: delivery-tracker",
        "Content-Type: application/json",
        "X-Key: é",
        "Content-Length: 3",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        *(
            (target, target)
            for target in (
                "/run?sig=a%2Bb%2Fc%3D%3D&sp=%2Ftriggers%2Frun",
                "/hook/../x",
                "/%2e%2e/x/./y//z",
                "/%7Euser/%41",
                "/a?",
                "/a;v=1,2/(b)!$'*@:=~[]{}|^`\"<>\\",
                "/%zz?100%",
                "/?q=?&r=/",
            )
        ),
        ("", "/"),
        ("?q=1", "/?q=1"),
        ("/a?b#part", "/a?b"),
        ("/가?b=é", "/%EA%B0%80?b=%C3%A9"),
    ],
)
async def test_the_path_and_the_query_are_sent_as_they_are_written(written: str, sent: str) -> None:
    """Receivers verify signatures over the URL that they gave; only what HTTP cannot carry is encoded."""
    _, lines = await head_sent(written, {}, b"{}")

    assert lines[0] == f"POST {sent} HTTP/1.1"
