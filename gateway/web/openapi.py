"""The gateway's description of itself: OpenAPI 3.1, made of the route table when it is first asked for."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from aiohttp import web
from pydantic import TypeAdapter

from gateway import __version__
from gateway.core.aliases import NESTED, PARAMS_HEADERS
from gateway.core.filters import ALIASES, FIELDS
from gateway.core.jsontext import dump
from gateway.core.reading import LISTED
from gateway.core.span import RESERVED_IDS, Time
from gateway.core.values import LISTED_KINDS, VALUE_AT_MOST
from gateway.core.walk import SPAN_SORTS
from gateway.proxy import LOG_ID_HEADER
from gateway.recorder import EDITABLE
from gateway.store.sums import GROUP_SORTS
from gateway.store.threads import SORTS as THREAD_SORTS
from gateway.store.traces import SORTS as TRACE_SORTS
from gateway.store.users import SORTS as USER_SORTS
from gateway.web.exports import EXPORT_SORTS, EXPORTS_AT_MOST, FORMATS
from gateway.web.keys import SESSION_COOKIE
from gateway.web.lists import GROUPS, VALUES_OF, VALUES_OF_SPANS, VALUES_SHOWN, VALUES_SHOWN_AT_MOST
from gateway.web.live import LAST_EVENT_ID
from gateway.web.questions import PAGE_SIZE, PAGE_SIZE_AT_MOST, PASSED_OVER
from gateway.web.replies import is_openai_route, json_text_reply
from gateway.web.schemas import Schema, members, ref, schemas
from gateway.web.series import AUTO, GROUPS_SHOWN, GROUPS_SHOWN_AT_MOST, INTERVALS, SERIES_GROUPS
from gateway.web.spans import BATCH_AT_MOST, BULK_AT_MOST
from gateway.web.traces import DELETED_AT_MOST

ANY_METHOD = "*"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_ABOUT = """A self-hosted LLM gateway: it forwards calls and keeps one durable span per call.

Every path works with and without a trailing slash. The proxy's paths are shown without one, those of spans
(/api/request-logs/…) with one, as the SDKs send them. Bodies may come with Content-Encoding gzip or deflate."""

_ABOUT_PAGE = (
    f"A page for people. Who signs in gets a cookie, {SESSION_COOKIE}, that stands for a key where a request has none; "
    "for anything but GET only if a page of this gateway sends it, and of the relay for chats and models only."
)

# By any one of these.
_LET_IN: Schema = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "Of who is signed in to the dashboard, where a request has no key; for anything but GET only if "
        "a page of this gateway sends it.",
    },
}


class Route(NamedTuple):
    """A line of the route table; `method` may be ANY_METHOD."""

    method: str
    path: str
    needs_key: bool


class Description:
    """The document of a route table."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = list(routes)

    @cached_property
    def text(self) -> str:
        """The document as JSON."""
        return dump(document(self._routes))


DESCRIPTION = web.AppKey("description", Description)


async def describe(request: web.Request) -> web.StreamResponse:
    """The document of the application that serves the request."""
    return json_text_reply(request.app[DESCRIPTION].text)


def document(routes: Sequence[Route]) -> Schema:
    """The OpenAPI document. Raises KeyError for a route that is not described."""
    paths: dict[str, dict[str, Schema]] = {}
    described = _described()
    for route in routes:
        for path in _paths_of(route, routes):
            for method in METHODS if route.method == ANY_METHOD else (route.method.lower(),):
                said = described[route.method, _shown(route.path)]
                operation = said(method) if callable(said) else said
                paths.setdefault(path, {}).setdefault(method, _complete(operation, method, path, route))
    return {
        "openapi": "3.1.0",
        "info": {"title": "span-gateway", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in _LET_IN],
        "tags": _TAGS,
        "paths": paths,
        "components": {
            "securitySchemes": _LET_IN,
            "schemas": schemas(),
            "headers": _HEADERS,
            "responses": _RESPONSES,
        },
    }


def _paths_of(route: Route, routes: Sequence[Route]) -> list[str]:
    """Where a route is shown: a catch-all also at the paths below it, for the methods that these leave to it."""
    shown = [_shown(route.path)]
    if route.method == ANY_METHOD:
        start = route.path.partition("{")[0]
        shown += [_shown(other.path) for other in routes if other.path.startswith(start) and other is not route]
    return shown


def _shown(path: str) -> str:
    path = re.sub(r"\{(\w+):.*\}", r"{\1}", path)
    return f"{path}/" if path.startswith("/api/request-logs") else path


def _complete(operation: Schema, method: str, path: str, route: Route) -> Schema:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": _IN_PATH[name]}
        for name in re.findall(r"{(\w+)}", path)
    ]
    return {
        "operationId": _operation_id(method, path),
        **operation,
        "parameters": [*in_path, *operation.get("parameters", [])],
        "responses": {**_NOT_LET_IN, **operation["responses"]},
        **({} if route.needs_key else {"security": []}),
    }


def _operation_id(method: str, path: str) -> str:
    return re.sub(r"\W+", "_", f"{method}{path}").strip("_")


# The groups, in the order in which a reader meets them.
_TAGS = [
    {"name": name, "x-displayName": title, "description": description}
    for name, title, description in (
        ("proxy", "Proxy", "Calls on their way to an upstream."),
        ("spans", "Spans", "One record per call: create, read, change, delete, account for."),
        ("lists", "Lists and sums", "Many spans at once; filters come in the query, or in the body of a POST."),
        ("traces", "Traces", "What the spans of one trace come to, and their tree."),
        ("users", "Users", "Customers, as spans show them, and what is said of them."),
        ("threads", "Threads", "Spans that are one conversation."),
        ("tracing", "OTLP ingest", "Spans from OpenTelemetry and from tracers."),
        ("page", "Dashboard", _ABOUT_PAGE),
        ("status", "Health", "For those who look after the process; no key."),
    )
]


# What several operations say

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_NO_IDS = f"None is one of {', '.join(sorted(RESERVED_IDS))}."
_IN_PATH: Schema = {
    "rest": {"type": "string", "minLength": 1, "description": "May hold slashes."},
    "unique_id": {"type": "string", "minLength": 1, "description": f"May hold slashes. {_NO_IDS}"},
    "trace_unique_id": {"type": "string", "minLength": 1, "description": "May hold slashes."},
    "organization_id": {"type": "string", "minLength": 1},
    "customer_identifier": {"type": "string", "minLength": 1, "description": "May hold slashes."},
    "thread_identifier": {"type": "string", "minLength": 1, "description": "May hold slashes."},
    "file": {"type": "string", "minLength": 1},
}
_PARAMS = {
    "name": PARAMS_HEADERS[0],
    "in": "header",
    "schema": {"type": "string"},
    "description": f"Base64 of a JSON object with the fields of {NESTED[0]}. What cannot be read is passed over.",
}


def _time() -> Schema:
    # An empty one counts as not sent.
    return {
        "anyOf": [*TypeAdapter(Time).json_schema()["anyOf"], {"type": "string", "maxLength": 0}],
        "description": "ISO 8601, or seconds or milliseconds since 1970.",
    }


def _in_query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _answer(description: str, schema: Schema, headers: Schema | None = None) -> Schema:
    return {"description": description, "headers": headers or {}, "content": {_JSON: {"schema": schema}}}


def _refusal(description: str, schema: str = "Refusal", headers: Schema | None = None) -> Schema:
    return _answer(description, ref("schemas", schema), headers)


_TOO_MUCH = "The request came too slowly, its head is too large, or all connections are taken."
_NOT_NOW = "The store takes nothing for now, or of what goes on for long as much as may already does."
_NOT_FROM_HERE = "A page of another site sent it, with the session of one who is signed in here."
_MAY_NAME_SPAN = {LOG_ID_HEADER: {"schema": {"type": "string"}, "description": "The call's span, if it left one."}}
_MAY_RETRY = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds; or a date, of an upstream."}}
_HEADERS: Schema = {
    "Log-Id": {"required": True, "schema": {"type": "string"}, "description": "The unique_id of the call's span."},
    "Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 0}, "description": "Seconds."},
    "WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}},
}
_RESPONSES: Schema = {
    "Malformed": _refusal("The body or the query is not what this takes."),
    "NoKey": _refusal("No key, or a wrong one.", headers={"WWW-Authenticate": ref("headers", "WWW-Authenticate")}),
    "NotFromHere": _refusal(_NOT_FROM_HERE),
    "NotFound": _refusal("The caller's organization has nothing of that id."),
    "NoTrace": _refusal("The organization has no such trace, or does not show it.", "NoTrace"),
    "StillRunning": _refusal("The span is of a call that has not ended."),
    "TooLarge": _refusal("The body is larger than [server] max_body_mb, or the answer takes too long to make."),
    "Invalid": _refusal("Every field that cannot be stored is named.", "InvalidFields"),
    "Unavailable": _refusal(_NOT_NOW, headers={"Retry-After": ref("headers", "Retry-After")}),
    "NotLetIn": _refusal(_TOO_MUCH, headers=_MAY_RETRY),
    "CallRefused": {
        "description": "A refusal of the gateway, in OpenAI's error shape; or the upstream's own, as it is.",
        "headers": _MAY_NAME_SPAN | _MAY_RETRY,
        "content": {_JSON: {"schema": {"anyOf": [ref("schemas", "CallRefusal"), {}]}}, "*/*": {}},
    },
    "Passed": {
        "description": "Any other answer of the upstream, as it is.",
        "headers": _MAY_NAME_SPAN | _MAY_RETRY,
    },
}
# Of a request whose route is not even looked at.
_NOT_LET_IN = dict.fromkeys(("408", "414", "431", "503"), ref("responses", "NotLetIn"))
_UNAUTHORIZED = {"401": ref("responses", "NoKey"), "403": ref("responses", "NotFromHere")}
_UNREAD = {"400": ref("responses", "Malformed"), "413": ref("responses", "TooLarge")}
_UNSTORED = {"422": ref("responses", "Invalid"), "503": ref("responses", "Unavailable")}
_UNAVAILABLE = {"503": ref("responses", "Unavailable")}


def _passed(content: Schema, *, leaves_span: bool) -> Schema:
    """What a proxied request may be answered."""
    headers = {LOG_ID_HEADER: ref("headers", "Log-Id")} if leaves_span else {}
    refused = ref("responses", "CallRefused")
    return {
        "200": {"description": "The upstream's answer, as it is.", "headers": headers, "content": content},
        **dict.fromkeys((*_NOT_LET_IN, "400", "401", "403", "404", "413", "429", "502", "504"), refused),
        "default": ref("responses", "Passed"),
    }


def _body(schema: str, example: Schema | list[Schema]) -> Schema:
    return {"required": True, "content": {_JSON: {"schema": ref("schemas", schema), "example": example}}}


# The operations


def _described() -> dict[tuple[str, str], Schema | Callable[[str], Schema]]:
    """What is said of each line of the route table; of a catch-all, by method."""
    return {
        ("POST", "/v1/chat/completions"): _chat(),
        ("POST", "/api/chat/completions"): _chat(),
        ("POST", "/api/openai/v1/chat/completions"): _chat(),
        ("GET", "/v1/models"): _models(),
        ("GET", "/api/models"): _models(),
        (ANY_METHOD, "/v1/{rest}"): _relay,
        ("POST", "/api/request-logs/"): _create(),
        ("POST", "/api/request-logs/create/"): _create(),
        ("POST", "/api/request-logs/bulk/"): _bulk(),
        ("GET", "/api/request-logs/"): _list(),
        ("GET", "/api/request-logs/list/"): _list(),
        ("POST", "/api/request-logs/list/"): _list(with_filters=True),
        ("GET", "/api/request-logs/summary/"): _summary(),
        ("POST", "/api/request-logs/summary/"): _summary(with_filters=True),
        ("GET", "/api/request-logs/groups/"): _groups(),
        ("POST", "/api/request-logs/groups/"): _groups(with_filters=True),
        ("GET", "/api/request-logs/series/"): _series(),
        ("POST", "/api/request-logs/series/"): _series(with_filters=True),
        ("GET", "/api/prices"): _price(),
        ("GET", "/api/request-logs/live/"): _live(),
        ("GET", "/api/request-logs/values/"): _values(),
        ("GET", "/api/request-logs/export/"): _export(),
        ("GET", "/api/request-logs/audit/"): _audit(),
        ("POST", "/api/request-logs/batch/create/"): _create_batch(),
        ("PATCH", "/api/request-logs/batch-update/"): _edit_batch(),
        ("GET", "/api/request-logs/{unique_id}/"): _retrieve(),
        ("PATCH", "/api/request-logs/{unique_id}/"): _edit(),
        ("DELETE", "/api/request-logs/{unique_id}/"): _delete(),
        **{("POST", path): _otlp(path) for path in ("/v1/traces", "/api/v1/traces", "/api/v2/traces")},
        **{
            ("POST", path): _ingest(path)
            for path in (
                *("/v1/traces/ingest", "/api/v1/traces/ingest", "/api/openai/v1/traces/ingest"),
                "/api/traces/ingest",
            )
        },
        ("GET", "/api/users/list"): _users(),
        ("POST", "/api/users/list"): _users(with_filters=True),
        ("GET", "/api/users/{customer_identifier}"): _user("One user, and what is used of the budget"),
        ("PATCH", "/api/users/{customer_identifier}"): _edit_user(),
        ("DELETE", "/api/users/{customer_identifier}"): _delete_user(),
        ("GET", "/api/log_threads"): _threads(),
        ("POST", "/api/log_threads"): _threads(with_filters=True),
        ("GET", "/api/log_threads/{thread_identifier}"): _thread(),
        ("GET", "/api/traces/list"): _traces(),
        ("POST", "/api/traces/list"): _traces(with_filters=True),
        ("POST", "/api/traces/bulk"): _delete_traces(),
        ("POST", "/api/traces/bulk-delete"): _delete_traces(),
        ("GET", "/api/traces/{trace_unique_id}"): _trace(),
        ("PATCH", "/api/traces/{trace_unique_id}"): _share_trace(),
        ("DELETE", "/api/traces/{trace_unique_id}"): _delete_trace(),
        ("GET", "/api/{organization_id}/traces/{trace_unique_id}"): _trace(public=True),
        **{("GET", path): said for path, said in _read_only().items()},
        **{("HEAD", path): _without_body(said) for path, said in _read_only().items()},
        ("POST", "/login"): _login(),
        ("POST", "/logout"): _logout(),
        ("GET", "/api/session"): _session(),
    }


def _read_only() -> dict[str, Schema]:
    """What is open to everyone, and to HEAD."""
    return {**_status_routes(), **_page_routes()}


def _status_routes() -> dict[str, Schema]:
    return {
        "/health": _status("Whether the process is up", {"200": _says("It is.", {"status": {"const": "ok"}})}),
        "/ready": _status(
            "Whether the store takes spans, and takes them in time",
            {
                "200": _says("It does.", {"status": {"const": "ready"}}),
                "503": _says("It does not.", {"detail": {"type": "string"}}, _MAY_RETRY),
            },
        ),
        "/metrics": _status("Prometheus", {"200": {"description": "All metrics.", "content": {"text/plain": {}}}}),
        "/openapi.json": _status("This document", {"200": _says("OpenAPI 3.1.", {"openapi": {}, "paths": {}})}),
        "/docs": _status(
            "This document as a page to read", {"200": {"description": "HTML.", "content": {"text/html": {}}}}
        ),
        "/docs/style.css": _status(
            "How that page looks", {"200": {"description": "CSS.", "content": {"text/css": {}}}}
        ),
    }


def _page_routes() -> dict[str, Schema]:
    text: Schema = {"content": {"text/html": {}}}
    kinds: Schema = {kind: {} for kind in ("text/css", "text/javascript", "image/svg+xml")}
    found: Schema = {"200": {"description": "The file.", "content": kinds}, "404": ref("responses", "NotFound")}
    return {
        "/": _of_page(
            "The dashboard",
            {"200": {"description": "For who is signed in.", **text}, "303": _goes_on("To /login, for all others.")},
        ),
        "/login": _of_page(
            "The form to sign in with",
            {"200": {"description": "HTML.", **text}, "303": _goes_on("To the dashboard, for who is signed in.")},
        )
        | {"parameters": [_in_query("next", {"type": "string", "description": "Path to go on to."})]},
        "/dashboard/{file}": _of_page("What these pages are made of", found),
    }


def _login() -> Schema:
    responses = {
        "303": _goes_on("It is so: to `next`, with the cookie."),
        **_UNREAD,
        "401": {"description": "A wrong key, or a link that is none any more.", "content": {"text/html": {}}},
        "403": ref("responses", "NotFromHere"),
        **_UNAVAILABLE,
    }
    sent = {"schema": ref("schemas", "SignIn"), "example": {"key": "…"}}
    body = {"required": True, "content": {_FORM: sent}}
    return _of_page("Sign in", responses) | {"requestBody": body}


def _logout() -> Schema:
    responses = {"303": _goes_on("It is so: to /login."), "403": ref("responses", "NotFromHere")}
    return _of_page("Sign out", responses)


def _session() -> Schema:
    found: Schema = {name: {"type": "string"} for name in ("key", "organization_id", "environment", "version")}
    return _of_page("Whose key it is", {"200": _says("By its name.", found), **_UNAUTHORIZED})


def _goes_on(description: str) -> Schema:
    return {"description": description, "headers": {"Location": {"schema": {"type": "string"}}}}


def _of_page(summary: str, responses: Schema) -> Schema:
    return {"tags": ["page"], "summary": summary, "responses": responses}


def _chat() -> Schema:
    completion = {"anyOf": [ref("schemas", "ChatCompletion"), {"description": "What else the upstream may say."}]}
    return {
        "tags": ["proxy"],
        "summary": "A chat completion; leaves a span",
        "parameters": [_PARAMS],
        "requestBody": _body("ChatRequest", {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}),
        "responses": _passed({_JSON: {"schema": completion}, "text/event-stream": {}, "*/*": {}}, leaves_span=True),
    }


def _models() -> Schema:
    return {
        "tags": ["proxy"],
        "summary": "The models that are served",
        "responses": {
            "200": _answer("All of them.", ref("schemas", "Models")),
            **dict.fromkeys(_NOT_LET_IN, _refusal(_TOO_MUCH, "CallRefusal", _MAY_RETRY)),
            "401": _refusal("No key, or a wrong one.", "CallRefusal"),
            "403": _refusal(_NOT_FROM_HERE, "CallRefusal"),
        },
    }


def _relay(method: str) -> Schema:
    is_call = method == "post"
    takes_body = method in ("put", "post", "patch")
    # Only a call has a body of which something is known: it names a model.
    sent = {"example": {"model": "text-embedding-3-small", "input": "Hi"}} if is_call else {}
    return {
        "tags": ["proxy"],
        "summary": f"Relayed to the upstream that serves its model{'; leaves a span' if is_call else ''}",
        "parameters": [_PARAMS] if is_call else [],
        **({"requestBody": {"content": {_JSON: sent, "application/octet-stream": {}}}} if takes_body else {}),
        "responses": _passed({"*/*": {}}, leaves_span=is_call),
    }


def _create() -> Schema:
    retrieve = {
        "operationId": _operation_id("get", "/api/request-logs/{unique_id}/"),
        "parameters": {"unique_id": "$response.body#/unique_id"},
    }
    created = _answer("The span as it is stored, after its commit.", ref("schemas", "CreatedSpan"))
    return {
        "tags": ["spans"],
        "summary": "Create a span",
        "parameters": [_PARAMS],
        "requestBody": _body("NewSpan", {"model": "gpt-4o-mini", "input": "Hi", "output": "Hello!"}),
        "responses": {"201": created | {"links": {"retrieve": retrieve}}, **_UNREAD, **_UNAUTHORIZED, **_UNSTORED},
    }


def _bulk() -> Schema:
    unread = {"anyOf": [ref("schemas", "BulkResult"), ref("schemas", "Refusal")]}
    return {
        "tags": ["spans"],
        "summary": f"Create up to {BULK_AT_MOST} spans, each on its own",
        "parameters": [_PARAMS],
        "requestBody": _body("Bulk", {"logs": [{"model": "gpt-4o-mini", "input": "Hi", "output": "Hello!"}]}),
        "responses": {
            "201": _answer("At least one is stored.", ref("schemas", "BulkResult")),
            **_UNREAD,
            "400": _answer("None is stored, or the body is no JSON object.", unread),
            **_UNAUTHORIZED,
            **_UNSTORED,
        },
    }


def _audit() -> Schema:
    return {
        "tags": ["spans"],
        "summary": "Whether every call is accounted for",
        "parameters": [_in_query("start_time", _time()), _in_query("end_time", _time())],
        "responses": {
            "200": _answer("What came in, beside what is stored.", ref("schemas", "Audit")),
            "400": ref("responses", "Malformed"),
            **_UNAUTHORIZED,
            **_UNAVAILABLE,
        },
    }


def _price() -> Schema:
    parameters: Schema = {
        "response_model": {"type": "string", "description": "As the answer names it; its price comes first."},
        "time": _time(),
        "prompt_tokens": _WHOLE | {"minimum": 0, "description": "Some prices depend on how many these are."},
    }
    return {
        "tags": ["lists"],
        "summary": "What a model's tokens cost now, in USD per 1 million",
        "parameters": [
            _in_query("model", {"type": "string", "minLength": 1}) | {"required": True, "example": "gpt-4o-mini"},
            *(_in_query(name, schema) for name, schema in parameters.items()),
        ],
        "responses": {
            "200": _answer("The price, or null where none is known.", ref("schemas", "Price")),
            "400": ref("responses", "Malformed"),
            **_UNAUTHORIZED,
        },
    }


def _list(*, with_filters: bool = False) -> Schema:
    return _question(
        "Spans, in an order that stays; without a time range all there are",
        {
            **_PAGED,
            "sort_by": _sort(SPAN_SORTS, "-timestamp"),
            **_RANGE,
            "log_type": {"type": "string"},
            "include_fields": _INCLUDE_FIELDS,
            "search": _SEARCH,
            **{name: {"type": "string", "description": "Has no effect."} for name in sorted(PASSED_OVER)},
        },
        _answer("A page; one past the end is empty.", ref("schemas", "Page")),
        with_filters=with_filters,
    )


_SEARCH: Schema = {"type": "string", "description": "Words that input or output hold."}
_INCLUDE_FIELDS: Schema = {
    "type": "string",
    "description": f"Fields to show, separated by commas; also {', '.join(LISTED)}, which only who asks for them gets.",
}


def _summary(*, with_filters: bool = False) -> Schema:
    found = _answer("Zeros where there are none.", ref("schemas", "Summary"))
    return _question("Sums and averages over spans", _RANGE, found, with_filters=with_filters)


def _groups(*, with_filters: bool = False) -> Schema:
    parameters = {
        "group_by": {"enum": list(GROUPS), "default": "model"},
        "sort_by": _sort(GROUP_SORTS, "-number_of_requests"),
        **_PAGED,
        **_RANGE,
    }
    found = _answer("A page of groups.", ref("schemas", "Groups"))
    return _question("Sums and averages by what spans have in common", parameters, found, with_filters=with_filters)


def _series(*, with_filters: bool = False) -> Schema:
    parameters = {
        "interval": {"enum": [AUTO, *INTERVALS], "default": AUTO},
        "group_by": {"enum": list(SERIES_GROUPS)},
        "limit": _WHOLE
        | {"default": GROUPS_SHOWN, "description": f"How many groups; above {GROUPS_SHOWN_AT_MOST} is that."},
        **_RANGE,
    }
    found = _answer("Points in the order of time; those without spans are left out.", ref("schemas", "Series"))
    return _question("Sums and percentiles over time", parameters, found, with_filters=with_filters)


def _live() -> Schema:
    parameters = {
        **_RANGE,
        "log_type": {"type": "string"},
        "include_fields": _INCLUDE_FIELDS,
        "search": _SEARCH,
        "after": _PLACE | {"description": f"Goes on behind the event of this id; {LAST_EVENT_ID} wins over it."},
    }
    found = _question("Spans as they come and change", parameters, _LIVE, with_filters=False)
    in_head = {
        "name": LAST_EVENT_ID,
        "in": "header",
        "schema": _PLACE | {"description": "An EventSource sends it by itself when it comes back."},
    }
    return {**found, "parameters": [*found["parameters"], in_head]}


_PLACE: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_LIVE: Schema = {
    "description": "Server-sent events without an end. `ready`: what comes from here on is told. `span`: it came or"
    " changed, as the list shows it, also a call that still runs (`is_open`). `left`: it changed and fits the filter no"
    ' more, or never did (`{"id"}`). `deleted` (`{"id"}`). `gap`: too much happened to tell it, load the list again.'
    " The id of each is its place in the journal; a comment each 15 s.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


_VALUES_TOLD = (
    "Most frequent first; of metadata and properties their keys. Those longer than "
    f"{VALUE_AT_MOST} characters are left out, and fewer spans are looked at where these hold very much."
)


def _values() -> Schema:
    names = [name for name, kind in FIELDS.items() if kind in LISTED_KINDS]
    names += [alias for alias, name in ALIASES.items() if name in names]
    member = {"type": "string", "pattern": r"^(metadata|properties)__[\s\S]"}
    parameters = {
        "field": {"anyOf": [{"enum": ["", *names]}, member], "default": VALUES_OF},
        "prefix": {"type": "string", "description": "How they begin, without regard to case."},
        "limit": _WHOLE | {"default": VALUES_SHOWN, "description": f"How many; above {VALUES_SHOWN_AT_MOST} is that."},
        **_RANGE,
        "log_type": {"type": "string"},
        "search": _SEARCH,
    }
    return _question(
        f"Which values a field has in the newest {VALUES_OF_SPANS:,} spans",
        parameters,
        _answer(_VALUES_TOLD, ref("schemas", "Values")),
        with_filters=False,
    )


def _export() -> Schema:
    parameters = {
        "format": {"enum": list(FORMATS), "default": "jsonl"},
        "sort_by": _sort(EXPORT_SORTS, "-timestamp"),
        **_RANGE,
        "log_type": {"type": "string"},
        "search": _SEARCH,
    }
    told = (
        "All of them that run no more: as the list shows them, or the columns of `gateway export`. No more than "
        f"{EXPORTS_AT_MOST} at once, and by HTTP/1.1 only."
    )
    answer = {
        "description": told,
        "headers": {"Content-Disposition": {"required": True, "schema": {"type": "string"}}},
        "content": {media: {"schema": {"type": "string"}} for media in FORMATS.values()},
    }
    return _question("Spans as a file to download", parameters, answer, with_filters=False)


_WHOLE = {"type": "integer", "minimum": 1, "maximum": 10**12 - 1}
_PAGED: Schema = {
    "page": _WHOLE | {"default": 1},
    "page_size": _WHOLE | {"default": PAGE_SIZE, "description": f"Above {PAGE_SIZE_AT_MOST} is {PAGE_SIZE_AT_MOST}."},
}
_RANGE: Schema = {"start_time": _time(), "end_time": _time(), "environment": {"type": "string"}}


def _sort(names: Iterable[str], default: str) -> Schema:
    return {"enum": [sign + name for name in names for sign in ("", "-")], "default": default}


_FILTERS: Schema = {
    "SpanFilters": {"model": {"operator": "startswith", "value": ["gpt-"]}},
    "TraceFilters": {"total_cost": {"operator": "gte", "value": [0.01]}},
    "UserFilters": {"number_of_requests": {"operator": "gte", "value": [10]}},
    "ThreadFilters": {"customer_identifier": {"operator": "", "value": ["u-1"]}},
}


_FILTERED: Schema = {
    "filters": {"type": "string", "description": "JSON, as `filters` of a body."},
    "operator": {"enum": ["AND", "OR", ""], "default": "AND", "description": "Joins the fields of `filters`."},
}


def _question(
    summary: str, parameters: Schema, answer: Schema, *, with_filters: bool, of: str = "SpanFilters"
) -> Schema:
    body = {"requestBody": {"content": {_JSON: {"schema": ref("schemas", of), "example": {"filters": _FILTERS[of]}}}}}
    return {
        "tags": ["lists"],
        "summary": summary,
        "parameters": [_in_query(name, schema) for name, schema in (parameters | _FILTERED).items()],
        **(body if with_filters else {}),
        "responses": {
            "200": answer,
            "400": ref("responses", "Malformed"),
            "413": ref("responses", "TooLarge"),
            **_UNAUTHORIZED,
            **_UNAVAILABLE,
        },
    }


def _retrieve() -> Schema:
    return {
        "tags": ["spans"],
        "summary": "One span",
        "responses": {
            "200": _answer("The span.", ref("schemas", "Span")),
            **_UNAUTHORIZED,
            "404": ref("responses", "NotFound"),
            **_UNAVAILABLE,
        },
    }


_UNINGESTED = ("Ingested", "Refusal", "CallRefusal")


def _refusals(path: str) -> Schema:
    """What a tracer may be refused with, in the shape of errors at this path."""
    if is_openai_route(path):
        return dict.fromkeys((*_NOT_LET_IN, "400", "401", "403", "413"), ref("responses", "CallRefused"))
    return {**_UNREAD, **_UNAUTHORIZED, **_UNAVAILABLE}


_OTLP_SPAN = {
    **{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "step"},
    **{"startTimeUnixNano": "1767225600000000000", "endTimeUnixNano": "1767225601000000000"},
}
_OTLP = {"resourceSpans": [{"scopeSpans": [{"spans": [_OTLP_SPAN]}]}]}


def _otlp(path: str) -> Schema:
    sent = {"schema": ref("schemas", "Otlp"), "example": _OTLP}
    told = members({"rejectedSpans": {"type": "integer"}, "errorMessage": {"type": "string"}})
    answer = _says("What is not stored is told.", {"partialSuccess": told})
    answer["content"] |= {"application/x-protobuf": {}}
    return {
        "tags": ["tracing"],
        "summary": "OTLP/HTTP: spans of OpenTelemetry",
        "requestBody": {"required": True, "content": {_JSON: sent, "application/x-protobuf": {}}},
        "responses": {"200": answer, **_refusals(path)},
    }


def _ingest(path: str) -> Schema:
    found = _answer("What is stored, and what is wrong with the rest.", ref("schemas", "Ingested"))
    example = [{"trace_unique_id": "t", "span_unique_id": "s", "span_name": "step"}]
    return {
        "tags": ["tracing"],
        "summary": "Spans of traces, with the fields of create-span",
        "requestBody": _body("Steps", example),
        "responses": {
            "200": found,
            **_refusals(path),
            "400": _answer("Nothing is stored.", {"anyOf": [ref("schemas", name) for name in _UNINGESTED]}),
        },
    }


def _users(*, with_filters: bool = False) -> Schema:
    found = _answer("A page of users.", ref("schemas", "Users"))
    parameters = {**_PAGED, "sort_by": _sort(USER_SORTS, "-first_seen"), **_RANGE}
    said = "Users, as their spans show them"
    return _question(said, parameters, found, with_filters=with_filters, of="UserFilters") | {"tags": ["users"]}


def _user(summary: str) -> Schema:
    return {
        "tags": ["users"],
        "summary": summary,
        "parameters": [_in_query("environment", {"type": "string"})],
        "responses": {
            "200": _answer("The user.", ref("schemas", "User")),
            **_UNAUTHORIZED,
            "404": ref("responses", "NotFound"),
            "413": ref("responses", "TooLarge"),
            **_UNAVAILABLE,
        },
    }


def _edit_user() -> Schema:
    said = _user("Keep what is said of a user")
    body = _body("UserChanges", {"name": "Ada", "period_budget": 10, "budget_duration": "monthly"})
    return {**said, "requestBody": body, "responses": {**said["responses"], **_UNREAD, **_UNSTORED}}


def _delete_user() -> Schema:
    said = _user("Forget a user; the spans stay, and the next one brings the user back")
    responses = {status: answer for status, answer in said["responses"].items() if status != "200"}
    return {**said, "responses": {"204": {"description": "It is so."}, **responses}}


def _threads(*, with_filters: bool = False) -> Schema:
    found = _answer("A page of threads.", ref("schemas", "Threads"))
    parameters = {**_PAGED, "sort_by": _sort(THREAD_SORTS, "-timestamp"), **_RANGE}
    return _question("Threads", parameters, found, with_filters=with_filters, of="ThreadFilters") | {
        "tags": ["threads"]
    }


def _thread() -> Schema:
    said = _user("A thread as a conversation")
    found = _says("The thread.", {"thread_identifier": {}, "log_count": {}, "messages": {}, "unique_ids": {}})
    return {**said, "tags": ["threads"], "parameters": [], "responses": {**said["responses"], "200": found}}


def _traces(*, with_filters: bool = False) -> Schema:
    found = _answer("A page of traces.", ref("schemas", "Traces"))
    parameters = {**_PAGED, "sort_by": _sort(TRACE_SORTS, "-timestamp"), **_RANGE}
    return _question("Traces", parameters, found, with_filters=with_filters, of="TraceFilters") | {"tags": ["traces"]}


_INCLUDE_CONTENT: Schema = {
    "type": "boolean",
    "default": True,
    "description": "Without it `input`, `output` and `metadata` are null, and are not read.",
}


def _trace(*, public: bool = False) -> Schema:
    return {
        "tags": ["traces"],
        "summary": "A trace that is shown to everyone" if public else "One trace, with its tree",
        "parameters": [_in_query("include_content", _INCLUDE_CONTENT)],
        "responses": {
            "200": _answer("The trace.", ref("schemas", "WholeTrace")),
            "400": ref("responses", "Malformed"),
            **({} if public else _UNAUTHORIZED),
            "404": ref("responses", "NoTrace"),
            "413": ref("responses", "TooLarge"),
            **_UNAVAILABLE,
        },
    }


def _share_trace() -> Schema:
    shared = {"trace_unique_id": {"type": "string"}, "is_public": {"type": "boolean"}}
    return {
        "tags": ["traces"],
        "summary": "Show a trace to everyone, or no more",
        "requestBody": _body("Share", {"is_public": True}),
        "responses": {"200": _says("It is so.", shared), **_UNREAD, **_UNAUTHORIZED, **_UNAVAILABLE},
    }


def _delete_trace() -> Schema:
    return {
        "tags": ["traces"],
        "summary": "Delete the spans of a trace; those that still run stay",
        "parameters": [_in_query("start_time", _time()), _in_query("end_time", _time())],
        "responses": {
            "200": _says("They are gone, after the commit; also where there were none.", {"message": {}}),
            "400": ref("responses", "Malformed"),
            **_UNAUTHORIZED,
            **_UNAVAILABLE,
        },
    }


def _delete_traces() -> Schema:
    deleted: Schema = {"success_count": {}, "error_count": {}, "errors": {}, "deleted_count": {}, "message": {}}
    return {
        "tags": ["traces"],
        "summary": f"Delete the traces that filters find, at most {DELETED_AT_MOST}",
        "requestBody": _body("Deletion", {"filters": {"customer_identifier": {"operator": "", "value": ["u-1"]}}}),
        "responses": {"200": _says("They are gone.", deleted), **_UNREAD, **_UNAUTHORIZED, **_UNSTORED},
    }


def _create_batch() -> Schema:
    unread = {"anyOf": [ref("schemas", "BatchResult"), ref("schemas", "Refusal")]}
    return {
        "tags": ["spans"],
        "summary": f"The older form of bulk, up to {BATCH_AT_MOST}",
        "parameters": [_PARAMS],
        "requestBody": _body("Bulk", {"logs": [{"model": "gpt-4o-mini", "input": "Hi", "output": "Hello!"}]}),
        "responses": {
            "201": _answer("Of each its id, or what is wrong with it.", ref("schemas", "BatchResult")),
            **_UNREAD,
            "400": _answer(
                "None is stored, or the body is no JSON object.",
                unread,
            ),
            **_UNAUTHORIZED,
            **_UNSTORED,
        },
    }


def _edit() -> Schema:
    return {
        "tags": ["spans"],
        "summary": f"Change {', '.join(EDITABLE)}",
        "requestBody": _body("Changes", {"note": "Good.", "metadata": {"reviewed": "yes"}}),
        "responses": {
            "200": _answer("The span as it is stored, after the commit.", ref("schemas", "Span")),
            **_UNREAD,
            **_UNAUTHORIZED,
            "404": ref("responses", "NotFound"),
            "409": ref("responses", "StillRunning"),
            **_UNSTORED,
        },
    }


def _edit_batch() -> Schema:
    unread = {"anyOf": [ref("schemas", "BulkResult"), ref("schemas", "Refusal")]}
    return {
        "tags": ["spans"],
        "summary": f"Change up to {BATCH_AT_MOST} spans, each on its own",
        "requestBody": _body("BatchChanges", {"logs": [{"unique_id": "…", "note": "Good."}]}),
        "responses": {
            "200": _answer("At least one is changed.", ref("schemas", "BulkResult")),
            **_UNREAD,
            "400": _answer("None is changed, or the body is no JSON object.", unread),
            **_UNAUTHORIZED,
            **_UNSTORED,
        },
    }


def _delete() -> Schema:
    return {
        "tags": ["spans"],
        "summary": "Delete a span",
        "responses": {
            "204": {"description": "It is gone, after the commit."},
            **_UNAUTHORIZED,
            "404": ref("responses", "NotFound"),
            "409": ref("responses", "StillRunning"),
            **_UNAVAILABLE,
        },
    }


def _status(summary: str, responses: Schema) -> Schema:
    return {"tags": ["status"], "summary": summary, "responses": responses}


def _without_body(operation: Schema) -> Schema:
    responses = {
        status: {name: said for name, said in answer.items() if name != "content"}
        for status, answer in operation["responses"].items()
    }
    return {**operation, "summary": f"{operation['summary']}, by its head alone", "responses": responses}


def _says(description: str, properties: Schema, headers: Schema | None = None) -> Schema:
    return _answer(description, members(properties), headers)
