"""A real local server that plays a script: bytes on a real socket, in the order and pieces that a test says."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from multidict import CIMultiDict


@dataclass
class Received:
    """One request as it arrived."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes
    connection: int

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """The upstream's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes | str) -> None:
        """Each piece by itself; the gateway may still read several at once."""
        for piece in pieces:
            self._writer.write(piece.encode() if isinstance(piece, str) else piece)
            await self._writer.drain()

    async def head(self, status: int = 200, headers: dict[str, str] | None = None, reason: str = "OK") -> None:
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        await self.send("\r\n".join(lines) + "\r\n\r\n")

    async def stream_head(self, headers: dict[str, str] | None = None) -> None:
        """The head of a chunked event stream."""
        await self.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **(headers or {})})

    async def chunk(self, *pieces: bytes | str) -> None:
        """HTTP chunks, one a piece."""
        for piece in pieces:
            data = piece.encode() if isinstance(piece, str) else piece
            await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end_chunks(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """A whole JSON answer."""
        body = json.dumps(value).encode()
        await self.head(
            status, {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        )
        await self.send(body)

    async def events(self, *events: Any, done: bool = True) -> None:
        """A whole event stream: each event's JSON, then [DONE]."""
        await self.stream_head()
        await self.chunk(*(f"data: {json.dumps(event)}\n\n" for event in events))
        if done:
            await self.chunk("data: [DONE]\n\n")
        await self.end_chunks()

    async def gone(self) -> None:
        """Waits until the gateway has closed its end."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass

    def finish(self) -> None:
        """FIN, after what was sent; the gateway may still send."""
        self._writer.write_eof()

    def close(self) -> None:
        """FIN, after what was sent."""
        self._writer.close()

    def abort(self) -> None:
        """RST."""
        found: socket.socket = self._writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Received, Wire], Awaitable[None]]


@dataclass
class ScriptedUpstream:
    """`play` answers each request; set it to whatever a test needs. `requests` holds all that came."""

    play: Script
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**26, ssl=tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            while (received := await _read_request(reader, number)) is not None:
                self.requests.append(received)
                await self.play(received, Wire(reader, writer))
                if writer.is_closing():
                    return
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = CIMultiDict(tuple(line.split(": ", 1)) for line in lines if line)
    length = int(headers.get("Content-Length", "0"))
    return Received(method, target, headers, await reader.readexactly(length), connection)


COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One `chat.completion.chunk` with one choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": more.pop("finish_reason", None)}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [choice],
        **more,
    }


USAGE_CHUNK = {**chunk({}), "choices": [], "usage": COMPLETION["usage"]}


async def answer_chat(received: Received, wire: Wire) -> None:
    """The default script: a chat completion, streamed where that is asked for."""
    body = received.json()
    if not body.get("stream"):
        await wire.json(COMPLETION)
        return
    usage = [USAGE_CHUNK] if (body.get("stream_options") or {}).get("include_usage") else []
    await wire.events(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hello"}),
        chunk({"content": " there"}),
        chunk({}, finish_reason="stop"),
        *usage,
    )
