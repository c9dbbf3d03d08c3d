"""One connection that speaks HTTP/1.1 as a client: a request goes out, its answer comes in, then the next.

Nothing is started, set or cancelled per call: no task, and one alarm a connection that looks, when it rings,
whether the time has been put off since.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict, istr

LINE_BYTES = 64 * 1024
HEAD_BYTES = 256 * 1024
# So much of an answer may wait for its reader, give or take one read; then the upstream has to wait.
UNREAD_BYTES = 256 * 1024
# A larger body is not copied to stand behind its head in one write.
_ONE_WRITE_BYTES = 64 * 1024
_NAMES_KEPT = 1024
_NAME_LENGTH_KEPT = 64


class Disconnected(ConnectionError):
    """The connection ended before the answer did."""


class NotUnderstood(ValueError):
    """What came is no answer to what was asked, or more than we take."""


class Incoming:
    """The answer to one request, as far as it has come.

    `begun`: a byte of it has come. `headed`: its head is complete, and `status`, `reason` and `headers` are set.
    `over`: nothing more will come, because the end is there or, where `error` is set, because it broke off.
    """

    __slots__ = (
        "_connection",
        "begun",
        "error",
        "headed",
        "headers",
        "over",
        "pieces",
        "reason",
        "status",
        "unread",
        "waiter",
    )

    status: int
    reason: str
    headers: CIMultiDict[str]

    def __init__(self, connection: "Connection") -> None:
        self.begun = False
        self.headed = False
        self.over = False
        self.error: Exception | None = None
        self.pieces: list[bytes] = []
        self.unread = 0
        self.waiter: asyncio.Future[None] | None = None
        self._connection = connection

    @property
    def ended(self) -> bool:
        """Whether the end of the body has come and all of it was taken."""
        return self.over and self.error is None and not self.pieces

    async def head(self, due: float) -> None:
        """Waits for the head, until `due` on the loop's clock.

        Raises TimeoutError, Disconnected, NotUnderstood and HttpParserError.
        """
        while not self.headed:
            if self.error is not None:
                raise self.error
            await self._news(due)

    async def read(self, within_s: float) -> bytes:
        """All that waits, or else what comes next; empty at the end. Raises as `head` does, behind what came."""
        while not self.pieces:
            if self.error is not None:
                raise self.error
            if self.over:
                return b""
            await self._news(self._connection.time() + within_s)
        return self.take()

    def take(self) -> bytes:
        """All that waits; to be called only where `pieces` holds something."""
        pieces = self.pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self.unread > UNREAD_BYTES and not self.over:
            self._connection.go_on()
        self.unread = 0
        return piece

    def wake(self) -> None:
        """Tells who waits that there is news."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def _news(self, due: float) -> None:
        self.waiter = self._connection.waiter(due)
        try:
            await self.waiter
        except BaseException:
            self.close()
            raise
        finally:
            self.waiter = None

    def close(self) -> None:
        """Lets go; where the end has not come, the connection ends."""
        if not self.over:
            self._connection.fail(Disconnected("the answer was let go"))


class Connection(asyncio.Protocol):
    """`on_free` is called whenever the next request may be sent, `on_lost` once, when the connection is gone.

    An alarm never rings later than its time, but up to every `looks_every_s` seconds.
    """

    __slots__ = (
        "_alarm",
        "_bare_bytes",
        "_complete",
        "_due",
        "_fault",
        "_fields",
        "_incoming",
        "_is_head",
        "_keeps",
        "_looks_every_s",
        "_loop",
        "_on_free",
        "_on_lost",
        "_parser",
        "_paused",
        "_reason",
        "_rings_at",
        "_transport",
        "freed_at",
        "time",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
        looks_every_s: float,
    ) -> None:
        self.time = loop.time
        self.freed_at = 0.0
        self._loop = loop
        self._on_free = on_free
        self._on_lost = on_lost
        self._looks_every_s = looks_every_s
        self._transport = cast("asyncio.Transport", None)
        self._incoming: Incoming | None = None
        self._paused = False
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_at = inf
        self._due = inf
        # Of the answer that is coming
        self._is_head = False
        # Since the last piece of a body: a head, or what in a body is none of it.
        self._bare_bytes = 0
        self._reason = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._complete = False
        self._keeps = False
        self._fault: Exception | None = None
        self._parser: HttpResponseParser | None = self._new_parser()

    def _new_parser(self) -> HttpResponseParser:
        parser = HttpResponseParser(self)
        # What aiohttp's client allows, and nothing that makes it unclear where an answer ends.
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        return parser

    @property
    def is_open(self) -> bool:
        return self._parser is not None and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes, *, is_head: bool) -> Incoming:
        """Hands a request to the transport. `is_head`: of a HEAD request, whose answer has no body."""
        incoming = self._incoming = Incoming(self)
        self._is_head = is_head
        self._bare_bytes = 0
        self._reason = b""
        self._fields = []
        self._complete = self._keeps = False
        if len(body) <= _ONE_WRITE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return incoming

    def waiter(self, due: float) -> asyncio.Future[None]:
        """Something to wait for, until `due` on the loop's clock."""
        self._due = due
        if due < self._rings_at:
            self._set_alarm(self._loop.time())
        return self._loop.create_future()

    def go_on(self) -> None:
        """Reads on, after the reader has caught up."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def fail(self, error: Exception) -> None:
        """Ends the connection and, with this error, the answer that is coming."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.error = error
            incoming.over = True
            incoming.wake()
        self.abort()

    def abort(self) -> None:
        """Ends the connection at once; what was not sent yet never is."""
        if self._parser is not None and self._transport is not None:
            self._transport.abort()

    # The alarm

    def _set_alarm(self, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings_at = min(self._due, now + self._looks_every_s)
        self._alarm = self._loop.call_at(self._rings_at, self._look)

    def _look(self) -> None:
        self._alarm = None
        self._rings_at = inf
        incoming = self._incoming
        if incoming is None or incoming.waiter is None or incoming.waiter.done():
            return
        now = self._loop.time()
        if now < self._due:
            self._set_alarm(now)
        else:
            self.fail(TimeoutError())

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        if incoming is None or self._parser is None:
            # Nobody asked: what it would be taken for is the answer to the next request.
            self.abort()
            return
        incoming.begun = True
        self._bare_bytes += len(data)
        try:
            if self._is_head:
                self._feed_head_alone(data)
            else:
                self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._complete:
                self.fail(self._fault or error)
                return
            self._keeps = False
        if self._complete:
            self._finish(incoming)
        elif incoming.pieces:
            self._bare_bytes = 0
            incoming.unread += len(data)
            if incoming.unread > UNREAD_BYTES:
                self._hold()
            incoming.wake()
        elif self._bare_bytes > HEAD_BYTES:
            self.fail(NotUnderstood("too large"))
        elif incoming.headed:
            incoming.wake()

    def _feed_head_alone(self, data: bytes) -> None:
        """The parser cannot be told that no body follows, and would wait for it: it gets line by line."""
        parser = cast("HttpResponseParser", self._parser)
        at = 0
        while at < len(data) and not self._complete:
            end = data.find(b"\n", at) + 1 or len(data)
            parser.feed_data(data[at:end])
            at = end
        if self._complete:
            self._parser = self._new_parser()
            self._keeps = self._keeps and at == len(data)

    def _hold(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        incoming = self._incoming
        if incoming is not None and incoming.headed and _ends_with_connection(incoming.headers):
            self._keeps = False
            self._finish(incoming)
        else:
            self.fail(Disconnected("the other end has closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        # It holds this connection in turn.
        self._parser = None
        error = Disconnected("the connection was lost")
        error.__cause__ = exc
        self.fail(error)
        if self._alarm is not None:
            self._alarm.cancel()
        self._on_lost(self)

    def _finish(self, incoming: Incoming) -> None:
        self._incoming = None
        incoming.over = True
        incoming.wake()
        if self._keeps and not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            self.go_on()
            self._on_free(self)
        else:
            self.abort()

    # From the parser

    def on_message_begin(self) -> None:
        if self._complete:
            self._stop(NotUnderstood("something behind the end"))

    def on_status(self, reason: bytes) -> None:
        self._reason += reason
        if len(self._reason) > LINE_BYTES:
            self._stop(NotUnderstood("too large"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._complete and not cast("Incoming", self._incoming).headed:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser, incoming = cast("HttpResponseParser", self._parser), cast("Incoming", self._incoming)
        status = parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                self._stop(NotUnderstood(f"status {status}"))
            # Another head follows.
            self._fields = []
            self._reason = b""
            return
        incoming.status = status
        incoming.reason = self._reason.decode("utf-8", "surrogateescape")
        incoming.headers = self._headers()
        incoming.headed = True
        if self._is_head:
            self._complete = True
            self._keeps = parser.should_keep_alive()

    def _headers(self) -> CIMultiDict[str]:
        fields = self._fields
        if self._bare_bytes > LINE_BYTES:
            sizes = [len(name) + len(value) for name, value in fields]
            if sum(sizes) > HEAD_BYTES or max(sizes, default=0) > LINE_BYTES:
                self._stop(NotUnderstood("too large"))
        headers = CIMultiDict(
            [
                (_names.get(name) or _named(name), value.rstrip(b" \t").decode("utf-8", "surrogateescape"))
                for name, value in fields
            ]
        )
        if "\0" in "".join(headers.values()):
            self._stop(NotUnderstood("a NUL in a header"))
        return headers

    def on_body(self, piece: bytes) -> None:
        cast("Incoming", self._incoming).pieces.append(piece)

    def on_message_complete(self) -> None:
        if cast("Incoming", self._incoming).headed:
            self._complete = True
            self._keeps = cast("HttpResponseParser", self._parser).should_keep_alive()

    def _stop(self, fault: Exception) -> Any:
        """Lets the parser fail, which gives out an error of its own."""
        self._fault = fault
        raise fault


_names: dict[bytes, istr] = {}


def _named(name: bytes) -> istr:
    text = istr(name.rstrip(b" \t").decode("utf-8", "surrogateescape"))
    if len(_names) < _NAMES_KEPT and len(name) <= _NAME_LENGTH_KEPT:
        _names[name] = text
    return text


def _ends_with_connection(headers: CIMultiDict[str]) -> bool:
    codings = ",".join(headers.getall("Transfer-Encoding", ()))
    return "Content-Length" not in headers and codings.rpartition(",")[2].strip().lower() != "chunked"
