"""Spans as they come and change, as server-sent events."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from aiohttp import web

from gateway.core.changes import GAP, READY, SPAN, event, event_of, sign_of_life
from gateway.core.filters import Filter
from gateway.core.reading import columns_of, page_of
from gateway.errors import FromElsewhere, MalformedBody, RefusedRequest, TooMuchToRead, Unauthorized
from gateway.recorder import Caller
from gateway.store.changes import Changes
from gateway.store.store import Store
from gateway.web.keys import Keys
from gateway.web.lasting import Room, Shared, hang_up, until
from gateway.web.middleware import RUNNING
from gateway.web.questions import asked, names
from gateway.web.watch import Watch

LIVE_PARAMETERS = frozenset({"start_time", "end_time", "environment", "log_type", "include_fields", "search", "after"})
LAST_EVENT_ID = "Last-Event-ID"
SIGN_OF_LIFE_S = 15.0
# In one process. Each may hold what it is about to be told.
LISTENERS_AT_MOST = 100
# In one look. A client that is slow holds up the next one, so that no more than this waits for it.
_AT_ONCE = 200
# Further behind, what is between is not told: to look for it takes long, whoever's it is.
_PLACES_AT_MOST = 50_000
# Characters of events, to which the last one is added that begins within them.
_ROOM = 256 * 1024
# So much is left to the connection at a time, which copies it.
_PIECE_BYTES = 64 * 1024
_PIECE_WITHIN_S = 30.0
_LAST_PLACE = 2**63 - 1
_DIGITS_AT_MOST = 19
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # nginx and its like would keep events until they have a buffer full.
    "X-Accel-Buffering": "no",
}


class LiveHandlers:
    """What the route of live spans does."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._watch = Watch(store)
        self._looks: Shared[tuple[bytes, int]] = Shared()
        self._room = Room(LISTENERS_AT_MOST, "Listeners")

    async def live(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Goes on until the client leaves or is not let in any more, or the gateway stops."""
        which = await asked(request, LIVE_PARAMETERS)
        wanted = names(request.query.get("include_fields"))
        after = _place(request)
        running = request.app[RUNNING]
        with self._room.taken(), running.listening(), self._watch.kept():
            end = await self._store.end_of_journal()
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            listener = _Listener(
                self._store,
                self._watch,
                self._looks,
                response,
                caller.organization_id,
                which,
                wanted,
                partial(self._is_let_in, request, caller.organization_id),
                partial(hang_up, request),
            )
            await until(running.ending, listener.tell(end if after is None else after))
        if running.ending.is_set() and request.transport is not None and request.transport.get_write_buffer_size():
            # Nobody waits for a slow client now: it goes on elsewhere where it was.
            hang_up(request)
        return response

    def _is_let_in(self, request: web.Request, organization_id: str) -> bool:
        """Whether the key or the session is still good, and for the same organization."""
        try:
            return self._keys.caller(request.headers, request.method).organization_id == organization_id
        except (Unauthorized, FromElsewhere):
            return False


@dataclass(slots=True)
class _Listener:
    """One client that listens."""

    store: Store
    watch: Watch
    looks: Shared[tuple[bytes, int]]
    response: web.StreamResponse
    organization_id: str
    which: Filter
    wanted: Sequence[str] | None
    is_let_in: Callable[[], bool]
    hang_up: Callable[[], None]

    async def tell(self, seq: int) -> None:
        """Tells what is behind a place, and then what comes; ends where the store cannot be read: a client comes back
        with its place."""
        with suppress(RefusedRequest):
            await self._write(event(READY, seq).encode())
            has_news = True
            while self.is_let_in():
                text, seq = await self._behind(seq)
                # A look may take its time.
                if not self.is_let_in():
                    return
                if text or not has_news:
                    await self._write(text or sign_of_life(seq).encode())
                has_news = await self.watch.wait_behind(seq, SIGN_OF_LIFE_S)

    async def _write(self, text: bytes) -> None:
        """Hangs up on who does not read on: it comes back with its place."""
        try:
            for at in range(0, len(text), _PIECE_BYTES):
                async with asyncio.timeout(_PIECE_WITHIN_S):
                    await self.response.write(text[at : at + _PIECE_BYTES])
        except TimeoutError:
            self.hang_up()
            raise ConnectionResetError("the client reads no more") from None

    async def _behind(self, seq: int) -> tuple[bytes, int]:
        """What to tell, and how far that goes."""
        end = self.watch.seq
        if end <= seq:
            # A place past the end is of a journal that was another.
            end = await self.store.end_of_journal()
            return (b"", seq) if seq <= end else _gap(end)
        if end - seq > _PLACES_AT_MOST:
            return _gap(end)
        wanted = None if self.wanted is None else tuple(self.wanted)
        # By its text: to Python, a filter by 1 is the same as one by true.
        key = (self.organization_id, repr(self.which), wanted, seq, end)
        return await self.looks.done(key, partial(self._look, seq, end))

    async def _look(self, seq: int, end: int) -> tuple[bytes, int]:
        columns = None if self.wanted is None else columns_of(self.wanted)
        shape = partial(_written, wanted=self.wanted)
        try:
            return await self.store.changes(
                self.organization_id, self.which, seq, end, limit=_AT_ONCE, columns=columns, shape=shape
            )
        except TooMuchToRead:
            return _gap(end)


def _gap(end: int) -> tuple[bytes, int]:
    return event(GAP, end).encode(), end


def _written(new: Changes, rows: Iterable[Mapping[str, Any]], wanted: Sequence[str] | None) -> tuple[bytes, int]:
    """What to tell of changes, as much as has room, and how far that goes."""
    if new.is_gap:
        return _gap(new.end)
    shown = iter(rows)
    told: list[str] = []
    room = _ROOM
    for number, change in enumerate(new.found, 1):
        told.append(event_of(change, page_of(islice(shown, 1), wanted)[0] if change.kind == SPAN else None))
        room -= len(told[-1])
        if room <= 0 and number < len(new.found):
            return "".join(told).encode(), change.seq
    return "".join(told).encode(), new.end


def _place(request: web.Request) -> int | None:
    """Behind which place a client goes on. Its header is newer than its URL, with which it comes back. Raises
    MalformedBody."""
    text = request.headers.get(LAST_EVENT_ID) or request.query.get("after")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_AT_MOST and int(text) <= _LAST_PLACE):
        raise MalformedBody(f"{LAST_EVENT_ID}, after: must be the id of an event of this route.")
    return int(text)
