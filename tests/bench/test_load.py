"""The benchmark's own load and upstream: what they send, and what counts as failed."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from gateway.bench import load
from gateway.bench.load import Job, Result, Run, Samples, percentiles
from gateway.bench.upstream import Connection, framed
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire

HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n"


def job(port: int, model: str = "bench-whole-500", **more: object) -> Job:
    body = json.dumps({"model": model, "stream": model.startswith("bench-stream")})
    return replace(Job("127.0.0.1", port, HEAD, body, connections=2, requests=6), **more)  # type: ignore[arg-type]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_whole_answers_are_counted(port: int) -> None:
    result = await Run(job(port)).measure()
    assert (result.answered, result.failed, result.chunks) == (6, 0, 0)
    assert 0 < result.latency[0] <= result.latency[1]


@pytest.mark.parametrize("gap", [0, 1])
async def test_streams_are_counted_chunk_by_chunk(port: int, gap: int) -> None:
    result = await Run(job(port, f"bench-stream-20-{gap}", chunks=20)).measure()
    assert (result.answered, result.failed, result.chunks) == (6, 0, 120)
    assert result.first[0] > 0 and result.delay[0] > 0 and result.gap[0] <= result.gap[1]


async def test_connections_that_begin_one_after_the_other(port: int) -> None:
    result = await Run(job(port, connections=3, requests=7, spread=0.05)).measure()
    assert (result.answered, result.failed) == (7, 0)


async def test_requests_at_a_rate(port: int) -> None:
    result = await Run(job(port, connections=1, requests=0, seconds=0.2, rate=100.0)).measure()
    assert result.failed == 0 and 1 <= result.answered <= 30


@pytest.mark.parametrize("with_usage", [False, True])
async def test_the_upstream_speaks_as_openai_does(port: int, with_usage: bool) -> None:
    body = {"model": "bench-stream-3-0", "stream": True, "stream_options": {"include_usage": with_usage}}
    if not with_usage:
        del body["stream_options"]
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.post("/v1/chat/completions", json=body) as streamed,
        session.post("/v1/chat/completions", json={"model": "bench-whole-2000"}) as whole,
    ):
        events = (await streamed.text()).split("\n\n")
        answer = await whole.json()
        assert abs(int(whole.headers["Content-Length"]) - 2000) < 50
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert [bool(chunk["choices"]) for chunk in chunks] == [True] * 5 + [False] * with_usage
    assert (chunks[-1].get("usage") is not None) is with_usage
    assert answer["choices"][0]["message"]["content"].startswith("The quick brown fox")


async def failing(upstream: ScriptedUpstream, **more: object) -> Result:
    number = int(upstream.url.rpartition(":")[2])
    return await Run(job(number, connections=1, requests=1, **more)).measure()


async def test_another_status_is_a_failure(upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.json(COMPLETION, 500)

    upstream.play = play
    result = await failing(upstream)
    assert (result.answered, result.failed) == (0, 1) and result.error.startswith("status 500")


async def test_a_cut_answer_is_a_failure(upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.head(200, {"Content-Length": "100"})
        await wire.send("short")
        wire.close()

    upstream.play = play
    result = await failing(upstream)
    assert (result.answered, result.failed) == (0, 1) and "before the answer's end" in result.error


async def test_a_cut_stream_is_a_failure(upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk('data: {"content": "@1@"}\n\n')
        wire.close()

    upstream.play = play
    result = await failing(upstream, chunks=1)
    assert (result.answered, result.failed) == (0, 1) and "before the answer's end" in result.error


async def test_what_is_no_http_is_a_failure(upstream: ScriptedUpstream) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.send("HTTP/1.1 what\r\nContent-Length: 0\r\n\r\n")

    upstream.play = play
    result = await failing(upstream)
    assert (result.answered, result.failed) == (0, 1) and result.error.startswith("status 0")


@pytest.mark.parametrize("rate", [0.0, 50.0])
async def test_a_port_that_nobody_listens_on_is_a_failure(unused_tcp_port: int, rate: float) -> None:
    connections = 0 if rate else 1
    result = await Run(job(unused_tcp_port, connections=connections, requests=0, seconds=0.05, rate=rate)).measure()
    assert result.answered == 0 and result.failed >= 1 and result.error.startswith("no connection")


class Nowhere(asyncio.Transport):
    """What is written is gone."""

    def write(self, data: object) -> None:
        pass


@pytest.mark.parametrize("chunks", [None, 2])
def test_an_answer_may_come_byte_by_byte(chunks: int | None) -> None:
    ends: list[str] = []
    connection = load.Connection(job(1, chunks=chunks), Samples(), lambda _, error: ends.append(error))
    connection.connection_made(Nowhere())
    connection.send()
    events = b"".join(framed(b"data: %s\n\n" % text) for text in (b"@1@", b"@2@", b"[DONE]"))
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + events + b"0\r\n\r\n"
    for at in range(len(whole)):
        assert ends == []
        connection.data_received(whole[at : at + 1])
    assert ends == [""]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 1000])
def test_who_relays_a_stream_may_frame_it_as_he_likes(size: int) -> None:
    ends: list[str] = []
    connection = load.Connection(job(1, chunks=2), Samples(), lambda _, error: ends.append(error))
    connection.connection_made(Nowhere())
    connection.send()
    events = b"".join(b"data: %s\n\n" % text for text in (b"@1@", b"@2@", b"[DONE]"))
    frames = b"".join(framed(events[at : at + size]) for at in range(0, len(events), size))
    connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + frames + b"0\r\n\r\n")
    assert ends == [""]


@pytest.mark.parametrize("done", [True, False])
async def test_a_stream_that_is_not_whole_is_a_failure(upstream: ScriptedUpstream, done: bool) -> None:
    async def play(received: Received, wire: Wire) -> None:
        await wire.events({"content": "@1@"}, {"content": "@2@"}, done=done)

    upstream.play = play
    result = await failing(upstream, chunks=3 if done else 2)
    assert (result.answered, result.failed) == (0, 1)
    assert result.error == ("2 of 3 chunks" if done else "2 of 2 chunks, no [DONE]")


def test_percentiles_are_samples() -> None:
    assert percentiles([]) == (0.0, 0.0)
    assert percentiles([3.0]) == (3.0, 3.0)
    assert percentiles([float(number) for number in range(101, 0, -1)]) == (51.0, 100.0)
