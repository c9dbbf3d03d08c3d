"""Routes of spans: create, retrieve, change, delete."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from gateway.core import aliases
from gateway.core.audit import whole_minutes
from gateway.core.reading import public, stored_time
from gateway.errors import InvalidSpan, MalformedBody, NotFound, RefusedRequest, StoreUnavailable
from gateway.recorder import Caller, Recorder
from gateway.store.store import Store
from gateway.web.bodies import read_object
from gateway.web.questions import time_in
from gateway.web.replies import error_reply, json_reply

BULK_AT_MOST = 500
BATCH_AT_MOST = 5000


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
        logs = await self._logs(request, caller, BULK_AT_MOST)
        ends = await self._recorder.create_spans(logs, caller, aliases.header_params(request.headers))
        return _envelope(request, [end if isinstance(end, RefusedRequest) else None for end in ends], 201)

    async def create_batch(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """The older form of bulk: for each span its id, or why it was not stored."""
        logs = await self._logs(request, caller, BATCH_AT_MOST)
        ends = await self._recorder.create_spans(logs, caller, aliases.header_params(request.headers))
        if (refused := refused_by_store(ends)) is not None:
            return error_reply(request, refused)
        results = [
            {"id": None, "status": "error", "error": str(end)}
            if isinstance(end, RefusedRequest)
            else {"id": end, "status": "success"}
            for end in ends
        ]
        return json_reply({"results": results}, 201 if any(isinstance(end, str) for end in ends) else 400)

    async def edit(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Changes what was said of a span."""
        raw = await read_object(request)
        return json_reply(await self._recorder.edit_span(_unique_id(request), raw, caller))

    async def edit_batch(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """The same of several, each on its own."""
        ends: list[RefusedRequest | None] = []
        for raw in await self._changes(request):
            try:
                if not isinstance(raw, dict) or not isinstance(unique_id := raw.get("unique_id", raw.get("id")), str):
                    raise InvalidSpan({"unique_id": ["This field is required."]})
                changes = {name: value for name, value in raw.items() if name not in ("unique_id", "id")}
                await self._recorder.edit_span(unique_id, changes, caller)
                ends.append(None)
            except RefusedRequest as error:
                ends.append(error)
        return _envelope(request, ends, 200)

    async def delete(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """204, after the commit."""
        await self._recorder.delete_span(_unique_id(request), caller)
        return web.Response(status=204)

    async def _changes(self, request: web.Request) -> list[Any]:
        logs = (await read_object(request)).get("logs")
        return _checked(logs, BATCH_AT_MOST)

    async def _logs(self, request: web.Request, caller: Caller, at_most: int) -> list[Any]:
        try:
            return _checked((await self._object(request, caller)).get("logs"), at_most)
        except InvalidSpan:
            self._recorder.refuse(caller)
            raise

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
        start, end = whole_minutes(time_in(request, "start_time"), time_in(request, "end_time"))
        found = await self._store.audit(caller.organization_id, start, end)
        times = {"start_time": start and stored_time(start), "end_time": end and stored_time(end)}
        return json_reply({**times, **found.as_json()})

    async def retrieve(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """One span of the caller's organization."""
        span = await self._store.find(caller.organization_id, _unique_id(request), public)
        if span is None:
            raise NotFound("Span not found.")
        return json_reply(span)


def _checked(logs: Any, at_most: int) -> list[Any]:
    if not isinstance(logs, list):
        raise InvalidSpan({"logs": ["Must be a list of spans."]})
    if len(logs) > at_most:
        raise InvalidSpan({"logs": [f"Must have at most {at_most} spans; these are {len(logs)}."]})
    return logs


def _envelope(request: web.Request, ends: Sequence[RefusedRequest | None], status: int) -> web.Response:
    """How many went well, and what is wrong with the others."""
    if (refused := refused_by_store(ends)) is not None:
        return error_reply(request, refused)
    errors = [{"index": index, "error": str(error)} for index, error in enumerate(ends) if error is not None]
    body = {"success_count": len(ends) - len(errors), "error_count": len(errors), "errors": errors}
    return json_reply(body, status if body["success_count"] else 400)


def refused_by_store(ends: Sequence[Any]) -> RefusedRequest | None:
    """Why the store took none of them."""
    if ends and all(isinstance(end, StoreUnavailable) for end in ends):
        refused: RefusedRequest = ends[0]
        return refused
    return None


def _unique_id(request: web.Request) -> str:
    return request.match_info["unique_id"].removesuffix("/")
