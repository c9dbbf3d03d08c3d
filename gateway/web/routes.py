"""The whole URL map as one table. Every path is served with and without a trailing slash, never by a redirect."""

from dataclasses import dataclass

from aiohttp import web

from gateway.web.keys import Keys
from gateway.web.middleware import Handler, KeyedHandler, with_key
from gateway.web.relay import RelayHandlers
from gateway.web.spans import SpanHandlers
from gateway.web.status import StatusHandlers

ANY = "*"


@dataclass(frozen=True, slots=True)
class Keyed:
    """A route for callers with a key."""

    method: str
    path: str
    handler: KeyedHandler


@dataclass(frozen=True, slots=True)
class Open:
    """A route for everyone."""

    method: str
    path: str
    handler: Handler


def table(spans: SpanHandlers, relay: RelayHandlers, status: StatusHandlers) -> list[Keyed | Open]:
    """What each path does, and who may call it. The first that fits wins."""
    return [
        Keyed("POST", "/v1/chat/completions", relay.chat),
        Keyed("POST", "/api/chat/completions", relay.chat),
        Keyed("POST", "/api/openai/v1/chat/completions", relay.chat),
        Keyed("GET", "/v1/models", relay.models),
        Keyed("GET", "/api/models", relay.models),
        Keyed(ANY, "/v1/{rest:.+}", relay.relay),
        Keyed("POST", "/api/request-logs", spans.create),
        Keyed("POST", "/api/request-logs/create", spans.create),
        Keyed("POST", "/api/request-logs/bulk", spans.bulk),
        Keyed("GET", "/api/request-logs", spans.list),
        Keyed("GET", "/api/request-logs/list", spans.list),
        Keyed("POST", "/api/request-logs/list", spans.list),
        Keyed("GET", "/api/request-logs/{unique_id:.+}", spans.retrieve),
        Open("GET", "/health", status.health),
        Open("GET", "/ready", status.ready),
        Open("GET", "/metrics", status.metrics),
    ]


def register(app: web.Application, routes: list[Keyed | Open], keys: Keys) -> None:
    """Puts the table into an application."""
    for route in routes:
        handler = with_key(keys, route.handler) if isinstance(route, Keyed) else route.handler
        app.router.add_route(route.method, route.path, handler)
        if not route.path.endswith("}"):
            app.router.add_route(route.method, f"{route.path}/", handler)
