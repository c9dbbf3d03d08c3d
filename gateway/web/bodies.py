"""Reads request bodies."""

from typing import Any

from aiohttp import web

from gateway.core.encoding import decoded
from gateway.core.jsontext import parse_object
from gateway.errors import BodyTooLarge


async def read_body(request: web.Request) -> bytes:
    """The body as it came, still encoded. Raises BodyTooLarge."""
    limit = request.client_max_size
    too_large = BodyTooLarge(f"The body is larger than {limit / 1024**2:g} MB ([server] max_body_mb).")
    if request.content_length is not None and request.content_length > limit:
        raise too_large
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None


async def read_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object. Raises BodyTooLarge and MalformedBody."""
    body = await read_body(request)
    return parse_object(decoded(body, request.headers.get("Content-Encoding", ""), request.client_max_size))
