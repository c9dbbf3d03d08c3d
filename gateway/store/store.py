"""The store as the rest of the gateway sees it."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from gateway.core.complete import Draft
from gateway.errors import StoreFull
from gateway.store import queries, rows, sqlite
from gateway.store.writer import Writer

T = TypeVar("T")
Row = dict[str, Any]

_READERS = 2


class Store:
    """Spans in one SQLite file. Writes end with their commit; reads see whatever is committed."""

    def __init__(
        self, path: Path, *, synchronous: str, queue_bytes: int, on_waiting: Callable[[int], None] = lambda size: None
    ) -> None:
        """Makes the file if it is not there. `on_waiting` is told how many bytes wait, whenever that changes.

        Must be called on the event loop. Raises StoreError.
        """
        sqlite.create(path)
        self._path = path
        self._writer = Writer(path, synchronous=synchronous, queue_bytes=queue_bytes, on_waiting=on_waiting)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="span-reader")
        self._of_thread = threading.local()
        self._connections: list[sqlite3.Connection] = []

    def oldest_wait_s(self) -> float:
        """Seconds that the write at the head of the queue has waited."""
        return self._writer.oldest_wait_s()

    def insert(self, draft: Draft) -> asyncio.Future[bool]:
        """Queues a new span; the future ends with its commit, False if there is one of this id. Raises StoreFull."""
        span, content = rows.span_values(draft), rows.content_values(draft)
        return self._writer.put(
            lambda db, seq: queries.insert_span(db, seq, span, content), rows.size(span) + rows.size(content)
        )

    def update_counts(self, draft: Draft) -> asyncio.Future[bool]:
        """Queues the late counts of a stored span. Raises StoreFull."""
        values = rows.counted_values(draft)
        organization_id, unique_id = str(draft.span.organization_id), str(draft.span.unique_id)
        return self._writer.put(
            lambda db, seq: queries.update_counts(db, seq, organization_id, unique_id, values), rows.size(values)
        )

    async def find(self, organization_id: str, unique_id: str, shape: Callable[[Row], T]) -> T | None:
        """One stored span: a row of the view `spans`, as `shape` makes it. That runs in the reader's thread, so that
        long content does not hold up the event loop."""

        def found(db: sqlite3.Connection) -> T | None:
            row = queries.find_span(db, organization_id, unique_id)
            return None if row is None else shape(row)

        return await self._read(found)

    async def newest(
        self,
        organization_id: str,
        conditions: Sequence[tuple[str, Any]],
        *,
        limit: int,
        offset: int,
        shape: Callable[[Iterator[Row]], T],
    ) -> T:
        """Stored spans, newest first, as `shape` makes them of the rows of the view `spans`; see `find`."""
        return await self._read(lambda db: shape(queries.newest_spans(db, organization_id, conditions, limit, offset)))

    async def is_ready(self, within_s: float) -> bool:
        """Whether a write goes through now, and none has waited longer than `within_s` seconds."""
        if self.oldest_wait_s() > within_s:
            return False
        try:
            probe = self._writer.put(lambda db, seq: True, 0)
            await asyncio.wait_for(probe, within_s)
        except (TimeoutError, sqlite3.Error, StoreFull):
            return False
        return True

    async def close(self) -> None:
        """Commits what waits and lets go of the file."""
        # The writer's connection goes last: only one that may write can tidy the write-ahead log away.
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._connections:
            connection.close()
        await self._writer.close()

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._with_connection, query)

    def _with_connection(self, query: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = sqlite.connect_reader(self._path)
            self._of_thread.connection = connection
            self._connections.append(connection)
        return query(connection)
