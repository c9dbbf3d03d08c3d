"""Whatever an upstream streams, the client gets the same bytes, but for the usage chunk that we asked for."""

import asyncio
import gzip
import hashlib
import json
import logging
import random
import re
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import brotli
import pytest
import zstandard

from tests.conftest import KEY, Gateway, StartGateway
from tests.fakes.client import RawClient, raw_client, soon, unchunked
from tests.fakes.upstream import USAGE_CHUNK, Received, ScriptedUpstream, Wire, chunk
from tests.soak.conftest import Figures, HowLong
from tests.soak.evidence import difference, rows, without_usage_chunks

# The same address a second time, and not asked for usage.
PLAIN_TOO = '[[upstreams]]\nname = "plain"\nbase_url = "{url}/v1"\ninject_usage = false\n'
STORE = "commit_wait_ms = 60000\nmax_content_mb = 1"

CHAT_PATHS = ["/v1/chat/completions", "/api/chat/completions", "/v1/completions"]
OTHER_PATHS = ["/v1/responses", "/v1/messages", "/v1/other"]
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
HUGE = 5_000_000

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=1),
    "zstd": zstandard.compress,
    "x-unheard-of": lambda data: data[::-1],
}


@dataclass(frozen=True)
class Stream:
    """One call: what the client asks for, what the upstream sends, and how."""

    seed: int
    path: str
    model: str
    options: str  # what the request says of stream_options, as JSON text
    status: int
    content_type: str
    encoding: str
    framing: str  # chunked, length, close
    pieces: str  # whole, bytes, small, large, events
    blocks: tuple[bytes, ...]

    @property
    def request(self) -> bytes:
        return f'{{"model":"{self.model}","stream":true{self.options}}}'.encode()

    @cached_property
    def body(self) -> bytes:
        plain = b"".join(self.blocks)
        return COMPRESS[self.encoding](plain) if self.encoding else plain

    @property
    def expected(self) -> bytes:
        is_asked_for = self.path in CHAT_PATHS and self.model == "m" and "true" not in self.options
        is_readable = not self.encoding and self.content_type.lower().startswith("text/event-stream")
        return without_usage_chunks(self.body) if is_asked_for and is_readable else self.body


# Streams of any kind


def any_stream(seed: int) -> Stream:
    rnd = random.Random(seed)
    blocks = [rnd.choice(BLOCKS)(rnd) for _ in range(rnd.choice([0, 1, 3, 8, 20]))]
    if rnd.random() < 0.1:
        blocks.insert(0, b"\xef\xbb\xbf")
    if rnd.random() < 0.7:
        blocks.insert(rnd.randint(0, len(blocks)), usage_alone(rnd))
    if rnd.random() < 0.7:
        blocks += [done(rnd) for _ in range(rnd.choice([1, 1, 1, 2]))]
        blocks += [rnd.choice(BLOCKS)(rnd) for _ in range(rnd.choice([0, 0, 0, 2]))]
    if seed % 250 == 0:
        blocks.insert(rnd.randint(0, len(blocks)), huge(rnd))
    return Stream(
        seed,
        path=rnd.choice(CHAT_PATHS * 3 + OTHER_PATHS),
        model=rnd.choice(["m", "m", "m", "plain/m"]),
        options=rnd.choice(["", "", "", ',"stream_options":null', *(OPTIONS % b for b in ("true", "false"))]),
        status=rnd.choice([200] * 9 + [429]),
        content_type=rnd.choice(["text/event-stream"] * 8 + ["Text/Event-Stream; charset=utf-8", "text/plain"]),
        encoding=rnd.choice([""] * 12 + list(COMPRESS)),
        framing=rnd.choice(["chunked", "chunked", "length", "close"]),
        pieces=rnd.choice(["whole", "bytes", "small", "small", "large", "large", "events", "events"]),
        blocks=tuple(blocks),
    )


OPTIONS = ',"stream_options":{"include_usage":%s}'


def text(rnd: random.Random) -> str:
    return rnd.choice(
        ["", "Hi", 'data: [DONE]\n\n{"usage":{"a":1},"choices":[]}', "é\u2028\x85\u0000", "\ud800", "x" * 300]
    )


def written(rnd: random.Random, value: Any) -> bytes:
    """JSON as this or that upstream writes it."""
    style: dict[str, Any] = rnd.choice([{}, {}, {"separators": (",", ":")}, {"ensure_ascii": False}, {"indent": 1}])
    return json.dumps(value, **style).encode("utf-8", "surrogatepass")


def ends(rnd: random.Random) -> Callable[[], bytes]:
    """Line ends, all the same or mixed."""
    one = rnd.choice([b"\n", b"\n", b"\n", b"\r\n", b"\r", None])
    return lambda: rnd.choice([b"\n", b"\r\n", b"\r"]) if one is None else one


def event(rnd: random.Random, data: bytes, *before: bytes) -> bytes:
    """An event with its data lines, and fields and comments around them."""
    end = ends(rnd)
    space = rnd.choice([b" ", b" ", b""])
    lines = [*before, *(b"data:" + space + line for line in data.split(b"\n"))]
    while rnd.random() < 0.15:
        extra = [b"id: 7", b"event: x", b"retry: 10", b": note", b"unknown: y", b"data", b"nonsense", b":", b"id"]
        lines.insert(rnd.randint(0, len(lines)), rnd.choice(extra))
    return b"".join(line + end() for line in lines) + end()


def chat_event(rnd: random.Random) -> bytes:
    more: dict[str, Any] = rnd.choice(
        [{}, {"usage": None}, {"usage": USAGE}, {"x_unknown": {"usage": {}}}, {"error": None}]
    )
    delta = rnd.choice([{"role": "assistant", "content": ""}, {"content": text(rnd)}, {}, {"reasoning": text(rnd)}])
    return event(rnd, written(rnd, chunk(delta, **more)))


def usage_alone(rnd: random.Random) -> bytes:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "usage": USAGE}
    value: dict[str, Any] = rnd.choice(
        [{**base, "choices": []}, {"choices": [], **base}, base, {**base, "choices": None}]
    )
    return event(rnd, written(rnd, value))


def near_usage(rnd: random.Random) -> bytes:
    """Looks like the usage chunk and is not."""
    almost = [
        {"choices": [], "usage": None},
        {"choices": []},
        {"choices": [], "usage": USAGE, "error": {"message": "no"}},
        {"choices": [], "response": {"usage": USAGE}},
        [{"choices": [], "usage": USAGE}],
    ]
    return event(
        rnd, rnd.choice([written(rnd, rnd.choice(almost)), b'{"choices":[],"usage":{"a":1}', b'{"usage":{}} x'])
    )


def response_event(rnd: random.Random) -> bytes:
    kind = rnd.choice(["response.created", "response.output_text.delta", "response.completed"])
    value = {"type": kind, "delta": text(rnd), "response": {"model": "m", "usage": USAGE, "output": []}}
    return event(rnd, written(rnd, value), b"event: " + kind.encode())


def message_event(rnd: random.Random) -> bytes:
    kind = rnd.choice(["message_start", "content_block_delta", "message_delta", "message_stop", "ping"])
    value = {"type": kind, "index": 0, "delta": {"type": "text_delta", "text": text(rnd)}, "message": {"usage": USAGE}}
    return event(rnd, written(rnd, value), b"event: " + kind.encode())


def garbage(rnd: random.Random) -> bytes:
    return rnd.choice(
        [rnd.randbytes(rnd.randint(1, 60)), b"data: \xff\xfe{}\n\n", b"\x00", b"<html>", b"[DONE]", b"data: [1"]
    )


def blank(rnd: random.Random) -> bytes:
    return rnd.choice([b"\n", b"\r\n\r\n", b"\r", b"data:\n\n", b": ping\n\n", b":\r\r", b"event: x\n\n"])


def done(rnd: random.Random) -> bytes:
    return event(rnd, rnd.choice([b"[DONE]", b"[DONE]", b"[DONE] "]))


def huge(rnd: random.Random) -> bytes:
    """A line of 5 MB: a comment, a delta, or a field that nobody knows."""
    long = b"x" * HUGE
    return rnd.choice(
        [b": " + long + b"\n\n", long + b"\n\n", event(rnd, written(rnd, chunk({"content": long.decode()})))]
    )


BLOCKS = [chat_event] * 8 + [near_usage, near_usage, usage_alone, response_event, message_event, garbage, blank, blank]


# Over the wire


def in_pieces(stream: Stream) -> list[bytes]:
    body, rnd = stream.body, random.Random(stream.seed)
    if stream.pieces == "events":
        return re.split(rb"(?<=\n\n)(?!\Z)", body) if body else []
    longest = {"whole": len(body), "bytes": 1, "small": 16, "large": 2000}[stream.pieces]
    # Bytes by themselves, but not five million of them.
    longest = max(longest, len(body) // 2000, 1)
    pieces, at = [], 0
    while at < len(body):
        size = longest if stream.pieces in ("whole", "bytes") else rnd.randint(1, longest)
        pieces.append(body[at : at + size])
        at += size
    return pieces


async def sent(stream: Stream, wire: Wire) -> None:
    """The upstream's side of a stream."""
    rnd = random.Random(stream.seed)
    framing = {
        "chunked": {"Transfer-Encoding": "chunked"},
        "length": {"Content-Length": str(len(stream.body))},
        "close": {"Connection": "close"},
    }
    encoding = {"Content-Encoding": stream.encoding} if stream.encoding else {}
    await wire.head(stream.status, {"Content-Type": stream.content_type, **framing[stream.framing], **encoding})
    is_paced = rnd.random() < 0.7
    for piece in in_pieces(stream):
        if stream.framing == "chunked":
            extension = b";x=y" if rnd.random() < 0.05 else b""
            piece = b"%X%s\r\n%s\r\n" % (len(piece), extension, piece)
        await wire.send(piece)
        if is_paced:
            # The gateway gets to read what has come so far.
            await asyncio.sleep(0)
    if stream.framing == "chunked":
        await wire.end_chunks()
    if stream.framing == "close":
        wire.close()


class Calls:
    """Makes calls over connections that are kept, and remembers their spans' ids."""

    def __init__(self, gateway: Gateway, upstream: ScriptedUpstream) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._streams: dict[str, Stream] = {}
        self._next = 0
        self.log_ids: list[str] = []
        self.bytes = 0
        upstream.play = self._play

    async def _play(self, received: Received, wire: Wire) -> None:
        self._upstream.requests.clear()
        if stream := self._streams.get(received.headers["X-Call"]):
            await sent(stream, wire)

    async def problem(self, client: RawClient, stream: Stream) -> str:
        """Makes one call: what is wrong with what the client got, if anything."""
        self._next += 1
        number = str(self._next)
        self._streams[number] = stream
        try:
            await client.post(stream.path, stream.request, f"X-Call: {number}")
            got = await client.read_answer()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            del self._streams[number]
        self.log_ids.append(client.headers["X-Respan-Log-Id"])
        self.bytes += len(got)
        expected = stream.expected
        if client.status != stream.status:
            return f"status {client.status}, not {stream.status}: {got[:500]!r}"
        if hashlib.sha256(got).digest() != hashlib.sha256(expected).digest():
            return difference(got, expected)
        return ""

    async def problem_alone(self, stream: Stream) -> str:
        """The same over a connection of its own."""
        async with raw_client(self._gateway.url, KEY) as client:
            return await self.problem(client, stream)

    async def all(self, streams: list[Stream], at_once: int) -> None:
        """Makes the calls, several at once; fails with the smallest stream that goes wrong."""
        left = iter(streams)

        async def one_by_one() -> None:
            async with raw_client(self._gateway.url, KEY) as client:
                for stream in left:
                    if problem := await self.problem(client, stream):
                        smallest = await shrunk(stream, self.problem_alone)
                        pytest.fail(
                            f"{problem}\nfor seed {stream.seed}; smallest that fails by itself: {smallest!r:.9000}"
                        )

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(one_by_one())


async def shrunk(stream: Stream, problem: Callable[[Stream], Awaitable[str]]) -> Stream:
    """Leaves out blocks for as long as what is left still fails."""
    size = len(stream.blocks)
    while size:
        for at in range(0, len(stream.blocks), size):
            shorter = replace(stream, blocks=stream.blocks[:at] + stream.blocks[at + size :])
            if await problem(shorter):
                stream = shorter
                break
        else:
            size //= 2
    return stream


async def test_the_client_gets_the_bytes_that_the_upstream_sent(
    start_gateway: StartGateway,
    upstream: ScriptedUpstream,
    how_long: HowLong,
    figures: Figures,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = await start_gateway(PLAIN_TOO.format(url=upstream.url), store=STORE)
    calls = Calls(gateway, upstream)
    for number in how_long.rounds(stride=20, long=100):
        await calls.all([any_stream(100 * number + one) for one in range(100)], at_once=16)
    assert sorted(row["unique_id"] for row in rows(gateway.path, "unique_id")) == sorted(calls.log_ids)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    figures(streams=len(calls.log_ids), bytes=calls.bytes, changed=0, without_span=0)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
async def test_the_usage_chunk_is_kept_back_wherever_it_is_cut(
    start_gateway: StartGateway, upstream: ScriptedUpstream, end: str, figures: Figures
) -> None:
    hello, usage, bye, last = (
        f"data: {data}{end}{end}".encode()
        for data in (json.dumps(chunk({"content": "Hello"})), json.dumps(USAGE_CHUNK), '{"choices":[{}]}', "[DONE]")
    )
    read = asyncio.Event()
    cut_at = 0

    async def play(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(hello + usage[:cut_at])
        await soon(read.wait())
        await wire.chunk(usage[cut_at:] + bye, last)
        await wire.end_chunks()

    upstream.play = play
    gateway = await start_gateway()
    for cut_at in range(1, len(usage)):
        read.clear()
        async with raw_client(gateway.url, KEY) as client:
            await client.post(CHAT_PATHS[0], b'{"model":"m","stream":true}')
            await client.read_head()
            await client.read_until(hello + b"\r\n")
            read.set()
            await client.read_until(b"\r\n0\r\n\r\n")
        assert unchunked(client.body) == (hello + bye + last, True), f"cut at byte {cut_at}"
    figures(cuts=len(usage) - 1, changed=0)
