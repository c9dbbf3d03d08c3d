"""Reads request bodies."""

import asyncio
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from gateway.core.encoding import decoded
from gateway.core.jsontext import parse_object
from gateway.errors import BodyTooLarge, MalformedBody, RequestTimedOut
from gateway.web.connection import BrokenBody, Connection

# How long a body may take from its head on, in seconds.
BODY_TIMEOUT_S = web.AppKey("body_timeout_s", float)
_FIELDS_AT_MOST = 16


async def read_body(request: web.Request) -> bytes:
    """The body as it came, still encoded. Raises BodyTooLarge, MalformedBody and RequestTimedOut."""
    limit = request.client_max_size
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    if request.content.is_eof():
        body = request.content.read_nowait()
        if len(body) > limit:
            raise _too_large(limit)
        return body
    try:
        async with asyncio.timeout(request.app[BODY_TIMEOUT_S]):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(limit) from None
    except BrokenBody:
        raise MalformedBody("The body is not chunked as its head says.") from None
    except TimeoutError:
        if isinstance(request.protocol, Connection):
            request.protocol.leave_unread()
        within = f"{request.app[BODY_TIMEOUT_S]:g} s ([server] body_timeout_s)"
        raise RequestTimedOut(f"The body was not complete within {within}.") from None


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit / 1024**2:g} MB ([server] max_body_mb).")


async def read_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object. Raises as read_body does."""
    return as_object(request, await read_body(request))


def as_object(request: web.Request, body: bytes) -> dict[str, Any]:
    """A request's body as a JSON object. Raises BodyTooLarge and MalformedBody."""
    return parse_object(decoded(body, request.headers.get("Content-Encoding", ""), request.client_max_size))


def media_type(request: web.Request) -> str:
    """Of what type the body is said to be, without its parameters. aiohttp's own `content_type` takes seconds for a
    header of some KB that is made for that."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def read_form(request: web.Request, at_most: int) -> dict[str, str]:
    """The fields of a form, of a few KB and not more. Raises as read_body does."""
    if media_type(request) != "application/x-www-form-urlencoded":
        raise MalformedBody("The body must be a form: application/x-www-form-urlencoded.")
    try:
        body = await read_body(request.clone(client_max_size=at_most))
        text = decoded(body, request.headers.get("Content-Encoding", ""), at_most).decode("utf-8", "replace")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS_AT_MOST))
    except BodyTooLarge:
        raise BodyTooLarge(f"The form is larger than {at_most:,} bytes.") from None
    except ValueError:
        raise MalformedBody(f"The form has more than {_FIELDS_AT_MOST} fields.") from None
