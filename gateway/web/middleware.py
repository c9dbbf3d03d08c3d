"""Around every handler: errors become JSON, and a key becomes a caller."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from gateway.core import secrets
from gateway.errors import NeedsKey, RefusedRequest, UpstreamError
from gateway.proxy import LOG_ID_HEADER
from gateway.recorder import Caller
from gateway.web.keys import Keys, is_by_session
from gateway.web.replies import error_reply, problem

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KeyedHandler = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]

_API = ("/api/", "/v1/")

LOG_ID = web.RequestKey("log_id", str)


def errors_as_json(handler: Handler) -> Handler:
    """No error leaves as HTML, and no unexpected one says what it was."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (RefusedRequest, UpstreamError) as error:
            reply = error_reply(request, error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            reply = problem(request, error.status, _sentence(request, error), code=_code(error.status))
            if "Allow" in error.headers:
                reply.headers["Allow"] = error.headers["Allow"]
        except ConnectionError:
            raise
        except Exception as error:
            log.error("Unexpected error at %s %s\n%s", request.method, request.path, secrets.trace(error))
            reply = problem(
                request, 500, "The gateway failed; see its log.", kind="server_error", code="internal_error"
            )
        if LOG_ID in request:
            reply.headers[LOG_ID_HEADER] = request[LOG_ID]
        return reply

    return answered


class Running:
    """The requests under way. `ending` is set when the drain begins; `stopped`: those that were left after it have been
    cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._listening: set[asyncio.Task[object]] = set()
        self.ending = asyncio.Event()
        self.stopped = False

    @web.middleware
    async def track(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Middleware that knows of each request until its handler ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await handler(request)
        finally:
            self._tasks.discard(task)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The current request only listens, until its client leaves or `ending` is set; `ended` does not wait for
        it."""
        task = asyncio.current_task()
        assert task is not None
        self._listening.add(task)
        try:
            yield
        finally:
            self._listening.discard(task)

    async def ended(self) -> None:
        """Waits for the requests that are under way now and end by themselves."""
        if waited_for := self._tasks - self._listening:
            await asyncio.wait(waited_for)

    async def drain(self, within_s: float) -> None:
        """Waits for the requests under way, then cancels those that are left."""
        self.ending.set()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=within_s)
        self.stopped = True
        for task in self._tasks:
            task.cancel()


RUNNING = web.AppKey("running", Running)


def with_key(keys: Keys, handler: KeyedHandler) -> Handler:
    """A handler that only a caller with a key gets to."""

    async def keyed(request: web.Request) -> web.StreamResponse:
        return await handler(request, keys.caller(request.headers, request.method))

    return keyed


def without_session(handler: KeyedHandler) -> KeyedHandler:
    """A handler that a session does not open."""

    async def refusing(request: web.Request, caller: Caller) -> web.StreamResponse:
        if is_by_session(request.headers):
            raise NeedsKey("The dashboard's session does not open this route: send an API key in a header.")
        return await handler(request, caller)

    return refusing


async def leave_out_server(request: web.Request, response: web.StreamResponse) -> None:
    """Takes back what aiohttp says of itself."""
    response.headers.popall("Server", None)


async def keep_out_of_caches(request: web.Request, response: web.StreamResponse) -> None:
    """What a session let in is kept by no browser, which caches what came with a cookie as it does everything else, and
    is nothing but what it is said to be."""
    if is_by_session(request.headers) and request.path.startswith(_API):
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    if request.method == "CONNECT":
        return "The gateway opens no tunnels (CONNECT): its address is an SDK's base_url, not an HTTP proxy."
    if error.status == 404:
        return f"There is no route {request.path}."
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{request.path} takes {', '.join(sorted(error.allowed_methods))}, not {error.method}."
    return error.text or error.reason


def _code(status: int) -> str | None:
    return {404: "not_found", 405: "method_not_allowed"}.get(status)
