"""JSON answers, and errors in the shape that each kind of route has."""

from typing import Any

from aiohttp import web

from gateway.core.jsontext import dump
from gateway.errors import InvalidSpan, LimitReached, RefusedRequest, RequestTimedOut, Unauthorized, UpstreamError

_OPENAI_ROUTES = ("/v1", "/api/chat", "/api/openai", "/api/models")


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Any JSON value."""
    return json_text_reply(dump(value), status, headers)


def json_text_reply(text: str, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """JSON that is text already."""
    return web.Response(
        body=text.encode(), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def error_reply(request: web.Request, error: RefusedRequest | UpstreamError) -> web.Response:
    """The error as this request's route shows errors."""
    headers: dict[str, str] = {}
    if isinstance(error, RefusedRequest) and error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, LimitReached) and not error.retry_helps:
        # OpenAI's SDKs would wait and try again.
        headers["x-should-retry"] = "false"
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RequestTimedOut):
        headers["Connection"] = "close"
    kind = error.kind if isinstance(error, RefusedRequest) else "upstream_error"
    errors = error.errors if isinstance(error, InvalidSpan) else None
    return problem(request, error.status, str(error), kind=kind, code=error.code, errors=errors, headers=headers)


def problem(
    request: web.Request,
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    errors: dict[str, list[str]] | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    """OpenAI's error object on proxy routes, `detail` (and `errors` by field) on all others."""
    body: dict[str, Any]
    if is_openai_route(request.path):
        body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    else:
        body = {"detail": message} if errors is None else {"detail": message, "errors": errors}
    return json_reply(body, status, headers)


def is_openai_route(path: str) -> bool:
    """Whether a path belongs to the proxy."""
    return path.startswith(tuple(f"{route}/" for route in _OPENAI_ROUTES)) or path in _OPENAI_ROUTES
