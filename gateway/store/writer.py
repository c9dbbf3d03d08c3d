"""The one writer: takes what waits, commits it in one transaction, then answers everyone at once.

What comes in one turn of the event loop, and while a commit runs, makes up the next batch: a commit has a price, and so
has each change between the two threads. There is no timer: a lone write commits at once.
"""

import asyncio
import logging
import math
import os
import queue
import sqlite3
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from gateway.errors import StoreFull, StoreUnavailable
from gateway.store import boots, losses, rescue, sqlite
from gateway.store.batch import Apply, Batch, Write, commit
from gateway.store.queries import Entry

log = logging.getLogger(__name__)

_BATCH_AT_MOST = 2000
_RETRY_FIRST_S = 0.02
_RETRY_AT_MOST_S = 1.0
_CHECKPOINT_EVERY_BYTES = 8 * 1024 * 1024
# What is written to the log before it starts over. For that commits must wait for the disk, which takes some 30 ms.
_START_LOG_OVER_BYTES = 64 * 1024 * 1024
# Of the thread that checkpoints: on a core with nothing to spare it still gets a tenth, and keeps up.
_CHECKPOINT_NICENESS = 10
_NOTES_BYTES = 1000
# How far behind what is told of the bytes that wait may be, while no batch is answered.
_TOLD_EVERY_BYTES = 16 * 1024


class Writer:
    """Runs a thread with its own connection. Everything but the thread's own part is called on the event loop."""

    def __init__(
        self,
        path: Path,
        boot: boots.Boot,
        *,
        synchronous: str,
        queue_bytes: int,
        shared: bool = False,
        on_waiting: Callable[[int], None] = lambda size: None,
        on_trouble: Callable[[], None] = lambda: None,
        give_up_s: float = 10.0,
    ) -> None:
        """`shared`: other processes write to the database too. `on_waiting` is told how many bytes wait, `on_trouble`
        of each commit that failed (in the writer's thread)."""
        self._path = path
        self._boot = boot
        self._synchronous = synchronous
        self._queue_bytes = queue_bytes
        self._shared = shared
        self._on_waiting = on_waiting
        self._on_trouble = on_trouble
        self._give_up_s = give_up_s
        self._give_up_at = math.inf
        self._loop = asyncio.get_running_loop()
        self._pending: deque[Write] = deque()
        self._hands_over_soon = False
        self._busy = False
        self._batches: queue.SimpleQueue[list[Write] | None] = queue.SimpleQueue()
        # Handed over or not.
        self._waiting: dict[Write, None] = {}
        self._waiting_bytes = 0
        self._told_bytes = 0
        self._notes: Counter[Entry] = Counter()
        self._noting: asyncio.Future[bool] | None = None
        self._trouble: str | None = None
        self._refusing = False
        self._db: sqlite3.Connection | None = None
        self._opened: sqlite.Identity = ()
        self._closing = threading.Event()
        self._checkpoint = threading.Event()
        self._checkpointed = threading.Event()
        self._abandoned = 0
        # Held while a connection other than the writer's may be the last on its file: that one deletes the log.
        self._file_lock = threading.Lock()
        self._uncheckpointed = 0
        self._logged = 0
        self._thread = threading.Thread(target=self._run, name="span-writer", daemon=True)
        self._checkpointer = threading.Thread(target=self._run_checkpoints, name="span-checkpoints", daemon=True)
        self._thread.start()
        self._checkpointer.start()

    @property
    def trouble(self) -> str | None:
        """Why the last commit failed, until one succeeds."""
        return self._trouble

    @property
    def abandoned(self) -> int:
        """How many writes were given up when it was closed."""
        return self._abandoned

    def put(
        self,
        apply: Apply,
        size: int,
        *,
        patient: bool = True,
        force: bool = False,
        if_lost: tuple[Entry, ...] = (),
        on_failure: Callable[[Exception], None] | None = None,
        done: asyncio.Future[bool] | None = None,
    ) -> Write:
        """Queues a write; its `done` ends when it is committed. Raises StoreUnavailable.

        `force`: also where the queue is full; for the few that must not be lost, and are small. `on_failure` is told
        why it cannot be stored. `done`: the future that is to end with its commit; without it a new one.
        """
        if self._refusing and not patient:
            raise _moved()
        if self._waiting_bytes and self._waiting_bytes + size > self._queue_bytes and not force:
            raise StoreFull("The store is not keeping up; try again shortly.", code="store_full")
        done = self._loop.create_future() if done is None else done
        write = Write(apply, size, time.monotonic(), done, patient, if_lost, on_failure)
        self._waiting_bytes += size
        self._waiting[write] = None
        if self._waiting_bytes - self._told_bytes >= _TOLD_EVERY_BYTES:
            self.tell_waiting()
        self._pending.append(write)
        if not self._busy and not self._hands_over_soon:
            self._hands_over_soon = True
            self._loop.call_soon(self._hand_over)
        return write

    def _hand_over(self) -> None:
        """Gives the thread its next batch."""
        self._hands_over_soon = False
        if self._busy:
            return
        batch: list[Write] = []
        while self._pending and len(batch) < _BATCH_AT_MOST:
            batch.append(self._pending.popleft())
        if batch:
            self._busy = True
            self._batches.put(batch)

    def tell_waiting(self) -> None:
        """Tells how many bytes wait; by itself that is told of each batch, and when it grows."""
        self._told_bytes = self._waiting_bytes
        self._on_waiting(self._waiting_bytes)

    def note(self, *entries: Entry) -> None:
        """Counts in the ledger what leaves no row, all at once. However many they are, they wait as sums."""
        self._notes.update(entries)
        if self._noting is None:
            self._write_notes()

    def _write_notes(self) -> None:
        taken, self._notes = self._notes, Counter()

        def apply(batch: Batch) -> bool:
            for entry, number in taken.items():
                batch.count(entry, number)
            return True

        self._noting = self.put(apply, _NOTES_BYTES, force=True).done
        self._noting.add_done_callback(self._notes_written)

    def _notes_written(self, _: object) -> None:
        self._noting = None
        if self._notes and not self._closing.is_set():
            self._write_notes()

    def oldest_wait_s(self) -> float:
        """How long the write that waits longest has waited; 0 when nothing waits."""
        oldest = next(iter(self._waiting), None)
        return time.monotonic() - oldest.queued_at if oldest else 0.0

    async def close(self) -> None:
        """Commits everything that waits, then stops. Gives up on a broken store after `give_up_s` seconds."""
        self._give_up_at = time.monotonic() + self._give_up_s
        while self._noting is not None and self._notes and self._trouble is None:
            await asyncio.wait([self._noting], timeout=self._give_up_s)
        self._closing.set()
        if self._pending:
            self._batches.put(list(self._pending))
        self._pending.clear()
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join)
        self._checkpoint.set()
        await asyncio.to_thread(self._checkpointer.join)

    # From here on: the writer's thread.

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            self._commit(batch)
        if self._db is not None:
            self._db.close()

    def _commit(self, batch: list[Write]) -> None:
        """Commits the batch, however long the store needs for it, and answers."""
        pause = _RETRY_FIRST_S
        while True:
            trouble: Exception
            try:
                self._store(batch)
                break
            except sqlite.FileMoved:
                trouble = _moved()
            except (sqlite3.Error, OSError) as error:
                trouble = error
            self._on_trouble()
            if self._trouble is None:
                log.warning("The store takes no spans, %d wait: %s", len(batch), trouble)
            # Told before anyone is refused: who asks then whether the store is ready gets the right answer.
            self._trouble = str(trouble)
            if isinstance(trouble, StoreUnavailable):
                batch = self._refuse(batch, trouble)
            if self._closing.is_set() and time.monotonic() > self._give_up_at:
                self._abandon([*batch, *self._rest()], trouble)
                return
            time.sleep(pause)
            pause = min(pause * 2, _RETRY_AT_MOST_S)
        if self._trouble is not None:
            log.warning("The store takes spans again.")
        self._trouble, self._refusing = None, False
        self._hand_back(batch)
        self._checkpoint_after(sum(write.size for write in batch))

    def _abandon(self, batch: list[Write], trouble: Exception) -> None:
        """Gives up what waits, and keeps what the ledger has to say of it for the next process."""
        self._abandoned = len(batch)
        log.error("Gave up what could not be stored, %d changes: %s", len(batch), trouble)
        entries = Counter(entry for write in batch for entry in write.if_lost)
        try:
            if entries:
                losses.keep(self._path, self._boot.id, entries)
        except OSError as error:
            log.error("Nor can it be written down, the audit will not show it: %s", error)
        for write in batch:
            write.error = trouble
        self._hand_back(batch)

    def _rest(self) -> list[Write]:
        """What was handed over at the end, behind the batch that is being given up."""
        rest: list[Write] = []
        while (batch := self._batches.get()) is not None:
            rest += batch
        self._batches.put(None)
        return rest

    def _store(self, batch: list[Write]) -> None:
        """One transaction on the file that is at the path. Raises FileMoved, sqlite3.Error and OSError."""
        while True:
            if self._db is None and self._shared and not self._path.exists():
                raise sqlite.FileMoved
            if self._db is None:
                self._db, self._opened = sqlite.connect_writer(self._path, synchronous=self._synchronous)
            try:
                commit(self._db, batch, self._check_file)
                return
            except sqlite.FileMoved:
                # Who deleted the database may have deleted that too by which the others know of us.
                self._boot.renew()
                # They have the old file open as well, and would go on with it; or have written it back by now.
                if self._shared or self._refusing or self._has_neighbours():
                    raise
            self._bring_back(self._db)

    def _check_file(self) -> None:
        if sqlite.identity(self._path) != self._opened:
            raise sqlite.FileMoved

    def _has_neighbours(self) -> bool:
        return any(boots.is_alive(self._path, other) for other in boots.others(self._path, self._boot))

    def _bring_back(self, db: sqlite3.Connection) -> None:
        with self._file_lock:
            rescue.copy_back(db, self._opened, self._path)
            self._db = None
        log.error("The database %s was moved or deleted while in use; it has been written back.", self._path)

    def _refuse(self, batch: list[Write], trouble: Exception) -> list[Write]:
        """Tells those who can be told that their write will not be stored; gives the others."""
        self._refusing = True
        refused = [write for write in batch if not write.patient]
        self._tell_loop(self._answer_refused, refused, trouble)
        return [write for write in batch if write.patient]

    def _hand_back(self, writes: Sequence[Write]) -> None:
        self._tell_loop(self._answer_batch, writes)

    def _tell_loop(self, callback: Callable[..., None], writes: Sequence[Write], *more: Exception) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, writes, *more)
        except RuntimeError:  # the loop has been closed
            log.debug("%d writes ended after the event loop", len(writes))

    def _checkpoint_after(self, size: int) -> None:
        self._uncheckpointed += size
        self._logged += size
        if self._uncheckpointed >= _CHECKPOINT_EVERY_BYTES:
            self._uncheckpointed = 0
            self._checkpoint.set()
        if self._logged >= _START_LOG_OVER_BYTES and self._checkpointed.is_set() and self._db is not None:
            # Only now, between two commits, can the log be done to its end, so that the next commit starts it over.
            # A reader may be in the way: then the next try is as soon as that of any checkpoint.
            self._logged = 0 if _checkpoint(self._db) else self._logged
        self._checkpointed.clear()

    def _run_checkpoints(self) -> None:
        """Checkpoints on a connection and a thread of its own, so that commits wait for the rest of one only."""
        if sys.platform == "linux":
            # Which takes a thread for a process here.
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _CHECKPOINT_NICENESS)
        while True:
            self._checkpoint.wait()
            self._checkpoint.clear()
            try:
                with self._file_lock, closing(sqlite.connect(self._path)) as db:
                    _checkpoint(db)
            except sqlite3.Error as error:
                log.warning("The write-ahead log could not be checkpointed: %s", error)
            self._checkpointed.set()
            if self._closing.is_set() and not self._thread.is_alive():
                return

    # Back on the event loop.

    def _answer_batch(self, writes: Sequence[Write]) -> None:
        self._answer(writes)
        self._busy = False
        self._hand_over()

    def _answer_refused(self, writes: Sequence[Write], trouble: Exception) -> None:
        """Of a batch that goes on waiting, and of what came behind it."""
        refused = [*writes, *(write for write in self._pending if not write.patient)]
        self._pending = deque(write for write in self._pending if write.patient)
        for write in refused:
            write.error = trouble
        self._answer(refused)

    def _answer(self, writes: Sequence[Write]) -> None:
        for write in writes:
            del self._waiting[write]
            self._waiting_bytes -= write.size
            if write.error is None:
                if not write.done.done():
                    write.done.set_result(write.result)
                continue
            if not write.done.done():
                write.done.set_exception(write.error)
                # One whose asker has gone is no unhandled error.
                write.done.exception()
            if write.on_failure is not None:
                write.on_failure(write.error)
        self.tell_waiting()


def _checkpoint(db: sqlite3.Connection) -> bool:
    """Whether all of the log is in the database now."""
    try:
        busy, logged, done = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        log.warning("The write-ahead log could not be checkpointed: %s", error)
        return False
    return not busy and bool(logged == done)


def _moved() -> StoreUnavailable:
    return StoreUnavailable(
        "The database file was moved or deleted while several processes use it: restart the gateway.",
        code="store_moved",
    )
