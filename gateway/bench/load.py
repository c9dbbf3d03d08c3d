"""Sends requests and measures the answers; a process of its own, so that it shares no GIL with what it measures.

python -m gateway.bench.load: takes a Job a line on its standard input and prints a Result a line.
"""

import asyncio
import json
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

_status = re.compile(rb"HTTP/1\.[01] (\d{3})")
_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_chunked = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
# A chunk of gateway.bench.upstream, with the time at which it was sent (monotonic ns).
_timed = re.compile(rb"@(\d+)@")
_frame = re.compile(rb"([0-9a-fA-F]+)[^\r\n]*\r\n")
# Longer than such a mark.
_REACH = 32
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"
_DONE = b"data: [DONE]"
# An answer that takes longer than this counts as failed.
_AT_MOST_S = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to send, and how often.

    `connections` send one request after the other, for `seconds` or until there were `requests` in all. With a
    `rate` (a second), requests begin at that rate instead, whether others have ended or not. `spread`: seconds over
    which the connections begin, so that they do not stay in step. `chunks`: of a stream, how many it must have to be
    whole; None for an answer in one piece.
    """

    host: str
    port: int
    head: str  # the request's head without its Content-Length
    body: str
    connections: int
    seconds: float = 0.0
    requests: int = 0
    rate: float = 0.0
    spread: float = 0.0
    chunks: int | None = None
    status: int = 200

    def request(self) -> bytes:
        """The request as it is sent."""
        body = self.body.encode()
        return f"{self.head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(slots=True)
class Result:
    """What came of a job. Times in seconds: `latency` of whole answers, `first` until a stream's first chunk, `delay`
    of a chunk since the upstream sent it, `gap` between two chunks of a stream: each p50 and p99."""

    answered: int = 0
    failed: int = 0
    seconds: float = 0.0
    chunks: int = 0
    latency: tuple[float, float] = (0.0, 0.0)
    first: tuple[float, float] = (0.0, 0.0)
    delay: tuple[float, float] = (0.0, 0.0)
    gap: tuple[float, float] = (0.0, 0.0)
    error: str = ""


@dataclass(slots=True)
class Samples:
    """What was measured so far, in seconds."""

    latency: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    delay: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One connection, one request at a time. `on_end` hears of each answer, with what was wrong with it."""

    def __init__(self, job: Job, samples: Samples, on_end: Callable[["Connection", str], None]) -> None:
        self._request = job.request()
        self._job = job
        self._samples = samples
        self._on_end = on_end
        self._reset()

    def _reset(self) -> None:
        self._busy = False
        self._head = b""
        self._missing = 0
        self._is_chunked = False
        self._tail = b""
        self._body: list[bytes] = []
        self._chunks = 0
        self._last_at = 0.0
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        """Sends the request."""
        self._reset()
        self._busy = True
        self._began = time.monotonic()
        self.transport.write(self._request)

    @property
    def overdue(self) -> bool:
        """Whether its answer takes too long."""
        return self._busy and time.monotonic() - self._began > _AT_MOST_S

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._end("the connection was closed before the answer's end")

    def data_received(self, data: bytes) -> None:
        if not self._is_chunked and not self._missing:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _length.search(self._head, 0, end)
            data = self._head[end + 4 :]
            self._is_chunked = length is None and _chunked.search(self._head, 0, end) is not None
            if length is not None:
                self._missing = int(length[1])
            elif not self._is_chunked:
                self._end(f"no answer that can be read: {self._head[:200]!r}")
                return
        if self._is_chunked:
            self._chunked_data(data)
            return
        self._missing -= len(data)
        if self._missing <= 0:
            self._end("")

    def _chunked_data(self, data: bytes) -> None:
        seen = self._tail + data
        if self._job.chunks is not None:
            self._body.append(data)
            seen = self._stream_data(seen)
        if seen.endswith(_END_OF_CHUNKS):
            self._end("")
        else:
            self._tail = seen[-_REACH:]

    def _stream_data(self, seen: bytes) -> bytes:
        """Measures the chunks in a piece of a stream; gives what is behind the last of them, which may be cut."""
        now = time.monotonic()
        at = 0
        for found in _timed.finditer(seen):
            at = found.end()
            self._samples.delay.append(now - int(found[1]) / 1e9)
            if self._chunks == 0:
                self._samples.first.append(now - self._began)
            else:
                self._samples.gap.append(now - self._last_at)
            self._last_at = now
            self._chunks += 1
        self._done = self._done or _DONE in seen
        # What was found is not found again.
        return seen[at:]

    def _end(self, error: str) -> None:
        self._busy = False
        found = _status.match(self._head)
        status = int(found[1]) if found else 0
        if not error and status != self._job.status:
            error = f"status {status}: {self._head[-300:]!r}"
        if not error and self._job.chunks is not None and (self._chunks != self._job.chunks or not self._done):
            # A mark may be cut by the frames of chunked HTTP, as whoever relays it likes to set them.
            stream = dechunked(b"".join(self._body))
            self._chunks, self._done = len(_timed.findall(stream)), _DONE in stream
        if not error and self._job.chunks is not None and (self._chunks != self._job.chunks or not self._done):
            error = f"{self._chunks} of {self._job.chunks} chunks" + ("" if self._done else ", no [DONE]")
        if not error:
            self._samples.latency.append(time.monotonic() - self._began)
        self._on_end(self, error)


class Run:
    """One job from its beginning to its end."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._samples = Samples()
        self._result = Result()
        self._begun = 0
        self._running = 0
        self._to_begin = 0
        self._idle: deque[Connection] = deque()
        self._all: list[Connection] = []
        self._ended = asyncio.Event()
        self._may_begin = True

    async def measure(self) -> Result:
        """Runs the job."""
        job = self._job
        try:
            for _ in range(job.connections):
                self._idle.append(await self._open())
        except OSError as error:
            return Result(failed=1, error=f"no connection: {error}")
        began = time.monotonic()
        watching = asyncio.create_task(self._watch())
        if job.rate:
            await self._at_rate()
        else:
            self._begin_all()
        if self._running or self._to_begin:
            await self._ended.wait()
        watching.cancel()
        result, samples = self._result, self._samples
        result.seconds = time.monotonic() - began
        result.chunks = len(samples.delay)
        result.latency, result.first = percentiles(samples.latency), percentiles(samples.first)
        result.delay, result.gap = percentiles(samples.delay), percentiles(samples.gap)
        for connection in self._all:
            connection.transport.abort()
        return result

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self._job, self._samples, self._on_end), self._job.host, self._job.port
        )
        self._all.append(connection)
        return connection

    def _begin_all(self) -> None:
        loop = asyncio.get_running_loop()
        self._to_begin = len(self._idle)
        for number, connection in enumerate(self._idle):
            if self._job.spread:
                loop.call_later(self._job.spread * number / len(self._idle), self._begin_first, connection)
            else:
                self._begin_first(connection)
        if self._job.seconds:
            loop.call_later(self._job.seconds, self._stop)

    def _begin_first(self, connection: Connection) -> None:
        self._to_begin -= 1
        if self._may_go_on() and not connection.transport.is_closing():
            self._begin(connection)
        else:
            self._end_if_all_have()

    async def _at_rate(self) -> None:
        began = time.monotonic()
        while (now := time.monotonic() - began) < self._job.seconds:
            while self._begun < now * self._job.rate:
                try:
                    self._begin(await self._free())
                except OSError as error:
                    self._begun += 1
                    self._fail(f"no connection: {error}")
            await asyncio.sleep(max(0.0, self._begun / self._job.rate - now))
        self._stop()

    async def _free(self) -> Connection:
        while self._idle:
            if not (connection := self._idle.popleft()).transport.is_closing():
                return connection
        return await self._open()

    def _may_go_on(self) -> bool:
        return self._may_begin and (not self._job.requests or self._begun < self._job.requests)

    def _begin(self, connection: Connection) -> None:
        self._begun += 1
        self._running += 1
        connection.send()

    def _stop(self) -> None:
        self._may_begin = False

    def _on_end(self, connection: Connection, error: str) -> None:
        self._running -= 1
        if error:
            self._fail(error)
        else:
            self._result.answered += 1
        if connection.transport.is_closing():
            # The others go on without it.
            pass
        elif self._job.rate:
            self._idle.append(connection)
        elif self._may_go_on():
            self._begin(connection)
        self._end_if_all_have()

    def _fail(self, error: str) -> None:
        self._result.failed += 1
        self._result.error = self._result.error or error

    def _end_if_all_have(self) -> None:
        if self._running == 0 and self._to_begin == 0 and (not self._job.rate or not self._may_begin):
            self._ended.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1)
            for connection in self._all:
                if connection.overdue:
                    connection.transport.abort()


def dechunked(body: bytes) -> bytes:
    """What chunked HTTP carries (RFC 9112, section 7.1)."""
    parts: list[bytes] = []
    at = 0
    while (frame := _frame.match(body, at)) and (size := int(frame[1], 16)):
        parts.append(body[frame.end() : frame.end() + size])
        at = frame.end() + size + len(b"\r\n")
    return b"".join(parts)


def percentiles(samples: list[float]) -> tuple[float, float]:
    """p50 and p99, by nearest rank; zeros of nothing."""
    if not samples:
        return (0.0, 0.0)
    samples.sort()
    last = len(samples) - 1
    return (samples[round(last * 0.5)], samples[round(last * 0.99)])


def main() -> None:
    """Runs jobs until standard input ends."""
    for line in sys.stdin:
        result = uvloop.run(Run(Job(**json.loads(line))).measure())
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
