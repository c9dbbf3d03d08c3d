"""Every SQL statement that reads or writes spans, each as one function on a connection."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.store.rows import CONTENT_COLUMNS, COUNTED_COLUMNS, SPAN_COLUMNS, Values


def _marks(number: int) -> str:
    return ", ".join("?" * number)


_INSERT_SPAN = (
    f"INSERT INTO span (seq, {', '.join(SPAN_COLUMNS)}) VALUES ({_marks(1 + len(SPAN_COLUMNS))})"
    " ON CONFLICT (organization_id, unique_id) DO NOTHING"
)
_INSERT_CONTENT = (
    f"INSERT INTO content (span_id, {', '.join(CONTENT_COLUMNS)}) VALUES ({_marks(1 + len(CONTENT_COLUMNS))})"
)
_UPDATE_COUNTS = (
    f"UPDATE span SET seq = ?, {', '.join(f'{name} = ?' for name in COUNTED_COLUMNS)}"
    " WHERE organization_id = ? AND unique_id = ?"
)


def insert_span(db: sqlite3.Connection, seq: int, span: Values, content: Values) -> bool:
    """Stores a span; False if the organization has one with this unique_id already."""
    cursor = db.execute(_INSERT_SPAN, (seq, *span))
    if cursor.rowcount == 0:
        return False
    db.execute(_INSERT_CONTENT, (cursor.lastrowid, *content))
    return True


def update_counts(db: sqlite3.Connection, seq: int, organization_id: str, unique_id: str, values: Values) -> bool:
    """Puts late counts in; False if the span is gone."""
    return db.execute(_UPDATE_COUNTS, (seq, *values, organization_id, unique_id)).rowcount > 0


def take_seq(db: sqlite3.Connection) -> int:
    """The last place in the journal that was given away."""
    return int(db.execute("SELECT seq FROM journal").fetchone()[0])


def give_seq(db: sqlite3.Connection, seq: int) -> None:
    """Says that places up to `seq` are given away."""
    db.execute("UPDATE journal SET seq = ?", (seq,))


def find_span(db: sqlite3.Connection, organization_id: str, unique_id: str) -> dict[str, Any] | None:
    """One row of the view `spans`."""
    row = db.execute(
        "SELECT * FROM spans WHERE organization_id = ? AND unique_id = ?", (organization_id, unique_id)
    ).fetchone()
    return None if row is None else dict(row)


def newest_spans(
    db: sqlite3.Connection, organization_id: str, conditions: Sequence[tuple[str, Any]], limit: int, offset: int
) -> Iterator[dict[str, Any]]:
    """Rows of the view `spans`, newest first, read one by one. A condition is SQL with one mark, and its value."""
    where = "".join(f" AND {sql}" for sql, _ in conditions)
    rows = db.execute(
        f"SELECT * FROM spans WHERE organization_id = ?{where} ORDER BY timestamp DESC, row_id DESC LIMIT ? OFFSET ?",
        (organization_id, *(value for _, value in conditions), limit, offset),
    )
    return map(dict, rows)
