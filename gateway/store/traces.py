"""Traces: sums over the spans that have the same trace id."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core.filters import BETWEEN, OF_A_TRACE, Condition, Filter
from gateway.core.filters import conditions as conditions_in
from gateway.core.trace import CONTENT_COLUMNS, LLM_CALLS, NODE_COLUMNS, ROOT_COLUMNS
from gateway.core.walk import Order
from gateway.store import conditions, lists
from gateway.store.arithmetic import ONCE, TOTAL_TOKENS, folded, of_halves, summed
from gateway.store.conditions import Sql
from gateway.store.newest import newest

Row = dict[str, Any]

_LLM_CALLS = ", ".join(f"'{log_type}'" for log_type in LLM_CALLS)
# The first span without a parent, or the first of all: its id stands at the end.
_ROOT_KEY = (
    "min(CASE WHEN coalesce(span_parent_id, '') = '' THEN '0' ELSE '1' END"
    " || coalesce(start_time, timestamp) || printf('%020d', id))"
)


def _seconds(column: str) -> str:
    # The fraction by itself: SQLite would round it.
    return f"CAST(strftime('%s', substr({column}, 1, 19)) AS INTEGER) + CAST(substr({column}, 21, 6) AS INTEGER) / 1e6"


def _once(expression: str) -> str:
    return f"CASE WHEN {ONCE} THEN {expression} END"


_ROLLUP = f"""
SELECT trace_unique_id, organization_id,
    count(*) AS span_count,
    sum(log_type IN ({_LLM_CALLS}) AND {ONCE}) AS llm_call_count,
    sum(status = 'failed') AS error_count,
    {summed(_once("cost_picos"), "cost_picos")},
    {summed(_once("prompt_tokens"), "total_prompt_tokens")},
    {summed(_once("completion_tokens"), "total_completion_tokens")},
    {summed(_once(TOTAL_TOKENS), "total_request_tokens")},
    min(coalesce(start_time, timestamp)) AS start_time,
    max(timestamp) AS end_time,
    max(customer_identifier) AS customer_identifier,
    max(trace_group_identifier) AS trace_group_identifier,
    max(session_identifier) AS session_identifier,
    CAST(substr({_ROOT_KEY}, -20) AS INTEGER) AS root_id
FROM span WHERE organization_id = ? AND trace_unique_id <> '' AND {{scope}}
GROUP BY trace_unique_id
"""
_SUMMED = ("cost_picos", "total_prompt_tokens", "total_completion_tokens", "total_request_tokens")
# Which all spans of a trace should have alike; where they do not, any of them tells.
_OF_ANY_SPAN = frozenset({"customer_identifier", "trace_group_identifier", "session_identifier"})
# A field of a trace as an expression of a rollup `r` and of its root.
_EXPRESSIONS: Mapping[str, str] = {
    **{name: f"r.{name}" for name in OF_A_TRACE},
    **{name: of_halves(name) for name in _SUMMED},
    "total_cost": of_halves("cost_picos"),
    "environment": "root.environment",
    "organization_key_id": "root.organization_key_id",
    "unique_organization_id": "r.organization_id",
    "root_span_unique_id": "root.span_unique_id",
    "name": "coalesce(nullif(root.span_name, ''), root.span_workflow_name)",
    "duration": f"({_seconds('r.end_time')} - ({_seconds('r.start_time')}))",
}
SORTS: Mapping[str, str] = {
    "timestamp": "r.end_time",
    "end_time": "r.end_time",
    "start_time": "r.start_time",
    **{name: _EXPRESSIONS[name] for name in ("total_cost", "duration", "error_count", "span_count", "llm_call_count")},
    "total_tokens": _EXPRESSIONS["total_request_tokens"],
}


class Trace(NamedTuple):
    """Sums over a trace's spans, and its root: ROOT_COLUMNS of the view `spans`."""

    sums: Row
    root: Row


def page(
    db: sqlite3.Connection, organization_id: str, which: Filter, by: Order, *, limit: int, offset: int
) -> list[Trace]:
    """Traces of an organization in this order; those alike by their ids."""
    direction = "DESC" if by.descending else "ASC"
    where = conditions.where(which, lambda condition: _meaning(organization_id, condition))
    scope, at = Sql("1"), offset
    if by.field in ("timestamp", "end_time") and not any(_is_of_the_whole(one) for one in conditions_in(which)):
        # Which they are can be told from an index: only those of the page are summed up.
        of_any_span = conditions.where(which, lambda condition: _meaning(organization_id, condition, "span"))
        scope = _of_page(db, organization_id, of_any_span, descending=by.descending, limit=limit, offset=offset)
        where, at = Sql("1"), 0
    found = db.execute(
        f"SELECT r.* FROM ({_ROLLUP.format(scope=scope.text)}) AS r JOIN span AS root ON root.id = r.root_id"
        f" WHERE {where.text} ORDER BY {SORTS[by.field]} {direction}, r.trace_unique_id LIMIT ? OFFSET ?",
        (organization_id, *scope.values, *where.values, limit, at),
    ).fetchall()
    return [_trace(db, row) for row in map(dict, found)]


def _of_page(
    db: sqlite3.Connection, organization_id: str, of_any_span: Sql, *, descending: bool, limit: int, offset: int
) -> Sql:
    """Which traces are on a page in the order in which they ended."""
    if descending:
        found = newest(db, organization_id, ["trace_unique_id"], of_any_span, limit=limit, offset=offset)
        if found is not None:
            ids = json.dumps([trace_unique_id for (trace_unique_id,) in found])
            return Sql("trace_unique_id IN (SELECT value FROM json_each(?))", (ids,))
    return Sql(
        "trace_unique_id IN (SELECT trace_unique_id FROM span WHERE organization_id = ? AND trace_unique_id"
        f" <> '' AND {of_any_span.text} GROUP BY trace_unique_id"
        f" ORDER BY max(timestamp) {'DESC' if descending else 'ASC'}, trace_unique_id LIMIT ? OFFSET ?)",
        (organization_id, *of_any_span.values, limit, offset),
    )


def _is_of_the_whole(of: Condition) -> bool:
    return of.key is None and of.field in OF_A_TRACE and of.field not in _OF_ANY_SPAN and of.operator != BETWEEN


def _meaning(organization_id: str, of: Condition, rollup: str = "r") -> Sql:
    """What a condition means for a trace: for its own fields, or for any of its spans."""
    if _is_of_the_whole(of):
        return conditions.of_field(of, _EXPRESSIONS[of.field], OF_A_TRACE[of.field])
    of_span = conditions.of_spans(of)
    return Sql(
        f"{rollup}.trace_unique_id IN (SELECT trace_unique_id FROM span WHERE organization_id = ?"
        f" AND trace_unique_id <> '' AND {of_span.text})",
        (organization_id, *of_span.values),
    )


def _trace(db: sqlite3.Connection, sums: Row, *, with_content: bool = True) -> Trace:
    (root,) = lists.rows(db, [sums["root_id"]], _shown(ROOT_COLUMNS, with_content=with_content))
    return Trace(folded(sums, _SUMMED), root)


def _shown(columns: Sequence[str], *, with_content: bool) -> list[str]:
    """Columns, those of content as NULL where that is not wanted: then they are not even read."""
    return [name if with_content or name not in CONTENT_COLUMNS else f"NULL AS {name}" for name in columns]


def find(
    db: sqlite3.Connection, organization_id: str, trace_unique_id: str, *, with_content: bool = True
) -> Trace | None:
    """One trace; `with_content`: with what its root says of input, output and metadata."""
    row = db.execute(_ROLLUP.format(scope="trace_unique_id = ?"), (organization_id, trace_unique_id)).fetchone()
    return None if row is None else _trace(db, dict(row), with_content=with_content)


def spans(
    db: sqlite3.Connection, organization_id: str, trace_unique_id: str, *, with_content: bool = True
) -> Iterator[Row]:
    """What the tree's nodes are made of, in the order in which the spans began; `with_content`: as in `find`."""
    columns = _shown(NODE_COLUMNS, with_content=with_content)
    found = db.execute(
        f"SELECT {', '.join(columns)} FROM spans WHERE organization_id = ? AND trace_unique_id = ?"
        " ORDER BY coalesce(start_time, timestamp), row_id",
        (organization_id, trace_unique_id),
    )
    return map(dict, found)


def ended(
    db: sqlite3.Connection, organization_id: str, trace_unique_id: str, start: str | None, end: str | None
) -> list[int]:
    """The rows of a trace's spans, within a range, that run no more."""
    rows = db.execute(
        "SELECT id FROM span WHERE organization_id = ? AND trace_unique_id = ? AND is_open = 0"
        " AND timestamp >= coalesce(?, '') AND timestamp <= coalesce(?, '~')",
        (organization_id, trace_unique_id, start, end),
    )
    return [row_id for (row_id,) in rows]


def share(db: sqlite3.Connection, organization_id: str, trace_unique_id: str, *, is_public: bool) -> None:
    """Says whether everyone may read a trace."""
    if is_public:
        db.execute("INSERT OR IGNORE INTO shared_trace VALUES (?, ?)", (organization_id, trace_unique_id))
    else:
        db.execute(
            "DELETE FROM shared_trace WHERE organization_id = ? AND trace_unique_id = ?",
            (organization_id, trace_unique_id),
        )


def is_shared(db: sqlite3.Connection, organization_id: str, trace_unique_id: str) -> bool:
    """Whether everyone may read a trace."""
    found = db.execute(
        "SELECT 1 FROM shared_trace WHERE organization_id = ? AND trace_unique_id = ?",
        (organization_id, trace_unique_id),
    )
    return found.fetchone() is not None
