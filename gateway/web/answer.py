"""An upstream's answer on its way to a client: written to the connection as it comes, in aiohttp's place.

aiohttp's StreamResponse costs as much as the whole way to the upstream, writes the head by itself, and leaves out
header bytes that are no UTF-8.
"""

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import cast

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion10, HttpVersion11
from multidict import CIMultiDict

# So much may be written before the next write waits for a slow client.
_UNSENT_BYTES = 64 * 1024
_WITHOUT_BODY = frozenset({204, 304})
_LAST_CHUNK = b"0\r\n\r\n"


class RelayedAnswer:
    """To aiohttp, which looks at nothing else of an answer, what `prepare`, `write_eof` and `keep_alive` say."""

    __slots__ = ("_head", "_is_chunked", "_is_over", "_omits_body", "_protocol", "_unsent", "keep_alive")

    def __init__(self, request: web.BaseRequest, status: int, reason: str, headers: CIMultiDict[str]) -> None:
        """`headers` become those of the answer, with what this connection needs beside them."""
        is_old = request.version == HttpVersion10
        self._protocol = cast("BaseProtocol", request.protocol)
        self._omits_body = request.method == "HEAD" or status in _WITHOUT_BODY
        self._is_chunked = False
        self.keep_alive = request.keep_alive
        if not self._omits_body and "Content-Length" not in headers:
            self._is_chunked = request.version >= HttpVersion11
            # An old client is told the end by the end of the connection.
            self.keep_alive = self.keep_alive and self._is_chunked
        if status == 204:
            headers.popall("Content-Length", None)
        if self._is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        if "Date" not in headers:
            headers["Date"] = _date(int(time.time()))
        if self.keep_alive == is_old:
            headers["Connection"] = "keep-alive" if self.keep_alive else "close"
        first = f"HTTP/1.{0 if is_old else 1} {status} {reason or _phrase(status)}"
        fields = [f"{name}: {value}" for name, value in headers.items()]
        # As it came: what is no UTF-8 came in by the same way.
        self._head = "\r\n".join((first, *fields, "", "")).encode("utf-8", "surrogateescape")
        self._is_over = False
        self._unsent = 0

    async def prepare(self, request: web.BaseRequest) -> None:
        """The head goes out with `flush` or what follows it."""

    async def flush(self) -> None:
        """Sends the head now, where the body lets wait. Raises ConnectionError, as all that follow do."""
        if self._head:
            await self._send(self._take_head())

    async def write(self, piece: bytes) -> None:
        """Sends a piece of the body, the first one with the head; waits while the client is slow."""
        if self._omits_body or not piece:
            return
        await self._send(self._take_head() + (b"%x\r\n%s\r\n" % (len(piece), piece) if self._is_chunked else piece))

    async def write_eof(self) -> None:
        """Ends the answer as complete; the second time nothing happens."""
        if self._is_over:
            return
        self._is_over = True
        if rest := self._take_head() + (_LAST_CHUNK if self._is_chunked else b""):
            await self._send(rest)

    async def write_last(self, piece: bytes) -> None:
        """The last piece and the end, in one go."""
        if self._omits_body or not piece:
            await self.write_eof()
            return
        self._is_over = True
        rest = b"%x\r\n%s\r\n%s" % (len(piece), piece, _LAST_CHUNK) if self._is_chunked else piece
        await self._send(self._take_head() + rest)

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        return head

    async def _send(self, data: bytes) -> None:
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)
        self._unsent += len(data)
        if self._unsent > _UNSENT_BYTES:
            self._unsent = 0
            await self._protocol._drain_helper()


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


@lru_cache
def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
