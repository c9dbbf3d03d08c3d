"""What a connection makes of the bytes that come, in whatever pieces, and of how they end. There is no socket here."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.upstream import http1
from gateway.upstream.http1 import Connection, Disconnected, Incoming, NotUnderstood


class FakeLoop:
    """A clock that a test moves, and the alarms set on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.set = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, ring: Callable[[], None]) -> Any:
        self.set += 1
        alarm = (when, ring)
        self.alarms.append(alarm)
        return _Handle(self.alarms, alarm)

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.Future(loop=cast("Any", self))

    def get_debug(self) -> bool:
        return False

    def move_to(self, now: float) -> None:
        self.now = now
        for alarm in [alarm for alarm in self.alarms if alarm[0] <= now]:
            self.alarms.remove(alarm)
            alarm[1]()


class _Handle:
    def __init__(self, alarms: list[Any], alarm: Any) -> None:
        self._alarms = alarms
        self._alarm = alarm

    def cancel(self) -> None:
        if self._alarm in self._alarms:
            self._alarms.remove(self._alarm)


class FakeTransport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.waiting = 0
        self.closing = False
        self.paused = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        # As uvloop has it.
        assert not self.closing
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert not self.closing
        assert self.paused
        self.paused = False


class Exchange:
    """A connection that has sent a request."""

    def __init__(self, *, is_head: bool = False) -> None:
        self.loop = FakeLoop()
        self.transport = FakeTransport()
        self.free: list[Connection] = []
        self.lost: list[Connection] = []
        self.connection = Connection(cast("Any", self.loop), self.free.append, self.lost.append, 120)
        self.connection.connection_made(cast("Any", self.transport))
        self.incoming = self.again(is_head=is_head)

    def again(self, *, is_head: bool = False) -> Incoming:
        self.incoming = self.connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", is_head=is_head)
        return self.incoming

    def feed(self, *pieces: bytes) -> "Exchange":
        """As a transport does: nothing after it was closed."""
        for piece in pieces:
            if piece and not self.transport.closing:
                self.connection.data_received(piece)
        return self

    def end(self, how: str) -> "Exchange":
        if how == "fin" and not self.transport.closing:
            self.connection.eof_received()
        self.connection.connection_lost(ConnectionResetError() if how == "rst" else None)
        return self

    @property
    def body(self) -> bytes:
        return b"".join(self.incoming.pieces)

    @property
    def is_kept(self) -> bool:
        return bool(self.free) and not self.transport.closing

    def told(self) -> tuple[Any, ...]:
        """All that there is to be known of the answer."""
        incoming = self.incoming
        if not incoming.headed:
            return (False, incoming.over, type(incoming.error))
        return (
            incoming.status,
            incoming.reason,
            list(incoming.headers.items()),
            self.body,
            incoming.over,
            type(incoming.error),
            self.is_kept,
        )


def fed(*pieces: bytes, is_head: bool = False) -> Exchange:
    return Exchange(is_head=is_head).feed(*pieces)


def split(wire: bytes, cuts: Iterable[int]) -> list[bytes]:
    at = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    return [wire[start:stop] for start, stop in itertools.pairwise(at)]


# Whatever the pieces

# Of an answer, what is body and what is not.
Parts = Sequence[tuple[bytes, bool]]


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    return b"".join(b"%s\r\n" % line for line in (b"HTTP/1.1 " + status, *lines)) + b"\r\n"


def chunked(*chunks: bytes, trailers: bytes = b"", extension: bytes = b"") -> Parts:
    parts: list[tuple[bytes, bool]] = [(head(b"Transfer-Encoding: chunked"), False)]
    for chunk in chunks:
        parts += [(b"%x%s\r\n" % (len(chunk), extension), False), (chunk, True), (b"\r\n", False)]
    return [*parts, (b"0\r\n%s\r\n" % trailers, False)]


def measured(body: bytes) -> Parts:
    return [(head(b"Content-Length: %d" % len(body)), False), (body, True)]


def until_closed(body: bytes) -> Parts:
    return [(head(b"X-A: 1"), False), (body, True)]


def wire_of(parts: Parts) -> bytes:
    return b"".join(piece for piece, _ in parts)


def body_in(parts: Parts, size: int) -> bytes:
    """The body in the first bytes of the answer."""
    body = b""
    for piece, is_body in parts:
        if is_body:
            body += piece[:size]
        size = max(0, size - len(piece))
    return body


EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
values = st.binary(max_size=30).map(lambda value: bytes(byte for byte in value if byte not in b"\r\n\0").strip(b" \t"))
names = st.sampled_from([b"X-A", b"x-a", b"X-Long-Name", b"Retry-After", b"Set-Cookie"])
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
answers = st.builds(
    lambda lines, body, framing, early, extension: (early, lines, body, framing, extension),
    st.lists(st.tuples(names, values), max_size=5),
    bodies,
    st.sampled_from(["chunked", "measured", "until closed"]),
    st.sampled_from([b"", EARLY]),
    st.sampled_from([b"", b";a=b", b" "]),
)


@given(answers, st.lists(st.integers(min_value=0, max_value=2000), max_size=60))
def test_any_split_of_an_answer_is_the_same_answer(answer: Any, cuts: list[int]) -> None:
    early, lines, chunks, framing, extension = answer
    body = b"".join(chunks)
    framed = {
        "chunked": lambda: chunked(*chunks, trailers=b"X-Trailer: t\r\n", extension=extension),
        "measured": lambda: measured(body),
        "until closed": lambda: until_closed(body),
    }[framing]()
    more = b"".join(b"%s: %s\r\n" % line for line in lines)
    wire = early + wire_of(framed).replace(b"\r\n", b"\r\n" + more, 1)
    whole, pieces = fed(wire), fed(*split(wire, cuts))
    if framing == "until closed":
        for exchange in (whole, pieces):
            assert not exchange.incoming.over
            exchange.connection.eof_received()
    assert pieces.told() == whole.told()
    incoming = pieces.incoming
    assert (incoming.status, incoming.reason, pieces.body) == (200, "OK", body)
    got = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in incoming.headers.items()]
    assert got[: len(lines)] == lines
    assert pieces.is_kept == (framing != "until closed")
    assert incoming.error is None
    for exchange in (whole, pieces):
        exchange.end("fin")


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0, max_value=300), max_size=20))
def test_nonsense_is_an_error_and_never_an_answer(nonsense: bytes, cuts: list[int]) -> None:
    exchange = fed(*split(b"!" + nonsense, cuts)).end("fin")
    assert not exchange.incoming.headed
    assert exchange.incoming.error is not None


RECORDED = {
    "chunked": chunked(b"data: one\n\n", b"data: two\n\n", b"x" * 300, trailers=b"X-T: 1\r\n", extension=b";e=1"),
    "measured": measured(b'{"a": "0123456789"}'),
    "until closed": until_closed(b"data: one\n\n"),
    "behind others": [(EARLY, False), *measured(b"ok")],
}


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("by_byte", [False, True])
@pytest.mark.parametrize("name", RECORDED)
def test_a_cut_at_any_byte(name: str, by_byte: bool, how: str) -> None:
    parts = RECORDED[name]
    wire = wire_of(parts)
    head_size = wire.rindex(b"HTTP/1.1") + wire[wire.rindex(b"HTTP/1.1") :].index(b"\r\n\r\n") + 4
    for size in range(len(wire) + 1):
        pieces = [wire[at : at + 1] for at in range(size)] if by_byte else [wire[:size]]
        exchange = fed(*pieces).end(how)
        incoming = exchange.incoming
        assert incoming.headed == (size >= head_size)
        assert incoming.begun == (size > 0)
        assert exchange.body == body_in(parts, size)
        ends = size == len(wire) if name != "until closed" else size >= head_size and how == "fin"
        assert incoming.over
        assert (incoming.error is None) == ends
        assert isinstance(incoming.error, Disconnected | None)
        assert exchange.lost == [exchange.connection]


# What is no answer


@pytest.mark.parametrize(
    "wire",
    [
        head(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n",
        head(b"Transfer-Encoding: chunked", b"Content-Length: 2") + b"2\r\nok\r\n0\r\n\r\n",
        head(b"Content-Length: 2", b"Content-Length: 3") + b"ok!",
        head(b"Content-Length: 2, 2") + b"ok",
        head(b"Content-Length: -2") + b"ok",
        head(b"Content-Length: 0x2") + b"ok",
        head(b"Content-Length: 99999999999999999999999") + b"ok",
        head(b"Bad Name: 1", b"Content-Length: 2") + b"ok",
        head(b"NoColon", b"Content-Length: 2") + b"ok",
        head(b"X-A: a\0b", b"Content-Length: 2") + b"ok",
        head(b"X-A: a\rX-B: b", b"Content-Length: 2") + b"ok",
        head(b"Content-Length: 2", status=b"099 Low") + b"ok",
        head(b"Content-Length: 2", status=b"20 Short") + b"ok",
        head(status=b"101 Switching Protocols"),
        head(b"Connection: Upgrade", b"Upgrade: h2c", status=b"101 Switching Protocols") + b"PRI * HTTP/2.0",
        b"HTTP/3.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ],
)
def test_what_is_no_answer_is_an_error_at_once(wire: bytes) -> None:
    for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        exchange = fed(*pieces)
        assert not exchange.incoming.headed
        assert exchange.incoming.error is not None
        assert not isinstance(exchange.incoming.error, Disconnected)
        assert exchange.transport.closing


@pytest.mark.parametrize(
    ("wire", "headers", "body"),
    [
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", {}, b"ok"),
        (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", {}, b"ok"),
        (b"HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 2\n\nok", {"X-A": "1"}, b"ok"),
        (head(b"X-A: a", b"  b", b"Content-Length: 2") + b"ok", {"X-A": "a  b"}, b"ok"),
        (head(b"X-A:1 \t", b"X-B:", b"Content-Length: 2") + b"ok", {"X-A": "1", "X-B": ""}, b"ok"),
        (head(b"X-A: \x01\x7f", b"Content-Length: 2") + b"ok", {"X-A": "\x01\x7f"}, b"ok"),
        (head(b"X-A: \xe9", b"Content-Length: 2") + b"ok", {"X-A": "\udce9"}, b"ok"),
        (head(b"X-A: \xc3\xa9", b"Content-Length: 2") + b"ok", {"X-A": "é"}, b"ok"),
        (head(b"Content-Length : 2") + b"ok", {"Content-Length": "2"}, b"ok"),
        (head(b"Transfer-Encoding: gzip, Chunked") + b"2 \r\nok\r\n0\r\n\r\n", {}, b"ok"),
        (head(b"Content-Length: 2", b"Connection: Upgrade", b"Upgrade: h2,h2c") + b"ok", {}, b"ok"),
        (b"\r\n\r\n" + head(b"Content-Length: 2") + b"ok", {}, b"ok"),
    ],
)
def test_what_is_odd_passes(wire: bytes, headers: dict[str, str], body: bytes) -> None:
    exchange = fed(wire)
    assert exchange.incoming.ended is False
    assert (exchange.incoming.status, exchange.body, exchange.incoming.error) == (200, body, None)
    assert {name: exchange.incoming.headers[name] for name in headers} == headers
    assert exchange.is_kept


def test_where_the_framing_breaks_what_came_before_is_given() -> None:
    wire = head(b"Transfer-Encoding: chunked") + b"3\r\none\r\n3\r\ntwo\r\nno hex\r\n"
    for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        exchange = fed(*pieces)
        assert (exchange.incoming.status, exchange.body) == (200, b"onetwo")
        assert exchange.incoming.over
        assert exchange.incoming.error is not None
        assert exchange.incoming.take() == b"onetwo"
        assert not exchange.incoming.ended


# Limits


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 " + b"x" * http1.HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\n" + b"x" * http1.HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * http1.HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * (http1.HEAD_BYTES // 8),
        b"HTTP/1.1 100 Continue\r\n\r\n" * (http1.HEAD_BYTES // 25 + 1),
    ],
    ids=["reason", "name", "value", "lines", "heads"],
)
def test_a_head_without_an_end(endless: bytes) -> None:
    exchange = fed(*(endless[at : at + 1000] for at in range(0, len(endless), 1000)))
    assert isinstance(exchange.incoming.error, NotUnderstood)
    assert exchange.transport.closing


@pytest.mark.parametrize("by", [1000, 10**6])
def test_how_large_a_head_may_be(by: int) -> None:
    def told(*lines: bytes, status: bytes = b"200 OK") -> Exception | None:
        wire = head(*lines, b"Content-Length: 0", status=status)
        return fed(*(wire[at : at + by] for at in range(0, len(wire), by))).incoming.error

    longest = b"x" * (http1.LINE_BYTES - 3)
    assert told(b"X-A: " + longest) is None
    assert isinstance(told(b"X-A: " + longest + b"x"), NotUnderstood)
    assert told(status=b"200 " + b"x" * http1.LINE_BYTES) is None
    assert isinstance(told(status=b"200 " + b"x" * (http1.LINE_BYTES + 1)), NotUnderstood)
    assert told(*[b"X-A: " + longest] * 3) is None
    assert isinstance(told(*[b"X-A: " + longest] * 5), NotUnderstood)


@pytest.mark.parametrize("extra", [b"0\r\nX-T: ", b"1;"], ids=["trailer", "extension"])
def test_what_of_a_body_is_none_has_a_limit(extra: bytes) -> None:
    exchange = fed(head(b"Transfer-Encoding: chunked"), extra)
    for _ in range(http1.HEAD_BYTES // 1000 + 1):
        exchange.feed(b"x" * 1000)
    assert isinstance(exchange.incoming.error, NotUnderstood)


def test_an_upstream_waits_for_a_reader_that_does_not_read() -> None:
    exchange = fed(head())
    size = 0
    while not exchange.transport.paused:
        size += 1000
        assert size <= http1.UNREAD_BYTES + 1000
        exchange.feed(b"x" * 1000)
    assert http1.UNREAD_BYTES < size <= http1.UNREAD_BYTES + 1000
    # TLS may still give what it has decrypted.
    exchange.feed(b"x" * 1000)
    assert len(exchange.incoming.take()) == size + 1000
    assert not exchange.transport.paused
    exchange.feed(b"more")
    assert exchange.incoming.take() == b"more"
    assert not exchange.transport.paused


def test_a_connection_that_was_made_to_wait_reads_on_with_its_next_request() -> None:
    size = http1.UNREAD_BYTES + 1000
    exchange = fed(head(b"Content-Length: %d" % size), b"x" * (size - 1))
    assert exchange.transport.paused
    exchange.feed(b"x")
    assert exchange.is_kept
    assert not exchange.transport.paused
    assert len(exchange.incoming.take()) == size
    assert exchange.incoming.ended


# The next request

OK = head(b"Content-Length: 2") + b"ok"


@pytest.mark.parametrize(
    ("wire", "is_kept"),
    [
        (OK, True),
        (head(b"Content-Length: 0"), True),
        (head(b"Content-Length: 2", b"Connection: close") + b"ok", False),
        (head(b"Content-Length: 2", b"connection: Keep-Alive, Close") + b"ok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", True),
        (wire_of(chunked(b"ok", trailers=b"X-T: 1\r\n")), True),
        (head(status=b"204 No Content"), True),
        (head(b"Content-Length: 9", status=b"304 Not Modified"), True),
        (EARLY + OK, True),
        (OK + b"x", False),
        (OK + OK, False),
        (wire_of(chunked(b"ok")) + b"0\r\n\r\n", False),
        (head(b"Content-Length: 9", status=b"304 Not Modified") + b"123456789", False),
    ],
)
def test_which_connections_are_used_again(wire: bytes, is_kept: bool) -> None:
    for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        exchange = fed(*pieces)
        assert exchange.incoming.over
        assert exchange.incoming.error is None
        assert exchange.is_kept == is_kept
        if is_kept:
            exchange.again()
            exchange.feed(OK)
            assert (exchange.incoming.status, exchange.body) == (200, b"ok")
            assert len(exchange.free) == 2


@pytest.mark.parametrize(
    ("wire", "is_kept"),
    [
        (head(b"Content-Length: 10"), True),
        (head(b"Content-Length: 0"), True),
        (EARLY + head(b"Content-Length: 10"), True),
        (head(b"Transfer-Encoding: chunked"), True),
        (head(b"Content-Length: 10") + b"0123456789", False),
        (head(b"Content-Length: 10", b"Connection: close"), False),
        (head(status=b"204 No Content"), True),
    ],
)
def test_an_answer_to_head_has_no_body(wire: bytes, is_kept: bool) -> None:
    for pieces in ([wire], [wire[at : at + 1] for at in range(len(wire))]):
        exchange = fed(*pieces, is_head=True)
        assert (exchange.incoming.headed, exchange.incoming.ended) == (True, True)
        assert exchange.is_kept == is_kept
        if is_kept:
            exchange.again()
            exchange.feed(OK)
            assert (exchange.body, exchange.is_kept) == (b"ok", True)


def test_one_whose_request_is_still_being_written_is_not_used_again() -> None:
    exchange = Exchange()
    exchange.transport.waiting = 1
    exchange.feed(OK)
    assert (exchange.body, exchange.incoming.error, exchange.is_kept) == (b"ok", None, False)


@pytest.mark.parametrize("what", ["bytes", "fin", "rst"])
def test_one_that_says_something_unasked_is_thrown_away(what: str) -> None:
    exchange = fed(OK)
    if what == "bytes":
        exchange.feed(b"H")
    else:
        exchange.end(what)
    assert not exchange.connection.is_open
    assert (exchange.body, exchange.incoming.error) == (b"ok", None)


def test_letting_go_of_an_answer_that_has_ended_leaves_the_next_one_alone() -> None:
    exchange = fed(OK)
    earlier = exchange.incoming
    exchange.again()
    earlier.close()
    exchange.feed(OK)
    assert exchange.is_kept
    exchange.again().close()
    assert exchange.transport.closing


def test_head_and_body_go_out_in_one_write_where_they_are_small() -> None:
    exchange = Exchange()
    for size in (0, 10, 64 * 1024, 30 * 1024 * 1024):
        exchange.transport.written.clear()
        body = b"x" * size
        exchange.connection.send(b"HEAD", body, is_head=False)
        assert b"".join(exchange.transport.written) == b"HEAD" + body
        assert len(exchange.transport.written) == (1 if size <= 64 * 1024 else 2)
    assert exchange.transport.written[-1] is body


# The alarm


def test_an_alarm_is_set_once_for_many_waits_and_rings_at_the_last_ones_time() -> None:
    exchange = Exchange()
    loop, connection = exchange.loop, exchange.connection
    for now in range(100):
        loop.now = float(now)
        exchange.incoming.waiter = connection.waiter(now + 120.0)
    assert loop.set == 1
    loop.move_to(120.0)
    assert (exchange.incoming.over, loop.set) == (False, 2)
    loop.move_to(218.9)
    assert not exchange.incoming.over
    loop.move_to(219.0)
    assert isinstance(exchange.incoming.error, TimeoutError)
    assert exchange.transport.closing
    exchange.end("fin")
    assert loop.alarms == []


def test_an_alarm_is_brought_forward_for_an_earlier_time() -> None:
    exchange = Exchange()
    exchange.incoming.waiter = exchange.connection.waiter(600.0)
    exchange.incoming.waiter = exchange.connection.waiter(20.0)
    exchange.loop.move_to(20.0)
    assert isinstance(exchange.incoming.error, TimeoutError)
    exchange.end("fin")


def test_an_alarm_that_nobody_waits_for_does_nothing_and_is_not_set_again() -> None:
    exchange = Exchange()
    exchange.incoming.waiter = exchange.connection.waiter(100.0)
    exchange.feed(OK)
    assert exchange.incoming.waiter.done()
    exchange.loop.move_to(200.0)
    assert exchange.is_kept
    assert exchange.loop.alarms == []
    exchange.end("fin")


def test_headers_are_a_dict_in_which_repeated_ones_stay_repeated() -> None:
    headers = fed(head(b"X-A: 1", b"x-a: 2", b"Content-Length: 0")).incoming.headers
    assert isinstance(headers, CIMultiDict)
    assert headers.getall("X-A") == ["1", "2"]
    assert [str(name) for name, _ in headers.items()] == ["X-A", "x-a", "Content-Length"]
