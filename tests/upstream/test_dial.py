"""How connections are opened: names, addresses, TLS, and proxies on the way."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream.client import Address, HttpUpstream
from gateway.upstream.wire import Request
from tests.fakes.client import soon
from tests.fakes.proxy import Tunnel
from tests.fakes.upstream import Received, ScriptedUpstream, Wire


async def play(received: Received, wire: Wire) -> None:
    await wire.json({})


@asynccontextmanager
async def opened(url: str, connect_timeout_s: float = 20, **more: object) -> AsyncIterator[HttpUpstream]:
    address = Address(f"{url}/v1", {}, 20, 20, connect_timeout_s, **more)  # type: ignore[arg-type]
    leg = HttpUpstream("main", None, address, inject_usage=True)
    yield leg
    await leg.close()


async def called(leg: HttpUpstream) -> bytes:
    answer = await soon(leg.send(Request("POST", "/x", [], b"{}", streamed=False, on_sent=lambda: None)))
    return await soon(answer.read())


def tls_of(certificates: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    return context


@asynccontextmanager
async def tunnelling(tunnel: Tunnel, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Where the proxy listens."""
    async with await asyncio.start_server(tunnel.serve, "127.0.0.1", 0, ssl=tls) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def scripted(upstream: ScriptedUpstream) -> ScriptedUpstream:
    upstream.play = play
    return upstream


@pytest.fixture
async def behind_tls(certificates: Path) -> AsyncIterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(play)
    await upstream.start(tls_of(certificates))
    yield upstream
    await upstream.stop()


# Names and addresses


async def test_a_name_that_has_several_addresses(scripted: ScriptedUpstream) -> None:
    # `localhost` is ::1 as well on most machines, where nothing listens.
    async with opened(scripted.url.replace("127.0.0.1", "localhost")) as leg:
        assert await called(leg) == b"{}"
    assert scripted.requests[0].headers["Host"].startswith("localhost:")


async def test_who_connects_at_the_same_time_asks_for_a_name_once(
    scripted: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    loop = asyncio.get_running_loop()
    getaddrinfo = loop.getaddrinfo

    class Asking:
        def __getattr__(self, name: str) -> object:
            return getattr(loop, name)

        async def getaddrinfo(self, *args: object, **kwargs: object) -> object:
            nonlocal asked
            asked += 1
            return await getaddrinfo(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("gateway.upstream.dial.asyncio.get_running_loop", Asking)
    async with opened(scripted.url.replace("127.0.0.1", "localhost")) as leg:
        assert await asyncio.gather(*(called(leg) for _ in range(5))) == [b"{}"] * 5
    assert asked == 1
    assert len({received.connection for received in scripted.requests}) == 5


async def test_who_waits_for_a_name_when_the_upstream_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def ask(_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("gateway.upstream.dial._Names._ask", ask)
    async with opened("http://a.invalid") as leg:
        calling = asyncio.create_task(called(leg))
        await soon(asked.wait())
    with pytest.raises(UpstreamUnreachable, match="it is being closed"):
        await soon(calling)


async def test_an_address_of_ipv6() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read()
        writer.close()

    try:
        server = await asyncio.start_server(serve, "::1", 0)
    except OSError:
        pytest.skip("there is no IPv6 here")
    port = server.sockets[0].getsockname()[1]
    async with server, opened(f"http://[::1]:{port}") as leg:
        assert await called(leg) == b"{}"
    assert f"Host: [::1]:{port}\r\n".encode() in heads[0]


@pytest.mark.parametrize("host", ["a..b.invalid", "x" * 64 + ".invalid"])
async def test_what_cannot_be_a_name(host: str) -> None:
    async with opened(f"http://{host}") as leg:
        with pytest.raises(UpstreamUnreachable, match="its name cannot be resolved"):
            await called(leg)


async def test_a_refusal_says_so_and_not_where() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with opened(f"http://127.0.0.1:{port}") as leg:
        with pytest.raises(UpstreamUnreachable, match="cannot be reached: Connection refused") as raised:
            await called(leg)
    assert str(port) not in str(raised.value)


async def test_a_nagle_delay_is_never_waited_for(scripted: ScriptedUpstream) -> None:
    async with opened(scripted.url) as leg:
        await called(leg)
        (connection,) = leg._connections._open
        found = connection._transport.get_extra_info("socket")
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


# TLS


async def test_a_certificate_is_only_good_for_the_names_in_it(behind_tls: ScriptedUpstream, certificates: Path) -> None:
    async with opened(behind_tls.url, ca_file=certificates / "ca.pem") as leg:
        assert [await called(leg) for _ in range(2)] == [b"{}", b"{}"]
    assert [received.connection for received in behind_tls.requests] == [1, 1]
    async with opened(behind_tls.url.replace("127.0.0.1", "localhost"), ca_file=certificates / "ca.pem") as leg:
        with pytest.raises(UpstreamUnreachable, match="its certificate is not trusted"):
            await called(leg)


async def test_an_answer_over_tls_that_nobody_reads_has_to_wait(
    behind_tls: ScriptedUpstream, certificates: Path
) -> None:
    size = 20 * 2**20

    async def send_much(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Length": str(size)})
        await wire.send(b"x" * size)

    behind_tls.play = send_much
    async with opened(behind_tls.url, ca_file=certificates / "ca.pem") as leg:
        answer = await soon(leg.send(Request("POST", "/x", [], b"y" * 2**20, streamed=False, on_sent=lambda: None)))
        got = 0
        while piece := await soon(answer.read()):
            got += len(piece)
            # Long enough for more to come than may wait.
            for _ in range(3):
                await asyncio.sleep(0)
            assert answer._incoming.unread < 2**20  # type: ignore[attr-defined]
        assert (got, answer.ended) == (size, True)


# Proxies


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_plain_upstream_behind_a_proxy_that_wants_a_password(
    scripted: ScriptedUpstream, behind_tls: ScriptedUpstream, certificates: Path, is_tls: bool
) -> None:
    proxy = behind_tls if is_tls else scripted
    url = proxy.url.replace("://", "://user:p%40ss@")
    async with opened("http://far.invalid", proxy=url, ca_file=certificates / "ca.pem") as leg:
        assert [await called(leg) for _ in range(2)] == [b"{}", b"{}"]
    for received in proxy.requests:
        assert received.target == "http://far.invalid/v1/x"
        assert received.headers["Proxy-Authorization"] == "Basic dXNlcjpwQHNz"
        assert received.connection == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_tls_upstream_behind_a_proxy_that_wants_a_password(
    behind_tls: ScriptedUpstream, certificates: Path, scheme: str
) -> None:
    tunnel = Tunnel()
    async with tunnelling(tunnel, tls_of(certificates) if scheme == "https" else None) as place:
        proxy = f"{scheme}://user:p%40ss@{place}"
        async with opened(behind_tls.url, proxy=proxy, ca_file=certificates / "ca.pem") as leg:
            assert [await called(leg) for _ in range(2)] == [b"{}", b"{}"]
    target = behind_tls.url.removeprefix("https://")
    assert tunnel.targets == [target]
    assert f"\r\nHost: {target}\r\n" in tunnel.heads[0]
    assert "\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n" in tunnel.heads[0]
    for received in behind_tls.requests:
        assert received.target == "/v1/x"
        assert "Proxy-Authorization" not in received.headers


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "its proxy answered 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "its proxy answered 502"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "its proxy does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "Connection"),
        (b"HTTP/1.1 200 OK\r\n\r\nsomething", "Connection"),
        (b"x" * 100_000, "Connection"),
    ],
)
async def test_a_proxy_that_makes_no_tunnel(
    behind_tls: ScriptedUpstream, certificates: Path, refusal: bytes, told: str
) -> None:
    async with (
        tunnelling(Tunnel(refusal)) as place,
        opened(behind_tls.url, proxy=f"http://user:secret@{place}", ca_file=certificates / "ca.pem") as leg,
    ):
        with pytest.raises(UpstreamUnreachable, match=told) as raised:
            await called(leg)
    assert "secret" not in str(raised.value)
    assert behind_tls.requests == []


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["silent", "silent behind its answer"])
async def test_a_proxy_that_falls_silent(says: bytes) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(says)
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        writer.close()
        gone.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with opened("https://far.invalid", connect_timeout_s=0.1, proxy=proxy) as leg:
            with pytest.raises(UpstreamTimedOut):
                await called(leg)
            await soon(gone.wait())
