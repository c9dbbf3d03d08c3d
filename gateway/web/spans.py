"""Span routes: create, bulk, retrieve, list."""

from datetime import datetime
from functools import partial
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from gateway.core import aliases
from gateway.core.audit import whole_minutes
from gateway.core.jsontext import dump
from gateway.core.reading import page_of, public, stored_time
from gateway.core.span import Time
from gateway.errors import InvalidSpan, MalformedBody, NotFound, RefusedRequest, StoreUnavailable
from gateway.recorder import Caller, Recorder
from gateway.store.store import Store
from gateway.web.bodies import as_object, read_body, read_object
from gateway.web.replies import error_reply, json_reply, json_text_reply

BULK_AT_MOST = 500
PAGE_SIZE = 50
PAGE_SIZE_AT_MOST = 1000
_LAST_ROW = 2**62

SORTS = ("-timestamp", "-id")
PASSED_OVER = frozenset({"include_fields", "is_test", "all_envs", "fetch_filters"})
_LIST_PARAMETERS = frozenset({"page", "page_size", "sort_by", "start_time", "end_time", "environment", "log_type"})
_time: TypeAdapter[datetime] = TypeAdapter(Time)


class SpanHandlers:
    """What the span routes do."""

    def __init__(self, recorder: Recorder, store: Store) -> None:
        self._recorder = recorder
        self._store = store

    async def create(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """201 and the stored span, after its commit."""
        raw = await self._object(request, caller)
        span = await self._recorder.create_span(raw, caller, aliases.header_params(request.headers))
        return json_reply({**span, "message": "log successful"}, 201)

    async def bulk(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Up to 500 spans, each on its own."""
        logs = (await self._object(request, caller)).get("logs")
        if not isinstance(logs, list):
            self._recorder.refuse(caller)
            raise InvalidSpan({"logs": ["Must be a list of spans."]})
        if len(logs) > BULK_AT_MOST:
            self._recorder.refuse(caller)
            raise InvalidSpan({"logs": [f"Must have at most {BULK_AT_MOST} spans; these are {len(logs)}."]})
        header_params = aliases.header_params(request.headers)
        ends = await self._recorder.create_spans(logs, caller, header_params)
        failed = [(index, error) for index, error in enumerate(ends) if error is not None]
        if logs and len(failed) == len(logs) and all(isinstance(error, StoreUnavailable) for _, error in failed):
            return error_reply(request, failed[0][1])
        body = {
            "success_count": len(logs) - len(failed),
            "error_count": len(failed),
            "errors": [{"index": index, "error": str(error)} for index, error in failed],
        }
        return json_reply(body, 201 if body["success_count"] else 400)

    async def _object(self, request: web.Request, caller: Caller) -> dict[str, Any]:
        try:
            return await read_object(request)
        except RefusedRequest:
            self._recorder.refuse(caller)
            raise

    async def audit(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Whether every call of the caller's organization is accounted for, in whole minutes around a range."""
        if unknown := sorted(set(request.query) - {"start_time", "end_time"}):
            raise MalformedBody(f"{', '.join(unknown)}: not supported; use end_time, start_time.")
        start, end = whole_minutes(_time_in(request, "start_time"), _time_in(request, "end_time"))
        found = await self._store.audit(caller.organization_id, start, end)
        times = {"start_time": start and stored_time(start), "end_time": end and stored_time(end)}
        return json_reply({**times, **found.as_json()})

    async def retrieve(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """One span of the caller's organization."""
        unique_id = request.match_info["unique_id"].removesuffix("/")
        span = await self._store.find(caller.organization_id, unique_id, public)
        if span is None:
            raise NotFound("Span not found.")
        return json_reply(span)

    async def list(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Newest first. A page past the end has no results and is no error: Respan's pager stops there."""
        if request.method == "POST":
            await _refuse_filters(request)
        query = request.query
        unknown = sorted(set(query) - _LIST_PARAMETERS - PASSED_OVER)
        if unknown:
            raise MalformedBody(f"{', '.join(unknown)}: not supported; use {', '.join(sorted(_LIST_PARAMETERS))}.")
        if query.get("sort_by", "-timestamp") not in SORTS:
            raise MalformedBody(f"sort_by: must be one of {', '.join(SORTS)}.")
        page = _positive(query.get("page", "1"), "page")
        size = min(_positive(query.get("page_size", str(PAGE_SIZE)), "page_size"), PAGE_SIZE_AT_MOST)
        offset = min((page - 1) * size, _LAST_ROW)
        results, more = await self._store.newest(
            caller.organization_id,
            _conditions(request),
            limit=size + 1,
            offset=offset,
            shape=partial(page_of, size=size),
        )
        rest = {
            "count": len(results),
            "next": _page_url(request, page + 1) if more else None,
            "previous": _page_url(request, page - 1) if page > 1 else None,
        }
        return json_text_reply(f'{dump(rest)[:-1]},"results":[{",".join(results)}]}}')


async def _refuse_filters(request: web.Request) -> None:
    body = await read_body(request)
    if not body.strip():
        return
    if as_object(request, body).get("filters") not in (None, {}, []):
        raise MalformedBody("filters: not supported by this gateway yet.")


def _conditions(request: web.Request) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, sql in (("start_time", "timestamp >= ?"), ("end_time", "timestamp <= ?")):
        if (time := _time_in(request, name)) is not None:
            found.append((sql, stored_time(time)))
    exact = ("environment", "log_type")
    return found + [(f"{name} = ?", text) for name in exact if (text := request.query.get(name))]


def _time_in(request: web.Request, name: str) -> datetime | None:
    text = request.query.get(name)
    if not text:
        return None
    try:
        # A + that was not encoded arrives as a space.
        return _time.validate_python(text.replace(" ", "+"))
    except ValidationError:
        raise MalformedBody(f"{name}: must be an ISO 8601 time.") from None


def _positive(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and int(text) > 0):
        raise MalformedBody(f"{name}: must be a whole number above 0.")
    return int(text)


def _page_url(request: web.Request, page: int) -> str:
    return str(request.url.update_query(page=page))
