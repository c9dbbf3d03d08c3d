"""An upstream over HTTP. The only module that knows aiohttp's client and its exceptions."""

import asyncio
import os
import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from gateway.core import headers as header_rules
from gateway.errors import UpstreamCut, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream.wire import Answer, Request

# Idle connections are dropped before most servers drop them (nginx: 75 s, uvicorn and Node: 5 s).
_IDLE_KEPT_S = 4.0
_HEADER_BYTES = 64 * 1024
_NEVER_ADDED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})

# The body is in memory already and goes out in one write; aiohttp advises a file for those over 1 MB.
warnings.filterwarnings("ignore", "Sending a large body directly", ResourceWarning)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an HTTP upstream is and how long it may take (seconds)."""

    base_url: str
    own_headers: dict[str, str]
    timeout_s: float
    idle_timeout_s: float
    connect_timeout_s: float
    proxy: str | None = None
    ca_file: Path | None = None


class HttpUpstream:
    """Keeps a pool of connections to one address."""

    def __init__(self, name: str, models: tuple[str, ...] | None, address: Address, *, inject_usage: bool) -> None:
        self.name = name
        self.models = models
        self.inject_usage = inject_usage
        self._address = address
        self._base_url = address.base_url.rstrip("/")
        tls = ssl.create_default_context(cafile=str(address.ca_file)) if address.ca_file else True
        self._pooled = self._session(aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_KEPT_S, ssl=tls))
        self._fresh = self._session(aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls))

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_on_reuse)
        trace.on_request_headers_sent.append(_on_sent)
        return aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NEVER_ADDED,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._address.connect_timeout_s),
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            trace_configs=[trace],
        )

    async def send(self, request: Request) -> Answer:
        """Sends the request and waits for the head of the answer. Raises UpstreamError.

        A pooled connection that turns out to be dead before a byte came back is tried once more on a fresh one.
        """
        attempt = _Attempt(request.on_sent)
        try:
            return await self._attempt(self._pooled, request, attempt)
        except UpstreamUnreachable as error:
            if not attempt.reused or not _died_idle(error.__cause__):
                raise
        return await self._attempt(self._fresh, request, _Attempt(request.on_sent))

    async def _attempt(self, session: aiohttp.ClientSession, request: Request, attempt: "_Attempt") -> Answer:
        address = self._address
        headers = header_rules.to_upstream(request.headers, streamed=request.streamed, own=address.own_headers)
        has_body = bool(request.body) or request.method not in _WITHOUT_BODY
        with _translated(self.name, UpstreamUnreachable):
            async with asyncio.timeout(address.timeout_s):
                response = await session.request(
                    request.method,
                    URL(self._base_url + request.path_qs, encoded=True),
                    headers=headers,
                    data=request.body if has_body else None,
                    allow_redirects=False,
                    proxy=address.proxy,
                    trace_request_ctx=attempt,
                )
        return _HttpAnswer(self.name, response, address.idle_timeout_s)

    async def close(self) -> None:
        await self._pooled.close()
        await self._fresh.close()


class _HttpAnswer:
    def __init__(self, upstream: str, response: aiohttp.ClientResponse, idle_timeout_s: float) -> None:
        self._upstream = upstream
        self._response = response
        self._idle_timeout_s = idle_timeout_s
        self.status = response.status
        self.reason = response.reason or ""
        self.headers = CIMultiDict(response.headers)
        self._ends_with_connection = (
            "Content-Length" not in self.headers
            and "chunked" not in self.headers.get("Transfer-Encoding", "").lower()
            and response.method != "HEAD"
            and self.status not in (204, 304)
        )
        self._watched = self._watch()

    async def read(self) -> bytes:
        content = self._response.content
        with _translated(self._upstream, UpstreamCut):
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    piece = await content.readany()
                    if not piece and self._ends_with_connection:
                        await self._look_how_it_ended()
                    return piece
            except (aiohttp.ClientError, HttpProcessingError):
                # aiohttp tells of the end before it gives what came until then.
                if rest := content._read_nowait(-1):
                    return rest
                raise

    def _watch(self) -> asyncio.Future[None] | None:
        """aiohttp leaves a reader waiting where the framing of a body breaks: sees to it that it hears of the end."""
        connection = self._response.connection
        if connection is None or connection.protocol is None:
            return None
        closed = connection.protocol.closed
        if closed is None:
            self._end_if_open()
        else:
            closed.add_done_callback(self._end_if_open)
            # Once a connection, not once an answer: a connection serves many.
            closed.remove_done_callback(_look_at)
            closed.add_done_callback(_look_at)
        return closed

    async def _look_how_it_ended(self) -> None:
        """Where the end of the connection ends the body, a reset is no end (RFC 9112, section 8)."""
        if self._watched is not None:
            await asyncio.wait([self._watched])
            if not self._watched.cancelled() and (error := self._watched.exception()) is not None:
                raise aiohttp.ClientPayloadError("the connection was reset") from error

    def _end_if_open(self, _: object = None) -> None:
        content = self._response.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection was closed"))

    def close(self) -> None:
        if self._watched is not None:
            self._watched.remove_done_callback(self._end_if_open)
        # After the end of the body the connection is back in its pool, and this does nothing.
        self._response.close()


def _look_at(closed: asyncio.Future[None]) -> None:
    """How a connection ended is told by its answers; asyncio would log what nobody has looked at."""
    if not closed.cancelled():
        closed.exception()


@dataclass(slots=True)
class _Attempt:
    on_sent: Callable[[], None]
    reused: bool = False


async def _on_reuse(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.reused = True


async def _on_sent(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    context.trace_request_ctx.on_sent()


def _died_idle(error: BaseException | None) -> bool:
    """Whether a reused connection ended before a byte of the answer came."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        # Where part of a head has come, it stands in the place of the text.
        return isinstance(error.message, str)
    return isinstance(error, aiohttp.ClientOSError)


@contextmanager
def _translated(upstream: str, otherwise: type[UpstreamError]) -> Iterator[None]:
    """Turns whatever aiohttp raises into our errors, in words that hold no URL, header or key."""
    try:
        yield
    except (TimeoutError, aiohttp.ServerTimeoutError) as error:
        raise UpstreamTimedOut(f"The upstream {upstream} took too long.") from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamUnreachable(f"The upstream {upstream} cannot be reached: {_reason(error)}.") from error
    except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
        what = "broke off its answer" if otherwise is UpstreamCut else "did not answer in HTTP or hung up"
        raise otherwise(f"The upstream {upstream} {what} ({type(error).__name__}).") from error


def _reason(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error.os_error, ssl.SSLError):
        return "it does not speak TLS as we do"
    return os.strerror(error.os_error.errno) if error.os_error.errno else type(error.os_error).__name__
