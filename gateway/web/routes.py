"""The whole URL map as one table. Every path is served with and without a trailing slash, never by a redirect."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from aiohttp import web
from aiohttp.web_urldispatcher import UrlMappingMatchInfo

from gateway.core.span import RESERVED_IDS
from gateway.errors import UndeclaredRoute
from gateway.web import docs
from gateway.web.exports import ExportHandlers
from gateway.web.ingest import IngestHandlers
from gateway.web.keys import Keys
from gateway.web.lists import ListHandlers
from gateway.web.live import LiveHandlers
from gateway.web.middleware import RUNNING, Handler, KeyedHandler, with_key, without_session
from gateway.web.openapi import ANY_METHOD, DESCRIPTION, Description, Route, describe
from gateway.web.prices import PriceHandlers
from gateway.web.relay import RelayHandlers
from gateway.web.series import SeriesHandlers
from gateway.web.signin import SignInHandlers
from gateway.web.spans import SpanHandlers
from gateway.web.status import StatusHandlers
from gateway.web.traces import TraceHandlers
from gateway.web.users import UserHandlers

_ID = f"{{unique_id:(?!(?:{'|'.join(sorted(RESERVED_IDS))})/?$)(?s:.+)}}"
_TRACE_ID = "{trace_unique_id:(?s:.+)}"
_CUSTOMER = "{customer_identifier:(?s:.+)}"
_THREAD = "{thread_identifier:(?s:.+)}"
_FILE = "{file:[^/]+/?}"


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


def table(
    spans: SpanHandlers,
    lists: ListHandlers,
    series: SeriesHandlers,
    prices: PriceHandlers,
    live: LiveHandlers,
    exports: ExportHandlers,
    traces: TraceHandlers,
    users: UserHandlers,
    ingest: IngestHandlers,
    relay: RelayHandlers,
    status: StatusHandlers,
    sign_in: SignInHandlers,
) -> list[Keyed | Open]:
    """What each path does, and who may call it. The first that fits wins."""
    return [
        Keyed("POST", "/v1/chat/completions", relay.chat),
        Keyed("POST", "/api/chat/completions", relay.chat),
        Keyed("POST", "/api/openai/v1/chat/completions", relay.chat),
        Keyed("GET", "/v1/models", relay.models),
        Keyed("GET", "/api/models", relay.models),
        Keyed("POST", "/v1/traces", ingest.otlp),
        Keyed("POST", "/v1/traces/ingest", ingest.rows),
        # What an upstream answers to a GET would be a page of our own origin to a browser that opens it.
        Keyed(ANY_METHOD, "/v1/{rest:.+}", without_session(relay.relay)),
        Keyed("POST", "/api/request-logs", spans.create),
        Keyed("POST", "/api/request-logs/create", spans.create),
        Keyed("POST", "/api/request-logs/bulk", spans.bulk),
        Keyed("GET", "/api/request-logs", lists.list),
        *_asked("/api/request-logs/list", lists.list),
        *_asked("/api/request-logs/summary", lists.summary),
        *_asked("/api/request-logs/groups", lists.groups),
        *_asked("/api/request-logs/series", series.series),
        Keyed("GET", "/api/prices", prices.price),
        Keyed("GET", "/api/request-logs/live", live.live),
        Keyed("GET", "/api/request-logs/values", lists.values),
        Keyed("GET", "/api/request-logs/export", exports.export),
        Keyed("GET", "/api/request-logs/audit", spans.audit),
        Keyed("POST", "/api/request-logs/batch/create", spans.create_batch),
        Keyed("PATCH", "/api/request-logs/batch-update", spans.edit_batch),
        Keyed("GET", f"/api/request-logs/{_ID}", spans.retrieve),
        Keyed("PATCH", f"/api/request-logs/{_ID}", spans.edit),
        Keyed("DELETE", f"/api/request-logs/{_ID}", spans.delete),
        Keyed("POST", "/api/v2/traces", ingest.otlp),
        Keyed("POST", "/api/v1/traces", ingest.otlp),
        Keyed("POST", "/api/v1/traces/ingest", ingest.rows),
        Keyed("POST", "/api/openai/v1/traces/ingest", ingest.rows),
        Keyed("POST", "/api/traces/ingest", ingest.rows),
        *_asked("/api/users/list", users.list),
        Keyed("GET", f"/api/users/{_CUSTOMER}", users.retrieve),
        Keyed("PATCH", f"/api/users/{_CUSTOMER}", users.edit),
        Keyed("DELETE", f"/api/users/{_CUSTOMER}", users.delete),
        *_asked("/api/log_threads", users.threads),
        Keyed("GET", f"/api/log_threads/{_THREAD}", users.thread),
        *_asked("/api/traces/list", traces.list),
        Keyed("POST", "/api/traces/bulk", traces.delete_several),
        Keyed("POST", "/api/traces/bulk-delete", traces.delete_several),
        Keyed("GET", f"/api/traces/{_TRACE_ID}", traces.retrieve),
        Keyed("PATCH", f"/api/traces/{_TRACE_ID}", traces.share),
        Keyed("DELETE", f"/api/traces/{_TRACE_ID}", traces.delete),
        Open("GET", f"/api/{{organization_id}}/traces/{_TRACE_ID}", traces.retrieve_public),
        *_read_only("/", sign_in.dashboard),
        *_read_only("/login", sign_in.login_page),
        Open("POST", "/login", sign_in.login),
        Open("POST", "/logout", sign_in.logout),
        *_read_only(f"/dashboard/{_FILE}", sign_in.file),
        Keyed("GET", "/api/session", sign_in.session),
        *_read_only("/health", status.health),
        *_read_only("/ready", status.ready),
        *_read_only("/metrics", status.metrics),
        *_read_only("/openapi.json", describe),
        *_read_only("/docs", docs.page),
        *_read_only("/docs/style.css", docs.style),
    ]


def _asked(path: str, handler: KeyedHandler) -> tuple[Keyed, Keyed]:
    """A question, whose filters come in the query or in a body."""
    return Keyed("GET", path, handler), Keyed("POST", path, handler)


def _read_only(path: str, handler: Handler) -> tuple[Open, Open]:
    """Open to everyone; to HEAD, aiohttp sends an answer's head alone."""
    return Open("GET", path, handler), Open("HEAD", path, handler)


# The routes that the table has put into an application.
DECLARED = web.AppKey("declared", dict[web.AbstractRoute, Keyed | Open])


def register(app: web.Application, routes: list[Keyed | Open], keys: Keys) -> None:
    """Puts the table into an application, which then does not start with any other route."""
    app[DESCRIPTION] = Description(Route(route.method, route.path, isinstance(route, Keyed)) for route in routes)
    app[docs.REFERENCE] = docs.Reference(app[DESCRIPTION])
    app[DECLARED] = {}
    for route in routes:
        match route:
            case Keyed():
                handler = with_key(keys, route.handler)
            case Open():
                handler = route.handler
            case _:
                assert_never(route)
        for path in (route.path,) if route.path.endswith(("}", "/")) else (route.path, f"{route.path}/"):
            app[DECLARED][app.router.add_route(route.method, path, handler)] = route
    app.on_startup.append(_refuse_undeclared)


def straight(app: web.Application, otherwise: Handler) -> Handler:
    """A handler that finds the routes of fixed paths in one look, and leaves every other request to `otherwise`.

    aiohttp itself tries one route after the other, and puts each request's middlewares together anew.
    """
    known = {(route.method, info.canonical): (_matching(app, route), route.handler) for route, info in _fixed(app)}
    track = app[RUNNING].track

    async def handled(request: web.Request) -> web.StreamResponse:
        found = known.get((request.method, request.rel_url.raw_path))
        if found is None or "Expect" in request.headers:
            return await otherwise(request)
        request._match_info, handler = found
        return await track(request, handler)

    return handled


def _fixed(app: web.Application) -> Iterator[tuple[web.AbstractRoute, web.PlainResource]]:
    for route in app.router.routes():
        if isinstance(route.resource, web.PlainResource) and route.method != ANY_METHOD:
            yield route, route.resource


def _matching(app: web.Application, route: web.AbstractRoute) -> UrlMappingMatchInfo:
    match = UrlMappingMatchInfo({}, route)
    match.add_app(app)
    match.freeze()
    return match


async def _refuse_undeclared(app: web.Application) -> None:
    """Raises UndeclaredRoute."""
    undeclared = sorted(
        f"{route.method} {route.resource.canonical if route.resource is not None else '?'}"
        for route in app.router.routes()
        if route not in app[DECLARED]
    )
    if undeclared:
        raise UndeclaredRoute(
            f"Nobody said who may call {', '.join(undeclared)}: enter it into the table in gateway/web/routes.py as "
            "Keyed or Open."
        )
