"""Where webhooks may not go: watched at the socket, whatever was written."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from aiohttp import web

from streams.webhooks.guard import is_allowed, is_public, networks_of, trouble_with
from streams.webhooks.names import AddressInfo
from streams.webhooks.posting import Poster

HERE = networks_of("127.0.0.2")

#: Addresses that are nobody's on the public internet, as they are written in a URL.
SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.254",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b:1::1]",
    "[100::1]",
    "[2001::1]",
    "[2001:db8::1]",
    "[2001:10::1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[1::1]",
    "[3fff::1]",
    "[4000::1]",
    "[5f00::1]",
    "[::ffff:0:7f00:1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "[ff02::1]",
    "[ff0e::1]",
]
#: The loopback and the metadata service, written so that a look at the name does not find them.
DISGUISED = [
    "localhost",
    "LOCALHOST.",
    "127.1",
    "127.0.1",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.0.0.1.",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "0xa9fea9fe",
    "2852039166",
    "example.com@127.0.0.1",
    "127.0.0.1#@example.com",
    "127.0.0.1%23.example.com",
    "127.0.0.1\\@example.com",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[2606:4700::1111%25lo]",
    "[2606:4700::1111%25x.localhost]",
    "0",
]
URLS = [
    *(
        f"{scheme}://{host}{port}/hook"
        for host in SPECIAL + DISGUISED
        for scheme, port in (("https", ""), ("http", ":6066"))
    ),
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_",
    "unix:///var/run/docker.sock",
    "//127.0.0.1/",
    "https://",
    "",
]


@contextmanager
def connections() -> Iterator[list[str]]:
    """The addresses to which a connection was tried, by the interpreter's own audit."""
    watching.append(tried := [])
    try:
        yield tried
    finally:
        watching.remove(tried)


watching: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and watching:
        for tried in watching:
            tried.append(str(arguments[1][0]))


sys.addaudithook(_audit)


class Names:
    """A name service that answers each time with the next of a name's addresses, and stays with the last."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = addresses

    async def __call__(self, host: str, port: int) -> list[AddressInfo]:
        some = self.addresses[host.split(".")[0]]
        address = some.pop(0) if len(some) > 1 else some[0]
        return [self._info(one, port) for one in address.split()]

    def _info(self, address: str, port: int) -> AddressInfo:
        if ip_address(address).version == 4:
            return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)


@asynccontextmanager
async def receiving() -> AsyncIterator[int]:
    """A receiver at the address that is allowed; its port."""
    application = web.Application()

    async def take(request: web.Request) -> web.Response:
        if request.path == "/away":
            return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{port}/hook"})
        return web.Response(status=204)

    application.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.2", 0)
    await site.start()
    port: int = runner.addresses[0][1]
    yield port
    await runner.cleanup()


@pytest.mark.parametrize("url", URLS)
async def test_nothing_is_sent_to_an_address_of_our_own(url: str) -> None:
    """However it is written, and whichever way it comes out of the resolver."""
    poster = Poster()
    with connections() as tried:
        attempt = await poster.post(url, {}, b"{}", 5.0)
    poster.close()

    assert tried == []
    assert attempt.trouble in ("forbidden", "invalid-url", "dns")


async def test_who_listens_everywhere_hears_nothing() -> None:
    """On all addresses of this machine, however these are written; until one of them is allowed."""
    heard = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(writer.get_extra_info("sockname")[0])
        writer.close()

    four = await asyncio.start_server(serve, "0.0.0.0", 0)
    port = four.sockets[0].getsockname()[1]
    servers, mine = [four], {"127.1": "127.0.0.1"}
    # a container may have no IPv6
    with contextlib.suppress(OSError):
        servers.append(await asyncio.start_server(serve, "::", port, family=socket.AF_INET6))
        mine["[::1]"] = "::1"
    poster = Poster()
    for host in SPECIAL + DISGUISED:
        for scheme in ("http", "https"):
            await poster.post(f"{scheme}://{host}:{port}/hook", {}, b"{}", 5.0)
    assert heard == []

    poster = Poster(networks_of("127.0.0.1,::1"))
    for host in mine:
        await poster.post(f"http://{host}:{port}/hook", {}, b"{}", 5.0)
    for server in servers:
        server.close()
    assert heard == list(mine.values())


async def test_the_corpus_is_what_it_claims() -> None:
    """More than sixty URLs; and the watch sees a connection when there is one."""
    assert len(set(URLS)) > 120
    async with receiving() as port:
        poster = Poster(HERE)
        with connections() as tried:
            attempt = await poster.post(f"http://127.0.0.2:{port}/hook", {}, b"{}", 5.0)
        poster.close()

    assert (attempt.status, tried) == (204, ["127.0.0.2"])


async def test_a_name_that_comes_to_mean_another_address_is_not_followed() -> None:
    """Rebinding: good when someone looked, ours when the connection is made."""
    async with receiving() as port:
        names = Names(
            turns=["127.0.0.2", "127.0.0.1"],
            inside=["10.0.0.1"],
            meta=["169.254.169.254"],
            six=["::1"],
            both=["10.0.0.1 ::1"],
        )
        for host, statuses in (
            ("turns.example", [204, None]),
            ("inside.example", [None]),
            ("meta.example", [None]),
            ("six.example", [None]),
            ("both.example", [None]),
        ):
            for status in statuses:
                # a connection that is kept, and an address that is remembered, would only help the good
                poster = Poster(HERE, look=names)
                with connections() as tried:
                    attempt = await poster.post(f"http://{host}:{port}/hook", {}, b"{}", 5.0)
                poster.close()
                assert attempt.status == status
                assert attempt.trouble == (None if status else "forbidden")
                assert tried == (["127.0.0.2"] if status else [])


async def test_a_redirect_is_not_followed() -> None:
    """It is an answer like any other that is not 2xx."""
    async with receiving() as port:
        poster = Poster(HERE)
        with connections() as tried:
            attempt = await poster.post(f"http://127.0.0.2:{port}/away", {}, b"{}", 5.0)
        poster.close()

    assert (attempt.status, tried) == (302, ["127.0.0.2"])


async def test_proxies_of_the_environment_are_no_way_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not meant for us."""
    async with receiving() as port:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.2:{port}")
        poster = Poster(HERE)
        with connections() as tried:
            attempts = [await poster.post(f"{s}://10.0.0.1/", {}, b"{}", 5.0) for s in ("http", "https")]
        poster.close()

    assert (tried, [attempt.trouble for attempt in attempts]) == ([], ["forbidden"] * 2)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_what_is_public_is_allowed(address: str) -> None:
    """Also what is reached over NAT64 and is public behind it."""
    assert is_allowed(ip_address(address), ())
    assert not is_allowed(ip_address(address), (), public=False)


@pytest.mark.parametrize("host", [host.strip("[]") for host in SPECIAL if "%" not in host])
def test_what_is_special_is_allowed_only_by_name_of_its_network(host: str) -> None:
    """A network of our own can be said to be fine; nothing else is with it."""
    address = ip_address(host)

    assert not is_public(address)
    assert is_allowed(address, networks_of("0.0.0.0/0,::/0"), public=False)
    assert not is_allowed(address, networks_of("192.168.77.0/24, fd77::/64"))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://example.com/hook?a=b", None),
        ("https://8.8.8.8:8443/", None),
        ("https://10.1.2.3/", None),
        ("http://10.1.2.3/", None),
        ("http://in-house.example/", None),
        ("https://10.2.0.1/", "public"),
        ("http://8.8.8.8/", "TRACKER_WEBHOOK_ALLOW"),
        ("https://a:b@example.com/", "password"),
        ("https://example.com/#a", "fragment"),
        ("https://example.com:0/", "URL"),
        ("https://example.com:99999/", "URL"),
        ("ftp://example.com/", "URL"),
        ("https://a b/", "URL"),
        ("https://example.com/\nX: y", "URL"),
        ("example.com", "URL"),
    ],
)
def test_who_registers_a_url_is_told_what_is_wrong_with_it(url: str, problem: str | None) -> None:
    """As far as the URL tells; what a name means is looked at when a connection is made."""
    found = trouble_with(url, networks_of("10.1.0.0/16"))

    assert (found is None) if problem is None else (problem in (found or ""))


def test_plain_http_is_refused_where_no_network_of_our_own_is_allowed() -> None:
    """It could only go to public addresses, where anyone reads along."""
    assert "https" in (trouble_with("http://example.com/") or "")
