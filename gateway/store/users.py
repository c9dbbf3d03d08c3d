"""Users: sums over the spans that have the same customer, in one environment, and what was said of them besides."""

import sqlite3
from collections.abc import Mapping
from typing import Any

from gateway.core.filters import BETWEEN, USER_FIELDS, Condition, Filter
from gateway.core.walk import Order
from gateway.store import conditions
from gateway.store.arithmetic import ONCE, TOTAL_TOKENS, folded, of_halves, summed, whole
from gateway.store.conditions import Sql

Row = dict[str, Any]

# What can be said of a user.
TOLD = (
    *("name", "email", "metadata", "period_budget", "budget_duration", "total_budget", "period_start", "period_end"),
    "markup_percentage",
)
_SUMMED = ("cost_picos", "total_tokens", "total_prompt_tokens", "total_completion_tokens")
_USERS = f"""
SELECT u.*, coalesce(c.name, u.told_name) AS name, coalesce(c.email, u.told_email) AS email,
    c.metadata, c.period_budget, c.budget_duration, c.total_budget, c.period_start, c.period_end, c.updated_at
FROM (
    SELECT customer_identifier, environment, organization_id,
        min(coalesce(start_time, timestamp)) AS first_seen,
        max(timestamp) AS last_seen,
        count(DISTINCT substr(timestamp, 1, 10)) AS active_days,
        count(*) AS number_of_requests,
        {summed("cost_picos", "cost_picos")},
        {summed(TOTAL_TOKENS, "total_tokens")},
        {summed("prompt_tokens", "total_prompt_tokens")},
        {summed("completion_tokens", "total_completion_tokens")},
        avg(latency) AS average_latency,
        avg(time_to_first_token) AS average_ttft,
        max(customer_name) AS told_name,
        max(customer_email) AS told_email
    FROM span
    WHERE organization_id = ? AND customer_identifier IS NOT NULL AND customer_identifier <> ''
        AND {ONCE} AND {{scope}}
    GROUP BY customer_identifier, environment
) AS u LEFT JOIN customer AS c
    ON c.organization_id = u.organization_id AND c.environment = u.environment
    AND c.customer_identifier = u.customer_identifier
"""
# Of users who were deleted, only what came later.
_SINCE = (
    "id > coalesce((SELECT deleted_seq FROM customer AS d WHERE d.organization_id = span.organization_id"
    " AND d.environment = span.environment AND d.customer_identifier = span.customer_identifier), 0)"
)
_EXPRESSIONS: Mapping[str, str] = {
    "total_cost": of_halves("cost_picos"),
    **{name: of_halves(name) for name in _SUMMED[1:]},
}
SORTS: Mapping[str, str] = {
    **{
        name: name
        for name in (
            "first_seen",
            "number_of_requests",
            "active_days",
            "average_latency",
            "average_ttft",
            "name",
            "email",
        )
    },
    "customer_identifier": "customer_identifier",
    "last_active_timeframe": "last_seen",
    "timestamp": "last_seen",
    "total_requests": "number_of_requests",
    "total_cost": _EXPRESSIONS["total_cost"],
    "cost": _EXPRESSIONS["total_cost"],
    **{name: _EXPRESSIONS[name] for name in _SUMMED[1:]},
    "tokens": _EXPRESSIONS["total_tokens"],
}


def page(
    db: sqlite3.Connection, organization_id: str, which: Filter, by: Order, *, limit: int, offset: int
) -> list[Row]:
    """Users of an organization in this order; those alike by their ids."""
    scope, where = _scope(db, organization_id, conditions.where(which, _in_range)), conditions.where(which, _of_users)
    direction = "DESC" if by.descending else "ASC"
    found = db.execute(
        f"SELECT * FROM ({_USERS.format(scope=scope.text)}) WHERE {where.text}"
        f" ORDER BY {SORTS[by.field]} {direction} NULLS LAST, customer_identifier, environment LIMIT ? OFFSET ?",
        (organization_id, *scope.values, *where.values, limit, offset),
    ).fetchall()
    return [folded(dict(row), _SUMMED) for row in found]


def _scope(db: sqlite3.Connection, organization_id: str, of_spans: Sql) -> Sql:
    deleted = db.execute("SELECT 1 FROM customer WHERE organization_id = ? AND deleted_seq > 0", (organization_id,))
    return of_spans if deleted.fetchone() is None else Sql(f"{of_spans.text} AND {_SINCE}", of_spans.values)


def _in_range(of: Condition) -> Sql:
    """What narrows the spans that are summed up: a range of time."""
    return conditions.of_spans(of) if of.operator == BETWEEN else Sql("1")


def _of_users(of: Condition) -> Sql:
    if of.operator == BETWEEN:
        return Sql("1")
    return conditions.of_field(of, _EXPRESSIONS.get(of.field, of.field), USER_FIELDS.kind_of(of.field))


def find(db: sqlite3.Connection, organization_id: str, customer_identifier: str, environment: str) -> Row | None:
    """One user."""
    one = Sql("customer_identifier = ? AND environment = ?", (customer_identifier, environment))
    scope = _scope(db, organization_id, one)
    row = db.execute(_USERS.format(scope=scope.text), (organization_id, *scope.values)).fetchone()
    return None if row is None else folded(dict(row), _SUMMED)


def cost_since(
    db: sqlite3.Connection, organization_id: str, customer_identifier: str, environment: str, since: str
) -> int:
    """What a user's spans from then on cost, in units of 1e-12 USD."""
    row = db.execute(
        f"SELECT {summed('cost_picos', 'cost')} FROM span WHERE organization_id = ? AND customer_identifier = ?"
        f" AND environment = ? AND timestamp >= ? AND {ONCE}",
        (organization_id, customer_identifier, environment, since),
    ).fetchone()
    return whole(*row)


def say(
    db: sqlite3.Connection,
    organization_id: str,
    customer_identifier: str,
    environment: str,
    told: Mapping[str, Any],
    at: str,
) -> None:
    """Keeps what is said of a user (TOLD)."""
    key = (organization_id, environment, customer_identifier)
    db.execute(
        "INSERT OR IGNORE INTO customer (organization_id, environment, customer_identifier) VALUES (?, ?, ?)", key
    )
    changes = ", ".join(f"{name} = ?" for name in (*told, "updated_at"))
    db.execute(
        f"UPDATE customer SET {changes} WHERE organization_id = ? AND environment = ? AND customer_identifier = ?",
        (*told.values(), at, *key),
    )


def delete(
    db: sqlite3.Connection, organization_id: str, customer_identifier: str, environment: str, at_seq: int
) -> None:
    """Forgets what was said of a user; the spans up to this place are of nobody who is listed."""
    db.execute(
        "INSERT OR REPLACE INTO customer (organization_id, environment, customer_identifier, deleted_seq)"
        " VALUES (?, ?, ?, ?)",
        (organization_id, environment, customer_identifier, at_seq),
    )
