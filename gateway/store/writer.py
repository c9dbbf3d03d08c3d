"""The one writer: takes what waits, commits it in one transaction, then answers everyone at once.

There is no timer: a lone write commits at once, and what comes while a commit runs makes up the next batch.
"""

import asyncio
import logging
import math
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.errors import StoreFull
from gateway.store import queries, sqlite

log = logging.getLogger(__name__)

# A write gets the connection and its place in the journal, and says whether it changed anything.
Apply = Callable[[sqlite3.Connection, int], bool]

_BATCH_AT_MOST = 2000
_RETRY_FIRST_S = 0.02
_RETRY_AT_MOST_S = 1.0
_CHECKPOINT_EVERY_BYTES = 8 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Write:
    """One change that waits for its commit. `size`: about how many bytes it holds while it waits."""

    apply: Apply
    size: int
    queued_at: float
    done: asyncio.Future[bool]
    result: bool = False
    error: Exception | None = field(default=None)


class Writer:
    """Runs a thread with its own connection. Everything but the thread's own part is called on the event loop."""

    def __init__(
        self,
        path: Path,
        *,
        synchronous: str,
        queue_bytes: int,
        on_waiting: Callable[[int], None],
        give_up_s: float = 10.0,
    ) -> None:
        self._path = path
        self._synchronous = synchronous
        self._queue_bytes = queue_bytes
        self._on_waiting = on_waiting
        self._give_up_s = give_up_s
        self._give_up_at = math.inf
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._waiting: deque[Write] = deque()
        self._closing = threading.Event()
        self._checkpoint = threading.Event()
        self._waiting_bytes = 0
        self._uncheckpointed = 0
        self._thread = threading.Thread(target=self._run, name="span-writer", daemon=True)
        self._checkpointer = threading.Thread(target=self._run_checkpoints, name="span-checkpoints", daemon=True)
        self._thread.start()
        self._checkpointer.start()

    def put(self, apply: Apply, size: int) -> asyncio.Future[bool]:
        """Queues a write; the future ends when it is committed. Raises StoreFull."""
        if self._waiting_bytes + size > self._queue_bytes and self._waiting:
            raise StoreFull("The store is not keeping up; try again shortly.", code="store_full")
        write = Write(apply, size, time.monotonic(), self._loop.create_future())
        # A failed write whose asker has gone is no unhandled error.
        write.done.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._waiting_bytes += size
        self._waiting.append(write)
        self._queue.put(write)
        self._on_waiting(self._waiting_bytes)
        return write.done

    def oldest_wait_s(self) -> float:
        """How long the write at the head of the queue has waited; 0 when nothing waits."""
        return time.monotonic() - self._waiting[0].queued_at if self._waiting else 0.0

    async def close(self) -> None:
        """Commits everything that waits, then stops. Gives up on a broken store after `give_up_s` seconds."""
        self._give_up_at = time.monotonic() + self._give_up_s
        self._closing.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._checkpoint.set()
        await asyncio.to_thread(self._checkpointer.join)

    # From here on: the writer's thread.

    def _run(self) -> None:
        db: sqlite3.Connection | None = None
        stopping = False
        while not stopping:
            batch, stopping = self._take()
            if batch:
                db = self._commit(db, batch)
        if db is not None:
            db.close()

    def _take(self) -> tuple[list[Write], bool]:
        batch: list[Write] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) >= _BATCH_AT_MOST:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, db: sqlite3.Connection | None, batch: list[Write]) -> sqlite3.Connection | None:
        """Commits the batch, however long the store needs for it, and answers."""
        pause = _RETRY_FIRST_S
        while True:
            try:
                db = db or sqlite.connect_writer(self._path, synchronous=self._synchronous)
                _apply(db, batch)
                break
            except sqlite3.Error as error:
                if time.monotonic() > self._give_up_at:
                    log.error("%d spans could not be stored: %s", len(batch), error)
                    for write in batch:
                        write.error = error
                    break
                if pause == _RETRY_FIRST_S:
                    log.warning("The store does not take spans, %d wait: %s", len(batch), error)
                time.sleep(pause)
                pause = min(pause * 2, _RETRY_AT_MOST_S)
        self._checkpoint_after(sum(write.size for write in batch))
        try:
            self._loop.call_soon_threadsafe(self._answer, batch)
        except RuntimeError:  # the loop has been closed
            log.debug("%d spans were committed after the end of the event loop", len(batch))
        return db

    def _checkpoint_after(self, size: int) -> None:
        self._uncheckpointed += size
        if self._uncheckpointed >= _CHECKPOINT_EVERY_BYTES:
            self._uncheckpointed = 0
            self._checkpoint.set()

    def _run_checkpoints(self) -> None:
        """Checkpoints on a connection and a thread of its own, so that no commit waits for one."""
        while True:
            self._checkpoint.wait()
            self._checkpoint.clear()
            try:
                db = sqlite.connect(self._path)
                try:
                    db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                finally:
                    db.close()
            except sqlite3.Error as error:
                log.warning("The write-ahead log could not be checkpointed: %s", error)
            if self._closing.is_set() and not self._thread.is_alive():
                return

    # Back on the event loop.

    def _answer(self, batch: list[Write]) -> None:
        for write in batch:
            self._waiting.popleft()
            self._waiting_bytes -= write.size
            if write.done.done():
                continue
            if write.error is not None:
                write.done.set_exception(write.error)
            else:
                write.done.set_result(write.result)
        self._on_waiting(self._waiting_bytes)


def _apply(db: sqlite3.Connection, batch: list[Write]) -> None:
    """One transaction. A write that fails by its own fault fails alone; trouble with the store is raised."""
    applicable = batch
    while (failed := _try_apply(db, applicable)) is not None:
        applicable = [write for write in applicable if write is not failed]


def _try_apply(db: sqlite3.Connection, batch: list[Write]) -> Write | None:
    """Commits the batch whole, or rolls it back and gives the write that is at fault."""
    db.execute("BEGIN IMMEDIATE")
    try:
        seq = queries.take_seq(db)
        for write in batch:
            seq += 1
            try:
                write.result = write.apply(db, seq)
            except Exception as error:
                if _is_trouble_with_the_store(error):
                    raise
                db.execute("ROLLBACK")
                write.error = error
                return write
        queries.give_seq(db, seq)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return None


def _is_trouble_with_the_store(error: Exception) -> bool:
    of_the_write = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, of_the_write)
