"""The only outgoing socket: its errors, its connections, TLS and proxies."""

import asyncio
import contextlib
import gc
import inspect
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httptools
import pytest

from gateway import config
from gateway.app import opened
from gateway.errors import ConfigError, UpstreamCut, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream import connections, dial, http1, request_head
from gateway.upstream.client import FAILURES, Address, HttpUpstream, translated
from gateway.upstream.dial import CannotConnect
from gateway.upstream.http1 import Disconnected, NotUnderstood
from gateway.upstream.wire import Request
from tests.conftest import Gateway, StartGateway
from tests.fakes.client import soon
from tests.fakes.proxy import Tunnel
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
ROUTE = "/v1/chat/completions"


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for one in kind.__subclasses__():
        yield from subclasses(one)


def made(kind: type[Exception]) -> Exception:
    """An instance that holds what must not be told, however it is made."""
    error: Exception = kind.__new__(kind, 111, "secret at 10.0.0.1")
    error.args = (111, "secret at 10.0.0.1")
    for name in ("strerror", "filename", "reason", "library", "verify_message", "msg"):
        with contextlib.suppress(AttributeError, TypeError):
            setattr(error, name, "secret at 10.0.0.1")
    return error


# What sockets, TLS, names, the parser and this leg raise; CannotConnect has words of our own.
EVERY_ERROR = sorted(
    {
        *subclasses(OSError),
        *subclasses(httptools.HttpParserError),
        *subclasses(UnicodeError),
        httptools.HttpParserUpgrade,
        NotUnderstood,
        Disconnected,
        ValueError,
    },
    key=lambda kind: f"{kind.__module__}.{kind.__qualname__}",
)
CONNECTING = [kind for kind in EVERY_ERROR if issubclass(kind, (OSError, UnicodeError))]


def told(error: UpstreamError) -> str:
    """Its words, which name the upstream and nothing that must not be told."""
    text = str(error)
    assert "main" in text
    assert "secret" not in text
    assert "10.0.0.1" not in text
    return text


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("otherwise", [UpstreamUnreachable, UpstreamCut])
def test_every_error_is_translated(kind: type[Exception], otherwise: type[UpstreamError]) -> None:
    assert issubclass(kind, FAILURES)
    error = translated(made(kind), "main", otherwise)
    assert type(error) is (UpstreamTimedOut if issubclass(kind, TimeoutError) else otherwise)
    told(error)


def test_the_walk_has_found_them() -> None:
    for module in (ssl, socket, httptools):
        exported = {
            value
            for name, value in vars(module).items()
            if not name.startswith("_") and inspect.isclass(value) and issubclass(value, Exception)
        }
        assert exported <= set(EVERY_ERROR)
    ours = {NotUnderstood, Disconnected, CannotConnect}
    defined = {
        value
        for module in (http1, dial, connections, request_head)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == module.__name__
    }
    assert defined == ours
    assert len(EVERY_ERROR) > 25


@pytest.mark.parametrize("kind", CONNECTING, ids=lambda kind: kind.__name__)
async def test_whatever_fails_while_connecting_is_told_apart(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start_connection(*args: object, **kwargs: object) -> socket.socket:
        raise made(kind)

    monkeypatch.setattr("aiohappyeyeballs.start_connection", start_connection)
    upstream = HttpUpstream("main", None, Address("http://127.0.0.1", {}, 20, 20, 5), inject_usage=True)
    with pytest.raises(UpstreamUnreachable) as raised:
        await upstream.send(request())
    await upstream.close()
    text = told(raised.value)
    assert "cannot be reached: " in text
    assert ("certificate" in text) == issubclass(kind, ssl.SSLCertVerificationError)
    assert ("speak TLS" in text) == (issubclass(kind, ssl.SSLError) and "certificate" not in text)
    assert ("name cannot be resolved" in text) == issubclass(kind, (socket.gaierror, UnicodeError))


# Connections


@pytest.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[HttpUpstream]:
    address = Address(f"{upstream.url}/v1/", {"X-Own": "1"}, timeout_s=20, idle_timeout_s=20, connect_timeout_s=5)
    made = HttpUpstream("main", None, address, inject_usage=True)
    yield made
    await made.close()


def request(method: str = "POST", body: bytes = b"{}") -> Request:
    return Request(method, "/x?y=1", [], body, streamed=True, on_sent=lambda: None)


async def test_a_request_and_its_answer(client: HttpUpstream, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({"a": 1}, 201, {"X-A": "1"})

    upstream.play = play
    sent: list[str] = []
    answer = await client.send(
        Request("POST", "/x?y=1", [("X-B", "2")], b"body", streamed=False, on_sent=lambda: sent.append("sent"))
    )
    assert (answer.status, answer.reason, answer.headers["X-A"]) == (201, "OK", "1")
    assert await answer.read() == b'{"a": 1}'
    assert await answer.read() == b""
    answer.close()
    received = upstream.requests[0]
    assert (received.method, received.target, received.body) == ("POST", "/v1/x?y=1", b"body")
    assert (received.headers["X-Own"], received.headers["X-B"]) == ("1", "2")
    assert sent == ["sent"]


async def test_a_connection_is_used_again_after_an_answer_that_was_read(
    client: HttpUpstream, upstream: ScriptedUpstream
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({})

    upstream.play = play
    for _ in range(3):
        answer = await client.send(request())
        while await answer.read():
            pass
        answer.close()
    assert [received.connection for received in upstream.requests] == [1, 1, 1]


async def test_an_answer_that_is_let_go_early_ends_its_connection(
    client: HttpUpstream, upstream: ScriptedUpstream
) -> None:
    gone = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk("first")
        await wire.gone()
        gone.set()

    upstream.play = play
    answer = await client.send(request())
    assert await answer.read() == b"first"
    answer.close()
    await soon(gone.wait())


async def test_a_pooled_connection_that_is_reset_is_no_trouble(
    client: HttpUpstream, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({})
        if len(upstream.requests) == 2:
            wire.abort()

    upstream.play = play
    for _ in range(3):
        answer = await client.send(request())
        while await answer.read():
            pass
        answer.close()
    assert [received.connection for received in upstream.requests][-1] == 2
    await client.close()
    del answer
    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("ending", ["fin", "bad chunk"])
async def test_what_came_before_a_cut_is_given_first(
    client: HttpUpstream, upstream: ScriptedUpstream, ending: str
) -> None:
    head_came, cut = asyncio.Event(), asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk("one", "two")
        await head_came.wait()
        if ending == "fin":
            wire.finish()
        else:
            await wire.send("no hex\r\n")
        await wire.gone()
        cut.set()

    upstream.play = play
    answer = await client.send(request())
    head_came.set()
    await soon(cut.wait())
    got = b""
    with pytest.raises(UpstreamCut):
        while piece := await answer.read():
            got += piece
    assert got == b"onetwo"
    answer.close()


async def test_a_get_sends_no_body(client: HttpUpstream, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({})

    upstream.play = play
    (await client.send(request("GET", b""))).close()
    assert "Content-Length" not in upstream.requests[0].headers
    assert "Content-Type" not in upstream.requests[0].headers


async def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    address = Address("http://nowhere.invalid/v1", {}, timeout_s=20, idle_timeout_s=20, connect_timeout_s=20)
    upstream = HttpUpstream("main", None, address, inject_usage=True)
    try:
        with pytest.raises(UpstreamUnreachable) as raised:
            await upstream.send(request())
    finally:
        await upstream.close()
    assert "nowhere" not in str(raised.value)


# TLS


@pytest.fixture
async def tls_upstream(certificates: Path) -> AsyncIterator[ScriptedUpstream]:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json(COMPLETION)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    scripted = ScriptedUpstream(play)
    await scripted.start(context)
    yield scripted
    await scripted.stop()


def second(upstream: ScriptedUpstream, more: str = "") -> str:
    """TOML for one more upstream, which serves all chats."""
    return f'models = ["none"]\n[[upstreams]]\nname = "second"\nbase_url = "{upstream.url}/v1"\n{more}\n'


async def test_an_upstream_behind_a_ca_of_its_own(
    start_gateway: StartGateway, tls_upstream: ScriptedUpstream, certificates: Path
) -> None:
    gateway = await start_gateway(second(tls_upstream, f'ca_file = "{certificates}/ca.pem"'))
    assert (await gateway.call(ROUTE, json=CHAT)).json() == COMPLETION


async def test_a_certificate_that_is_not_trusted_is_a_502(
    start_gateway: StartGateway, tls_upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway(second(tls_upstream))
    reply = await gateway.call(ROUTE, json=CHAT)
    assert (reply.status, reply.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert "certificate" in reply.json()["error"]["message"]
    assert tls_upstream.requests == []
    assert (await gateway.get(reply.log_id))["status_code"] == 502


async def test_an_upstream_that_speaks_no_tls_is_a_502(start_gateway: StartGateway) -> None:
    async def answer_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer_plainly, "127.0.0.1", 0) as server:
        address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        gateway = await start_gateway(f'models = ["none"]\n[[upstreams]]\nname = "s"\nbase_url = "{address}"\n')
        reply = await gateway.call(ROUTE, json=CHAT)
    assert (reply.status, reply.json()["error"]["code"]) == (502, "upstream_unreachable")


async def test_a_ca_file_without_a_certificate_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    text = f'''
        [store]
        path = "{tmp_path}/spans.db"
        [[upstreams]]
        name = "main"
        base_url = "https://127.0.0.1"
        ca_file = "{tmp_path}/ca.pem"
    '''
    with pytest.raises(ConfigError, match="ca_file"):
        async with opened(config.parse(text, "test.toml", {})):
            pass


# Proxies


def far_behind(proxy: str) -> str:
    """TOML for an upstream that only a proxy can reach."""
    return f'models = ["none"]\n[[upstreams]]\nname = "far"\nbase_url = "http://far.invalid/v1"\nproxy = "{proxy}"\n'


async def test_a_plain_upstream_behind_a_proxy(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    gateway = await start_gateway(far_behind(upstream.url))
    assert (await gateway.call(ROUTE, json=CHAT)).json() == COMPLETION
    assert upstream.requests[0].target == "http://far.invalid/v1/chat/completions"
    assert upstream.requests[0].headers["Host"] == "far.invalid"


async def test_a_tls_upstream_behind_a_proxy(
    start_gateway: StartGateway, tls_upstream: ScriptedUpstream, certificates: Path
) -> None:
    tunnel = Tunnel()
    async with await asyncio.start_server(tunnel.serve, "127.0.0.1", 0) as server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        gateway: Gateway = await start_gateway(
            second(tls_upstream, f'ca_file = "{certificates}/ca.pem"\nproxy = "{proxy}"')
        )
        assert (await gateway.call(ROUTE, json=CHAT)).json() == COMPLETION
        await tls_upstream.stop()
    assert tunnel.targets == [tls_upstream.url.removeprefix("https://")]


async def test_a_proxy_that_is_gone_is_a_502(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    gateway = await start_gateway(far_behind(upstream.url))
    await upstream.stop()
    assert (await gateway.call(ROUTE, json=CHAT)).status == 502


async def test_idle_connections_are_kept_four_seconds_at_most(
    gateway: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 0.0
    monkeypatch.setattr("gateway.upstream.connections.monotonic", lambda: time.monotonic() + ahead)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    # Far enough from the limit on both sides that the time the calls themselves take cannot matter.
    for idle in (0.0, 1.0, 4.0):
        ahead += idle
        await gateway.call("/v1/chat/completions", json=body)
    assert [received.connection for received in upstream.requests] == [1, 1, 2]
