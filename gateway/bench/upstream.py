"""An upstream that costs next to nothing: what it answers stands in the name of the model.

`bench-whole-BYTES` is a completion of about that size; `bench-stream-CHUNKS-GAP` a stream of so many chunks, GAP
milliseconds apart (0: as fast as the client takes them). Each chunk carries the time at which it was sent.

python -m gateway.bench.upstream: prints its port and serves until it is ended.
"""

import asyncio
import json
import re
import time
from functools import lru_cache
from typing import cast

import uvloop

_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_model = re.compile(rb"bench-(whole|stream)-(\d+)(?:-(\d+))?")
_USAGE = {"prompt_tokens": 250, "completion_tokens": 250, "total_tokens": 500}
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def framed(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@lru_cache
def whole_answer(size: int) -> bytes:
    """A chat completion of about `size` bytes, with its head."""
    message = {"role": "assistant", "content": "", "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    answer = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "bench",
        "choices": [choice],
        "usage": _USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_bench",
    }
    words = "The quick brown fox jumps over the lazy dog. "
    room = max(0, size - len(json.dumps(answer)))
    message["content"] = (words * (room // len(words) + 1))[:room]
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return (head + "x-request-id: req_bench\r\nopenai-processing-ms: 5\r\n\r\n").encode() + body


def _chunk(delta: str, more: str = '"finish_reason":null}]') -> bytes:
    head = '{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    return f'data: {head}"choices":[{{"index":0,"delta":{delta},"logprobs":null,{more}}}\n\n'.encode()


_FIRST = framed(_chunk('{"role":"assistant","content":"","refusal":null}'))
_TIMED = _chunk('{"content":"@%d@"}')
_LAST = framed(_chunk("{}", '"finish_reason":"stop"}]'))
_WITH_USAGE = framed(
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[],'
    b'"usage":%s}\n\n' % json.dumps(_USAGE).encode()
)
_END = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client's connection; one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._come = b""
        self._paused = False
        self._waiting: tuple[int, float, bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._come = self._come + data if self._come else data
        end = self._come.find(b"\r\n\r\n")
        if end < 0:
            return
        found = _length.search(self._come, 0, end)
        size = end + 4 + (int(found[1]) if found else 0)
        if len(self._come) < size:
            return
        body, self._come = self._come[end + 4 : size], self._come[size:]
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        model = _model.search(body)
        if model is None:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif model[1] == b"whole":
            self._transport.write(whole_answer(int(model[2])))
        else:
            self._transport.write(_STREAM_HEAD + _FIRST)
            self._go_on(int(model[2]), int(model[3] or 0) / 1000, b"include_usage" in body)

    def _go_on(self, left: int, gap_s: float, with_usage: bool) -> None:
        if self._transport.is_closing():
            return
        if self._paused:
            self._waiting = (left, gap_s, with_usage)
            return
        if left == 0:
            self._transport.write(_LAST + (_WITH_USAGE if with_usage else b"") + _END)
            return
        self._transport.write(framed(_TIMED % time.monotonic_ns()))
        if gap_s:
            self._loop.call_later(gap_s, self._go_on, left - 1, gap_s, with_usage)
        else:
            self._loop.call_soon(self._go_on, left - 1, gap_s, with_usage)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._go_on(*waiting)


async def serve() -> None:
    """Serves on a free port of this machine, and prints it."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
