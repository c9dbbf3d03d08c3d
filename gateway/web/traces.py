"""Routes of traces."""

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from gateway.core import walk
from gateway.core.filters import DELETION_FIELDS, TRACE_FIELDS, Every
from gateway.core.trace import public_trace, whole_trace
from gateway.core.walk import Order
from gateway.errors import InvalidSpan, MalformedBody
from gateway.recorder import Caller
from gateway.store.store import Store
from gateway.store.traces import SORTS, Trace
from gateway.web.bodies import read_object
from gateway.web.questions import asked, offset, page_asked, page_reply, time_in, truth_in
from gateway.web.replies import json_reply, json_text_reply

PARAMETERS = frozenset({"page", "page_size", "sort_by", "start_time", "end_time", "environment"})
DELETED_AT_MOST = 1000
_OLDEST_FIRST = Order("timestamp", descending=False)


class TraceHandlers:
    """What the routes of traces do."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """A page of traces. With a range, those of which a span ended in it, as a whole."""
        by = walk.order(request.query.get("sort_by"), {name: name for name in SORTS})
        which = await asked(request, PARAMETERS, TRACE_FIELDS)
        page, size = page_asked(request)
        found = await self._store.traces(caller.organization_id, which, by, limit=size + 1, offset=offset(page, size))
        return page_reply(request, page, size, [public_trace(*trace) for trace in found])

    async def retrieve(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """A trace of the caller's organization, with its tree; with `include_content=false` without what was said."""
        return await self._trace(caller.organization_id, request, shared=False)

    async def retrieve_public(self, request: web.Request) -> web.StreamResponse:
        """A trace that its organization shows to everyone."""
        return await self._trace(request.match_info["organization_id"], request, shared=True)

    async def _trace(self, organization_id: str, request: web.Request, *, shared: bool) -> web.StreamResponse:
        with_content = truth_in(request, "include_content", default=True)
        text = await self._store.trace(
            organization_id, _trace_id(request), _whole, shared=shared, with_content=with_content
        )
        if text is None:
            # As Respan says it of traces; of all else it is `detail`.
            return json_reply({"error": "Trace not found"}, 404)
        return json_text_reply(text)

    async def share(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Says whether everyone may read a trace."""
        is_public = (await read_object(request)).get("is_public")
        if not isinstance(is_public, bool):
            raise MalformedBody("is_public: must be true or false.")
        trace_id = _trace_id(request)
        await self._store.share_trace(caller.organization_id, trace_id, is_public=is_public)
        return json_reply({"trace_unique_id": trace_id, "is_public": is_public})

    async def delete(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Deletes the spans of a trace; those that still run stay."""
        if unknown := sorted(set(request.query) - {"start_time", "end_time"}):
            raise MalformedBody(f"{', '.join(unknown)}: not supported; use end_time, start_time.")
        start, end = (time_in(request, name) for name in ("start_time", "end_time"))
        number = await self._store.delete_trace(caller.organization_id, _trace_id(request), start, end)
        return json_reply({"message": f"Deleted {number} spans."})

    async def delete_several(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Deletes the traces that a filter finds, up to a thousand."""
        filters = (await read_object(request)).get("filters")
        which = DELETION_FIELDS.parse(filters)
        if which == Every():
            raise MalformedBody("filters: say which traces are to be deleted.")
        found = await self._store.traces(
            caller.organization_id, which, _OLDEST_FIRST, limit=DELETED_AT_MOST + 1, offset=0
        )
        if len(found) > DELETED_AT_MOST:
            raise InvalidSpan({"filters": [f"Match more than {DELETED_AT_MOST} traces: narrow them."]})
        for trace in found:
            await self._store.delete_trace(caller.organization_id, trace.sums["trace_unique_id"])
        told = {"success_count": len(found), "error_count": 0, "errors": [], "deleted_count": len(found)}
        return json_reply({**told, "message": f"Deleted {len(found)} traces."})


def _whole(trace: Trace, rows: Iterator[Mapping[str, Any]]) -> str:
    return whole_trace(*trace, rows)


def _trace_id(request: web.Request) -> str:
    return request.match_info["trace_unique_id"].removesuffix("/")
