"""Lists of spans, page by page, and sums over them."""

import sqlite3
import sys
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
    """A part of a walk: which rows, and by what they are ordered besides their ids. `few`: their ids tell them."""

    condition: Sql
    column: str | None
    few: bool = False


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
    there = Sql(f"id <= ? AND {where.text}", (at_seq, *where.values))
    found: list[tuple[int, Any, int]] = []
    while number < len(parts) and len(found) <= size:
        part = parts[number]
        behind = place if place is not None and place.part == number else None
        chosen = [_of_organization(organization_id, part), there, part.condition]
        rows = _of_part(db, chosen, part.column, by.descending, behind, size + 1 - len(found), offset)
        if offset and not rows:
            offset -= min(offset, _count(db, chosen))
        elif rows:
            offset = 0
        found += [(number, value, row_id) for row_id, value in rows]
        number += 1
    shown = found[:size]
    more = len(found) > size
    return Found([row_id for *_, row_id in shown], Place(at_seq, *shown[-1]) if more and shown else None)


def _parts(by: Order, at_seq: int) -> list[_Part]:
    """Of spans that were not finished when the walk began, nothing was known to sort by; of some others not all."""
    # By their ids, which indexes tell, so that the others' rows need not be looked at.
    ids = "(SELECT id FROM span WHERE is_open = 1 UNION ALL SELECT id FROM span WHERE seq > ? AND settled_seq > ?)"
    was_open, was_done = (Sql(f"id {sign} {ids}", (at_seq, at_seq)) for sign in ("IN", "NOT IN"))
    if by.field == TIMESTAMP:
        # They will have ended later than all that has ended.
        parts = [_Part(was_open, None, few=True), _Part(was_done, TIMESTAMP)]
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


def _of_organization(organization_id: str, part: _Part) -> Sql:
    # The plus keeps SQLite from going through all of an organization's spans instead.
    return Sql(f"{'+' if part.few else ''}organization_id = ?", (organization_id,))


def _of_part(
    db: sqlite3.Connection,
    conditions: list[Sql],
    column: str | None,
    descending: bool,
    behind: Place | None,
    limit: int,
    offset: int,
) -> list[tuple[int, Any]]:
    direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
    order = f"id {direction}" if column is None else f"{column} {direction}, id {direction}"
    if behind is not None:
        place = ("id", (behind.row_id,)) if column is None else (f"({column}, id)", (behind.value, behind.row_id))
        conditions = [*conditions, Sql(f"{place[0]} {beyond} ({', '.join('?' * len(place[1]))})", place[1])]
    return db.execute(
        f"SELECT id, {column or 'NULL'} FROM span WHERE {_all(conditions)} ORDER BY {order} LIMIT ? OFFSET ?",
        (*(value for condition in conditions for value in condition.values), limit, offset),
    ).fetchall()


def _count(db: sqlite3.Connection, conditions: Sequence[Sql]) -> int:
    return int(
        db.execute(
            f"SELECT count(*) FROM span WHERE {_all(conditions)}",
            [value for condition in conditions for value in condition.values],
        ).fetchone()[0]
    )


def _all(conditions: Sequence[Sql]) -> str:
    return " AND ".join(condition.text for condition in conditions)


def since(db: sqlite3.Connection, organization_id: str, where: Sql, seq: int, limit: int) -> list[tuple[int, int]]:
    """Rows that came or changed behind a place in the journal and run no more: their ids and places, in order."""
    return db.execute(
        f"SELECT id, seq FROM span WHERE seq > ? AND +organization_id = ? AND is_open = 0 AND {where.text}"
        " ORDER BY seq LIMIT ?",
        (seq, organization_id, *where.values, limit),
    ).fetchall()


def journal(db: sqlite3.Connection, seq: int, limit: int, room: int) -> list[Row]:
    """Rows of the view `spans` that came or changed behind a place in the journal and run no more, in its order; until
    what was said in them fills the room (characters)."""
    found: list[Row] = []
    ids = db.execute("SELECT id FROM span WHERE seq > ? AND is_open = 0 ORDER BY seq LIMIT ?", (seq, limit)).fetchall()
    for row in rows(db, [row_id for (row_id,) in ids]):
        room -= sum(len(value) for value in row.values() if isinstance(value, str))
        if found and room < 0:
            break
        found.append(row)
    return found


def behind(db: sqlite3.Connection, organization_id: str, where: Sql, last: int, limit: int) -> list[int]:
    """The next rows behind one, by their ids, that run no more."""
    found = db.execute(
        f"SELECT id FROM span WHERE id > ? AND +organization_id = ? AND is_open = 0 AND {where.text}"
        " ORDER BY id LIMIT ?",
        (last, organization_id, *where.values, limit),
    )
    return [row_id for (row_id,) in found]


def number(db: sqlite3.Connection, organization_id: str, where: Sql) -> int:
    """How many these are."""
    row = db.execute(
        f"SELECT count(*) FROM span WHERE organization_id = ? AND is_open = 0 AND {where.text}",
        (organization_id, *where.values),
    ).fetchone()
    return int(row[0])


def rows(db: sqlite3.Connection, ids: Sequence[int], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of the view `spans`, one by one in this order; `columns`: these alone."""
    shown = "*" if columns is None else ", ".join(columns)
    for row_id in ids:
        yield from map(dict, db.execute(f"SELECT {shown} FROM spans WHERE row_id = ?", (row_id,)))


# Sums

# Of a call that its sender told of as well, only what the gateway logged.
ONCE = "gateway_log_id IS NULL"

# A sum of SQLite's fails beyond 64 bits; so it is made of two.
_HALF = 1_000_000_000
# An average beyond that is no number of JSON.
_LARGEST = sys.float_info.max


def summed(expression: str, name: str) -> str:
    """A sum as two columns, `NAME_high` and `NAME_low`, see `whole`."""
    return f"sum(({expression}) / {_HALF}) AS {name}_high, sum(({expression}) % {_HALF}) AS {name}_low"


def whole(high: int | None, low: int | None) -> int:
    """The sum that these two columns make up."""
    return int(high or 0) * _HALF + int(low or 0)


def folded(row: Row, names: Sequence[str]) -> Row:
    """The row with whole sums of these names in the place of their two columns."""
    for name in names:
        row[name] = whole(row.pop(f"{name}_high"), row.pop(f"{name}_low"))
    return row


def of_halves(name: str) -> str:
    """The same in SQL, as a double: to compare and to sort by."""
    return f"(coalesce({name}_high, 0) * {_HALF}.0 + coalesce({name}_low, 0))"


TOTAL_TOKENS = "coalesce(total_request_tokens, coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0))"
_SUMS = (
    f"count(*), {summed('cost_picos', 'cost')}, {summed(TOTAL_TOKENS, 'total')}, {summed('prompt_tokens', 'prompt')},"
    f" {summed('completion_tokens', 'completion')}, avg(latency), avg(tokens_per_second), avg(time_to_first_token),"
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
        f"SELECT {_SUMS} FROM span WHERE organization_id = ? AND {ONCE} AND {where.text}",
        (organization_id, *where.values),
    ).fetchone()
    return _sums(row)


def _sums(row: Sequence[Any]) -> Sums:
    count, *halves = row[:9]
    cost, total, prompt, completion = (whole(*pair) for pair in zip(halves[::2], halves[1::2], strict=True))
    *averages, failed, with_cost, newest = row[9:]
    latency, speed, first = (None if value is None else max(-_LARGEST, min(value, _LARGEST)) for value in averages)
    return Sums(count, cost, total, prompt, completion, latency, speed, first, failed or 0, with_cost, newest)


# By what groups can be sorted, in terms of the sums.
GROUP_SORTS: Mapping[str, str] = {
    "number_of_requests": "count(*)",
    "span_count": "count(*)",
    "total_cost": "total(cost_picos)",
    "total_tokens": f"total({TOTAL_TOKENS})",
    "total_prompt_tokens": "total(prompt_tokens)",
    "total_completion_tokens": "total(completion_tokens)",
    "error_count": "total(status = 'failed')",
    "error_percentage": "avg(status = 'failed')",
    "average_cost": "avg(cost_picos)",
    "average_tokens": f"avg({TOTAL_TOKENS})",
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
        f"SELECT {_SUMS}, {key} AS key FROM span WHERE organization_id = ? AND {ONCE} AND {where.text}"
        f" AND {key} <> ''"
        f" GROUP BY key ORDER BY {GROUP_SORTS[by.field]} {direction} NULLS LAST, key LIMIT ? OFFSET ?",
        (organization_id, *where.values, limit, offset),
    )
    return [(row[-1], _sums(row[:-1])) for row in found]
