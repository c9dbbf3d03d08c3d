"""The spans that a filter finds, as a file to download."""

import csv
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiohttp import HttpVersion11, web

from gateway.clock import Clock
from gateway.core import walk
from gateway.core.filters import Filter
from gateway.core.jsontext import dump
from gateway.core.reading import JSON_COLUMNS, public
from gateway.core.records import cells, record
from gateway.core.walk import SPAN_SORTS, TIMESTAMP, Order, Place
from gateway.errors import MalformedBody, RefusedRequest
from gateway.recorder import Caller
from gateway.store.rows import RECORD_COLUMNS
from gateway.store.store import Store
from gateway.web.lasting import Room, hang_up, until
from gateway.web.middleware import RUNNING
from gateway.web.questions import asked

log = logging.getLogger(__name__)

EXPORT_PARAMETERS = frozenset({"start_time", "end_time", "environment", "log_type", "search", "sort_by", "format"})
# By name, with what they are as media.
FORMATS: Mapping[str, str] = {"jsonl": "application/jsonl", "csv": "text/csv"}
# What a walk can go by without sorting all that is left for each part.
EXPORT_SORTS = ("timestamp", "id")
# In one process.
EXPORTS_AT_MOST = 1
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
        self._room = Room(EXPORTS_AT_MOST, "Exports")

    async def export(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """All of these spans that run no more, as the list shows them or as `gateway export` writes them; those that
        come meanwhile are left out."""
        if request.version < HttpVersion11:
            raise MalformedBody("An export takes HTTP/1.1: by HTTP/1.0, one that breaks off would look whole.")
        name = request.query.get("format") or "jsonl"
        if name not in FORMATS:
            raise MalformedBody(f"format: must be one of {', '.join(FORMATS)}.")
        by = walk.order(request.query.get("sort_by"), SPAN_SORTS)
        if by.field != TIMESTAMP:
            raise MalformedBody(
                f"sort_by: an export goes by {' or '.join(EXPORT_SORTS)}, either way; by anything else, what is left"
                " would be sorted anew for each part of it."
            )
        which = await asked(request, EXPORT_PARAMETERS)
        file = f"spans-{self._clock.now():%Y-%m-%d}.{name}"
        response = web.StreamResponse(
            headers={
                "Content-Type": f"{FORMATS[name]}; charset=utf-8",
                "Content-Disposition": f'attachment; filename="{file}"',
                "Cache-Control": "no-store",
            }
        )
        running = request.app[RUNNING]
        try:
            with self._room.taken(), running.listening():
                is_whole = await until(running.ending, self._write(request, response, caller, which, by))
        except RefusedRequest as error:
            if not response.prepared:
                raise
            log.warning("An export breaks off: %s", error)
            is_whole = False
        if not is_whole:
            # There is no other way to say so: this body has no end.
            hang_up(request)
            raise ConnectionResetError("the export cannot go on")
        return response

    async def _write(
        self, request: web.Request, response: web.StreamResponse, caller: Caller, which: Filter, by: Order
    ) -> None:
        """Part by part, with pauses: what is made of a part holds up the calls."""
        is_csv = request.query.get("format") == "csv"
        place: Place | None = None
        while place is not None or not response.prepared:
            begun = self._clock.monotonic()
            text, place = await self._part(caller, which, by, place, _csv_lines if is_csv else _lines)
            took_s = self._clock.monotonic() - begun
            if not response.prepared:
                await response.prepare(request)
                text = (_csv([RECORD_COLUMNS]).encode() if is_csv else b"") + text
            if text:
                await response.write(text)
            if place is not None:
                await self._clock.sleep(took_s)

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
