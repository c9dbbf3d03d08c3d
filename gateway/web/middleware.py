"""Around every handler: errors become JSON, and a key becomes a caller."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

from gateway.errors import RefusedRequest, UpstreamError
from gateway.proxy import LOG_ID_HEADER
from gateway.recorder import Caller
from gateway.web.keys import Keys
from gateway.web.replies import error_reply, problem

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KeyedHandler = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]

LOG_ID = web.RequestKey("log_id", str)
UNTYPED = web.ResponseKey("untyped", bool)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """No error leaves as HTML, and no unexpected one says what it was."""
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
    except Exception:
        log.exception("Unexpected error at %s %s", request.method, request.path)
        reply = problem(request, 500, "The gateway failed; see its log.", kind="server_error", code="internal_error")
    if LOG_ID in request:
        reply.headers[LOG_ID_HEADER] = request[LOG_ID]
    return reply


def with_key(keys: Keys, handler: KeyedHandler) -> Handler:
    """A handler that only a caller with a key gets to."""

    async def keyed(request: web.Request) -> web.StreamResponse:
        return await handler(request, keys.caller(request.headers))

    return keyed


async def leave_out_own_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Takes back what aiohttp adds by itself and the upstream did not say."""
    if response.headers.get("Server") == SERVER_SOFTWARE:
        del response.headers["Server"]
    if response.get(UNTYPED):
        response.headers.popall("Content-Type", None)


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return f"There is no route {request.path}."
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{request.path} takes {', '.join(sorted(error.allowed_methods))}, not {error.method}."
    return error.text or error.reason


def _code(status: int) -> str | None:
    return {404: "not_found", 405: "method_not_allowed"}.get(status)
