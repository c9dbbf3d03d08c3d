"""What a request for a list or a sum asks for: which, how many, in which order."""

import re
from collections.abc import Collection
from datetime import datetime
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from gateway.core import filters
from gateway.core.filters import ANY_CONTENT, BETWEEN, FULL_TEXT, SPAN_FIELDS, Condition, Fields, Filter
from gateway.core.jsontext import parse
from gateway.core.span import Time
from gateway.errors import MalformedBody
from gateway.web.bodies import as_object, read_body
from gateway.web.replies import json_reply

PAGE_SIZE = 50
PAGE_SIZE_AT_MOST = 1000
_LAST_ROW = 2**62
# In a query: `name`, or `name[value]`, `name[operator]` and `name[connector]`.
_PART = re.compile(r"(.+)\[(value|operator|connector)\]")
_RANGE = (("start_time", "gte"), ("end_time", "lte"))
_time: TypeAdapter[datetime] = TypeAdapter(Time)
# In a query: the filters of a body, as JSON, and what joins them.
_WHOLE = ("filters", "operator")
# Clients send these; they have no effect here.
PASSED_OVER = frozenset({"is_test", "all_envs", "fetch_filters"})


async def asked(
    request: web.Request,
    parameters: Collection[str],
    fields: Fields = SPAN_FIELDS,
    *,
    passed_over: Collection[str] = frozenset(),
) -> Filter:
    """Which rows a request is about: by its query and, where it has one, by its body. `parameters`: what else its
    query may have. Raises MalformedBody."""
    for name in _WHOLE:
        if len(request.query.getall(name, ())) > 1:
            raise MalformedBody(f"{name}: is there more than once.")
    found = [_in_query(request, parameters, {*PASSED_OVER, *passed_over, *_WHOLE} - set(parameters), fields)]
    text = request.query.get("filters")
    found.append(fields.parse(_json(text) if text else {}, request.query.get("operator")))
    if request.method == "POST" and (body := await read_body(request)).strip():
        sent = as_object(request, body)
        found.append(fields.parse(sent.get("filters"), sent.get("operator")))
    return filters.both(*found)


def _in_query(
    request: web.Request, parameters: Collection[str], passed_over: Collection[str], fields: Fields
) -> Filter:
    query = request.query
    found: list[Filter] = []
    times = [_range_end(query.get(name), name, operator) for name, operator in _RANGE]
    if times != [None, None]:
        found.append(Condition("timestamp", BETWEEN, tuple(times)))
    exact = [name for name in ("environment", "log_type") if name in parameters and query.get(name)]
    found += [fields.condition(name, filters.EQUALS, query[name]) for name in exact]
    if "search" in parameters and (text := query.get("search")):
        found.append(fields.condition(ANY_CONTENT, FULL_TEXT, text))
    quick: dict[str, dict[str, Any]] = {}
    unknown: set[str] = set()
    for name, text in query.items():
        if name in parameters or name in passed_over:
            continue
        part = _PART.fullmatch(name)
        field, role = (part[1], part[2]) if part else (name, "value")
        if not fields.knows(field):
            unknown.add(name)
        elif role == "value":
            quick.setdefault(field, {}).setdefault("value", []).append(text)
        else:
            quick.setdefault(field, {})[role] = text
    if unknown:
        raise MalformedBody(
            f"{', '.join(sorted(unknown))}: not supported; use {', '.join(sorted(parameters))},"
            f" or a field: {', '.join(fields.names())}."
        )
    return filters.both(*found, fields.parse(quick))


def _json(text: str) -> Any:
    try:
        return parse(text)
    except MalformedBody:
        raise MalformedBody("filters: must be JSON, as a body has them.") from None


def _range_end(text: str | None, name: str, operator: str) -> str | None:
    # A + that was not encoded arrives as a space.
    return SPAN_FIELDS.condition("timestamp", operator, text.replace(" ", "+"), told=name).values[0] if text else None


def time_in(request: web.Request, name: str) -> datetime | None:
    """A time in the query. Raises MalformedBody."""
    text = request.query.get(name)
    if not text:
        return None
    try:
        return _time.validate_python(text.replace(" ", "+"))
    except ValidationError:
        raise MalformedBody(f"{name}: must be an ISO 8601 time.") from None


def number_in(request: web.Request, name: str, default: int) -> int:
    """A whole number above 0 in the query. Raises MalformedBody."""
    return _positive(request.query.get(name) or str(default), name)


def whole_in(request: web.Request, name: str, default: int) -> int:
    """A whole number, 0 or more, in the query. Raises MalformedBody."""
    text = request.query.get(name) or str(default)
    if not _is_whole(text):
        raise MalformedBody(f"{name}: must be a whole number, 0 or more.")
    return int(text)


def truth_in(request: web.Request, name: str, *, default: bool) -> bool:
    """Whether the query says true or false. Raises MalformedBody."""
    text = request.query.get(name)
    if text not in (None, "true", "false"):
        raise MalformedBody(f"{name}: must be true or false.")
    return default if text is None else text == "true"


def page_asked(request: web.Request) -> tuple[int, int]:
    """Which page, and how many rows it has. Raises MalformedBody."""
    size = min(number_in(request, "page_size", PAGE_SIZE), PAGE_SIZE_AT_MOST)
    return number_in(request, "page", 1), size


def _positive(text: str, name: str) -> int:
    if not (_is_whole(text) and int(text) > 0):
        raise MalformedBody(f"{name}: must be a whole number above 0.")
    return int(text)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 12


def names(text: str | None) -> list[str] | None:
    """The fields that are wanted; None is all of them."""
    names = [name.strip() for name in (text or "").split(",")]
    return [name for name in names if name] or None


def offset(page: int, size: int) -> int:
    """Where a page begins."""
    return min((page - 1) * size, _LAST_ROW)


def page_reply(request: web.Request, page: int, size: int, rows: list[dict[str, Any]], **more: Any) -> web.Response:
    """A page as clients read it, of its rows and those behind it, if there are any; `more`: members besides."""
    shown = rows[:size]
    return json_reply(
        {
            "count": len(shown),
            "next": page_url(request, page + 1) if len(rows) > size else None,
            "previous": page_url(request, page - 1) if page > 1 else None,
            **more,
            "results": shown,
        }
    )


def page_url(request: web.Request, page: int, cursor: str | None = None) -> str:
    """Where another page of the same is."""
    url = request.url.without_query_params("cursor").update_query(page=page)
    return str(url.update_query(cursor=cursor) if cursor is not None else url)
