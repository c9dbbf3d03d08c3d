"""What was seen last of things that spans have in common: traces, threads."""

import sqlite3
from collections.abc import Sequence

from gateway.store.conditions import Sql

# Where the newest of so many spans do not show enough, summing up those that are meant may be faster.
_LOOKS_AT_MOST = 20_000


def newest(
    db: sqlite3.Connection, organization_id: str, key: Sequence[str], where: Sql, *, limit: int, offset: int
) -> list[tuple[str, ...]] | None:
    """Keys by the time of the newest of their spans, latest first, those alike by themselves; spans whose key begins
    with nothing are passed over. None where that is not found soon."""
    oldest = db.execute(
        "SELECT timestamp FROM span WHERE organization_id = ? ORDER BY timestamp DESC LIMIT 1 OFFSET ?",
        (organization_id, _LOOKS_AT_MOST),
    ).fetchone()
    # By the index of times; without the plus another would be taken, and all of its rows sorted.
    rows = db.execute(
        f"SELECT timestamp, {', '.join(key)} FROM span WHERE organization_id = ? AND timestamp >= ?"
        f" AND +{key[0]} <> '' AND {where.text} ORDER BY timestamp DESC",
        (organization_id, "" if oldest is None else oldest[0], *where.values),
    )
    found: dict[tuple[str, ...], str] = {}
    for time, *one in rows:
        if len(found) >= limit + offset and time < next(reversed(found.values())):
            break
        found.setdefault(tuple(one), time)
    else:
        if oldest is not None:
            return None
    keys = sorted(found)
    keys.sort(key=lambda one: found[one], reverse=True)
    return keys[offset : offset + limit]
