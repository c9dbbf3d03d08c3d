"""Lists of spans, page by page."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gateway.core.walk import TIMESTAMP, Order, Place
from gateway.store.conditions import Sql, every

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
    where = every(conditions)
    return db.execute(
        f"SELECT id, {column or 'NULL'} FROM span WHERE {where.text} ORDER BY {order} LIMIT ? OFFSET ?",
        (*where.values, limit, offset),
    ).fetchall()


def _count(db: sqlite3.Connection, conditions: Sequence[Sql]) -> int:
    where = every(conditions)
    return int(db.execute(f"SELECT count(*) FROM span WHERE {where.text}", where.values).fetchone()[0])


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


def newest(db: sqlite3.Connection, organization_id: str, where: Sql, expression: str, limit: int) -> Iterator[Any]:
    """What this expression is of the newest spans of an organization, one by one."""
    # Ids first: where the spans have to be sorted, what is long would be sorted along.
    found = db.execute(
        "WITH newest AS MATERIALIZED (SELECT id AS row_id FROM span"
        f" WHERE organization_id = ? AND {where.text} ORDER BY timestamp DESC LIMIT ?)"
        f" SELECT {expression} FROM newest CROSS JOIN span ON span.id = newest.row_id",
        (organization_id, *where.values, limit),
    )
    return (value for (value,) in found)


def rows(db: sqlite3.Connection, ids: Sequence[int], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of the view `spans`, one by one in this order; `columns`: these alone."""
    shown = "*" if columns is None else ", ".join(columns)
    for row_id in ids:
        yield from map(dict, db.execute(f"SELECT {shown} FROM spans WHERE row_id = ?", (row_id,)))
