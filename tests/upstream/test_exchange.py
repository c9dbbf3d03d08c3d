"""Requests and answers on real sockets: cuts, slowness, cancellation, and what is left behind."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamCut, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream import http1
from gateway.upstream.client import Address, HttpUpstream
from gateway.upstream.dial import origin_of
from gateway.upstream.request_head import RequestHead
from gateway.upstream.wire import Answer, Request
from tests.fakes.client import soon
from tests.fakes.upstream import Received, ScriptedUpstream, Wire

OpenLeg = Callable[..., HttpUpstream]


@pytest.fixture
async def leg(upstream: ScriptedUpstream) -> AsyncIterator[OpenLeg]:
    """Opens a leg to the scripted upstream; times in seconds. Nothing may be left behind, nor be logged."""
    legs: list[HttpUpstream] = []

    def opened(
        url: str = upstream.url, timeout_s: float = 20, idle_timeout_s: float = 20, own: dict[str, str] | None = None
    ) -> HttpUpstream:
        legs.append(
            HttpUpstream("main", None, Address(url, own or {}, timeout_s, idle_timeout_s, 5), inject_usage=True)
        )
        return legs[-1]

    yield opened
    for one in legs:
        await one.close()


@pytest.fixture(autouse=True)
async def nothing_left(upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    yield
    await upstream.stop()
    async with asyncio.timeout(20):
        await ended(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    gc.collect()
    await asyncio.sleep(0)
    assert caplog.records == []


async def ended(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.001)


def post(body: bytes = b"{}", *, method: str = "POST", headers: list[tuple[str, str]] | None = None) -> Request:
    return Request(method, "/x", headers or [], body, streamed=True, on_sent=lambda: None)


async def rest_of(answer: Answer) -> bytes:
    got = b""
    while piece := await answer.read():
        got += piece
    return got


def at_once(reading: Awaitable[bytes]) -> bytes:
    """What a read gives that does not wait."""
    with pytest.raises(StopIteration) as stopped:
        reading.__await__().send(None)  # type: ignore[attr-defined]
    value: bytes = stopped.value.value
    return value


# Reading


async def test_a_read_gives_all_that_waits_without_waiting(leg: OpenLeg, upstream: ScriptedUpstream) -> None:
    asked = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n")
        await asked.wait()
        await wire.chunk("three")
        await wire.end_chunks()

    upstream.play = play
    answer = await leg().send(post())
    assert at_once(answer.read()) == b"onetwo"
    assert not answer.ended
    asked.set()
    assert await rest_of(answer) == b"three"
    assert answer.ended
    assert at_once(answer.read()) == b""


async def test_an_answer_in_one_piece_has_ended_once_it_was_read(leg: OpenLeg, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream.play = play
    opened = leg()
    for number in range(3):
        answer = await opened.send(post())
        assert not answer.ended
        assert at_once(answer.read()) == b"ok"
        assert answer.ended
        # Its connection is free before it is closed, and closing it does not touch who has it by then.
        if number == 1:
            following = await opened.send(post())
            answer.close()
            assert await rest_of(following) == b"ok"
    assert {received.connection for received in upstream.requests} == {1}


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_body_without_a_length_ends_with_its_connection(
    leg: OpenLeg, upstream: ScriptedUpstream, how: str
) -> None:
    read = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200)
        await wire.send("some")
        await read.wait()
        if how == "rst":
            wire.abort()
        else:
            wire.close()

    upstream.play = play
    answer = await leg().send(post())
    assert await answer.read() == b"some"
    read.set()
    if how == "fin":
        assert await answer.read() == b""
        assert answer.ended
    else:
        with pytest.raises(UpstreamCut):
            await answer.read()
        assert not answer.ended


# Cuts

CHUNKS = (b"data: one\n\n", b"data: two\n\n")
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n"
MEASURED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n"
WIRES = {
    "chunked": (CHUNKED_HEAD, b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in CHUNKS) + b"0\r\n\r\n"),
    "measured": (MEASURED_HEAD, b"".join(CHUNKS)),
}


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("name", WIRES)
async def test_an_answer_that_is_cut_at_any_byte(leg: OpenLeg, upstream: ScriptedUpstream, name: str, how: str) -> None:
    head, framed = WIRES[name]
    wire_bytes = head + framed
    cut_at = 0

    async def play(received: Received, wire: Wire) -> None:
        await wire.send(wire_bytes[:cut_at])
        if how == "rst":
            wire.abort()
        else:
            wire.close()

    upstream.play = play
    opened = leg()
    whole = b"".join(CHUNKS)
    for cut_at in range(len(wire_bytes) + 1):
        got, error, headed = b"", None, False
        try:
            answer = await opened.send(post())
            headed = True
            while piece := await answer.read():
                got += piece
            assert answer.ended
        except UpstreamError as raised:
            error = type(raised)
        assert headed == (cut_at >= len(head))
        expected = None if cut_at == len(wire_bytes) else UpstreamCut if headed else UpstreamUnreachable
        assert error is expected, cut_at
        assert whole.startswith(got)
        assert expected is not None or got == whole
    # None was tried again: all were on fresh connections.
    assert len(upstream.requests) == len(wire_bytes) + 1


async def test_a_broken_chunk_in_one_segment_with_the_head_is_a_cut(leg: OpenLeg, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.send(CHUNKED_HEAD + b"3\r\none\r\nno hex\r\n")
        await wire.gone()

    upstream.play = play
    answer = await leg().send(post())
    assert (answer.status, await answer.read()) == (200, b"one")
    with pytest.raises(UpstreamCut):
        await answer.read()


async def test_a_switch_of_protocols_that_nobody_asked_for_is_an_error(
    leg: OpenLeg, upstream: ScriptedUpstream
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(101, {"Connection": "Upgrade", "Upgrade": "h2c"})
        await wire.gone()

    upstream.play = play
    with pytest.raises(UpstreamUnreachable):
        await leg().send(post())


# Once more on a fresh connection


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("sent", [b"", b"H"])
async def test_only_a_pooled_connection_that_died_before_a_byte_came_is_no_trouble(
    leg: OpenLeg, upstream: ScriptedUpstream, how: str, sent: bytes
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        if received.connection == 1 and len(upstream.requests) == 2:
            await wire.send(sent)
            if how == "rst":
                wire.abort()
            else:
                wire.close()
        else:
            await wire.json({})

    upstream.play = play
    opened = leg()
    assert await rest_of(await opened.send(post())) == b"{}"
    if sent:
        with pytest.raises(UpstreamUnreachable):
            await opened.send(post())
        assert len(upstream.requests) == 2
    else:
        assert await rest_of(await opened.send(post())) == b"{}"
        assert [received.connection for received in upstream.requests] == [1, 1, 2]


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", None], ids=["nonsense", "silence"])
async def test_what_is_wrong_otherwise_is_not_tried_again(
    leg: OpenLeg, upstream: ScriptedUpstream, answer: bytes | None
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        if len(upstream.requests) == 1:
            await wire.json({})
        elif answer is not None:
            await wire.send(answer)
        await asyncio.sleep(0)
        if len(upstream.requests) > 1:
            await wire.gone()

    upstream.play = play
    opened = leg(timeout_s=0.2)
    assert await rest_of(await opened.send(post())) == b"{}"
    with pytest.raises(UpstreamTimedOut if answer is None else UpstreamUnreachable):
        await opened.send(post())
    assert len(upstream.requests) == 2


# Slowness


async def test_an_upstream_that_sends_what_nobody_reads_has_to_wait(leg: OpenLeg, upstream: ScriptedUpstream) -> None:
    size, sent = 50 * 2**20, 0

    async def play(received: Received, wire: Wire) -> None:
        nonlocal sent
        await wire.head(200, {"Content-Length": str(size)})
        while sent < size:
            await wire.send(b"x" * 2**16)
            sent += 2**16

    upstream.play = play
    answer = await leg().send(post())
    incoming = answer._incoming  # type: ignore[attr-defined]
    await soon(ended(lambda: incoming.unread > http1.UNREAD_BYTES))
    assert sent < size
    assert sum(map(len, incoming.pieces)) <= 2 * http1.UNREAD_BYTES
    got = 0
    while piece := await answer.read():
        assert len(piece) <= 2 * http1.UNREAD_BYTES
        got += len(piece)
    assert got == size
    assert answer.ended


async def test_a_large_body_to_an_upstream_that_reads_late(leg: OpenLeg) -> None:
    body = b"x" * (30 * 2**20)
    may_read, got = asyncio.Event(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await may_read.wait()
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        while got < len(body):
            got += len(await reader.read(2**20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        opened = leg(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        sent = asyncio.Event()
        request = Request("POST", "/x", [], body, streamed=False, on_sent=sent.set)
        sending = asyncio.create_task(opened.send(request))
        await soon(sent.wait())
        may_read.set()
        assert await rest_of(await soon(sending)) == b"ok"
        assert got == len(body)
        await opened.close()


async def test_an_answer_before_the_request_is_out_is_an_answer_and_the_last_of_its_connection(leg: OpenLeg) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
        with contextlib.suppress(ConnectionError):
            while await reader.read(2**20):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**10)
    # So that the kernel does not take the whole body before the answer comes.
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with server:
        opened = leg(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for _ in range(2):
            answer = await soon(opened.send(post(b"x" * (30 * 2**20))))
            assert (answer.status, await soon(answer.read())) == (413, b"no")
            assert answer.ended
        await opened.close()
        await soon(ended(lambda: connections == 2))


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nX-", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_head_that_is_not_complete_in_time(leg: OpenLeg, upstream: ScriptedUpstream, sent: bytes) -> None:
    gone = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.send(sent)
        await wire.gone()
        gone.set()

    upstream.play = play
    with pytest.raises(UpstreamTimedOut):
        await leg(timeout_s=0.1).send(post())
    await soon(gone.wait())
    assert len(upstream.requests) == 1


async def test_a_body_that_falls_silent(leg: OpenLeg, upstream: ScriptedUpstream) -> None:
    gone = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk("one")
        await wire.gone()
        gone.set()

    upstream.play = play
    answer = await leg(idle_timeout_s=0.1).send(post())
    assert await answer.read() == b"one"
    with pytest.raises(UpstreamTimedOut):
        await answer.read()
    await soon(gone.wait())


# Cancellation and closing


@pytest.mark.parametrize("until", ["sent", "head", "body"])
async def test_who_is_cancelled_ends_the_connection(leg: OpenLeg, upstream: ScriptedUpstream, until: str) -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        if until != "sent":
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n" + (b"\r\n" if until == "body" else b""))
        came.set()
        await wire.gone()
        gone.set()

    async def call() -> None:
        await rest_of(await opened.send(post()))

    upstream.play = play
    opened = leg()
    calling = asyncio.create_task(call())
    await soon(came.wait())
    for _ in range(5):
        await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await soon(gone.wait())


async def test_a_call_that_is_cancelled_at_any_step_leaves_nothing(leg: OpenLeg, upstream: ScriptedUpstream) -> None:
    """Names are looked up as well: the first steps are those of connecting."""

    async def play(received: Received, wire: Wire) -> None:
        await wire.json({})

    upstream.play = play
    url = upstream.url.replace("127.0.0.1", "localhost")
    done = 0
    for steps in range(400):
        opened = leg(url)
        calling = asyncio.create_task(opened.send(post()))
        for _ in range(steps):
            await asyncio.sleep(0)
        if calling.done():
            done += 1
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await calling).close()
        await opened.close()
        if done == 3:
            break


async def test_one_who_is_cancelled_when_the_end_has_come_leaves_the_next_one_alone(
    leg: OpenLeg, upstream: ScriptedUpstream
) -> None:
    may_end, left = asyncio.Event(), asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        if len(upstream.requests) == 1:
            await wire.head(200, {"Content-Length": "2"})
            await may_end.wait()
            await wire.send("ok")
        else:
            await left.wait()
            await wire.json({})

    upstream.play = play
    opened = leg()
    answer = await opened.send(post())
    incoming = answer._incoming  # type: ignore[attr-defined]
    reading = asyncio.create_task(answer.read())
    await asyncio.sleep(0)
    # The reader is woken and cancelled in one breath, and its connection is another's by then.
    waiter = incoming.waiter
    following: list[asyncio.Task[Answer]] = []

    def take_it(_: object) -> None:
        following.append(asyncio.create_task(opened.send(post())))
        reading.cancel()

    waiter.add_done_callback(take_it)
    may_end.set()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    left.set()
    assert await rest_of(await soon(following[0])) == b"{}"
    assert [received.connection for received in upstream.requests] == [1, 1]


async def test_closing_an_upstream_ends_its_pooled_and_its_busy_connections(
    leg: OpenLeg, upstream: ScriptedUpstream
) -> None:
    gone: list[int] = []

    async def play(received: Received, wire: Wire) -> None:
        if received.method == "GET":
            await wire.json({})
        else:
            await wire.stream_head()
        await wire.gone()
        gone.append(received.connection)

    upstream.play = play
    opened = leg()
    busy = await opened.send(post())
    assert await rest_of(await opened.send(post(b"", method="GET"))) == b"{}"
    reading = asyncio.create_task(busy.read())
    await asyncio.sleep(0)
    await opened.close()
    with pytest.raises(UpstreamCut):
        await reading
    await soon(ended(lambda: sorted(gone) == [1, 2]))
    with pytest.raises(UpstreamUnreachable):
        await opened.send(post())


async def test_a_pooled_connection_that_the_upstream_closes_is_thrown_away_at_once(
    leg: OpenLeg, upstream: ScriptedUpstream
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json({})
        if received.connection == 1:
            wire.close()

    upstream.play = play
    opened = leg()
    assert await rest_of(await opened.send(post())) == b"{}"
    open_ones = opened._connections._open
    await soon(ended(lambda: not open_ones))
    assert await rest_of(await opened.send(post())) == b"{}"
    assert [received.connection for received in upstream.requests] == [1, 2]


async def test_a_pooled_connection_ends_by_itself(
    leg: OpenLeg, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.client._IDLE_KEPT_S", 0.05)
    gone = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.json({})
        await wire.gone()
        gone.set()

    upstream.play = play
    assert await rest_of(await leg().send(post())) == b"{}"
    await soon(gone.wait())


# What is sent


async def test_bytes_that_are_no_utf8_pass_unchanged_both_ways(leg: OpenLeg) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 \xe9\r\nX-A: caf\xe9\r\nX-B: caf\xc3\xa9\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        opened = leg(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        answer = await opened.send(post(method="PUT", headers=[("X-A", "caf\udce9"), ("X-B", "café")]))
        assert (answer.reason, answer.headers["X-A"], answer.headers["X-B"]) == ("\udce9", "caf\udce9", "café")
        await opened.close()
    assert b"X-A: caf\xe9\r\nX-B: caf\xc3\xa9\r\n" in heads[0]


@pytest.mark.parametrize("bad", ["a\r\nX-Smuggled: 1", "a\nb", "a\rb", "a\0b", "a\ud800"])
@pytest.mark.parametrize("where", ["value", "name", "own", "path", "method"])
async def test_what_would_end_a_line_is_never_sent(
    leg: OpenLeg, upstream: ScriptedUpstream, bad: str, where: str
) -> None:
    opened = leg(own={"X-Own": bad} if where == "own" else {})
    headers = {"value": [("X-A", bad)], "name": [(bad, "1")]}.get(where, [])
    path, method = f"/{bad}" if where == "path" else "/x", bad if where == "method" else "POST"
    with pytest.raises(UpstreamError) as raised:
        await opened.send(Request(method, path, headers, b"", streamed=False, on_sent=lambda: None))
    assert "Smuggled" not in str(raised.value)
    assert upstream.requests == []
    assert upstream.connections == 0


def written(base_url: str, request: Request, own: dict[str, str] | None = None, proxy: str | None = None) -> list[str]:
    made = RequestHead(base_url, own or {}, origin_of(base_url), origin_of(proxy) if proxy else None)
    return [line for line in made.of(request).decode().split("\r\n")[:-2] if not line.startswith("Accept-Encoding")]


@pytest.mark.parametrize(
    ("base_url", "first", "host"),
    [
        ("http://a.example/v1", "/v1/x", "a.example"),
        ("http://a.example:80/v1/", "/v1/x", "a.example"),
        ("http://A.example:443", "/x", "a.example:443"),
        ("https://a.example:443/v1", "/v1/x", "a.example"),
        ("https://a.example:80/v1", "/v1/x", "a.example:80"),
        ("https://user:pass@a.example/v1", "/v1/x", "a.example"),
        ("http://[::1]:8080/v1", "/v1/x", "[::1]:8080"),
        ("http://[::1]/v1", "/v1/x", "[::1]"),
        ("http://a.example/v1%20b", "/v1%20b/x", "a.example"),
    ],
)
def test_where_a_request_goes(base_url: str, first: str, host: str) -> None:
    lines = written(base_url, post())
    assert lines[:2] == [f"POST {first} HTTP/1.1", f"Host: {host}"]
    assert ("Authorization: Basic dXNlcjpwYXNz" in lines) == ("user" in base_url)


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("POST", b"", "0"),
        ("PUT", b"", "0"),
        ("PATCH", b"ab", "2"),
        ("GET", b"", None),
        ("DELETE", b"", None),
        ("DELETE", b"a", "1"),
        ("HEAD", b"", None),
        ("OPTIONS", b"", None),
    ],
)
def test_how_long_a_body_is(method: str, body: bytes, length: str | None) -> None:
    claimed = [("Content-Length", "99"), ("Transfer-Encoding", "chunked"), ("Expect", "100-continue")]
    lines = written("http://a", post(body, method=method, headers=claimed), dict(claimed))
    assert lines[2:] == ([] if length is None else [f"Content-Length: {length}"])


def test_a_host_of_the_upstreams_own_is_the_only_one() -> None:
    assert written("http://a", post(b"", method="GET"), {"host": "other"})[1:] == ["host: other"]


def test_a_plain_request_to_a_proxy_names_all_of_its_target() -> None:
    lines = written("http://a.example:81/v1", post(b"", method="GET"), proxy="http://us%65r:p%40ss@proxy:3128")
    assert lines == [
        "GET http://a.example:81/v1/x HTTP/1.1",
        "Host: a.example:81",
        "Proxy-Authorization: Basic dXNlcjpwQHNz",
    ]
    # In a tunnel the upstream must not see what the proxy is told.
    assert written("https://a.example/v1", post(b"", method="GET"), proxy="http://user:pass@proxy:3128") == [
        "GET /v1/x HTTP/1.1",
        "Host: a.example",
    ]


_a_request = st.builds(
    Request,
    st.sampled_from(["POST", "GET", "DELETE"]),
    st.sampled_from(["/x", "/y?a=b"]),
    st.lists(
        st.tuples(
            st.sampled_from(["Content-Length", "content-length", "X-A", "x-a", "Connection", "Accept-Encoding"]),
            st.sampled_from(["1", "2", "X-A", "gzip", "long" * 1500]),
        ),
        max_size=3,
    ),
    st.sampled_from([b"", b"a", b"ab"]),
    streamed=st.booleans(),
    on_sent=st.just(lambda: None),
)


@given(st.lists(_a_request, max_size=12))
def test_a_head_is_made_anew_for_whatever_differs(requests: list[Request]) -> None:
    def fresh() -> RequestHead:
        return RequestHead("http://a.example/v1", {"X-Own": "1"}, origin_of("http://a.example/v1"), None)

    kept = fresh()
    assert [kept.of(request) for request in requests] == [fresh().of(request) for request in requests]


def test_heads_are_not_kept_without_bounds() -> None:
    made = RequestHead("http://a.example", {}, origin_of("http://a.example"), None)
    for number in range(10_000):
        made.of(Request("POST", f"/{number}", [], b"", streamed=False, on_sent=lambda: None))
    for name in ("X-A", "Connection", "Accept-Encoding"):
        made.of(Request("POST", "/long", [(name, "a" * 9000)], b"", streamed=False, on_sent=lambda: None))
    assert len(made._made) <= 256
    assert len(repr(made._made)) < 256 * 8192


def test_what_does_not_go_on_is_not_kept_with_a_head() -> None:
    made = RequestHead("http://a.example", {}, origin_of("http://a.example"), None)
    for number in range(10):
        secret = [("Authorization", f"Bearer {number}"), ("Cookie", f"a={number}"), ("X-Respan-Params", f"{number}")]
        made.of(Request("POST", "/x", [*secret, ("X-A", "1")], b"", streamed=False, on_sent=lambda: None))
    assert len(made._made) == 1
    assert "Bearer" not in repr(made._made)
