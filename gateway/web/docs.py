"""The API reference at /docs: the document at /openapi.json, to be read by people."""

import asyncio
import json
import re
from pathlib import Path

from aiohttp import web

from gateway.web.openapi import Description
from gateway.web.reference import Page

# A name or an address, and a port: nothing that a shell would take for more than that.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # The next version may say something else under the same address.
    "Cache-Control": "no-cache",
}


class Reference:
    """The page of a description, made when it is first asked for."""

    def __init__(self, description: Description) -> None:
        self._description = description
        self._page: Page | None = None

    async def page(self) -> Page:
        """Of the very text that is served."""
        if self._page is None:
            # A tenth of a second, for which the calls of others are not to stand still.
            self._page = await asyncio.to_thread(self._made)
        return self._page

    def _made(self) -> Page:
        return Page(json.loads(self._description.text))


REFERENCE = web.AppKey("reference", Reference)


async def page(request: web.Request) -> web.StreamResponse:
    """The reference, with examples for the address that it was asked for under."""
    made = await request.app[REFERENCE].page()
    return web.Response(text=made.at(_base_url(request)), content_type="text/html", headers=_HEADERS)


async def style(request: web.Request) -> web.StreamResponse:
    """How the reference looks."""
    return web.Response(body=_STYLE, content_type="text/css", charset="utf-8", headers=_HEADERS)


_STYLE = Path(__file__).with_name("docs.css").read_bytes()


def _base_url(request: web.Request) -> str:
    host = request.headers.get("Host", "")
    return f"{request.scheme}://{host if _HOST.fullmatch(host) else _own_address(request)}"


def _own_address(request: web.Request) -> str:
    """Where the caller got to, whatever name it has for that."""
    host, port = request.get_extra_info("sockname")[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
