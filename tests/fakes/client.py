"""A client that shows every byte: a real socket, without an HTTP library on top."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from multidict import CIMultiDict

T = TypeVar("T")

# A test that hangs ends; nothing is measured with it.
_AT_MOST_S = 20


async def soon(awaited: Awaitable[T]) -> T:
    """Waits for what must come."""
    return await asyncio.wait_for(awaited, _AT_MOST_S)


@dataclass
class RawClient:
    """One connection to a gateway."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    host: str
    key: str
    status: int = 0
    reason: str = ""
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    body: bytes = b""

    async def send_head(self, method: str, target: str, *lines: str) -> None:
        """The request's head, with the key; `lines` are further header lines."""
        head = [f"{method} {target} HTTP/1.1", f"Host: {self.host}", f"Authorization: Bearer {self.key}", *lines]
        await self.send("\r\n".join(head).encode() + b"\r\n\r\n")

    async def post(self, target: str, body: bytes, *lines: str) -> None:
        """A whole POST."""
        await self.send_head("POST", target, f"Content-Length: {len(body)}", *lines)
        await self.send(body)

    async def send(self, data: bytes) -> None:
        if self.writer.transport.is_closing():
            # uvloop says so with a RuntimeError.
            raise ConnectionResetError("The gateway has closed the connection.")
        self.writer.write(data)
        await soon(self.writer.drain())

    async def read_head(self) -> None:
        """The answer's head: into `status`, `reason` and `headers`."""
        head = (await soon(self.reader.readuntil(b"\r\n\r\n"))).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        _, status, self.reason = first.split(" ", 2)
        self.status = int(status)
        self.headers = CIMultiDict(tuple(line.split(": ", 1)) for line in lines)

    async def read_answer(self) -> bytes:
        """A whole answer by its own framing, into `body`; the connection is ready for the next request."""
        return await soon(self._read_answer())

    async def _read_answer(self) -> bytes:
        await self.read_head()
        content = bytearray()
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                content += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"
        elif "Content-Length" in self.headers:
            content += await self.reader.readexactly(int(self.headers["Content-Length"]))
        else:
            content += await self.reader.read()
        self.body = bytes(content)
        return self.body

    async def read_until(self, end: bytes) -> bytes:
        """Reads until the answer's raw body ends with `end`; the body so far."""
        while not self.body.endswith(end):
            piece = await soon(self.reader.read(65536))
            assert piece, f"the answer ended with {self.body[-200:]!r}"
            self.body += piece
        return self.body

    async def read_rest(self) -> bytes:
        """Reads until the gateway hangs up; the whole raw body."""
        with contextlib.suppress(ConnectionError):
            while piece := await soon(self.reader.read(65536)):
                self.body += piece
        return self.body

    def leave(self) -> None:
        """Hangs up at once."""
        self.writer.transport.abort()

    async def finish(self) -> None:
        """FIN, and waits until the gateway has hung up as well."""
        self.writer.write_eof()
        await self.read_rest()

    def reset(self) -> None:
        """RST."""
        found: socket.socket = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def raw_client(url: str, key: str, *, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
    """Connects; `receive_buffer` bounds what the kernel takes in for a client that does not read."""
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    # The kernel of this machine answers, whatever the loop is at.
    sock.connect((parts.hostname, parts.port))
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield RawClient(reader, writer, parts.netloc, key)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """A chunked body's content, and whether its closing chunk came."""
    content = bytearray()
    at = 0
    while at < len(body):
        start = body.index(b"\r\n", at) + 2
        length = int(body[at:start], 16)
        if length == 0:
            return bytes(content), True
        content += body[start : start + length]
        at = start + length + 2
    return bytes(content), False
