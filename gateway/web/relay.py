"""The proxy's routes: aiohttp on one side, `proxy.Client` on the other."""

from datetime import datetime
from typing import cast
from urllib.parse import unquote

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.clock import Clock
from gateway.core.sites import of_the_page
from gateway.errors import NotFound
from gateway.proxy import Proxy
from gateway.recorder import Caller
from gateway.upstream.pool import Pool
from gateway.web.answer import RelayedAnswer
from gateway.web.bodies import read_body
from gateway.web.keys import is_by_session
from gateway.web.middleware import LOG_ID, RUNNING
from gateway.web.replies import json_reply

# An upstream's answer is no page of ours, whatever it says that it is.
_SHUT_IN = {"Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff"}


class HttpClient:
    """One request of a client, as the proxy sees it."""

    def __init__(self, request: web.Request, clock: Clock) -> None:
        self.started_at = clock.monotonic()
        self.start_time: datetime = clock.now()
        self.method = request.method
        self._is_by_session = is_by_session(request.headers)
        self.headers = _without_page(request.headers) if self._is_by_session else request.headers
        self._request = request
        self.answer: RelayedAnswer | None = None

    @property
    def gone(self) -> bool:
        return not self._request.app[RUNNING].stopped

    def name_span(self, unique_id: str) -> None:
        self._request[LOG_ID] = unique_id

    async def read(self) -> bytes:
        return await read_body(self._request)

    def begin(self, status: int, reason: str, answer_headers: CIMultiDict[str]) -> None:
        if self._is_by_session:
            answer_headers.update(_SHUT_IN)
        self.answer = RelayedAnswer(self._request, status, reason, answer_headers)

    async def flush(self) -> None:
        await self._begun.flush()

    async def write(self, piece: bytes) -> None:
        await self._begun.write(piece)

    async def end(self, last: bytes = b"") -> None:
        await self._begun.write_last(last)

    @property
    def _begun(self) -> RelayedAnswer:
        assert self.answer is not None
        return self.answer

    def cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.close()


class RelayHandlers:
    """What the proxy's routes do."""

    def __init__(self, proxy: Proxy, pool: Pool, clock: Clock) -> None:
        self._proxy = proxy
        self._pool = pool
        self._clock = clock

    async def chat(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Chat completions, on whichever of the three routes."""
        return await self._call(request, caller, _with_query(request, "/chat/completions"))

    async def relay(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Any other path under /v1."""
        path = request.rel_url.raw_path.removeprefix("/v1").rstrip("/") or "/"
        _refuse_odd(request, path)
        path_qs = _with_query(request, path)
        if request.method == "POST":
            return await self._call(request, caller, path_qs)
        client = HttpClient(request, self._clock)
        await self._proxy.pass_on(client, caller, request.method, path_qs)
        return _begun(client)

    async def models(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """The models of all upstreams."""
        return json_reply({"object": "list", "data": await self._pool.models()})

    async def _call(self, request: web.Request, caller: Caller, path_qs: str) -> web.StreamResponse:
        client = HttpClient(request, self._clock)
        await self._proxy.call(client, caller, path_qs)
        return _begun(client)


def _without_page(headers: CIMultiDictProxy[str]) -> CIMultiDictProxy[str]:
    """What a page of ours asks an upstream is asked by the gateway: some refuse what comes from a browser's page."""
    return CIMultiDictProxy(CIMultiDict((name, text) for name, text in headers.items() if not of_the_page(name)))


def _begun(client: HttpClient) -> web.StreamResponse:
    if client.answer is None:
        raise ConnectionResetError("the client was gone before the answer's head")
    return cast("web.StreamResponse", client.answer)


def _with_query(request: web.Request, path: str) -> str:
    query = request.rel_url.raw_query_string
    return f"{path}?{query}" if query else path


def _refuse_odd(request: web.Request, path: str) -> None:
    """Paths that are ours, or that could lead out of the upstream's base URL."""
    segments = [segment for segment in unquote(path).lower().replace("\\", "/").split("/") if segment]
    if segments[:1] == ["traces"] or ".." in segments or "." in segments:
        raise NotFound(f"There is no route {request.path}.", code="not_found")
