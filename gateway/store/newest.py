"""What was seen last of things that spans have in common: traces, threads."""

import sqlite3
from collections.abc import Sequence

from gateway.store.conditions import Sql

# Where so many spans do not show enough, summing up all of them may be faster.
_LOOKS_AT_MOST = 20_000


def newest(
    db: sqlite3.Connection, organization_id: str, key: Sequence[str], where: Sql, *, limit: int, offset: int
) -> list[tuple[str, ...]] | None:
    """Keys by the time of the newest of their spans, latest first, those alike by themselves; spans whose key begins
    with nothing are passed over. None where that is not found soon."""
    # By the index of times; without the plus another would be taken, and all of its rows sorted.
    rows = db.execute(
        f"SELECT timestamp, {', '.join(key)} FROM span WHERE organization_id = ? AND +{key[0]} <> ''"
        f" AND {where.text} ORDER BY timestamp DESC",
        (organization_id, *where.values),
    )
    found: dict[tuple[str, ...], str] = {}
    for looked, (time, *one) in enumerate(rows):
        if len(found) >= limit + offset and time < next(reversed(found.values())):
            break
        if looked >= _LOOKS_AT_MOST:
            return None
        found.setdefault(tuple(one), time)
    keys = sorted(found)
    keys.sort(key=lambda one: found[one], reverse=True)
    return keys[offset : offset + limit]
