"""How a connection to an upstream is opened: its name, TCP, TLS, and a proxy on the way."""

import asyncio
import base64
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import TypeVar, cast
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs

# Between one address of a name and the next, where the first does not answer (RFC 8305).
_NEXT_ADDRESS_S = 0.25
_ADDRESSES_KEPT_S = 10.0
_PROXY_HEAD_BYTES = 64 * 1024

AddrInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]
P = TypeVar("P", bound=asyncio.Protocol)


class CannotConnect(Exception):
    """There is no connection. Its text says why, in words that hold no name, address or key."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A scheme, host and port, and what stood before them in a URL."""

    is_tls: bool
    host: str
    port: int
    # `Basic …`, where the URL holds a user.
    authorization: str | None

    @property
    def authority(self) -> str:
        """`host` or `host:port`, as Host says it."""
        return self._host if self.port == (443 if self.is_tls else 80) else f"{self._host}:{self.port}"

    @property
    def authority_with_port(self) -> str:
        """As CONNECT says it."""
        return f"{self._host}:{self.port}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def origin_of(url: str) -> Origin:
    """Raises ValueError where the URL names no host, or no port that there is."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    if not parts.hostname:
        raise ValueError("the URL names no host")
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    port = parts.port if parts.port is not None else 443 if is_tls else 80
    return Origin(is_tls, parts.hostname, port, authorization)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Raises OSError (ssl.SSLError is one) where the file holds no certificate."""
    return _system_context() if ca_file is None else _context(ca_file)


@cache
def _system_context() -> ssl.SSLContext:
    # Reading the system's certificates takes tens of milliseconds.
    return _context(None)


def _context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialer:
    """Opens connections to one origin, through a proxy where there is one."""

    def __init__(self, origin: Origin, proxy: Origin | None, context: ssl.SSLContext | None) -> None:
        self._origin = origin
        self._proxy = proxy
        self._context = context
        self._names = _Names((proxy or origin).host.rstrip("."), (proxy or origin).port)

    async def dial(self, make: Callable[[], P]) -> P:
        """A connected protocol. Raises CannotConnect, and what `make` raises."""
        try:
            if self._proxy is None or not self._origin.is_tls:
                return await self._direct(make, self._proxy or self._origin)
            return await self._through(make, self._proxy)
        except OSError as error:
            raise CannotConnect(_reason(error)) from error
        except UnicodeError as error:
            raise CannotConnect("its name cannot be resolved") from error
        except RuntimeError as error:
            # uvloop raises it where a transport is closed meanwhile.
            raise CannotConnect(type(error).__name__) from error

    def close(self) -> None:
        self._names.close()

    async def _direct(self, make: Callable[[], P], to: Origin) -> P:
        loop = asyncio.get_running_loop()
        addresses = await self._names.addresses()
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1, loop=loop
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if to.is_tls:
            _, protocol = await loop.create_connection(
                make, sock=sock, ssl=self._context, server_hostname=_certified(to.host)
            )
        else:
            _, protocol = await loop.create_connection(make, sock=sock)
        return protocol

    async def _through(self, make: Callable[[], P], proxy: Origin) -> P:
        """TLS inside a tunnel that the proxy makes."""
        loop = asyncio.get_running_loop()
        tunnel = await self._direct(lambda: _Tunnel(loop), proxy)
        protocol = make()
        try:
            await tunnel.ask(self._origin, proxy.authorization)
            transport = await loop.start_tls(
                tunnel.transport,
                protocol,
                cast("ssl.SSLContext", self._context),
                server_hostname=_certified(self._origin.host),
            )
            if transport is None:
                raise ConnectionAbortedError
        except BaseException:
            tunnel.transport.abort()
            raise
        protocol.connection_made(transport)
        return protocol


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a connection to somewhere else."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._head = b""
        self._answered: asyncio.Future[bytes] = loop.create_future()
        self.transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if rest or len(head) > _PROXY_HEAD_BYTES:
            # In TLS the server never speaks first.
            self._fail()
        elif found and not self._answered.done():
            self._answered.set_result(head)

    def eof_received(self) -> None:
        self._fail()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail()

    async def ask(self, target: Origin, authorization: str | None) -> None:
        """Raises OSError and CannotConnect where the proxy makes no tunnel."""
        place = target.authority_with_port
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if authorization is not None:
            lines.append(f"Proxy-Authorization: {authorization}")
        self.transport.write("\r\n".join([*lines, "", ""]).encode())
        head = await self._answered
        version, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        status = rest[:3].decode("latin-1")
        if not version.startswith(b"HTTP/1.") or not status.isdecimal():
            raise CannotConnect("its proxy does not answer in HTTP")
        if not status.startswith("2"):
            raise CannotConnect(f"its proxy answered {status}")

    def _fail(self) -> None:
        if self._answered.done():
            return
        self._answered.set_exception(ConnectionResetError())
        # Nobody may be waiting yet, or any more.
        self._answered.exception()


class _Names:
    """The addresses of one host, kept for a while; those who ask at the same time share one question."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._found: list[AddrInfo] = []
        self._kept_until = 0.0
        self._asked: asyncio.Task[list[AddrInfo]] | None = None

    async def addresses(self) -> list[AddrInfo]:
        """Raises socket.gaierror, UnicodeError for what cannot be a name, and CannotConnect when closed meanwhile."""
        if literal := _literal(self._host, self._port):
            return [literal]
        if monotonic() < self._kept_until:
            return self._found
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_task(self._ask())
            self._asked.add_done_callback(self._on_answer)
        asked = self._asked
        try:
            # One who leaves leaves the others their answer.
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if asked.cancelled() and task is not None and not task.cancelling():
                raise CannotConnect("it is being closed") from None
            raise

    def close(self) -> None:
        if self._asked is not None:
            self._asked.cancel()

    async def _ask(self) -> list[AddrInfo]:
        found = await asyncio.get_running_loop().getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        return cast("list[AddrInfo]", found)

    def _on_answer(self, asked: asyncio.Task[list[AddrInfo]]) -> None:
        self._asked = None
        if not asked.cancelled() and asked.exception() is None:
            self._found = asked.result()
            self._kept_until = monotonic() + _ADDRESSES_KEPT_S


def _literal(host: str, port: int) -> AddrInfo | None:
    """Where the host is an address already; one with a zone has to be looked up like a name."""
    try:
        version = ip_address(host).version if "%" not in host else 0
    except ValueError:
        return None
    if version == 4:
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)
    if version == 6:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)
    return None


def _certified(host: str) -> str:
    """Certificates name a host without the dot that may end it."""
    return host.rstrip(".")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS as we do"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    return os.strerror(error.errno) if error.errno else type(error).__name__
