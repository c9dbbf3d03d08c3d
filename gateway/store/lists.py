"""Lists of spans, page by page, and sums over them."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core.walk import TIMESTAMP, Order, Place
from gateway.store.conditions import Sql

Row = dict[str, Any]

# Late counts change these.
_COUNTED = frozenset({"cost", "prompt_tokens", "completion_tokens", "total_request_tokens", "tokens_per_second"})
_COLUMNS = {"cost": "cost_picos"}


class Found(NamedTuple):
    """Rows of a page by their ids, in order, and behind which place the next page begins; None at the end."""

    ids: list[int]
    next: Place | None


class _Part(NamedTuple):
    """A part of a walk: which rows, and by what they are ordered besides their ids."""

    condition: Sql
    column: str | None


def page(
    db: sqlite3.Connection,
    organization_id: str,
    where: Sql,
    by: Order,
    *,
    size: int,
    place: Place | None = None,
    offset: int = 0,
) -> Found:
    """One page of the spans of an organization: that behind a place, or that at an offset from the first."""
    at_seq = place.at_seq if place is not None else int(db.execute("SELECT seq FROM journal").fetchone()[0])
    parts = _parts(by, at_seq)
    number = place.part if place is not None else 0
    there = Sql(f"organization_id = ? AND id <= ? AND {where.text}", (organization_id, at_seq, *where.values))
    found: list[tuple[int, Any, int]] = []
    while number < len(parts) and len(found) <= size:
        part = parts[number]
        behind = place if place is not None and place.part == number else None
        rows = _of_part(db, there, part, by.descending, behind, size + 1 - len(found), offset)
        if offset and not rows:
            offset -= min(offset, _count(db, there, part))
        elif rows:
            offset = 0
        found += [(number, value, row_id) for row_id, value in rows]
        number += 1
    shown = found[:size]
    more = len(found) > size
    return Found([row_id for *_, row_id in shown], Place(at_seq, *shown[-1]) if more and shown else None)


def _parts(by: Order, at_seq: int) -> list[_Part]:
    """Of spans that were not finished when the walk began, nothing was known to sort by; of some others not all."""
    was_open = Sql(
        "id IN (SELECT id FROM span WHERE is_open = 1 UNION ALL SELECT id FROM span WHERE seq > ? AND settled_seq > ?)",
        (at_seq, at_seq),
    )
    was_done = Sql("is_open = 0 AND (settled_seq IS NULL OR settled_seq <= ?)", (at_seq,))
    if by.field == TIMESTAMP:
        # They will have ended later than all that has ended.
        parts = [_Part(was_open, None), _Part(was_done, TIMESTAMP)]
        return parts if by.descending else parts[::-1]
    column = _COLUMNS.get(by.field, by.field)
    unknown, known = f"{column} IS NULL", f"{column} IS NOT NULL"
    values: tuple[int, ...] = ()
    if by.field in _COUNTED:
        unknown = f"({unknown} OR counted_seq > ?)"
        known = f"({known} AND (counted_seq IS NULL OR counted_seq <= ?))"
        values = (at_seq,)
    return [
        _Part(Sql(f"{was_done.text} AND {known}", (*was_done.values, *values)), column),
        _Part(Sql(f"({unknown} OR {was_open.text})", (*values, *was_open.values)), None),
    ]


def _of_part(
    db: sqlite3.Connection, there: Sql, part: _Part, descending: bool, behind: Place | None, limit: int, offset: int
) -> list[tuple[int, Any]]:
    direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
    conditions = [there, part.condition]
    order = f"id {direction}"
    if part.column is not None:
        order = f"{part.column} {direction}, {order}"
    if behind is not None and part.column is not None:
        conditions.append(Sql(f"({part.column}, id) {beyond} (?, ?)", (behind.value, behind.row_id)))
    elif behind is not None:
        conditions.append(Sql(f"id {beyond} ?", (behind.row_id,)))
    return db.execute(
        f"SELECT id, {part.column or 'NULL'} FROM span WHERE {_all(conditions)} ORDER BY {order} LIMIT ? OFFSET ?",
        (*(value for condition in conditions for value in condition.values), limit, offset),
    ).fetchall()


def _count(db: sqlite3.Connection, there: Sql, part: _Part) -> int:
    conditions = [there, part.condition]
    return int(
        db.execute(
            f"SELECT count(*) FROM span WHERE {_all(conditions)}",
            [value for condition in conditions for value in condition.values],
        ).fetchone()[0]
    )


def _all(conditions: Sequence[Sql]) -> str:
    return " AND ".join(condition.text for condition in conditions)


def rows(db: sqlite3.Connection, ids: Sequence[int], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of the view `spans`, one by one in this order; `columns`: these alone."""
    shown = "*" if columns is None else ", ".join(columns)
    for row_id in ids:
        yield from map(dict, db.execute(f"SELECT {shown} FROM spans WHERE row_id = ?", (row_id,)))


# Sums

# A sum of SQLite's fails beyond 64 bits; so it is made of two.
_HALF = 1_000_000_000


def _summed(expression: str) -> str:
    return f"sum(({expression}) / {_HALF}), sum(({expression}) % {_HALF})"


_TOTAL_TOKENS = "coalesce(total_request_tokens, coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0))"
_SUMS = (
    f"count(*), {_summed('cost_picos')}, {_summed(_TOTAL_TOKENS)}, {_summed('prompt_tokens')},"
    f" {_summed('completion_tokens')}, avg(latency), avg(tokens_per_second), avg(time_to_first_token),"
    " sum(status = 'failed'), count(cost_picos), max(timestamp)"
)


class Sums(NamedTuple):
    """Of some spans. `cost_picos`: units of 1e-12 USD, of those whose cost is known (`with_cost`). An average is None
    where nothing is known."""

    spans: int
    cost_picos: int
    total_tokens: int
    prompt_tokens: int
    completion_tokens: int
    latency: float | None
    tokens_per_second: float | None
    time_to_first_token: float | None
    failed: int
    with_cost: int
    newest: str | None


def sums(db: sqlite3.Connection, organization_id: str, where: Sql) -> Sums:
    """Over all spans of an organization that the condition is true of."""
    row = db.execute(
        f"SELECT {_SUMS} FROM span WHERE organization_id = ? AND {where.text}", (organization_id, *where.values)
    ).fetchone()
    return _sums(row)


def _sums(row: Sequence[Any]) -> Sums:
    count, *halves = row[:9]
    whole = [int(high or 0) * _HALF + int(low or 0) for high, low in zip(halves[::2], halves[1::2], strict=True)]
    latency, speed, first, failed, with_cost, newest = row[9:]
    cost, total, prompt, completion = whole
    return Sums(count, cost, total, prompt, completion, latency, speed, first, failed or 0, with_cost, newest)


# By what groups can be sorted, in terms of the sums.
GROUP_SORTS: Mapping[str, str] = {
    "number_of_requests": "count(*)",
    "span_count": "count(*)",
    "total_cost": "total(cost_picos)",
    "total_tokens": f"total({_TOTAL_TOKENS})",
    "error_count": "total(status = 'failed')",
    "error_percentage": "avg(status = 'failed')",
    "average_cost": "avg(cost_picos)",
    "average_tokens": f"avg({_TOTAL_TOKENS})",
    "average_latency": "avg(latency)",
    "average_ttft": "avg(time_to_first_token)",
    "average_tps": "avg(tokens_per_second)",
    "timestamp": "max(timestamp)",
    "date_group": "max(timestamp)",
}


def groups(
    db: sqlite3.Connection,
    organization_id: str,
    where: Sql,
    key: str,
    by: Order,
    *,
    limit: int,
    offset: int,
) -> list[tuple[Any, Sums]]:
    """Sums by a column, or an expression of columns; spans that have none are in no group. `by`: of GROUP_SORTS."""
    direction = "DESC" if by.descending else "ASC"
    found = db.execute(
        f"SELECT {_SUMS}, {key} AS key FROM span WHERE organization_id = ? AND {where.text} AND {key} IS NOT NULL"
        f" GROUP BY key ORDER BY {GROUP_SORTS[by.field]} {direction} NULLS LAST, key LIMIT ? OFFSET ?",
        (organization_id, *where.values, limit, offset),
    )
    return [(row[-1], _sums(row[:-1])) for row in found]
