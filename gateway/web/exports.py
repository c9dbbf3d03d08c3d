"""The spans that a filter finds, as a file to download."""

import csv
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from gateway.clock import Clock
from gateway.core import walk
from gateway.core.filters import Filter
from gateway.core.jsontext import dump
from gateway.core.reading import JSON_COLUMNS, public
from gateway.core.records import cells, record
from gateway.core.walk import SPAN_SORTS, Order, Place
from gateway.errors import MalformedBody, RefusedRequest
from gateway.recorder import Caller
from gateway.store.rows import RECORD_COLUMNS
from gateway.store.store import Store
from gateway.web.questions import asked

log = logging.getLogger(__name__)

EXPORT_PARAMETERS = frozenset({"start_time", "end_time", "environment", "log_type", "search", "sort_by", "format"})
# By name, with what they are as media.
FORMATS: Mapping[str, str] = {"jsonl": "application/jsonl", "csv": "text/csv"}
_AT_ONCE = 200
# Characters of what was said, of the spans that are in memory at once.
_ROOM = 4 * 1024 * 1024

Row = Mapping[str, Any]
Write = Callable[[Sequence[Row]], str]


class ExportHandlers:
    """What the route of exports does."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def export(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """All of these spans that run no more, as the list shows them or as `gateway export` writes them; those that
        come meanwhile are left out."""
        name = request.query.get("format") or "jsonl"
        if name not in FORMATS:
            raise MalformedBody(f"format: must be one of {', '.join(FORMATS)}.")
        by = walk.order(request.query.get("sort_by"), SPAN_SORTS)
        which = await asked(request, EXPORT_PARAMETERS)
        write = _lines if name == "jsonl" else _csv_lines
        text, place = await self._part(caller, which, by, None, write)
        file = f"spans-{self._clock.now():%Y-%m-%d}.{name}"
        response = web.StreamResponse(
            headers={
                "Content-Type": f"{FORMATS[name]}; charset=utf-8",
                "Content-Disposition": f'attachment; filename="{file}"',
                "Cache-Control": "no-store",
            }
        )
        await response.prepare(request)
        if name == "csv":
            await response.write(_csv([RECORD_COLUMNS]).encode())
        while True:
            if text:
                await response.write(text)
            if place is None:
                return response
            try:
                text, place = await self._part(caller, which, by, place, write)
            except RefusedRequest as error:
                log.warning("An export breaks off: %s", error)
                # There is no other way to say so: this body has no end.
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError("the export cannot go on") from None

    async def _part(
        self, caller: Caller, which: Filter, by: Order, place: Place | None, write: Write
    ) -> tuple[bytes, Place | None]:
        """The next spans behind a place, as many as have room in memory; and behind which place the rest is."""

        def part(rows: Iterator[Row]) -> tuple[bytes, int, bool]:
            taken, is_all = _fitting(rows)
            return write([row for row in taken if not row["is_open"]]).encode(), len(taken), is_all

        (text, number, is_all), rest = await self._store.page(
            caller.organization_id, which, by, size=_AT_ONCE, place=place, shape=part
        )
        if not is_all:
            _, rest = await self._store.page(
                caller.organization_id, which, by, size=number, place=place, shape=lambda rows: None
            )
        return text, rest


def _fitting(rows: Iterable[Row]) -> tuple[list[Row], bool]:
    """The first of them, at least one, and whether these are all."""
    taken: list[Row] = []
    room = _ROOM
    for row in rows:
        if taken and room < 0:
            return taken, False
        taken.append(row)
        room -= sum(len(row[name]) for name in JSON_COLUMNS if row[name] is not None)
    return taken, True


def _lines(rows: Sequence[Row]) -> str:
    return "".join([f"{dump(public(row))}\n" for row in rows])


def _csv_lines(rows: Sequence[Row]) -> str:
    return _csv([cells(RECORD_COLUMNS, record(row)) for row in rows])


def _csv(lines: Iterable[Sequence[Any]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(lines)
    return written.getvalue()
