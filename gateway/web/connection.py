"""A client's connection: how much of our time and memory it may take. What is no request yet is refused here."""

import asyncio
import fcntl
import logging
import struct
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import inf
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

from gateway.core import secrets
from gateway.core.jsontext import dump

log = logging.getLogger(__name__)

# A byte apart: the parser tells which limit a line broke, but not whether it was the first line.
LINE_BYTES = 64 * 1024
FIELD_BYTES = LINE_BYTES + 1
FIELDS = 128
# Give or take what comes in one read.
HEAD_BYTES = 256 * 1024
# Between two requests of a connection.
_IDLE_S = 75.0
# How long one that was refused may go on sending: hung up on while it does, it might lose our answer.
_LINGER_S = 1.0
# How many may do so of those for whom there is no room; the others are hung up on at once.
LINGERING_AT_MOST = 64
# How often a write that waits is looked at within the time that it may wait.
_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take; times in seconds."""

    max_connections: int
    head_timeout_s: float
    write_timeout_s: float


@dataclass(slots=True)
class Door:
    """The connections of one server: those that are in, and those that were turned away and have not left yet.

    `bound_by` says what sets `max_connections`.
    """

    limits: Limits
    bound_by: str
    inside: "set[Connection]" = field(default_factory=set)
    lingering: "set[Connection]" = field(default_factory=set)
    was_full: bool = False


class BrokenBody(TimeoutError):
    """The rest of a body cannot be read.

    To aiohttp a timeout: it passes over those where it waits for the rest of a body that nobody reads.
    """


class Connection(web.RequestHandler):
    """aiohttp's connection within our limits.

    Each alarm is set once and looks, when it rings, whether its time has been put off since: nothing is set or
    cancelled per request or per write.
    """

    __slots__ = (
        "_door",
        "_has_begun",
        "_head_alarm",
        "_head_bytes",
        "_head_due",
        "_is_refused",
        "_left",
        "_pauses",
        "_stalled_at",
        "_wire",
        "_write_alarm",
    )

    def __init__(self, manager: web.Server, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=_IDLE_S,
            access_log=cast("Any", None),
            max_line_size=LINE_BYTES,
            max_field_size=FIELD_BYTES,
            max_headers=FIELDS,
            auto_decompress=False,
        )
        self._parser = cast("Any", _Parser(self._parser, self._on_broken))
        self._door = door
        self._has_begun = False
        self._is_refused = False
        # aiohttp's `transport` is None from where it closes it; bytes may wait to be written even then.
        self._wire = cast("asyncio.Transport", None)
        self._head_alarm: asyncio.TimerHandle | None = None
        self._head_due = inf
        self._head_bytes = 0
        self._write_alarm: asyncio.TimerHandle | None = None
        self._pauses = 0
        self._left = (0, 0)
        self._stalled_at = 0.0

    async def start(self) -> None:
        self._has_begun = True
        await super().start()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)
        if len(self._door.inside) >= self._door.limits.max_connections:
            self._turn_away()
            return
        self._door.inside.add(self)
        super().connection_made(transport)
        # Writing is then paused whenever something waits to be written, also behind the end of an answer.
        self._wire.set_write_buffer_limits(high=0)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._door.inside.discard(self)
        self._door.lingering.discard(self)
        for alarm in (self._head_alarm, self._write_alarm):
            if alarm is not None:
                alarm.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            # It has its answer, and may go on sending until it has read it.
            return
        super().data_received(data)
        if not self._is_waiting():
            self._head_due = inf
            self._head_bytes = 0
        elif data:
            self._on_part_of_head(len(data))

    def finish(self) -> None:
        """Ends after the request under way; at once where there is none."""
        waits = self._is_waiting()
        self.close()
        if waits:
            self.force_close()

    def leave_unread(self) -> None:
        """Ends after the answer under way, without waiting for the rest of the request's body."""
        self.close()
        self._lingering_time = 0.0

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Our handlers answer every error; what gets here is a client that left, or a mistake in how we answer."""
        if not isinstance(exc, ConnectionError):
            log.error("Unexpected error at %s %s\n%s", request.method, request.path, secrets.trace(exc))
        raise ConnectionError("there is no answer to be sent")

    def _is_waiting(self) -> bool:
        """Whether the next thing to come is a request's head."""
        if self._has_begun:
            return self._waiter is not None and not self._waiter.done()
        return not self._messages

    # What comes in

    def _await_head(self) -> None:
        self._head_due = self._loop.time() + self._door.limits.head_timeout_s
        if self._head_alarm is None:
            self._head_alarm = self._loop.call_at(self._head_due, self._look_at_head)

    def _on_part_of_head(self, size: int) -> None:
        if self._head_bytes == 0:
            self._await_head()
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"The request's head is larger than {HEAD_BYTES // 1024} KB.", "head_too_large")

    def _look_at_head(self) -> None:
        self._head_alarm = None
        if self._loop.time() < self._head_due:
            if self._head_due < inf:
                self._head_alarm = self._loop.call_at(self._head_due, self._look_at_head)
        elif self._head_bytes == 0:
            self.force_close()
        else:
            within = f"{self._door.limits.head_timeout_s:g} s ([server] head_timeout_s)"
            self._refuse(408, f"The request's head was not complete within {within}.", "request_timeout")

    def _process_keepalive(self) -> None:
        # A head that is awaited or has begun has a time of its own.
        if self._head_due == inf:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None

    def _on_broken(self, error: HttpProcessingError, body: StreamReader) -> None:
        """`body` is that of the last request that came."""
        if not body.is_eof():
            # aiohttp lets the handler wait for the rest.
            body.set_exception(BrokenBody())
            self.leave_unread()
        elif self._is_waiting():
            self._refuse(*_told(error))
        else:
            # It stands behind a request that is being answered.
            self.close()

    # What goes out

    def pause_writing(self) -> None:
        super().pause_writing()
        self._pauses += 1
        if self._write_alarm is None:
            self._watch_writing()

    def _watch_writing(self) -> None:
        left = (self._pauses, self._wire.get_write_buffer_size() + _unread_by_client(self._wire))
        now = self._loop.time()
        if left != self._left:
            self._left, self._stalled_at = left, now
        elif now - self._stalled_at >= self._door.limits.write_timeout_s:
            self._wire.abort()
            return
        self._write_alarm = self._loop.call_later(self._door.limits.write_timeout_s / _LOOKS, self._look_at_writing)

    def _look_at_writing(self) -> None:
        self._write_alarm = None
        if self._paused:
            self._watch_writing()

    # Refusals

    def _turn_away(self) -> None:
        at_most = self._door.limits.max_connections
        lingers = len(self._door.lingering) < LINGERING_AT_MOST
        if lingers:
            self._door.lingering.add(self)
        full = f"All {at_most} connections are taken ({self._door.bound_by})"
        if not self._door.was_full:
            log.warning("%s: clients are turned away. This is said once.", full)
            self._door.was_full = True
        self._refuse(503, f"{full}: try again soon.", "too_many_connections", ("Retry-After: 1",))
        if not lingers:
            self._wire.close()

    def _refuse(self, status: int, message: str, code: str, headers: Sequence[str] = ()) -> None:
        """Answers what is no request yet, and hangs up."""
        self._is_refused = True
        self.close()
        self._head_due = inf
        self._wire.write(_refusal(status, message, code, headers))
        self._wire.write_eof()
        if self._head_alarm is not None:
            self._head_alarm.cancel()
        self._head_alarm = self._loop.call_later(_LINGER_S, self._wire.abort)


class _Parser:
    """aiohttp's parser, whose errors do not become requests of aiohttp's own making."""

    def __init__(self, parser: Any, on_broken: Callable[[HttpProcessingError, StreamReader], None]) -> None:
        self._parser = parser
        self._feed = parser.feed_data
        self._on_broken = on_broken
        self._body: StreamReader = EMPTY_PAYLOAD

    def feed_data(self, data: bytes) -> Any:
        try:
            fed = self._feed(data)
        except HttpProcessingError as error:
            self._on_broken(error, self._body)
            return (), False, b""
        if messages := fed[0]:
            self._body = messages[-1][1]
        return fed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def _told(error: HttpProcessingError) -> tuple[int, str, str]:
    """Status, message and code; nothing of what the client sent, which may hold a key."""
    if isinstance(error, LineTooLong):
        if error.args[1] == LINE_BYTES:
            return 414, f"The request's target is longer than {LINE_BYTES // 1024} KB.", "target_too_long"
        return 431, f"A field of the request's head is larger than {LINE_BYTES // 1024} KB.", "head_too_large"
    if type(error) is not BadHttpMessage:
        return 400, "This is no valid HTTP/1.1 request.", "malformed_request"
    # The parser's own words; behind them come the client's.
    reason = error.message.partition(":\n")[0]
    if reason.startswith("Too many headers"):
        return 431, f"The request's head has more than {FIELDS} fields.", "head_too_large"
    return 400, f"This is no valid HTTP/1.1 request: {reason.rstrip('.')}.", "malformed_request"


def _refusal(status: int, message: str, code: str, headers: Sequence[str]) -> bytes:
    """The answer where no route is known yet: readable to clients of the proxy and of the span routes."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    body = dump({"error": error, "detail": message}).encode()
    lines = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        *headers,
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def _unread_by_client(wire: asyncio.Transport) -> int:
    """How many bytes the kernel holds that the client's has not taken; 0 where it does not tell."""
    try:
        answer = fcntl.ioctl(wire.get_extra_info("socket").fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
