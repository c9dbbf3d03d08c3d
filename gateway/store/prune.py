"""Old spans are deleted, slice by slice: each is a transaction of some milliseconds, and calls go on between them."""

import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from gateway.core import audit
from gateway.core.reading import stored_time
from gateway.store import behind, queries, sqlite
from gateway.store.queries import Entry, Removed

log = logging.getLogger(__name__)

_SLICE = 200
# After so long a slice ends, whatever is left of it: calls wait for its end, and large spans take long to delete.
_SLICE_S = 0.05
# Pages given back to the file system in one go.
_PAGES = 250
_INCREMENTAL = 2
# Of the time that a slice takes.
_REST = 3.0
_EVERY_S = 60.0
_MINUTE_LENGTH = len("2026-01-02T03:04")


@dataclass(frozen=True, slots=True)
class Keep:
    """What is kept: spans no older than `age`, no more than fit into `size` bytes of the file. None: whatever it is."""

    age: timedelta | None = None
    size: int | None = None


async def prune_now_and_then(path: Path, keep: Keep, now: Callable[[], datetime]) -> None:
    """Prunes each minute, until it is cancelled."""

    def steps() -> Iterator[int]:
        pruned = 0
        for deleted_now in prune(path, keep, now()):
            pruned += deleted_now
            yield deleted_now
        if pruned:
            log.info("Deleted %d old spans", pruned)

    await behind.now_and_then(steps, _EVERY_S, "Old spans could not be deleted", rest=_REST)


def prune(path: Path, keep: Keep, now: datetime) -> Iterator[int]:
    """Deletes the oldest that are not kept, in slices: how many each time. Then gives back the space, 0 each time,
    where the file can do that; one that an older gateway made cannot, there it is used again.

    Pruned spans leave no tombstones: who follows the journal is to keep them. The ledger counts them as deleted.
    Raises sqlite3.Error.
    """
    before = None if keep.age is None else stored_time(now - keep.age)
    with closing(sqlite.connect_behind(path)) as db:
        while deleted_now := _slice(db, before, keep.size):
            yield deleted_now
        while _gives_back(db):
            yield 0


def number(path: Path, keep: Keep, now: datetime) -> int:
    """How many are too old. Raises sqlite3.Error."""
    if keep.age is None:
        return 0
    with closing(sqlite.connect_reader(path)) as db:
        row = db.execute(
            "SELECT count(*) FROM span WHERE is_open = 0 AND timestamp < ?", (stored_time(now - keep.age),)
        ).fetchone()
        return int(row[0])


class Forecast(NamedTuple):
    """How many spans a prune would delete, and about how many bytes of the file they take: by their share of all."""

    spans: int
    size: int


def forecast(path: Path, keep: Keep, now: datetime) -> Forecast:
    """What a prune would delete; nothing is. Raises sqlite3.Error."""
    too_old = number(path, keep, now)
    with closing(sqlite.connect_reader(path)) as db:
        (spans,) = db.execute("SELECT count(*) FROM span WHERE is_open = 0").fetchone()
        bytes_each = used(db) / max(1, spans)
        excess = 0.0 if keep.size is None else used(db) - keep.size
    found = min(spans, max(too_old, math.ceil(excess / max(1, bytes_each))))
    return Forecast(found, round(found * bytes_each))


def deleted(removed: Removed) -> Entry:
    """The line of the ledger for a span that was deleted."""
    name = audit.DELETED_CALLS if removed.of_call else audit.DELETED_POSTS
    return Entry(removed.organization_id, removed.came_at[:_MINUTE_LENGTH], name)


def _slice(db: sqlite3.Connection, before: str | None, size: int | None) -> int:
    db.execute("BEGIN IMMEDIATE")
    try:
        until, deleted_now = time.monotonic() + _SLICE_S, 0
        for row_id in _too_old(db, before) or _too_many(db, size):
            queries.add_to_ledger(db, {deleted(queries.remove_span(db, row_id)): 1})
            deleted_now += 1
            if time.monotonic() > until:
                break
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return deleted_now


def _too_old(db: sqlite3.Connection, before: str | None) -> Sequence[int]:
    if before is None:
        return ()
    for organization_id in queries.audited_organizations(db):
        found = db.execute(
            "SELECT id FROM span WHERE organization_id = ? AND timestamp < ? AND is_open = 0"
            " ORDER BY timestamp LIMIT ?",
            (organization_id, before, _SLICE),
        ).fetchall()
        if found:
            return [row_id for (row_id,) in found]
    return ()


def _too_many(db: sqlite3.Connection, size: int | None) -> Sequence[int]:
    if size is None or used(db) <= size:
        return ()
    found = db.execute("SELECT id FROM span WHERE is_open = 0 ORDER BY id LIMIT ?", (_SLICE,)).fetchall()
    return [row_id for (row_id,) in found]


def used(db: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return (pages - free) * size


def _gives_back(db: sqlite3.Connection) -> bool:
    """Gives back some pages; whether there may be more."""
    (mode,), (free,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("auto_vacuum", "freelist_count"))
    if mode != _INCREMENTAL or free == 0:
        return False
    # As a script: that goes on to the statement's end, where execute() takes one step of it, which is one page.
    db.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
    return True
