"""The store as the rest of the gateway sees it."""

import asyncio
import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gateway.core import audit
from gateway.core import limits as limiting
from gateway.core.audit import Audit
from gateway.core.complete import FAILED, Draft
from gateway.core.filters import Filter
from gateway.core.jsontext import dump, parse_or_none
from gateway.core.limits import KeyLimits, Refusal
from gateway.core.reading import stored_minute, stored_time
from gateway.core.span import Span
from gateway.core.trace import LLM_CALLS
from gateway.core.walk import Order, Place
from gateway.errors import StillRunning, StoreError, StoreFull, StoreUnavailable, TooMuchToRead
from gateway.store import (
    boots,
    changes,
    conditions,
    lists,
    losses,
    queries,
    rows,
    series,
    sqlite,
    sums,
    threads,
    traces,
    users,
)
from gateway.store.batch import Batch, Write
from gateway.store.changes import Changes
from gateway.store.prune import deleted
from gateway.store.queries import Entry
from gateway.store.question import Question
from gateway.store.series import Point
from gateway.store.sums import Sums
from gateway.store.traces import Trace
from gateway.store.writer import Writer

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = dict[str, Any]

_READERS = 2
_PROBE_BYTES = 100
_ADMISSION_BYTES = 500
_OPENING_BYTES = 500
_COUNTS_BYTES = 500
_EDIT_BYTES = 500
# Characters of what was said, in one look at the journal.
_JOURNAL_ROOM = 4 * 1024 * 1024
# How long a start waits for the rows of earlier processes to be closed.
_RECOVER_WITHIN_S = 1.0
# A question that takes longer is given up: others wait for its reader.
_READ_WITHIN_S = 30.0
_FIRST_MINUTE, _LAST_MINUTE = "0000", "9999-12-31T23:60"


@dataclass(slots=True)
class Opened:
    """What a call's open row is known by until it is settled: the write, and once that is done the row's id."""

    accepted: Entry
    write: Write = field(init=False)
    row_id: int = 0


@dataclass(slots=True)
class Admission:
    """Whether a call fits its key's limits: known once `done` is, None if it does."""

    done: asyncio.Future[bool]
    refusal: Refusal | None = None


class Store:
    """Spans in one SQLite file. Writes end with their commit; reads see whatever is committed."""

    def __init__(
        self,
        path: Path,
        *,
        synchronous: str,
        queue_bytes: int,
        shared: bool = False,
        on_waiting: Callable[[int], None] = lambda size: None,
        on_trouble: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes the file if it is not there. `shared`: other workers write to it too, and who started them has made
        it. `on_waiting` is told now and then how many bytes wait; `on_trouble` of each commit that failed, in the
        writer's thread.

        Must be called on the event loop. Raises StoreError.
        """
        if not shared:
            sqlite.create(path)
        self._path = path
        try:
            self._boot = boots.Boot(path)
        except OSError as error:
            raise StoreError(f"No lock file can be made beside the database {path}: {error.strerror}.") from error
        self._writer = Writer(
            path,
            self._boot,
            synchronous=synchronous,
            queue_bytes=queue_bytes,
            shared=shared,
            on_waiting=on_waiting,
            on_trouble=on_trouble,
        )
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="span-reader")
        self._of_thread = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._probe: asyncio.Future[bool] | None = None
        left_behind = losses.claim(path, self._boot.id)
        self._lost_before = sum(map(losses.read, left_behind), start=Counter[Entry]())
        self._interrupting = self._writer.put(self._interrupt, 0).done
        self._interrupting.add_done_callback(partial(_forget, left_behind))

    @property
    def trouble(self) -> str | None:
        """Why the store takes nothing just now; None while it does."""
        return self._writer.trouble

    @property
    def abandoned(self) -> int:
        """How many changes were given up when it was closed."""
        return self._writer.abandoned

    def oldest_wait_s(self) -> float:
        """Seconds that the write which waits longest has waited."""
        return self._writer.oldest_wait_s()

    def tell_waiting(self) -> None:
        """Tells `on_waiting` how many bytes wait just now; by itself that is told now and then."""
        self._writer.tell_waiting()

    async def recover(self) -> None:
        """Closes the rows that processes before this one left open; goes on by itself if that takes long."""
        await asyncio.wait([self._interrupting], timeout=_RECOVER_WITHIN_S)

    def insert(self, draft: Draft, *, minted: bool = False, linked: bool = False) -> asyncio.Future[bool]:
        """Queues a posted span; the future ends with its commit, False if there is one of this id.

        `minted`: its id was made here, so that there is none. `linked`: it was stored before, and says of which call it
        is. Raises StoreUnavailable, as the future may.
        """
        span, content = rows.span_row(draft), rows.content_row(draft)
        posted = _entry(draft, draft.received_at, audit.POSTED)
        assert draft.received_at is not None, "a span that is complete was received"
        received_at = stored_time(draft.received_at)

        may_be_of_a_call = not linked and _may_be_of_a_call(draft)

        def apply(batch: Batch) -> bool:
            if minted and not may_be_of_a_call:
                is_new = batch.insert(span, content, received_at)
            else:
                row_id = batch.next_seq()
                is_new = queries.insert_span(batch.db, row_id, span, content, received_at=received_at)
                if is_new and may_be_of_a_call:
                    _link_to_call(batch, draft, row_id)
            batch.count(posted if is_new else posted._replace(name=audit.REPEATED))
            return is_new

        size = rows.size(content)
        return self._writer.put(apply, size, patient=False, if_lost=(posted._replace(name=audit.REFUSED),)).done

    def admit(
        self, unique_id: str, organization_id: str, key_name: str, limits: KeyLimits, reserve: int, now: datetime
    ) -> Admission:
        """Queues the question whether a call that may cost `reserve` (1e-12 USD) fits, and its reservation.

        The reservation lasts until a draft that is `reserved` is settled, or dropped. Raises StoreFull.
        """
        second = int(now.timestamp())
        since_day, _ = limiting.period(limits.budget_period, now)

        def apply(batch: Batch) -> bool:
            use = queries.use_of_key(
                batch.db,
                organization_id,
                key_name,
                since_second=second - limiting.WINDOW_S,
                since_day=since_day.isoformat(),
            )
            admission.refusal = limiting.judged(limits, use, reserve, now)
            if admission.refusal is None:
                queries.reserve(
                    batch.db,
                    unique_id,
                    organization_id,
                    key_name,
                    boot_id=self._boot.id,
                    second=second,
                    day=now.date().isoformat(),
                    picos=reserve,
                )
            return admission.refusal is None

        admission = Admission(self._writer.put(apply, _ADMISSION_BYTES).done)
        return admission

    def open(self, organization_id: str, start_time: datetime, fields: Mapping[str, Any]) -> Opened | None:
        """Queues the open row of a call that is being forwarded; None where the queue is full: it gets none then."""
        accepted = Entry(organization_id, stored_minute(start_time), audit.ACCEPTED)
        opened, values = Opened(accepted), rows.open_values(fields)

        def apply(batch: Batch) -> bool:
            batch.count(accepted)
            opened.row_id = batch.open(self._boot.id, values)
            return True

        try:
            opened.write = self._writer.put(apply, _OPENING_BYTES, if_lost=_lost(accepted))
        except StoreFull:
            return None
        return opened

    def settle(
        self,
        draft: Draft,
        opened: Opened | None,
        *,
        force: bool = False,
        on_failure: Callable[[Exception], None] | None = None,
        done: asyncio.Future[bool] | None = None,
    ) -> asyncio.Future[bool]:
        """Queues the span of a call, in the place of its open row if it has one. Raises StoreFull, but with `force`
        not, which is for calls that have an open row. `on_failure` is told why it cannot be stored; `done` is the
        future that is to end, a new one without it."""
        span, content = rows.span_row(draft, whole=opened is not None), rows.content_row(draft)
        accepted = _entry(draft, draft.span.start_time, audit.ACCEPTED) if opened is None else opened.accepted

        def apply(batch: Batch) -> bool:
            if draft.reserved:
                _end_reservation(batch.db, draft)
            if draft.span.span_parent_id and draft.span.trace_unique_id and draft.span.status != FAILED:
                _link_parent(batch, draft)
            if opened is not None and opened.row_id and opened.write.error is None:
                batch.settle(opened.row_id, span, content)
                return True
            batch.count(accepted)
            return batch.insert(span, content)

        size = rows.size(content)
        # What was opened is told of by its open row, or by what becomes of that.
        if_lost = _lost(accepted) if opened is None else ()
        return self._writer.put(apply, size, force=force, if_lost=if_lost, on_failure=on_failure, done=done).done

    def abandon(self, unique_id: str, caller_organization_id: str, opened: Opened | None, start_time: datetime) -> None:
        """Says of a call whose span cannot be stored, by whatever fault, that it has ended."""
        accepted = Entry(caller_organization_id, stored_minute(start_time), audit.ACCEPTED)

        def apply(batch: Batch) -> bool:
            queries.release(batch.db, unique_id, None)
            if not queries.abandon_call(batch.db, batch.next_seq(), caller_organization_id, unique_id):
                for entry in _lost(accepted):
                    batch.count(entry)
            return True

        self._writer.put(apply, _ADMISSION_BYTES, force=True, if_lost=() if opened else _lost(accepted))

    def drop(self, draft: Draft) -> None:
        """Counts a call whose span finds no room and that has no open row."""
        self._writer.note(*_lost(_entry(draft, draft.span.start_time, audit.ACCEPTED)))
        if draft.reserved:
            draft.counting = False
            self._writer.put(lambda batch: _end_reservation(batch.db, draft), _ADMISSION_BYTES, force=True)

    def refuse(self, organization_id: str, at: datetime) -> None:
        """Counts a posted span that was turned down."""
        self._writer.note(Entry(organization_id, stored_minute(at), audit.REFUSED))

    def update_counts(self, draft: Draft) -> asyncio.Future[bool]:
        """Queues the late counts of a stored span. Raises StoreFull."""
        values = rows.counted_values(draft)
        organization_id, unique_id = str(draft.span.organization_id), str(draft.span.unique_id)

        draft.counting = False

        def apply(batch: Batch) -> bool:
            _end_reservation(batch.db, draft)
            return queries.update_counts(batch.db, batch.next_seq(), organization_id, unique_id, values)

        return self._writer.put(apply, _COUNTS_BYTES, force=draft.reserved).done

    def edit(
        self,
        organization_id: str,
        unique_id: str,
        columns: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
    ) -> asyncio.Future[bool]:
        """Queues new values of a stored span; `metadata` is merged into what it has, where None takes a key out.

        The future ends with the commit, False if there is no such span. Raises StoreUnavailable; the future also raises
        StillRunning.
        """

        def apply(batch: Batch) -> bool:
            row_id, held = _ended(batch, organization_id, unique_id)
            if row_id is None:
                return False
            changed = {name: rows.stored(name, value) for name, value in columns.items()}
            if metadata is not None:
                merged = {**(parse_or_none(held or "") or {}), **metadata}
                changed["metadata"] = dump({key: value for key, value in merged.items() if value is not None})
            queries.edit_span(batch.db, batch.next_seq(), row_id, changed)
            return True

        size = _EDIT_BYTES + sum(len(str(value)) for value in (*columns.values(), metadata))
        return self._writer.put(apply, size, patient=False).done

    def delete(self, organization_id: str, unique_id: str) -> asyncio.Future[bool]:
        """Queues the end of a stored span, as `edit` does."""

        def apply(batch: Batch) -> bool:
            row_id, _ = _ended(batch, organization_id, unique_id)
            if row_id is None:
                return False
            _delete(batch, row_id)
            return True

        return self._writer.put(apply, _EDIT_BYTES, patient=False).done

    async def find(self, organization_id: str, unique_id: str, shape: Callable[[Row], T]) -> T | None:
        """One stored span: a row of the view `spans`, as `shape` makes it. That runs in the reader's thread, so that
        long content does not hold up the event loop."""

        def found(db: sqlite3.Connection) -> T | None:
            row = queries.find_span(db, organization_id, unique_id)
            return None if row is None else shape(row)

        return await self._read(found)

    async def page(
        self,
        organization_id: str,
        which: Filter,
        by: Order,
        *,
        size: int,
        place: Place | None = None,
        offset: int = 0,
        columns: Sequence[str] | None = None,
        shape: Callable[[Iterator[Row]], T],
    ) -> tuple[T, Place | None]:
        """A page of stored spans, behind a place or at an offset, as `shape` makes it of the rows of the view `spans`
        (see `find`), or of these columns; and behind which place the next begins, None at the end."""
        where = conditions.of_spans(which)

        def paged(db: sqlite3.Connection) -> tuple[T, Place | None]:
            found = lists.page(db, organization_id, where, by, size=size, place=place, offset=offset)
            return shape(lists.rows(db, found.ids, columns)), found.next

        return await self._read(paged)

    async def newest(
        self, organization_id: str, which: Filter, field: str, limit: int, shape: Callable[[Iterator[Any]], T]
    ) -> T:
        """What a field holds in the newest spans, as `shape` makes it of that (see `find`)."""
        where, expression = conditions.of_spans(which), conditions.named(field)
        return await self._read(lambda db: shape(lists.newest(db, organization_id, where, expression, limit)))

    async def sums(self, organization_id: str, which: Filter) -> Sums:
        """Over stored spans."""
        return await self._read(lambda db: sums.sums(db, organization_id, which))

    async def groups(
        self, organization_id: str, which: Filter, field: str, by: Order, *, limit: int, offset: int
    ) -> list[tuple[Any, Sums]]:
        """Sums by a field of stored spans, of `sums.GROUP_SORTS`."""
        return await self._read(
            lambda db: sums.groups(db, organization_id, which, field, by, limit=limit, offset=offset)
        )

    async def extent(self, organization_id: str) -> tuple[datetime, datetime] | None:
        """From the hour in which the first span ended up to the end of that of the last; None without spans."""
        times = await self._read(lambda db: series.extent(db, organization_id))
        if times is None:
            return None
        first, last = (datetime.fromisoformat(time).replace(minute=0, second=0, microsecond=0) for time in times)
        # There is nothing behind the last hour of all.
        return first, last + min(timedelta(hours=1), datetime.max.replace(tzinfo=UTC) - last)

    async def series(
        self,
        organization_id: str,
        which: Filter,
        step_s: int,
        field: str | None,
        *,
        groups_at_most: int,
        shape: Callable[[list[Point]], T],
    ) -> tuple[T, int]:
        """Sums over time: points of so many seconds each, see `series.series`, as `shape` makes it of them (see
        `find`)."""

        def found(db: sqlite3.Connection) -> tuple[T, int]:
            points, left_out = series.series(db, organization_id, which, step_s, field, groups_at_most)
            return shape(points), left_out

        return await self._read(found)

    async def traces(self, organization_id: str, which: Filter, by: Order, *, limit: int, offset: int) -> list[Trace]:
        """Traces in an order of `traces.SORTS`."""
        return await self._read(
            lambda db: traces.page(db, organization_id, which, by, limit=limit, offset=offset),
        )

    async def trace(
        self,
        organization_id: str,
        trace_unique_id: str,
        shape: Callable[[Trace, Iterator[Row]], T],
        *,
        shared: bool,
        with_content: bool = True,
    ) -> T | None:
        """One trace and its spans in the order in which they began, as `shape` makes it in the reader's thread.
        `shared`: only if everyone may read it; `with_content`: see `traces.find`."""

        def found(db: sqlite3.Connection) -> T | None:
            if shared and not traces.is_shared(db, organization_id, trace_unique_id):
                return None
            trace = traces.find(db, organization_id, trace_unique_id, with_content=with_content)
            if trace is None:
                return None
            return shape(trace, traces.spans(db, organization_id, trace_unique_id, with_content=with_content))

        return await self._read(found)

    def share_trace(self, organization_id: str, trace_unique_id: str, *, is_public: bool) -> asyncio.Future[bool]:
        """Queues whether everyone may read a trace, be it there or not. Raises StoreUnavailable, as the future may."""

        def apply(batch: Batch) -> bool:
            traces.share(batch.db, organization_id, trace_unique_id, is_public=is_public)
            return True

        return self._writer.put(apply, _EDIT_BYTES, patient=False).done

    async def delete_trace(
        self, organization_id: str, trace_unique_id: str, start: datetime | None = None, end: datetime | None = None
    ) -> int:
        """Deletes the spans of a trace, or those of a range, that run no more; gives how many once that is committed.

        Raises StoreUnavailable.
        """
        deleted: list[int] = []
        times = [None if time is None else stored_time(time) for time in (start, end)]

        def apply(batch: Batch) -> bool:
            deleted[:] = traces.ended(batch.db, organization_id, trace_unique_id, *times)
            for row_id in deleted:
                _delete(batch, row_id)
            traces.share(batch.db, organization_id, trace_unique_id, is_public=False)
            return bool(deleted)

        await self._writer.put(apply, _EDIT_BYTES, patient=False).done
        return len(deleted)

    async def users(self, organization_id: str, which: Filter, by: Order, *, limit: int, offset: int) -> list[Row]:
        """Users in an order of `users.SORTS`."""
        return await self._read(lambda db: users.page(db, organization_id, which, by, limit=limit, offset=offset))

    async def user(self, organization_id: str, customer_identifier: str, environments: Sequence[str]) -> Row | None:
        """A user in the first of these environments that has one."""

        def found(db: sqlite3.Connection) -> Row | None:
            each = (users.find(db, organization_id, customer_identifier, one) for one in environments)
            return next((user for user in each if user is not None), None)

        return await self._read(found)

    async def user_cost(self, user: Row, since: datetime | None) -> int:
        """What a user's spans cost since then, in units of 1e-12 USD."""
        if since is None:
            return int(user["cost_picos"])
        key = (user["organization_id"], user["customer_identifier"], user["environment"])
        return await self._read(lambda db: users.cost_since(db, *key, stored_time(since)))

    def say_of_user(self, user: Row, told: Mapping[str, Any], now: datetime) -> asyncio.Future[bool]:
        """Queues what is said of a user (`users.TOLD`). Raises StoreUnavailable, as the future may."""
        key = (user["organization_id"], user["customer_identifier"], user["environment"])
        columns = {name: rows.stored(name, value) for name, value in told.items()}

        def apply(batch: Batch) -> bool:
            users.say(batch.db, *key, columns, stored_time(now))
            return True

        return self._writer.put(apply, _EDIT_BYTES + len(str(told)), patient=False).done

    def delete_user(self, user: Row) -> asyncio.Future[bool]:
        """Queues the end of a user. The spans stay. Raises StoreUnavailable, as the future may."""
        key = (user["organization_id"], user["customer_identifier"], user["environment"])

        def apply(batch: Batch) -> bool:
            users.delete(batch.db, *key, batch.seq)
            return True

        return self._writer.put(apply, _EDIT_BYTES, patient=False).done

    async def threads(self, organization_id: str, which: Filter, by: Order, *, limit: int, offset: int) -> list[Row]:
        """Threads in an order of `threads.SORTS`."""
        where = conditions.of_spans(which)
        return await self._read(lambda db: threads.page(db, organization_id, where, by, limit=limit, offset=offset))

    async def thread(
        self,
        organization_id: str,
        thread_identifier: str,
        environment: str | None,
        shape: Callable[[Iterator[Row]], T],
    ) -> T:
        """The spans of a thread, oldest first, as `shape` makes it in the reader's thread."""
        return await self._read(lambda db: shape(threads.spans(db, organization_id, thread_identifier, environment)))

    async def place_of(self, name: str) -> int:
        """How far one who follows the journal has come. One that begins, begins at its end."""
        place = await self._read(lambda db: queries.place_of(db, name))
        if place is not None:
            return place
        end = await self._read(queries.take_seq)

        def apply(batch: Batch) -> bool:
            queries.begin_at(batch.db, name, end)
            return True

        self._writer.put(apply, _EDIT_BYTES, force=True)
        return end

    def keep_place(self, name: str, seq: int) -> asyncio.Future[bool]:
        """Queues how far one who follows the journal has come. Raises StoreFull."""

        def apply(batch: Batch) -> bool:
            queries.keep_place(batch.db, name, seq)
            return True

        return self._writer.put(apply, _EDIT_BYTES, force=True).done

    def use_link(self, nonce: str, expires_at: int, now: int) -> asyncio.Future[bool]:
        """Queues that a link is used; the future ends with the commit, False if it was used before, by whichever
        process. Times are seconds since 1970. Raises StoreUnavailable, as the future may."""

        def apply(batch: Batch) -> bool:
            return queries.use_link(batch.db, nonce, expires_at, now)

        return self._writer.put(apply, _EDIT_BYTES, patient=False).done

    def end_session(self, session_id: str, expires_at: int, now: int) -> asyncio.Future[bool]:
        """Queues that a session was ended; the future ends with the commit, False if it was ended before. Times are
        seconds since 1970. Raises StoreUnavailable, as the future may."""

        def apply(batch: Batch) -> bool:
            return queries.end_session(batch.db, session_id, expires_at, now)

        return self._writer.put(apply, _EDIT_BYTES, patient=False).done

    async def ended_sessions(self) -> dict[str, int]:
        """The sessions that were ended, by whichever process, and when they would be over. Raises StoreUnavailable."""
        return await self._read(queries.ended_sessions)

    async def journal(self, seq: int, limit: int, shape: Callable[[Sequence[Row]], T]) -> tuple[T, int] | None:
        """What is behind a place in the journal, as `shape` makes it of rows of the view `spans` in the reader's
        thread, and how far that goes; None where there is nothing yet."""

        def found(db: sqlite3.Connection) -> tuple[T, int] | None:
            new = lists.journal(db, seq, limit, _JOURNAL_ROOM)
            return (shape(new), int(new[-1]["seq"])) if new else None

        return await self._read(found)

    async def end_of_journal(self) -> int:
        """The last place in the journal that was given away."""
        return await self._read(queries.take_seq)

    async def changes(
        self,
        organization_id: str,
        which: Filter,
        seq: int,
        end: int,
        *,
        limit: int,
        columns: Sequence[str] | None,
        shape: Callable[[Changes, Iterator[Row]], T],
    ) -> T:
        """What happened to an organization's spans behind a place in the journal up to another, as `shape` makes it of
        that and of their rows (see `page`) in the reader's thread."""
        where = conditions.of_spans(which)

        def found(db: sqlite3.Connection) -> T:
            new = changes.behind(db, organization_id, where, seq, end, limit)
            return shape(new, lists.rows(db, new.ids, columns))

        return await self._read(found)

    async def audit(self, organization_id: str, start: datetime | None, end: datetime | None) -> Audit:
        """What an organization sent in whole minutes, beside what is stored of it."""
        return await self._read(lambda db: audited(db, organization_id, start, end))

    async def is_ready(self, within_s: float) -> bool:
        """Whether a write goes through now, and none has waited longer than `within_s` seconds."""
        if self.trouble is not None or self.oldest_wait_s() > within_s:
            return False
        if self._probe is None or self._probe.done():
            self._probe = self._writer.put(self._try, _PROBE_BYTES, force=True).done
        await asyncio.wait([self._probe], timeout=within_s)
        return self._probe.done() and self._probe.exception() is None

    def _try(self, batch: Batch) -> bool:
        """Writes something, so that it shows whether there is room."""
        queries.give_seq(batch.db, batch.seq)
        self._boot.renew()
        return True

    async def close(self) -> None:
        """Commits what waits and lets go of the file."""
        # The writer's connection goes last: only one that may write can tidy the write-ahead log away.
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        await self._writer.close()
        self._boot.end()

    def _interrupt(self, batch: Batch) -> bool:
        """Closes the open rows of processes that have ended, and gives back what their calls had reserved."""
        for boot_id in {*queries.boots_with_open_calls(batch.db), *queries.boots_with_reservations(batch.db)}:
            if boot_id == self._boot.id or boots.is_alive(self._path, boot_id):
                continue
            queries.give_back(batch.db, boot_id)
            for row_id in queries.left_open(batch.db, boot_id):
                queries.interrupt_call(batch.db, batch.next_seq(), row_id)
        for entry, number in self._lost_before.items():
            batch.count(entry, number)
        for boot_id in boots.others(self._path, self._boot):
            if not boots.is_alive(self._path, boot_id):
                boots.forget(self._path, boot_id)
        return True

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Whoever is cancelled gives up the question: others wait for its reader."""
        question = Question()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._readers, self._with_connection, query, question)
        except asyncio.CancelledError:
            question.give_up()
            raise
        except sqlite3.Error as error:
            if sqlite.gave_up(error):
                raise TooMuchToRead(
                    f"It took longer than {_READ_WITHIN_S:g} s: ask for a shorter time range, or filter by less."
                ) from None
            log.warning("The store cannot be read: %s", error)
            raise StoreUnavailable("The store cannot be read for now; see the gateway's log.") from error

    def _with_connection(self, query: Callable[[sqlite3.Connection], T], question: Question) -> T:
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        file = sqlite.identity(self._path)
        # Where the file is gone for now, what is open of it is still the best there is.
        if connection is not None and file[0] is not None and file != self._of_thread.file:
            self._connections.remove(connection)
            connection.close()
            connection = None
        if connection is None:
            connection = sqlite.connect_reader(self._path)
            self._connections.append(connection)
            self._of_thread.connection, self._of_thread.file = connection, file
        with (
            sqlite.one_moment(connection),
            sqlite.within(connection, _READ_WITHIN_S, question.is_given_up),
            question.asked(connection),
        ):
            return query(connection)


def audits(path: Path, start: datetime | None, end: datetime | None) -> dict[str, Audit]:
    """The audit of every organization, read from the file alone, whether a gateway runs on it or not.

    Raises StoreError.
    """
    try:
        with closing(sqlite.connect_reader(path)) as db, sqlite.one_moment(db):
            return {found: audited(db, found, start, end) for found in queries.audited_organizations(db)}
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} cannot be read: {error}.") from error


def audited(db: sqlite3.Connection, organization_id: str, start: datetime | None, end: datetime | None) -> Audit:
    """The audit of one organization."""
    from_minute = _FIRST_MINUTE if start is None else stored_minute(start)
    to_minute = _LAST_MINUTE if end is None else stored_minute(end)
    ledger = queries.ledger_sums(db, organization_id, from_minute, to_minute)
    calls = queries.call_counts(db, organization_id, from_minute, to_minute)
    posted = queries.posted_spans(db, organization_id, from_minute, to_minute)
    return audit.audit(ledger, calls, posted)


def _ended(batch: Batch, organization_id: str, unique_id: str) -> tuple[int | None, str | None]:
    """The id of a stored span's row, and its metadata as JSON. Raises StillRunning."""
    found = queries.editable(batch.db, organization_id, unique_id)
    if found is None:
        return None, None
    row_id, is_open, metadata = found
    if is_open:
        raise StillRunning("The call is still running: its span can be changed and deleted once it has ended.")
    return row_id, metadata


def _may_be_of_a_call(draft: Draft) -> bool:
    """Whether a posted span may be its sender's view of a call that went through the gateway."""
    span = draft.span
    return span.gateway_log_id is not None or (bool(span.trace_unique_id) and span.log_type in LLM_CALLS)


def _place_in_trace(span: Span) -> tuple[str, str]:
    return str(span.trace_unique_id), str(span.span_unique_id)


def _link_to_call(batch: Batch, draft: Draft, row_id: int) -> None:
    span = draft.span
    organization_id, trace_id, own_id = map(rows.writable, (str(span.organization_id), *_place_in_trace(span)))
    if span.gateway_log_id is None:
        call_id = queries.call_under(batch.db, organization_id, trace_id, own_id)
    elif queries.is_call(batch.db, organization_id, rows.writable(span.gateway_log_id)):
        return
    else:
        call_id = None
    if call_id != span.gateway_log_id:
        queries.edit_span(batch.db, batch.next_seq(), row_id, {"gateway_log_id": call_id})


def _link_parent(batch: Batch, draft: Draft) -> None:
    """The other way round: the call ends after its sender's span of it came."""
    span = draft.span
    key = map(rows.writable, (str(span.organization_id), str(span.trace_unique_id), str(span.span_parent_id)))
    if (row_id := queries.told_span(batch.db, *key)) is not None:
        queries.edit_span(batch.db, batch.next_seq(), row_id, {"gateway_log_id": span.unique_id})


def _delete(batch: Batch, row_id: int) -> None:
    batch.count(deleted(queries.delete_span(batch.db, batch.next_seq(), row_id)))


def _end_reservation(db: sqlite3.Connection, draft: Draft) -> bool:
    """Of a call whose key has limits: it runs no more, and costs what it costs once that is known."""
    if not draft.reserved:
        return False
    unique_id = str(draft.span.unique_id)
    if draft.counting:
        queries.stop_running(db, unique_id)
    elif draft.cost_picos is not None:
        queries.release(db, unique_id, int(draft.cost_picos))
    else:
        # What failed is given back; what was answered and has no known cost is taken to cost what it might.
        queries.release(db, unique_id, 0 if draft.span.status == FAILED else None)
    return True


def _forget(files: list[Path], entered: asyncio.Future[bool]) -> None:
    if entered.exception() is None:
        for file in files:
            file.unlink(missing_ok=True)


def _lost(accepted: Entry) -> tuple[Entry, Entry]:
    return accepted, Entry(accepted.organization_id, accepted.minute, audit.DROPPED)


def _entry(draft: Draft, at: datetime | None, name: str) -> Entry:
    at = at or draft.span.timestamp
    assert at is not None, "a span that is complete has a timestamp"
    return Entry(str(draft.span.organization_id), stored_minute(at), name)
