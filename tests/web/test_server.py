"""Limits on what comes in and on how long it takes: connections, heads, bodies, and clients that do not read."""

import asyncio
import contextlib
import functools
import json
import logging
import re
import signal
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from gateway.web import connection
from gateway.web.connection import Limits
from gateway.web.middleware import RUNNING, Running
from gateway.web.server import connections_within, serving
from tests import processes
from tests.conftest import KEY, Gateway, StartGateway
from tests.fakes.client import RawClient, raw_client, soon
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire, answer_chat

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
CHAT_BODY = json.dumps(CHAT).encode()
STREAM_BODY = json.dumps({**CHAT, "stream": True}).encode()
ROUTE = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Any:
    """Whatever clients do is no trouble of ours; only that there is no room is told, once."""
    yield
    said = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert said in (
        [],
        ["All 2 connections are taken ([server] max_connections): clients are turned away. This is said once."],
    )


async def last_answer(client: RawClient) -> Any:
    """The JSON of an answer behind which the gateway hangs up."""
    await client.read_head()
    assert client.headers["Content-Type"] == "application/json; charset=utf-8"
    assert client.headers["Connection"] == "close"
    body = await client.read_rest()
    assert len(body) == int(client.headers["Content-Length"])
    return json.loads(body)


def refusal(message: str, code: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}, "detail": message}


async def is_well(client: RawClient) -> bool:
    """Whether the gateway answers on this connection."""
    await client.send_head("GET", "/health")
    answer, client.body = await client.read_answer(), b""
    return answer == b'{"status":"ok"}'


# Connections

FULL = refusal(
    "All 2 connections are taken ([server] max_connections): try again soon.", "too_many_connections", "server_error"
)


async def test_a_connection_too_many_is_told_so_and_the_others_go_on(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    go_on = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await go_on.wait()
        await answer_chat(received, wire)

    upstream.play = play
    gateway = await start_gateway(server="max_connections = 2")
    async with raw_client(gateway.url, KEY) as calling, raw_client(gateway.url, KEY) as idle:
        await calling.post(ROUTE, CHAT_BODY)
        assert await is_well(idle)
        for sent in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 4_000_000):
            async with raw_client(gateway.url, KEY) as turned_away:
                await turned_away.send(sent)
                assert await last_answer(turned_away) == FULL
                assert (turned_away.status, turned_away.headers["Retry-After"]) == (503, "1")
        go_on.set()
        assert json.loads(await calling.read_answer()) == COMPLETION
        assert await is_well(idle)
        calling.leave()
        await reachable(gateway.url)


async def reachable(url: str) -> None:
    """Waits until there is room again."""
    async with asyncio.timeout(20):
        while True:
            async with aiohttp.ClientSession(url) as session, session.get("/health") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.01)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_crowd_that_is_turned_away_does_not_wait_inside(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server="max_connections = 2")
    async with raw_client(gateway.url, KEY) as first, raw_client(gateway.url, KEY) as second:
        assert await is_well(first) and await is_well(second)
        parts = urlsplit(gateway.url)
        files = open_files()
        crowd = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(200)]
        answers = await soon(asyncio.gather(*(reader.read() for reader, _ in crowd)))
        # Theirs are open still; of ours only those that wait for them to leave.
        assert open_files() - files <= 200 + connection.LINGERING_AT_MOST
        for _, writer in crowd:
            writer.close()
        assert {answer.partition(b"\r\n\r\n")[2] for answer in answers} == {
            json.dumps(FULL, separators=(",", ":")).encode()
        }
        assert await is_well(first) and await is_well(second)


@pytest.mark.parametrize(
    ("wanted", "files", "expected"), [(10_000, 1024, 448), (100, 1024, 100), (10_000, 50, 1), (10_000, -1, 10_000)]
)
def test_no_more_connections_than_files(wanted: int, files: int, expected: int) -> None:
    assert connections_within(wanted, files) == expected


def test_the_limit_of_files_is_raised_and_bounds_the_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = ["sh", "-c", 'ulimit -Sn 100; ulimit -Hn 300; exec "$0" "$@"', *processes.GATEWAY]
    monkeypatch.setattr(processes, "GATEWAY", limited)
    with processes.serving(tmp_path) as process:
        shown = Path(f"/proc/{process.process.pid}/limits").read_text()
        assert re.search(r"^Max open files +300 +300 ", shown, re.MULTILINE)
        parts = urlsplit(process.url)
        clients = [socket.create_connection((parts.hostname, parts.port), timeout=20) for _ in range(87)]
        for client in (clients[0], clients[85]):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert clients[86].recv(65536).startswith(b"HTTP/1.1 503 ")
        full = " WARNING All 86 connections are taken (as many as 300 open files allow, see ulimit -n): clients are"
        assert full in process.log
        for client in clients:
            client.close()


async def test_a_crowd_waits_at_the_door_for_a_gateway_that_is_busy(process: processes.Process) -> None:
    parts = urlsplit(process.url)
    process.process.send_signal(signal.SIGSTOP)
    crowd = [socket.create_connection((parts.hostname, parts.port), timeout=20) for _ in range(100)]
    process.process.send_signal(signal.SIGCONT)
    await reachable(process.url)
    for client in crowd:
        client.close()


async def test_that_no_file_is_left_is_told_a_few_times_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GATEWAY", ["sh", "-c", 'ulimit -n 60; exec "$0" "$@"', *processes.GATEWAY])
    with processes.serving(tmp_path) as process:
        parts = urlsplit(process.url)
        crowd = [socket.create_connection((parts.hostname, parts.port), timeout=20) for _ in range(100)]
        async with asyncio.timeout(60):
            while "connections are taken" not in process.log:
                await asyncio.sleep(0.01)
        for client in crowd:
            client.close()
        await reachable(process.url)
        assert len(process.log_lines) < 20


# Heads


async def test_a_broken_head_that_comes_with_the_connection_is_answered(gateway: Gateway) -> None:
    """The first bytes may be read before the connection's own task has begun."""
    for _ in range(5):
        async with raw_client(gateway.url, KEY) as client:
            await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX-A: \x00\r\n\r\n")
            assert (await client.read_rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_head_that_does_not_end_is_a_408(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server="head_timeout_s = 0.1")
    expected = refusal("The request's head was not complete within 0.1 s ([server] head_timeout_s).", "request_timeout")
    async with raw_client(gateway.url, KEY) as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        assert (await last_answer(client), client.status) == (expected, 408)
    # On a connection that has served a request.
    async with raw_client(gateway.url, KEY) as client:
        assert await is_well(client)
        await client.send(b"GET /hea")
        assert (await last_answer(client), client.status) == (expected, 408)


async def test_a_head_that_drips_is_dropped(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server="head_timeout_s = 0.1")
    async with raw_client(gateway.url, KEY) as client:
        await client.send(b"GET /health HTTP/1.1\r\nX-Slow: ")
        answered = asyncio.create_task(client.read_rest())
        async with asyncio.timeout(20):
            while not answered.done():
                await client.send(b"x")
                await asyncio.wait([answered], timeout=0.01)
        assert answered.result().startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_says_nothing_is_dropped_and_an_idle_one_is_not(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server="head_timeout_s = 0.1")
    async with raw_client(gateway.url, KEY) as idle:
        assert await is_well(idle)
        for _ in range(2):
            async with raw_client(gateway.url, KEY) as silent:
                assert await silent.read_rest() == b""
        assert await is_well(idle)


async def test_an_idle_connection_is_dropped_and_one_with_half_a_head_is_told(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_IDLE_S", 0.2)
    gateway = await start_gateway(server="head_timeout_s = 0.5")
    async with raw_client(gateway.url, KEY) as idle, raw_client(gateway.url, KEY) as half:
        assert await is_well(idle) and await is_well(half)
        await half.send(b"GET /health HTTP/1.1\r\n")
        assert await idle.read_rest() == b""
        await last_answer(half)
        assert half.status == 408


LINE = b"GET /health HTTP/1.1\r\nHost: x\r\n"
TOO_LARGE = {
    "target": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n", 414, "The request's target is longer than 64 KB."),
    "query": (b"GET /health?" + b"a" * 10**6, 414, "The request's target is longer than 64 KB."),
    "value": (LINE + b"X: " + b"a" * 70_000, 431, "A field of the request's head is larger than 64 KB."),
    "name": (LINE + b"a" * 70_000, 431, "A field of the request's head is larger than 64 KB."),
    "fields": (LINE + b"A: b\r\n" * 1000, 431, "The request's head has more than 128 fields."),
    "whole": (LINE + (b"A: " + b"b" * 10_000 + b"\r\n") * 100, 431, "The request's head is larger than 256 KB."),
    "nothing": (b"\r\n" * 500_000, 431, "The request's head is larger than 256 KB."),
}


@pytest.mark.parametrize("what", TOO_LARGE)
async def test_a_head_that_is_too_large_is_refused(gateway: Gateway, what: str) -> None:
    sent, status, message = TOO_LARGE[what]
    async with raw_client(gateway.url, KEY) as client:
        await client.send(sent)
        answer = await last_answer(client)
        assert (client.status, answer["detail"]) == (status, message)
        assert answer["error"]["code"] == ("target_too_long" if status == 414 else "head_too_large")


async def test_a_head_of_64_kb_passes(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.post(f"/v1/embeddings?{'q' * 65_000}", CHAT_BODY, f"X-Long: {'v' * 65_000}")
        assert json.loads(await client.read_answer()) == COMPLETION
    assert upstream.requests[0].headers["X-Long"] == "v" * 65_000


MALFORMED = [
    b"secret, please\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03secret",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET secret HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /secret HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET http:///secret HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /secret HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nHost: secret\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nsecret\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nA: secret\x00secret\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: secret\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, secret\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n",
]


@pytest.mark.parametrize("sent", MALFORMED)
async def test_what_is_no_http_is_a_400_that_repeats_nothing(gateway: Gateway, sent: bytes) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.send(sent)
        answer = await last_answer(client)
        assert (client.status, answer) == (400, refusal(answer["detail"], "malformed_request"))
        assert answer["detail"].startswith("This is no valid HTTP/1.1 request")
        assert "secret" not in answer["detail"]
    async with raw_client(gateway.url, KEY) as client:
        assert await is_well(client)


async def test_what_a_request_lacks_is_named(gateway: Gateway) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.send(b"GET /health HTTP/1.1\r\n\r\n")
        detail = (await last_answer(client))["detail"]
    assert detail == "This is no valid HTTP/1.1 request: Missing 'Host' header in request."


@pytest.mark.parametrize("path", ["/health", "/api/request-logs/", ROUTE, "/nowhere"])
async def test_an_expectation_that_nobody_meets_is_a_417_in_json(gateway: Gateway, path: str) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("POST", path, "Content-Length: 0", "Expect: wonders")
        reply = json.loads(await client.read_answer())
    assert client.status == 417
    assert (reply["error"]["message"] if path == ROUTE else reply["detail"]) == "Unknown Expect: wonders"


async def test_a_client_that_asks_first_is_told_to_go_on(gateway: Gateway) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("POST", ROUTE, f"Content-Length: {len(CHAT_BODY)}", "Expect: 100-continue")
        await client.read_head()
        assert client.status == 100
        await client.send(CHAT_BODY)
        assert json.loads(await client.read_answer()) == COMPLETION


# Bodies

LATE = "The body was not complete within 0.1 s ([server] body_timeout_s)."


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [ROUTE, "/v1/embeddings", "/api/request-logs/"])
async def test_a_body_that_does_not_come_is_a_408(
    start_gateway: StartGateway, upstream: ScriptedUpstream, path: str, framing: str
) -> None:
    gateway = await start_gateway(server="body_timeout_s = 0.1", store="commit_wait_ms = 60000")
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("POST", path, framing)
        await client.send(b"5\r\n" + CHAT_BODY[:5])
        answer = await last_answer(client)
        assert client.status == 408
    assert upstream.requests == []
    if path == "/api/request-logs/":
        assert answer == {"detail": LATE}
        assert await gateway.spans() == []
        return
    error = {"message": LATE, "type": "invalid_request_error", "param": None, "code": "request_timeout"}
    assert answer == {"error": error}
    span = await gateway.get(client.headers["X-Respan-Log-Id"])
    expected = {"status": "failed", "status_code": 408, "error_code": "request_timeout", "error_message": LATE}
    assert {name: span[name] for name in expected} == expected


async def test_a_call_whose_body_is_there_has_all_the_time(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway(server="body_timeout_s = 0.1\nhead_timeout_s = 0.1")
    go_on = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        await go_on.wait()
        await answer_chat(received, wire)

    upstream.play = play
    async with raw_client(gateway.url, KEY) as calling:
        await calling.send_head("POST", ROUTE, f"Content-Length: {len(CHAT_BODY)}")
        await calling.send(CHAT_BODY[:20])
        await calling.send(CHAT_BODY[20:])
        # Two of the others run out of their time, one behind the other.
        for _ in range(2):
            async with raw_client(gateway.url, KEY) as slow:
                await slow.send_head("POST", ROUTE, "Content-Length: 1")
                assert (await last_answer(slow))["error"]["code"] == "request_timeout"
        go_on.set()
        assert json.loads(await calling.read_answer()) == COMPLETION


@pytest.mark.parametrize("path", [ROUTE, "/api/request-logs/"])
async def test_a_body_whose_chunks_break_is_a_400(start_gateway: StartGateway, path: str) -> None:
    gateway = await start_gateway(store="commit_wait_ms = 60000")
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("POST", path, "Transfer-Encoding: chunked")
        await client.send(b"5\r\n" + CHAT_BODY[:5] + b"\r\n")
        await client.send(b"no length\r\n")
        await client.read_head()
        body = json.loads(await client.read_rest())
    assert client.status == 400
    message = body["error"]["message"] if path == ROUTE else body["detail"]
    assert message == "The body is not chunked as its head says."
    assert [span["error_message"] for span in await gateway.spans()] == ([message] if path == ROUTE else [])


async def test_a_body_that_breaks_where_nobody_reads_it_ends_the_connection(gateway: Gateway) -> None:
    async with raw_client(gateway.url, "wrong") as client:
        await client.send_head("POST", ROUTE, "Transfer-Encoding: chunked")
        await client.read_head()
        assert client.status == 401
        await client.send(b"5\r\nhello\r\nno length\r\n")
        await client.read_rest()


async def test_garbage_behind_a_request_ends_the_connection_after_its_answer(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        arrived.set()
        await go_on.wait()
        await answer_chat(received, wire)

    upstream.play = play
    async with raw_client(gateway.url, KEY) as client:
        await client.post(ROUTE, CHAT_BODY)
        await soon(arrived.wait())
        await client.send(b"\x00 garbage\r\n\r\n")
        go_on.set()
        await client.read_head()
        assert (client.status, json.loads(await client.read_rest())) == (200, COMPLETION)


async def test_an_upgrade_is_passed_over(gateway: Gateway) -> None:
    async with raw_client(gateway.url, KEY) as client:
        head = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        await client.send(head + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(2):
            assert await client.read_answer() == b'{"status":"ok"}'
        assert await is_well(client)
        await client.send(head + b"\x00 garbage\r\n\r\n")
        assert await client.read_answer() == b'{"status":"ok"}'
        client.body = b""
        assert await client.read_rest() == b""


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (ROUTE, b'{"model":"gpt-4o-mini","messages":' + DEEP + b"}"),
        (ROUTE, DEEP),
        ("/api/request-logs/", b'{"model":"m","input":' + DEEP + b"}"),
        ("/api/request-logs/bulk/", b'{"logs":' + DEEP + b"}"),
        ("/api/request-logs/list/", b'{"filters":' + DEEP + b"}"),
    ],
)
async def test_json_that_is_nested_too_deeply_is_a_400(
    gateway: Gateway, upstream: ScriptedUpstream, path: str, body: bytes
) -> None:
    reply = await gateway.call(path, data=body)
    assert reply.status == 400
    assert b"nested too deeply" in reply.body
    assert upstream.requests == []
    assert (await gateway.post({"model": "m"}))[0] == 201


async def test_deep_nesting_elsewhere_fails_no_call(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    deep = '{"model":"gpt-4o-mini","a":' + "[" * 100_000 + "]" * 100_000 + "}"

    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Type": "application/json", "Content-Length": str(len(deep))})
        await wire.send(deep)

    upstream.play = play
    # On other routes a body is what the client and its upstream make of it.
    reply = await gateway.call("/v1/embeddings", data=deep, headers={"X-Data-Respan-Params": "W1tb" * 10_000})
    assert (reply.status, reply.body, upstream.requests[0].body) == (200, deep.encode(), deep.encode())


# Bombs: 256 MB in a thousandth of it, before a process of its own, whose memory is looked at

BOMB_MB = 256
CONFIG = """
[server]
max_body_mb = 8
[store]
commit_wait_ms = 60000
max_content_mb = 1
[[upstreams]]
name = "main"
base_url = "{url}/v1"
"""


@functools.cache
def bomb(encoding: str) -> bytes:
    """A JSON object, and spaces within it."""
    deflate = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    spaces = b" " * 2**20
    filled = [deflate.compress(spaces) for _ in range(BOMB_MB)]
    packed = b"".join(
        [deflate.compress(b'{"model":"gpt-4o-mini",'), *filled, deflate.compress(b'"a":1}'), deflate.flush()]
    )
    assert len(packed) < BOMB_MB * 2**20 / 900
    return packed


def most_memory_mb(process: processes.Process) -> float:
    """The most that has been resident so far."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{process.process.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


@pytest.fixture
async def process(tmp_path: Path, upstream: ScriptedUpstream) -> AsyncIterator[processes.Process]:
    (tmp_path / "config.toml").write_text(CONFIG.format(url=upstream.url))
    running = await asyncio.to_thread(processes.Process, tmp_path)
    yield running
    await asyncio.to_thread(running.close)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_in_a_request_is_a_413_and_takes_no_memory(
    process: processes.Process, upstream: ScriptedUpstream, encoding: str
) -> None:
    async with raw_client(process.url, process.key) as client:
        await client.post(ROUTE, CHAT_BODY)
        assert json.loads(await client.read_answer()) == COMPLETION
        before = most_memory_mb(process)
        for path in (ROUTE, "/v1/embeddings", "/api/request-logs/", "/api/request-logs/bulk/"):
            await client.post(path, bomb(encoding), f"Content-Encoding: {encoding}")
            assert b"too large once it is decompressed" in await client.read_answer()
            assert client.status == 413
        # The limit is 8 MB, and it is there twice while it is joined.
        assert most_memory_mb(process) - before < 40
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_a_bomb_in_an_answer_passes_and_takes_no_memory(
    process: processes.Process, upstream: ScriptedUpstream, encoding: str, content_type: str
) -> None:
    packed = bomb(encoding)

    async def play(received: Received, wire: Wire) -> None:
        headers = {"Content-Type": content_type, "Content-Encoding": encoding, "Content-Length": str(len(packed))}
        await wire.head(200, headers)
        await wire.send(packed)

    async with raw_client(process.url, process.key) as client:
        await client.post(ROUTE, CHAT_BODY)
        assert json.loads(await client.read_answer()) == COMPLETION
        before = most_memory_mb(process)
        upstream.play = play
        await client.post(ROUTE, CHAT_BODY)
        assert await client.read_answer() == packed
        unique_id = client.headers["X-Respan-Log-Id"]
        await client.send_head("GET", f"/api/request-logs/{unique_id}/")
        span = json.loads(await client.read_answer())
        assert most_memory_mb(process) - before < 40
    assert span["warnings"].endswith("the answer is too long once it is decompressed")


# Clients that do not read


def endless(piece: bytes) -> Callable[[Received, Wire], Awaitable[None]]:
    """A stream without an end."""

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        while True:
            await wire.chunk(piece)

    return play


PIECE = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * 10_000}}]}).encode() + b"\n\n"


async def test_a_client_that_reads_no_more_counts_as_gone(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    let_go = asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        try:
            await endless(PIECE)(received, wire)
        except ConnectionError:
            let_go.set()
            raise

    upstream.play = play
    gateway = await start_gateway(server="write_timeout_s = 0.2")
    async with raw_client(gateway.url, KEY, receive_buffer=4096) as client:
        await client.post(ROUTE, STREAM_BODY)
        await client.read_head()
        await soon(let_go.wait())
        span = await gateway.eventually(client.headers["X-Respan-Log-Id"], lambda span: span["status"] != "running")
    assert (span["status"], span["status_code"], span["error_code"]) == ("failed", 499, "client_gone")
    assert span["output"]["content"].startswith("xxx")


async def test_a_client_that_reads_slowly_gets_all_its_bytes(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    whole = b"".join(b"%07d\n" % number for number in range(2**20))

    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Type": "application/json", "Content-Length": str(len(whole))})
        await wire.send(whole)

    upstream.play = play
    gateway = await start_gateway(server="write_timeout_s = 0.5")
    parts = urlsplit(gateway.url)
    loop = asyncio.get_running_loop()
    # Without a stream on top, which would read ahead.
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(client, (parts.hostname, parts.port))
        head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nContent-Length: {len(CHAT_BODY)}\r\n\r\n"
        await loop.sock_sendall(client, head.encode() + CHAT_BODY)
        answer = bytearray()
        # Three times as long as it may take nothing; then as fast as it can.
        for _ in range(150):
            answer += await soon(loop.sock_recv(client, 500))
            await asyncio.sleep(0.01)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        while (start := answer.find(b"\r\n\r\n")) < 0 or len(answer) < start + 4 + len(whole):
            piece = await soon(loop.sock_recv(client, 2**20))
            assert piece, f"cut after {len(answer)} bytes"
            answer += piece
    assert answer[start + 4 :] == whole


@contextlib.asynccontextmanager
async def serving_two(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server with two places, for `/` and `/health`."""

    async def health(request: web.Request) -> web.StreamResponse:
        return web.Response(text='{"status":"ok"}')

    app = web.Application()
    app[RUNNING] = Running()
    app.router.add_get("/", handler)
    app.router.add_get("/health", health)
    limits = Limits(max_connections=2, head_timeout_s=20, write_timeout_s=0.2)
    async with serving(app, "127.0.0.1", 0, drain_s=0, limits=limits) as url:
        yield url


async def test_a_cut_answer_whose_rest_nobody_takes_is_let_go() -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        assert request.transport is not None
        while request.transport.get_write_buffer_size() == 0:
            await response.write(b"x" * 10_000)
        request.transport.close()
        return response

    async with serving_two(cut) as url, raw_client(url, KEY) as client, raw_client(url, KEY) as other:
        assert await is_well(other)
        await client.send_head("GET", "/")
        await client.read_head()
        await reachable(url)


async def test_where_there_is_no_one_to_answer_the_connection_ends() -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        raise ConnectionResetError("the client was gone before the answer's head")

    async with serving_two(gone) as url, raw_client(url, KEY) as client:
        await client.send_head("GET", "/")
        assert await client.read_rest() == b""


# The end


async def test_a_stop_hangs_up_on_those_who_wait_for_nothing(
    process: processes.Process, upstream: ScriptedUpstream
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        arrived.set()
        await go_on.wait()
        await answer_chat(received, wire)

    upstream.play = play
    async with raw_client(process.url, process.key) as calling, raw_client(process.url, process.key) as idle:
        await calling.post(ROUTE, CHAT_BODY)
        assert await is_well(idle)
        await soon(arrived.wait())
        process.process.terminate()
        assert await idle.read_rest() == b""
        go_on.set()
        assert json.loads(await calling.read_answer()) == COMPLETION
    assert await asyncio.to_thread(process.process.wait, 60) == 0


@pytest.mark.parametrize("sign", [";", '"', "; ", ";a=", '"\\'])
async def test_no_content_type_holds_up_others(gateway: Gateway, sign: str) -> None:
    told = {"Content-Type": sign * (60_000 // len(sign))}
    for path in ("/login", "/logout", "/v1/traces", ROUTE):
        # Whom a parser of them that is slow would keep for hours.
        async with gateway.session.post(path, data=CHAT_BODY, headers=told) as response:
            assert response.status in (200, 400, 403), path
