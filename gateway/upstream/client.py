"""An upstream over HTTP: what is sent, what is tried again, and what errors are called."""

from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from httptools import HttpParserError, HttpParserUpgrade

from gateway.errors import UpstreamCut, UpstreamError, UpstreamTimedOut, UpstreamUnreachable
from gateway.upstream.connections import Connections
from gateway.upstream.dial import CannotConnect, Dialer, origin_of, tls_context
from gateway.upstream.http1 import Disconnected, Incoming
from gateway.upstream.request_head import RequestHead
from gateway.upstream.wire import Answer, Request

# Idle connections are dropped before most servers drop them (nginx: 75 s, uvicorn and Node: 5 s).
_IDLE_KEPT_S = 4.0
# A server that had let go of a connection says so within a round trip; one that took the request works on it for
# longer, and would do it, and be paid for it, twice.
_LOST_AT_ONCE_S = 0.5
# What may be sent twice whatever became of it (RFC 9110, section 9.2.2).
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

# All that this leg raises on its own: TimeoutError and ssl.SSLError are OSErrors, UnicodeError is a ValueError.
FAILURES = (OSError, HttpParserError, HttpParserUpgrade, ValueError, CannotConnect)


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
        origin = origin_of(address.base_url)
        proxy = origin_of(address.proxy) if address.proxy else None
        # A file that holds no certificate is found out now, whether it is needed or not.
        needs_tls = origin.is_tls or (proxy is not None and proxy.is_tls) or address.ca_file is not None
        context = tls_context(address.ca_file) if needs_tls else None
        self._head = RequestHead(address.base_url, address.own_headers, origin, proxy)
        self._connect_within_s = min(address.connect_timeout_s, address.timeout_s)
        self._connections = Connections(
            Dialer(origin, proxy, context), _IDLE_KEPT_S, min(address.timeout_s, address.idle_timeout_s)
        )

    async def send(self, request: Request) -> Answer:
        """Sends the request and waits for the head of the answer. Raises UpstreamError.

        What was sent on a pooled connection that turns out to be dead, before a byte came back, is sent once more on a
        fresh one: a POST only where that connection was lost at once.
        """
        try:
            head = self._head.of(request)
            due = self._due()
            connection = self._connections.take()
            if connection is not None:
                sent_at = monotonic()
                incoming = connection.send(head, request.body, is_head=request.method == "HEAD")
                try:
                    return await self._answered(incoming, request, due)
                except Disconnected:
                    was_lost_at_once = monotonic() - sent_at <= _LOST_AT_ONCE_S
                    if incoming.begun or not (was_lost_at_once or request.method in _IDEMPOTENT):
                        raise
                due = self._due()
            connection = await self._connections.open(self._connect_within_s)
            incoming = connection.send(head, request.body, is_head=request.method == "HEAD")
            return await self._answered(incoming, request, due)
        except FAILURES as error:
            raise translated(error, self.name, UpstreamUnreachable) from error

    async def close(self) -> None:
        await self._connections.close()

    def _due(self) -> float:
        # The loop's clock; to ask for the loop itself takes a system call in Python 3.11.
        return monotonic() + self._address.timeout_s

    async def _answered(self, incoming: Incoming, request: Request, due: float) -> Answer:
        try:
            request.on_sent()
            await incoming.head(due)
        except BaseException:
            incoming.close()
            raise
        return _HttpAnswer(self.name, incoming, self._address.idle_timeout_s)


class _HttpAnswer:
    __slots__ = ("_idle_timeout_s", "_incoming", "_upstream", "headers", "reason", "status")

    def __init__(self, upstream: str, incoming: Incoming, idle_timeout_s: float) -> None:
        self._upstream = upstream
        self._incoming = incoming
        self._idle_timeout_s = idle_timeout_s
        self.status = incoming.status
        self.reason = incoming.reason
        self.headers = incoming.headers

    @property
    def ended(self) -> bool:
        return self._incoming.ended

    @property
    def ready(self) -> bool:
        return self._incoming.over or bool(self._incoming.pieces)

    async def read(self) -> bytes:
        try:
            return await self._incoming.read(self._idle_timeout_s)
        except FAILURES as error:
            raise translated(error, self._upstream, UpstreamCut) from error

    def close(self) -> None:
        self._incoming.close()


def translated(error: Exception, upstream: str, otherwise: type[UpstreamError]) -> UpstreamError:
    """What went wrong as one of our errors, in words that hold no URL, header or key."""
    if isinstance(error, TimeoutError):
        return UpstreamTimedOut(f"The upstream {upstream} took too long.")
    if isinstance(error, CannotConnect):
        return UpstreamUnreachable(f"The upstream {upstream} cannot be reached: {error}.")
    what = "broke off its answer" if otherwise is UpstreamCut else "did not answer in HTTP or hung up"
    return otherwise(f"The upstream {upstream} {what} ({type(error).__name__}).")
