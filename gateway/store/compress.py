"""What was said long ago is compressed, a few spans at a time, in the order in which they came."""

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from gateway.core.reading import stored_time
from gateway.store import behind, queries, sqlite

# A smaller text stays as it is.
_WORTH_BYTES = 256
# In one transaction; it holds up others for as long as compressing these takes, some milliseconds.
_SPANS_AT_ONCE = 20
_BYTES_AT_ONCE = 256 * 1024
_TEXT_KEPT = 200
_LOOK_EVERY_S = 30.0
# So many times as long as it works, it rests: it still gets through a thousand spans a second.
_REST = 9.0
# Under this name it is kept how far it has come.
FOLLOWER = "compression"


async def compress_now_and_then(path: Path, older_than: timedelta, now: Callable[[], datetime]) -> None:
    """Compresses what gets older than that, until it is cancelled."""
    await behind.now_and_then(
        lambda: compress(path, now() - older_than), _LOOK_EVERY_S, "Old spans stay uncompressed", rest=_REST
    )


def compress(path: Path, before: datetime) -> Iterator[int]:
    """Compresses what was said in the spans that came before then; gives how many they were, behind each transaction.

    Raises sqlite3.Error.
    """
    with closing(sqlite.connect_behind(path)) as db:
        last = queries.place_of(db, FOLLOWER)
        while ids := _some(db, last, stored_time(before)):
            last = ids[-1]
            yield len(ids)


def _some(db: sqlite3.Connection, last: int | None, before: str) -> list[int]:
    db.execute("BEGIN IMMEDIATE")
    try:
        # Where another process has gone on, it is at it. Both would hold up calls twice as much.
        ids = _next(db, last or 0, before) if queries.place_of(db, FOLLOWER) == last else []
        for row_id in ids:
            _compress(db, row_id)
        if ids:
            queries.keep_place(db, FOLLOWER, ids[-1])
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return ids


def _next(db: sqlite3.Connection, last: int, before: str) -> list[int]:
    """The next spans behind that one, up to the first that came later or that is still written to."""
    found: list[int] = []
    room = _BYTES_AT_ONCE
    lengths = " + ".join(f"coalesce(length({name}), 0)" for name in sqlite.COMPRESSED)
    rows = db.execute(
        f"SELECT id, is_open, coalesce(received_at, timestamp) < ?, {lengths} FROM span LEFT JOIN content"
        " ON span_id = id WHERE id > ? ORDER BY id LIMIT ?",
        (before, last, _SPANS_AT_ONCE),
    )
    for row_id, is_open, is_old, length in rows:
        if is_open or not is_old or (found and room < length):
            break
        room -= length
        found.append(row_id)
    return found


def _compress(db: sqlite3.Connection, row_id: int) -> None:
    cursor = db.execute("SELECT * FROM content WHERE span_id = ?", (row_id,))
    columns = [column[0] for column in cursor.description]
    found = cursor.fetchone()
    if found is None:
        return
    row: dict[str, object] = dict(zip(columns, found, strict=True))
    smaller = {name: _smaller(row[name]) for name in sqlite.COMPRESSED}
    changed = {name: value for name, value in smaller.items() if value is not None}
    if not changed:
        return
    # While it can still be read without us. As bytes: what JSON says with half a surrogate pair is no UTF-8.
    names = ("input_text", "output_text")
    shown = ", ".join(f"CAST({name} AS BLOB)" for name in names)
    texts = db.execute(f"SELECT {shown} FROM texts WHERE row_id = ?", (row_id,)).fetchone()
    kept = [None if text is None else text.decode(errors="replace")[:_TEXT_KEPT] for text in texts]
    row |= {**changed, **dict(zip(names, kept, strict=True))}
    # Not as an UPDATE: that leaves each row on the page that it filled, and pages half empty are not put together.
    db.execute("DELETE FROM content WHERE span_id = ?", (row_id,))
    db.execute(f"INSERT INTO content ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def _smaller(text: object) -> bytes | None:
    if not isinstance(text, str) or len(text) < _WORTH_BYTES:
        return None
    written = text.encode()
    found = zlib.compress(written)
    return found if len(found) < len(written) // 2 + len(written) // 4 else None
