"""Lists of spans, and sums over them."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from aiohttp import web

from gateway.core import walk
from gateway.core.filters import SPAN_FIELDS
from gateway.core.jsontext import dump
from gateway.core.prices import usd
from gateway.core.reading import columns_of, page_of
from gateway.core.values import LISTED_KINDS, counted, most_frequent
from gateway.core.walk import SPAN_SORTS
from gateway.errors import MalformedBody
from gateway.recorder import Caller
from gateway.store.store import Store
from gateway.store.sums import GROUP_SORTS, Sums
from gateway.web.questions import asked, names, number_in, offset, page_asked, page_reply, page_url
from gateway.web.replies import json_reply, json_text_reply

_RANGE = frozenset({"start_time", "end_time", "environment"})
LIST_PARAMETERS = _RANGE | {"page", "page_size", "sort_by", "log_type", "include_fields", "cursor", "search"}
SUMMARY_PARAMETERS = _RANGE
GROUP_PARAMETERS = _RANGE | {"group_by", "sort_by", "page", "page_size"}
VALUE_PARAMETERS = _RANGE | {"field", "prefix", "limit", "log_type", "search"}
VALUES_OF = "model"
VALUES_OF_SPANS = 10_000
VALUES_SHOWN = 20
VALUES_SHOWN_AT_MOST = 1000
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
        where = await asked(request, LIST_PARAMETERS)
        place = walk.place(cursor, by) if (cursor := query.get("cursor")) else None
        page, size = page_asked(request)
        wanted = names(query.get("include_fields"))
        results, following = await self._store.page(
            caller.organization_id,
            where,
            by,
            size=size,
            place=place,
            offset=0 if place is not None else offset(page, size),
            columns=None if wanted is None else columns_of(wanted),
            shape=partial(page_of, wanted=wanted),
        )
        rest = {
            "count": len(results),
            "next": following and page_url(request, page + 1, walk.cursor(following, by)),
            "previous": page_url(request, page - 1) if page > 1 else None,
        }
        return json_text_reply(f'{dump(rest)[:-1]},"results":[{",".join(results)}]}}')

    async def summary(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Sums and averages over spans; zeros where there are none."""
        where = await asked(request, SUMMARY_PARAMETERS, passed_over=_OF_OTHER_LISTS)
        found = await self._store.sums(caller.organization_id, where)
        return json_reply(
            {
                "number_of_requests": found.spans,
                "error_count": found.failed,
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
        where = await asked(request, GROUP_PARAMETERS)
        page, size = page_asked(request)
        found = await self._store.groups(
            caller.organization_id, where, name, by, limit=size + 1, offset=offset(page, size)
        )
        rows = [{name: key, **_group(sums)} for key, sums in found]
        return page_reply(request, page, size, rows, current_filters={}, filters_data={})

    async def values(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Which values a field has in the newest spans that a filter finds, most frequent first; of metadata and
        properties which keys."""
        query = request.query
        name = query.get("field") or VALUES_OF
        field, key, kind = SPAN_FIELDS.resolved(name)
        if kind not in LISTED_KINDS:
            raise MalformedBody(f"field: the values of {name} are too many to tell.")
        prefix = query.get("prefix") or ""
        limit = min(number_in(request, "limit", VALUES_SHOWN), VALUES_SHOWN_AT_MOST)

        def shape(stored: Iterator[Any]) -> tuple[int, list[tuple[Any, int]]]:
            spans, values = counted(stored, field, key, kind)
            return spans, most_frequent(values, prefix, limit)

        which = await asked(request, VALUE_PARAMETERS)
        spans, found = await self._store.newest(caller.organization_id, which, field, VALUES_OF_SPANS, shape)
        results = [{"value": value, "number_of_requests": number} for value, number in found]
        return json_reply({"field": name, "spans_looked_at": spans, "results": results})


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
