"""Threads: the spans that have the same thread."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.walk import Order
from gateway.store.arithmetic import ONCE, TOTAL_TOKENS, folded, of_halves, summed
from gateway.store.conditions import Sql
from gateway.store.newest import newest

Row = dict[str, Any]

# What one page of a conversation is made of at most.
_SPANS_AT_MOST = 10_000
SORTS: Mapping[str, str] = {
    "timestamp": "last_seen",
    "last_seen": "last_seen",
    "first_seen": "first_seen",
    "log_count": "log_count",
    "thread_identifier": "thread_identifier",
    "total_cost": of_halves("cost_picos"),
    "total_tokens": of_halves("total_tokens"),
}
_SUMMED = ("cost_picos", "total_tokens")
_KEY = ("thread_identifier", "environment")
_PAIRS = "(SELECT value ->> 0, value ->> 1 FROM json_each(?))"


def page(db: sqlite3.Connection, organization_id: str, where: Sql, by: Order, *, limit: int, offset: int) -> list[Row]:
    """Threads of an organization, each in one environment, in this order; those alike by their ids."""
    direction = "DESC" if by.descending else "ASC"
    scope, at = Sql("1"), offset
    if SORTS[by.field] == "last_seen" and by.descending:
        counted = Sql(f"{ONCE} AND {where.text}", where.values)
        found = newest(db, organization_id, _KEY, counted, limit=limit, offset=offset)
        if found is not None:
            scope, at = Sql(f"({', '.join(_KEY)}) IN {_PAIRS}", (json.dumps(found),)), 0
    threads = db.execute(
        "SELECT * FROM (SELECT thread_identifier, environment, count(*) AS log_count,"
        " max(customer_identifier) AS customer_identifier, min(coalesce(start_time, timestamp)) AS first_seen,"
        " max(timestamp) AS last_seen, sum(status = 'failed') AS error_count,"
        f" {summed('cost_picos', 'cost_picos')}, {summed(TOTAL_TOKENS, 'total_tokens')} FROM span"
        " WHERE organization_id = ? AND thread_identifier IS NOT NULL AND thread_identifier <> ''"
        f" AND {ONCE} AND {where.text} AND {scope.text}"
        " GROUP BY thread_identifier, environment)"
        f" ORDER BY {SORTS[by.field]} {direction}, thread_identifier, environment LIMIT ? OFFSET ?",
        (organization_id, *where.values, *scope.values, limit, at),
    ).fetchall()
    return [folded(dict(row), _SUMMED) for row in threads]


def spans(
    db: sqlite3.Connection, organization_id: str, thread_identifier: str, environment: str | None
) -> Iterator[Row]:
    """Rows of the view `spans`, oldest first; of both environments, if none is named."""
    rows = db.execute(
        f"SELECT * FROM spans WHERE organization_id = ? AND thread_identifier = ? AND {ONCE}"
        " AND environment = coalesce(?, environment) ORDER BY timestamp, row_id LIMIT ?",
        (organization_id, thread_identifier, environment, _SPANS_AT_MOST),
    )
    return map(dict, rows)
