"""What came, changed and went, in the order of the journal, for those who listen to it."""

import json
import sqlite3
from typing import NamedTuple

from gateway.core.changes import DELETED, LEFT, SPAN, Change
from gateway.store.conditions import Sql

# With more behind a place than these, what is between is not told any more.
BEHIND_AT_MOST = 2000


class Changes(NamedTuple):
    """Changes behind a place, in order, and the ids of the rows of those that are spans; `end`: how far that goes.

    `is_gap`: there are too many, and none is told up to the end.
    """

    found: list[Change]
    ids: list[int]
    end: int
    is_gap: bool = False


def behind(db: sqlite3.Connection, organization_id: str, where: Sql, seq: int, end: int, limit: int) -> Changes:
    """What came and changed of an organization's spans behind a place in the journal up to another, with calls that
    still run, and what went; each span once, as it is now."""
    rows = db.execute(
        "SELECT seq, id, unique_id FROM span WHERE seq > ? AND seq <= ? AND +organization_id = ?"
        " UNION ALL SELECT seq, NULL, unique_id FROM tombstone WHERE seq > ? AND seq <= ? AND organization_id = ?"
        " ORDER BY seq LIMIT ?",
        (*(seq, end, organization_id) * 2, BEHIND_AT_MOST + 1),
    ).fetchall()
    if len(rows) > BEHIND_AT_MOST:
        return Changes([], [], end, is_gap=True)
    taken = rows[:limit]
    fitting = _fitting(db, [row_id for _, row_id, _ in taken if row_id is not None], where)
    found: list[Change] = []
    ids: list[int] = []
    for at, row_id, unique_id in taken:
        if row_id is None:
            found.append(Change(at, DELETED, unique_id))
        elif row_id in fitting:
            found.append(Change(at, SPAN, unique_id))
            ids.append(row_id)
        elif row_id <= seq:
            # It was there before: whoever listens may have it.
            found.append(Change(at, LEFT, unique_id))
    return Changes(found, ids, taken[-1][0] if len(rows) > limit else end)


def _fitting(db: sqlite3.Connection, ids: list[int], where: Sql) -> set[int]:
    rows = db.execute(
        f"SELECT id FROM span WHERE id IN (SELECT value FROM json_each(?)) AND {where.text}",
        (json.dumps(ids), *where.values),
    )
    return {row_id for (row_id,) in rows}
