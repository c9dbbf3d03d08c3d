"""However a call ends: what the client sees of it, and the span that it leaves."""

import asyncio
import json
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway import proxy
from gateway.core.gate import StreamGate
from gateway.core.meter import StreamMeter
from gateway.deadlines import Deadlines
from gateway.gathering import Gathering
from gateway.recorder import Ended, Recorder
from gateway.upstream.pool import Pool
from tests.conftest import KEY, Gateway, StartGateway
from tests.fakes.client import RawClient, raw_client, soon, unchunked
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import COMPLETION, USAGE_CHUNK, Received, ScriptedUpstream, Wire, chunk

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**CHAT, "stream": True}
ROUTE = "/v1/chat/completions"
DONE = "data: [DONE]\n\n"
SSE = {"Content-Type": "text/event-stream"}


def event(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


def text(content: str) -> str:
    return event(chunk({"content": content}))


def picked(span: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: span[name] for name in wanted}


async def audit_of(gateway: Gateway) -> dict[str, Any]:
    async with gateway.session.get("/api/request-logs/audit") as response:
        found: dict[str, Any] = await response.json()
    return found


async def begin(client: RawClient, body: dict[str, Any]) -> None:
    await client.post(ROUTE, json.dumps(body).encode())


# The upstream answers with an error


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (400, b'{"error": {"message": "No.", "type": "t", "code": "bad"}}', "bad", "No."),
        (401, b'{"error": {"message": "Key", "type": "auth", "code": null}}', "auth", "Key"),
        (404, b'{"detail": "Not here"}', "upstream_error", "Not here"),
        (429, b'{"type":"error","error":{"type":"rate_limit_error","message":"Slow"}}', "rate_limit_error", "Slow"),
        (500, b"<html>oops</html>", "upstream_error", "<html>oops</html>"),
        (503, b"", "upstream_error", "The upstream answered 503."),
        (529, b'{"error": "overloaded"}', "upstream_error", "overloaded"),
        (404, b'{"error": {"message": ["odd"], "code": {"odd": 1}}}', "upstream_error", "The upstream answered 404."),
    ],
)
async def test_an_error_of_the_upstream_passes_unchanged(
    gateway: Gateway,
    upstream: ScriptedUpstream,
    streamed: bool,
    status: int,
    body: bytes,
    code: str,
    message: str,
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(status, {"Content-Length": str(len(body)), "Retry-After": "3", "X-Odd": "o"}, reason="Odd")
        await wire.send(body)

    upstream.play = play
    reply = await gateway.call(ROUTE, json={**CHAT, "stream": streamed})
    assert (reply.status, reply.body) == (status, body)
    assert picked(dict(reply.headers), {"Retry-After": 0, "X-Odd": 0}) == {"Retry-After": "3", "X-Odd": "o"}
    span = await gateway.get(reply.log_id)
    expected = {
        "status": "failed", "status_code": status, "error_code": code, "error_message": message,
        "upstream": "main", "model": "gpt-4o-mini", "input": CHAT["messages"], "output": None, "stream": streamed,
        "prompt_tokens": None, "completion_tokens": None, "cost": None, "time_to_first_token": None,
    }  # fmt: skip
    assert picked(span, expected) == expected


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_passed_on_and_not_followed(
    gateway: Gateway, upstream: ScriptedUpstream, status: int
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(status, {"Location": f"{upstream.url}/elsewhere", "Content-Length": "0"})

    upstream.play = play
    reply = await gateway.call(ROUTE, json=CHAT, allow_redirects=False)
    assert (reply.status, reply.headers["Location"]) == (status, f"{upstream.url}/elsewhere")
    assert len(upstream.requests) == 1
    span = await gateway.get(reply.log_id)
    assert (span["status"], span["status_code"]) == ("failed", status)


async def test_an_error_in_a_stream_is_a_failed_call(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    sent = [text("Hel"), event({"error": {"message": "Overloaded", "type": "server_error", "code": None}}), DONE]

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(*sent)
        await wire.end_chunks()

    upstream.play = play
    reply = await gateway.call(ROUTE, json=STREAM)
    assert reply.body == "".join(sent).encode()
    span = await gateway.get(reply.log_id)
    expected = {"status": "failed", "status_code": 200, "error_code": "server_error", "error_message": "Overloaded"}
    assert picked(span, expected) == expected
    assert span["completion_message"]["content"] == "Hel"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (SSE, b"what is this\n\nnot a stream"),
        (SSE, b""),
        (SSE, b"\xff\xfe\x00data"),
        ({"Content-Type": "text/html"}, b"<html>Welcome</html>"),
        ({"Content-Type": "application/json"}, b"[1]"),
        ({"Content-Type": "application/json"}, b'{"cut":'),
    ],
)
async def test_nonsense_passes_and_counts_as_failed(
    gateway: Gateway, upstream: ScriptedUpstream, headers: dict[str, str], body: bytes
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {**headers, "Content-Length": str(len(body))})
        await wire.send(body)

    upstream.play = play
    reply = await gateway.call(ROUTE, json=STREAM)
    assert (reply.status, reply.body, reply.headers["Content-Type"]) == (200, body, headers["Content-Type"])
    span = await gateway.get(reply.log_id)
    expected = {"status": "failed", "status_code": 200, "error_code": "invalid_response", "prompt_tokens": None}
    assert picked(span, expected) == expected


# The upstream does not answer


async def failed(gateway: Gateway, status: int, code: str) -> dict[str, Any]:
    """The span of a call that we answer with an error of ours."""
    reply = await gateway.call(ROUTE, json={**CHAT, "note": "n"})
    assert reply.status == status
    error = reply.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("upstream_error", None, code)
    span = await gateway.get(reply.log_id)
    expected = {
        "status": "failed", "status_code": status, "error_code": code, "error_message": error["message"],
        "upstream": "main", "model": "gpt-4o-mini", "input": CHAT["messages"], "output": None, "note": "n",
        "full_request": CHAT, "full_response": None, "prompt_tokens": None, "tokens_per_second": None,
    }  # fmt: skip
    assert picked(span, expected) == expected
    assert "127.0.0.1" not in error["message"]
    return span


async def test_an_upstream_that_refuses_is_a_502(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    await upstream.stop()
    span = await failed(gateway, 502, "upstream_unreachable")
    assert span["routing_time"] is None


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-", b"SSH-2.0-OpenSSH\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28"],
)
async def test_an_upstream_that_speaks_no_http_is_a_502(
    gateway: Gateway, upstream: ScriptedUpstream, answer: bytes
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.send(answer)
        wire.close()

    upstream.play = play
    await failed(gateway, 502, "upstream_unreachable")
    assert len(upstream.requests) == 1


async def test_an_upstream_that_is_slow_to_begin_is_a_504(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    gone = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.gone()
        gone.set()

    upstream.play = play
    await failed(await start_gateway("timeout_s = 0.1\n"), 504, "upstream_timeout")
    await soon(gone.wait())


async def test_an_upstream_that_cannot_be_connected_to_in_time_is_a_504(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    # A TLS handshake that nobody answers is part of connecting.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        more = f'models = ["x"]\n[[upstreams]]\nname = "mute"\nbase_url = "https://127.0.0.1:{port}"\n'
        gateway = await start_gateway(more + "connect_timeout_s = 0.1\n")
        reply = await gateway.call(ROUTE, json=CHAT)
    assert (reply.status, reply.json()["error"]["code"]) == (504, "upstream_timeout")
    assert (await gateway.get(reply.log_id))["status_code"] == 504


# The upstream breaks off


async def test_a_stream_that_falls_silent_is_cut(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    gone = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(text("Hel"))
        await wire.gone()
        gone.set()

    upstream.play = play
    gateway = await start_gateway("idle_timeout_s = 0.2\n")
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, STREAM)
        await client.read_head()
        assert unchunked(await client.read_rest()) == (text("Hel").encode(), False)
    await soon(gone.wait())
    span = await gateway.only_span()
    expected = {"status": "failed", "status_code": 504, "error_code": "upstream_timeout", "stream": True}
    assert picked(span, expected) == expected
    assert span["completion_message"]["content"] == "Hel"


@pytest.mark.parametrize("how", ["fin", "rst", "bad chunk"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_the_upstream_cuts_is_cut_for_the_client(
    gateway: Gateway, upstream: ScriptedUpstream, how: str, streamed: bool
) -> None:
    read = asyncio.Event()
    sent = text("Hello") + text(" there")[:20] if streamed else json.dumps(COMPLETION)[:50]

    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {**(SSE if streamed else {}), "Transfer-Encoding": "chunked"})
        await wire.chunk(sent)
        await read.wait()
        if how == "bad chunk":
            await wire.send("no hex\r\n")
        (wire.abort if how == "rst" else wire.close)()

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, {**CHAT, "stream": streamed})
        await client.read_head()
        assert client.status == 200
        await client.read_until((text("Hello") if streamed else sent).encode() + b"\r\n")
        read.set()
        content, is_whole = unchunked(await client.read_rest())
    # What was held back in case it is the usage chunk comes out as well.
    assert (content, is_whole) == (sent.encode(), False)
    span = await gateway.only_span()
    expected = {"status": "failed", "status_code": 502, "error_code": "upstream_cut", "stream": streamed}
    assert picked(span, expected) == expected
    if streamed:
        assert span["completion_message"]["content"] == "Hello"
        span = await gateway.eventually(span["unique_id"], lambda span: span["completion_tokens"] is not None)
        assert (span["completion_tokens"], span["status"]) == (1, "failed")
    else:
        assert span["full_response"] == {"body": sent}


async def test_a_body_shorter_than_its_length_is_cut(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Length": "100"})
        await wire.send("half")
        wire.close()

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, CHAT)
        await client.read_head()
        assert client.headers["Content-Length"] == "100"
        assert await client.read_rest() == b"half"
    assert (await gateway.only_span())["error_code"] == "upstream_cut"


async def test_a_cut_after_done_is_a_success(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(text("Hello"), event(USAGE_CHUNK), DONE)
        wire.close()

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, STREAM)
        await client.read_head()
        assert unchunked(await client.read_rest()) == ((text("Hello") + DONE).encode(), False)
    span = await gateway.only_span()
    assert (span["status"], span["status_code"], span["completion_tokens"]) == ("success", 200, 2)


# The client leaves


async def test_a_client_that_leaves_before_its_body_is_there(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("POST", ROUTE, "Content-Length: 100", "Expect: 100-continue")
        await client.read_head()
        await client.send(b'{"model"')
        client.leave()
    span = await gateway.only_span()
    expected = {"status": "failed", "status_code": 499, "error_code": "client_gone", "model": "unknown"}
    assert picked(span, expected) == expected
    assert upstream.requests == []


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_before_the_first_byte_ends_the_upstreams_call(
    gateway: Gateway, upstream: ScriptedUpstream, streamed: bool
) -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        came.set()
        await wire.gone()
        gone.set()

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, {**CHAT, "stream": streamed})
        await soon(came.wait())
        client.leave()
    await soon(gone.wait())
    span = await gateway.only_span()
    expected = {
        "status": "failed", "status_code": 499, "error_code": "client_gone", "output": None, "upstream": "main",
        "input": CHAT["messages"], "prompt_tokens": None, "completion_tokens": None, "time_to_first_token": None,
    }  # fmt: skip
    assert picked(span, expected) == expected


async def test_a_client_that_leaves_mid_stream(
    start_gateway: StartGateway, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    gone = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        clock.advance(0.5)
        await wire.chunk(text("Hello"), text(" there"))
        await wire.gone()
        gone.set()

    upstream.play = play
    gateway = await start_gateway(clock=clock)
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, STREAM)
        await client.read_head()
        await client.read_until(text(" there").encode() + b"\r\n")
        clock.advance(0.25)
        client.leave()
    await soon(gone.wait())
    span = await gateway.eventually(
        (await gateway.only_span())["unique_id"], lambda span: span["completion_tokens"] is not None
    )
    expected = {
        "status": "failed", "status_code": 499, "error_code": "client_gone", "completion_tokens": 2,
        "latency": 0.75, "time_to_first_token": 0.5,
    }  # fmt: skip
    assert picked(span, expected) == expected
    assert span["completion_message"]["content"] == "Hello there"
    assert "completion_tokens" in span["warnings"]


async def test_a_client_that_leaves_after_done_was_served(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gone = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(text("Hello"), event(USAGE_CHUNK), DONE)
        await wire.gone()
        gone.set()

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, STREAM)
        await client.read_head()
        await client.read_until(DONE.encode() + b"\r\n")
        client.leave()
    await soon(gone.wait())
    span = await gateway.only_span()
    assert (span["status"], span["status_code"], span["completion_tokens"]) == ("success", 200, 2)


# The store


@contextmanager
def locked(gateway: Gateway) -> Iterator[None]:
    """Nobody else can write to the store."""
    db = sqlite3.connect(gateway.path, isolation_level=None)
    try:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")
    finally:
        db.close()


async def metric(gateway: Gateway, name: str) -> float:
    async with gateway.session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def nothing_comes(client: RawClient) -> bool:
    """Whether nothing more comes while the gateway does other things."""
    try:
        client.body += await asyncio.wait_for(client.reader.read(65536), 0.3)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("kind", ["stream", "stream without done", "body", "chunked body"])
async def test_the_last_piece_waits_for_the_commit(
    start_gateway: StartGateway, upstream: ScriptedUpstream, kind: str
) -> None:
    body = json.dumps(COMPLETION)
    first, last = (text("Hello"), DONE) if kind == "stream" else (body[:40], body[40:])
    if kind == "stream without done":
        first, last = text("Hello"), ""
    read, read_all = asyncio.Event(), asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        if kind == "body":
            await wire.head(200, {"Content-Length": str(len(body))})
            await wire.send(first)
            await read.wait()
            await wire.send(last)
            return
        await wire.head(200, {**(SSE if "stream" in kind else {}), "Transfer-Encoding": "chunked"})
        await wire.chunk(first)
        await read.wait()
        if last:
            await wire.chunk(last)
        if kind == "chunked body":
            await read_all.wait()
        await wire.end_chunks()

    upstream.play = play
    gateway = await start_gateway(store="commit_wait_ms = 60000")
    async with raw_client(gateway.url, KEY) as client:
        with locked(gateway):
            await begin(client, {**CHAT, "stream": "stream" in kind})
            await client.read_head()
            await client.read_until(first.encode() + (b"" if kind == "body" else b"\r\n"))
            read.set()
            if kind == "chunked body":
                # Its last bytes may go on: complete it is only with the closing chunk.
                await client.read_until(last.encode() + b"\r\n")
                read_all.set()
            assert await nothing_comes(client)
            assert await gateway.spans() == []
        await client.read_until(last.encode() if kind == "body" else b"0\r\n\r\n")
        (span,) = await gateway.spans()
    assert span["unique_id"] == client.headers["X-Respan-Log-Id"]
    assert await metric(gateway, "gateway_commit_waits_over_total") == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_the_time_for_a_commit_begins_when_the_store_has_the_span(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    # To make a span of many MB takes longer than a commit may take.
    happened: list[str] = []
    add, record = Deadlines.add, Recorder.record_calls

    def added(self: Deadlines[Any], thing: Any) -> None:
        if isinstance(thing, asyncio.Future):
            happened.append("timed")
        add(self, thing)

    def recorded(self: Recorder, calls: Iterable[Ended]) -> None:
        record(self, calls)
        happened.append("recorded")

    monkeypatch.setattr(Deadlines, "add", added)
    monkeypatch.setattr(Recorder, "record_calls", recorded)
    assert (await gateway.call(ROUTE, json={**CHAT, "stream": stream})).status == 200
    assert happened == ["recorded", "timed"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_calls_go_through_while_the_store_is_locked(
    start_gateway: StartGateway, upstream: ScriptedUpstream, streamed: bool
) -> None:
    gateway = await start_gateway(store="commit_wait_ms = 1")
    with locked(gateway):
        replies = [await gateway.call(ROUTE, json={**CHAT, "stream": streamed}) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 200]
        assert all(reply.body.endswith(DONE.encode() if streamed else b"}") for reply in replies)
        assert await metric(gateway, "gateway_commit_waits_over_total") == 3
        async with gateway.session.get("/ready") as response:
            assert response.status == 503
    for reply in replies:
        assert (await gateway.eventually(reply.log_id, lambda span: span["status"] != "running"))["status"] == "success"


async def test_an_error_of_ours_waits_for_its_commit_too(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    await upstream.stop()
    gateway = await start_gateway(store="commit_wait_ms = 60000")
    async with raw_client(gateway.url, KEY) as client:
        with locked(gateway):
            await begin(client, CHAT)
            assert await nothing_comes(client)
        await client.read_head()
    assert client.status == 502
    assert len(await gateway.spans()) == 1


# Connections to the upstream


async def test_a_pooled_connection_that_died_costs_the_client_nothing(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        if len(upstream.requests) == 2:
            wire.close()
        else:
            await wire.json(COMPLETION)

    upstream.play = play
    for _ in range(2):
        assert (await gateway.call(ROUTE, json=CHAT)).json() == COMPLETION
    # The second call went out on the first connection, then on a fresh one.
    assert [received.connection for received in upstream.requests] == [1, 1, 2]
    assert [span["status"] for span in await gateway.spans()] == ["success", "success"]


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_what_an_upstream_has_worked_on_is_not_sent_twice(
    gateway: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr("gateway.upstream.client._LOST_AT_ONCE_S", 0.0)

    async def play(received: Received, wire: Wire) -> None:
        if len(upstream.requests) == 2:
            wire.close()
        else:
            await wire.json(COMPLETION)

    upstream.play = play
    assert (await gateway.call(ROUTE, json=CHAT)).status == 200
    if method == "GET":
        async with gateway.session.get("/v1/files") as response:
            assert response.status == 200
        assert len(upstream.requests) == 3
    else:
        assert (await gateway.call(ROUTE, json=CHAT)).status == 502
        assert len(upstream.requests) == 2


async def test_it_is_tried_again_only_once(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        if len(upstream.requests) == 1:
            await wire.json(COMPLETION)
        else:
            wire.close()

    upstream.play = play
    assert (await gateway.call(ROUTE, json=CHAT)).status == 200
    reply = await gateway.call(ROUTE, json=CHAT)
    assert (reply.status, len(upstream.requests)) == (502, 3)


@pytest.mark.parametrize(
    "answer", ["H", "HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_it_is_not_tried_again_once_a_byte_has_come(
    gateway: Gateway, upstream: ScriptedUpstream, answer: str
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        if len(upstream.requests) == 1:
            await wire.json(COMPLETION)
        else:
            await wire.send(answer)
            wire.close()

    upstream.play = play
    assert (await gateway.call(ROUTE, json=CHAT)).status == 200
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, CHAT)
        await client.read_head()
        if client.status == 200:
            assert await client.read_rest() == b"x"
        else:
            assert client.status == 502
    assert [received.connection for received in upstream.requests] == [1, 1]


async def test_a_reused_connection_that_times_out_is_not_tried_again(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        if len(upstream.requests) == 1:
            await wire.json(COMPLETION)
        else:
            await wire.gone()

    upstream.play = play
    gateway = await start_gateway("timeout_s = 0.2\n")
    assert (await gateway.call(ROUTE, json=CHAT)).status == 200
    assert (await gateway.call(ROUTE, json=CHAT)).status == 504
    assert len(upstream.requests) == 2


# Mistakes of our own


async def test_a_meter_that_fails_costs_the_client_nothing(
    gateway: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(StreamMeter, "_parse", fail)
    reply = await gateway.call(ROUTE, json=STREAM)
    assert reply.body.endswith((text(" there") + event(chunk({}, finish_reason="stop")) + DONE).encode())
    span = await gateway.get(reply.log_id)
    assert (span["status_code"], span["output"]) == (200, None)
    assert "failed to read the answer" in span["warnings"]


async def test_a_mistake_before_the_answer_is_a_500_with_a_span(
    gateway: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Pool, "choose", fail)
    reply = await gateway.call(ROUTE, json=CHAT)
    assert (reply.status, reply.json()["error"]["code"]) == (500, "internal_error")
    span = await gateway.get(reply.log_id)
    assert (span["status"], span["status_code"], span["error_code"]) == ("failed", 500, "internal_error")


async def test_a_mistake_in_the_answer_cuts_it_and_leaves_a_span(
    gateway: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(StreamGate, "feed", fail)
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, STREAM)
        await client.read_head()
        assert await client.read_rest() == b""
    span = await gateway.only_span()
    assert (span["status"], span["status_code"], span["error_code"]) == ("failed", 500, "internal_error")


@pytest.mark.parametrize(
    ("ending", "counts_as"), [("fin", ("success", None)), ("rst", ("failed", "upstream_cut"))], ids=["fin", "rst"]
)
async def test_a_body_that_ends_with_its_connection_is_cut_by_a_reset_only(
    gateway: Gateway, upstream: ScriptedUpstream, ending: str, counts_as: tuple[str, str | None]
) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {**SSE, "Connection": "close"})
        await wire.send(text("Hello"))
        await soon(read.wait())
        wire.close() if ending == "fin" else wire.abort()

    read = asyncio.Event()
    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await begin(client, STREAM)
        await client.read_head()
        await client.read_until(b"\n\n\r\n")
        read.set()
        if ending == "fin":
            await client.read_until(b"0\r\n\r\n")
        else:
            assert not (await client.read_rest()).endswith(b"0\r\n\r\n")
    span = await gateway.get(client.headers["X-Respan-Log-Id"])
    assert (span["status"], span["error_code"]) == counts_as
    assert span["output"]["content"] == "Hello"


async def test_the_upstreams_key_is_in_no_span_when_the_upstream_repeats_it(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    said = {"error": {"message": "Incorrect API key provided: upstream-secret.", "code": "invalid_api_key"}}

    async def play(received: Received, wire: Wire) -> None:
        await wire.json(said, 401)

    upstream.play = play
    reply = await gateway.call(ROUTE, json=CHAT)
    assert reply.json() == said
    span = await gateway.get(reply.log_id)
    assert span["error_message"] == "Incorrect API key provided: ***."
    assert "upstream-secret" not in json.dumps(span)


async def test_a_header_that_cannot_be_sent_is_left_out(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json(COMPLETION, headers={"X-Odd": "a\x01b", "X-Good": "yes"})

    upstream.play = play
    reply = await gateway.call(ROUTE, json=CHAT)
    assert (reply.status, reply.json()) == (200, COMPLETION)
    assert ("X-Odd" in reply.headers, reply.headers["X-Good"]) == (False, "yes")


async def test_a_span_that_cannot_be_made_takes_no_other_with_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fields(call: proxy.Call, *rest: Any) -> dict[str, Any]:
        if call.model == "bad":
            raise RuntimeError("a mistake")
        return made(call, *rest)

    made = proxy._fields
    monkeypatch.setattr(proxy, "_fields", fields)
    at_once: list[int] = []

    def together(self: Gathering[Any], *rest: Any) -> None:
        # Until all have ended.
        if len(self._added) < 6:
            self._loop.call_soon(together, self)
        else:
            at_once.append(len(self._added))
            self.flush()

    monkeypatch.setattr(Gathering, "_after_turn", together)
    models = ["bad", "good"] * 3
    async with asyncio.timeout(60):
        replies = await asyncio.gather(*(gateway.call(ROUTE, json={**CHAT, "model": model}) for model in models))
    monkeypatch.undo()
    assert at_once == [6]
    assert [reply.status for reply in replies] == [200] * 6
    assert {span["unique_id"] for span in await gateway.spans() if span["status"] == "success"} == {
        reply.log_id for reply, model in zip(replies, models, strict=True) if model == "good"
    }
    assert caplog.text.count("is lost") == 3
    assert await metric(gateway, "gateway_spans_dropped_total") == 3
    # What is lost is written down by and by.
    async with asyncio.timeout(60):
        while (audit := await audit_of(gateway))["open"]:
            await asyncio.sleep(0.01)
    assert audit["accepted"] == 6
