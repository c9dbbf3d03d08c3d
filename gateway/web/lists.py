"""Lists of spans, and sums over them."""

import re
from collections.abc import Collection
from functools import partial
from typing import Any

from aiohttp import web

from gateway.core import filters, walk
from gateway.core.filters import ANY_CONTENT, FULL_TEXT, SPAN_FIELDS, Filter
from gateway.core.jsontext import dump
from gateway.core.prices import usd
from gateway.core.reading import columns_of, page_of
from gateway.core.walk import SPAN_SORTS
from gateway.errors import MalformedBody
from gateway.recorder import Caller
from gateway.store.lists import GROUP_SORTS, Sums
from gateway.store.store import Store
from gateway.web.bodies import as_object, read_body
from gateway.web.replies import json_reply, json_text_reply

PAGE_SIZE = 50
PAGE_SIZE_AT_MOST = 1000
_LAST_ROW = 2**62
# In a query: `name`, or `name[value]`, `name[operator]` and `name[connector]`.
_PART = re.compile(r"(.+)\[(value|operator|connector)\]")

_RANGE = frozenset({"start_time", "end_time", "environment"})
# Clients send these; they have no effect here.
PASSED_OVER = frozenset({"is_test", "all_envs", "fetch_filters"})
LIST_PARAMETERS = _RANGE | {"page", "page_size", "sort_by", "log_type", "include_fields", "cursor", "search"}
SUMMARY_PARAMETERS = _RANGE
GROUP_PARAMETERS = _RANGE | {"group_by", "sort_by", "page", "page_size"}
_OF_OTHER_LISTS = frozenset({"page", "page_size", "sort_by", "log_type"})

# By what spans can be grouped: the name of the key in a row.
GROUPS = {
    **{
        name: name
        for name in (
            *("model", "provider_id", "organization_key_id", "prompt_id", "deployment_id", "deployment_name"),
            *("custom_identifier", "customer_identifier"),
        )
    },
    "trace": "trace_unique_id",
    "thread": "thread_identifier",
}


class ListHandlers:
    """What the routes of lists and sums do."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Spans in an order that stays. A page past the end has no results and is no error: Respan's pager stops there.

        `next` carries a cursor, which goes on behind the last span shown; `page` alone is an offset from the first.
        """
        query = request.query
        by = walk.order(query.get("sort_by"), SPAN_SORTS)
        where = await _asked(request, LIST_PARAMETERS)
        place = walk.place(cursor, by) if (cursor := query.get("cursor")) else None
        page, size = _page(request)
        wanted = _names(query.get("include_fields"))
        results, following = await self._store.page(
            caller.organization_id,
            where,
            by,
            size=size,
            place=place,
            offset=0 if place is not None else min((page - 1) * size, _LAST_ROW),
            columns=None if wanted is None else columns_of(wanted),
            shape=partial(page_of, wanted=wanted),
        )
        rest = {
            "count": len(results),
            "next": following and _page_url(request, page + 1, walk.cursor(following, by)),
            "previous": _page_url(request, page - 1) if page > 1 else None,
        }
        return json_text_reply(f'{dump(rest)[:-1]},"results":[{",".join(results)}]}}')

    async def summary(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Sums and averages over spans; zeros where there are none."""
        where = await _asked(request, SUMMARY_PARAMETERS, passed_over=_OF_OTHER_LISTS)
        found = await self._store.sums(caller.organization_id, where)
        return json_reply(
            {
                "number_of_requests": found.spans,
                "total_cost": usd(found.cost_picos),
                "total_tokens": found.total_tokens,
                "total_prompt_tokens": found.prompt_tokens,
                "total_completion_tokens": found.completion_tokens,
                "avg_latency": found.latency or 0.0,
                "avg_tps": found.tokens_per_second or 0.0,
                "avg_ttft": found.time_to_first_token or 0.0,
                "scores": {},
            }
        )

    async def groups(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """The same by what spans have in common."""
        query = request.query
        name = GROUPS.get(query.get("group_by") or "model")
        if name is None:
            raise MalformedBody(f"group_by: must be one of {', '.join(GROUPS)}.")
        by = walk.order(query.get("sort_by") or "-number_of_requests", {sort: sort for sort in GROUP_SORTS})
        where = await _asked(request, GROUP_PARAMETERS)
        page, size = _page(request)
        found = await self._store.groups(
            caller.organization_id, where, name, by, limit=size + 1, offset=min((page - 1) * size, _LAST_ROW)
        )
        shown = found[:size]
        return json_reply(
            {
                "count": len(shown),
                "next": _page_url(request, page + 1) if len(found) > size else None,
                "previous": _page_url(request, page - 1) if page > 1 else None,
                "current_filters": {},
                "filters_data": {},
                "results": [{name: key, **_group(sums)} for key, sums in shown],
            }
        )


def _group(sums: Sums) -> dict[str, Any]:
    return {
        "date_group": sums.newest,
        "number_of_requests": sums.spans,
        "span_count": sums.spans,
        "total_cost": usd(sums.cost_picos),
        "total_tokens": sums.total_tokens,
        "total_prompt_tokens": sums.prompt_tokens,
        "total_completion_tokens": sums.completion_tokens,
        "error_count": sums.failed,
        "error_percentage": 100 * sums.failed / sums.spans,
        "average_cost": usd(sums.cost_picos / sums.with_cost) if sums.with_cost else 0.0,
        "average_tokens": round(sums.total_tokens / sums.spans),
        "average_latency": sums.latency or 0.0,
        "average_ttft": sums.time_to_first_token or 0.0,
        "average_tps": sums.tokens_per_second or 0.0,
        "cache_hit_percentage": 0.0,
    }


async def _asked(
    request: web.Request, parameters: Collection[str], *, passed_over: Collection[str] = frozenset()
) -> Filter:
    """Which spans a request is about: by its query and, where it has one, by its body. Raises MalformedBody."""
    asked = [_in_query(request, parameters, {*PASSED_OVER, *passed_over} - set(parameters))]
    if request.method == "POST" and (body := await read_body(request)).strip():
        sent = as_object(request, body)
        asked.append(SPAN_FIELDS.parse(sent.get("filters"), sent.get("operator")))
    return filters.both(*asked)


def _in_query(request: web.Request, parameters: Collection[str], passed_over: Collection[str]) -> Filter:
    query = request.query
    found: list[Filter] = []
    for name, operator in (("start_time", "gte"), ("end_time", "lte")):
        if text := query.get(name):
            # A + that was not encoded arrives as a space.
            found.append(SPAN_FIELDS.condition("timestamp", operator, text.replace(" ", "+"), told=name))
    exact = [name for name in ("environment", "log_type") if name in parameters and query.get(name)]
    found += [SPAN_FIELDS.condition(name, filters.EQUALS, query[name]) for name in exact]
    if "search" in parameters and (text := query.get("search")):
        found.append(SPAN_FIELDS.condition(ANY_CONTENT, FULL_TEXT, text))
    quick: dict[str, dict[str, Any]] = {}
    unknown: set[str] = set()
    for name, text in query.items():
        if name in parameters or name in passed_over:
            continue
        part = _PART.fullmatch(name)
        field, role = (part[1], part[2]) if part else (name, "value")
        if not SPAN_FIELDS.knows(field):
            unknown.add(name)
        elif role == "value":
            quick.setdefault(field, {}).setdefault("value", []).append(text)
        else:
            quick.setdefault(field, {})[role] = text
    if unknown:
        raise MalformedBody(
            f"{', '.join(sorted(unknown))}: not supported; use {', '.join(sorted(parameters))},"
            f" or a field: {', '.join(SPAN_FIELDS.names())}."
        )
    return filters.both(*found, SPAN_FIELDS.parse(quick))


def _page(request: web.Request) -> tuple[int, int]:
    query = request.query
    size = min(_positive(query.get("page_size") or str(PAGE_SIZE), "page_size"), PAGE_SIZE_AT_MOST)
    return _positive(query.get("page") or "1", "page"), size


def _positive(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and int(text) > 0):
        raise MalformedBody(f"{name}: must be a whole number above 0.")
    return int(text)


def _names(text: str | None) -> list[str] | None:
    """The fields that are wanted; None is all of them."""
    names = [name.strip() for name in (text or "").split(",")]
    return [name for name in names if name] or None


def _page_url(request: web.Request, page: int, cursor: str | None = None) -> str:
    url = request.url.without_query_params("cursor").update_query(page=page)
    return str(url.update_query(cursor=cursor) if cursor is not None else url)
