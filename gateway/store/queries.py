"""Every SQL statement that reads or writes spans, each as one function on a connection."""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from gateway.core.audit import CallCount
from gateway.core.limits import Use
from gateway.core.trace import LLM_CALLS
from gateway.store.rows import COUNTED_COLUMNS, OPEN_COLUMNS, SPAN_COLUMNS, Row, Values

# What a call that was never settled is shown as.
_INTERRUPTED = ("failed", 500, "interrupted", "The gateway ended before the call did.")
_ABANDONED = ("failed", 500, "span_lost", "The call has ended; its span could not be stored.")


_MOST = 2**63 - 1
# Clocks are set back now and then: what was used is not to be good again.
_KEPT_AFTER_S = 24 * 3600
_LLM_CALLS = ", ".join(f"'{log_type}'" for log_type in LLM_CALLS)


class Entry(NamedTuple):
    """A line of the ledger: what came in, and in which minute (as `2026-01-02T03:04`)."""

    organization_id: str
    minute: str
    name: str


# What a call's row says from its opening on.
_OF_THE_CALL = ("organization_id", "unique_id")

# A row's id is its first place in the journal: so it is known before the row is written.
_OF_THE_STORE = ("id", "seq", "is_call", "received_at")
_OPEN_ROW = ("id", "seq", "is_call", "is_open", "boot_id", *OPEN_COLUMNS)
_ONCE = " ON CONFLICT (organization_id, unique_id) DO NOTHING"
# Only what was opened and never settled; an interrupted call may still be settled by a process that lives on. What
# is the same as it was is left out: SQLite rewrites each index that a column named here is part of.
_SETTLE = (
    " ON CONFLICT DO UPDATE SET is_open = 0, boot_id = NULL, settled_seq = excluded.seq, "
    + ", ".join(f"{name} = excluded.{name}" for name in ("seq", *SPAN_COLUMNS) if name not in _OF_THE_CALL)
    + " WHERE span.boot_id IS NOT NULL AND span.unique_id = excluded.unique_id"
)
_UPDATE_COUNTS = (
    f"UPDATE span SET seq = ?1, counted_seq = ?1, {', '.join(f'{name} = ?' for name in COUNTED_COLUMNS)}"
    " WHERE organization_id = ? AND unique_id = ?"
)
# Rows in one statement; a power of two, as their numbers below it are: so few statements are ever prepared.
_TOGETHER = 64


def insert_span(db: sqlite3.Connection, seq: int, span: Row, content: Row, *, received_at: str | None = None) -> bool:
    """Stores a span; False if the organization has one with this unique_id already.

    `received_at`: when it was posted; None for that of a call.
    """
    row = stored_row(seq, span.values, received_at)
    if db.execute(_inserting("span", (*_OF_THE_STORE, *span.columns), 1, _ONCE), row).rowcount == 0:
        return False
    insert_contents(db, content.columns, [(seq, *content.values)])
    return True


def stored_row(row_id: int, span: Values, received_at: str | None, *, seq: int | None = None) -> Values:
    """A span's row with what the store adds; `seq`: its place in the journal now, if that is not where it came in."""
    return (row_id, row_id if seq is None else seq, received_at is None, received_at, *span)


def open_row(seq: int, boot_id: str, values: Values) -> Values:
    """The row of a call that is under way."""
    return (seq, seq, 1, 1, boot_id, *values)


def insert_spans(db: sqlite3.Connection, columns: tuple[str, ...], rows: Sequence[Values]) -> None:
    """Stores rows of spans that are new; `columns`: those that the span fills."""
    _insert(db, "span", (*_OF_THE_STORE, *columns), rows)


def insert_contents(db: sqlite3.Connection, columns: tuple[str, ...], rows: Sequence[Values]) -> None:
    """Stores what was said: rows of a span's id and these columns."""
    _insert(db, "content", ("span_id", *columns), rows)


def open_calls(db: sqlite3.Connection, rows: Sequence[Values]) -> None:
    """Stores the open rows of calls that are under way."""
    _insert(db, "span", _OPEN_ROW, rows)


def settle_calls(db: sqlite3.Connection, rows: Sequence[Values]) -> None:
    """Puts the spans of calls, with all their columns, in the place of their open rows; in a place of their own where
    there is none."""
    _insert(db, "span", (*_OF_THE_STORE, *SPAN_COLUMNS), rows, _SETTLE)


def _insert(
    db: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: Sequence[Values], clause: str = ""
) -> None:
    at = 0
    while left := len(rows) - at:
        size = min(_TOGETHER, 1 << (left.bit_length() - 1))
        db.execute(_inserting(table, columns, size, clause), list(chain.from_iterable(rows[at : at + size])))
        at += size


@cache
def _inserting(table: str, columns: tuple[str, ...], size: int, clause: str = "") -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * size)}{clause}"


def boots_with_open_calls(db: sqlite3.Connection) -> list[str]:
    """The processes that have not settled all of their calls."""
    return [boot_id for (boot_id,) in db.execute("SELECT DISTINCT boot_id FROM span WHERE is_open = 1")]


def left_open(db: sqlite3.Connection, boot_id: str) -> list[int]:
    """The rows that a process has open."""
    return [row_id for (row_id,) in db.execute("SELECT id FROM span WHERE is_open = 1 AND boot_id = ?", (boot_id,))]


def interrupt_call(db: sqlite3.Connection, seq: int, row_id: int) -> None:
    """Closes an open row whose process has ended."""
    db.execute(
        "UPDATE span SET seq = ?, settled_seq = ?, is_open = 0, status = ?, status_code = ?, error_code = ?,"
        " error_message = ? WHERE id = ?",
        (seq, seq, *_INTERRUPTED, row_id),
    )


def abandon_call(db: sqlite3.Connection, seq: int, organization_id: str, unique_id: str) -> bool:
    """Closes the open row of a call whose span cannot be stored."""
    return (
        db.execute(
            "UPDATE span SET seq = ?, settled_seq = ?, is_open = 0, boot_id = NULL, status = ?, status_code = ?,"
            " error_code = ?, error_message = ? WHERE organization_id = ? AND unique_id = ? AND boot_id IS NOT NULL",
            (seq, seq, *_ABANDONED, organization_id, unique_id),
        ).rowcount
        > 0
    )


def update_counts(db: sqlite3.Connection, seq: int, organization_id: str, unique_id: str, values: Values) -> bool:
    """Puts late counts in; False if the span is gone."""
    return db.execute(_UPDATE_COUNTS, (seq, *values, organization_id, unique_id)).rowcount > 0


def call_under(db: sqlite3.Connection, organization_id: str, trace_unique_id: str, parent_id: str) -> str | None:
    """The first call of ours, by its unique_id, whose parent in a trace is this span, or the request that its HTTP
    client made under it (a `task`, as any span is that says nothing of itself)."""
    of_trace = (organization_id, trace_unique_id)
    row = db.execute(
        "SELECT unique_id FROM span WHERE organization_id = ? AND trace_unique_id = ? AND is_call = 1"
        " AND status <> 'failed' AND (span_parent_id = ? OR span_parent_id IN ("
        "SELECT span_unique_id FROM span WHERE organization_id = ? AND trace_unique_id = ? AND span_parent_id = ?"
        " AND is_call = 0 AND log_type = 'task')) ORDER BY id LIMIT 1",
        (*of_trace, parent_id, *of_trace, parent_id),
    ).fetchone()
    return None if row is None else str(row[0])


def is_call(db: sqlite3.Connection, organization_id: str, unique_id: str) -> bool:
    """Whether this is a call of ours."""
    found = db.execute(
        "SELECT 1 FROM span WHERE organization_id = ? AND unique_id = ? AND is_call = 1", (organization_id, unique_id)
    )
    return found.fetchone() is not None


def told_span(db: sqlite3.Connection, organization_id: str, trace_unique_id: str, span_unique_id: str) -> int | None:
    """The row of a span in a trace that its tracer sent, is of a model's call, and is not linked yet: this span, or the
    one under which an HTTP client made it."""
    of_trace = (organization_id, trace_unique_id)
    row = db.execute(
        "SELECT id FROM span WHERE organization_id = ? AND trace_unique_id = ? AND is_call = 0"
        f" AND gateway_log_id IS NULL AND log_type IN ({_LLM_CALLS}) AND (span_unique_id = ? OR span_unique_id IN ("
        "SELECT span_parent_id FROM span WHERE organization_id = ? AND trace_unique_id = ? AND span_unique_id = ?"
        " AND is_call = 0 AND log_type = 'task')) ORDER BY id LIMIT 1",
        (*of_trace, span_unique_id, *of_trace, span_unique_id),
    ).fetchone()
    return None if row is None else int(row[0])


def editable(db: sqlite3.Connection, organization_id: str, unique_id: str) -> tuple[int, bool, str | None] | None:
    """Of a stored span: its row's id, whether it is a call under way, and its metadata as JSON."""
    row: tuple[int, bool, str | None] | None = db.execute(
        "SELECT id, is_open, metadata FROM span WHERE organization_id = ? AND unique_id = ?",
        (organization_id, unique_id),
    ).fetchone()
    return row


def edit_span(db: sqlite3.Connection, seq: int, row_id: int, columns: Mapping[str, Any]) -> None:
    """Puts new values into columns of a span."""
    changes = ", ".join(f"{name} = ?" for name in ("seq", *columns))
    db.execute(f"UPDATE span SET {changes} WHERE id = ?", (seq, *columns.values(), row_id))


class Removed(NamedTuple):
    """A span that was deleted: whether it was of a call, when that began, or when it came, and whose it was."""

    of_call: bool
    came_at: str
    organization_id: str


def delete_span(db: sqlite3.Connection, seq: int, row_id: int) -> Removed:
    """Deletes a span and leaves a tombstone."""
    db.execute("INSERT INTO tombstone SELECT ?, organization_id, unique_id FROM span WHERE id = ?", (seq, row_id))
    return remove_span(db, row_id)


def remove_span(db: sqlite3.Connection, row_id: int) -> Removed:
    """Deletes a span."""
    of_call, came_at, organization_id, unique_id = db.execute(
        "DELETE FROM span WHERE id = ?"
        " RETURNING is_call, coalesce(received_at, start_time), organization_id, unique_id",
        (row_id,),
    ).fetchone()
    if of_call:
        # Whoever told of it as well counts again.
        db.execute(
            "UPDATE span SET gateway_log_id = NULL WHERE organization_id = ? AND gateway_log_id = ?",
            (organization_id, unique_id),
        )
    return Removed(bool(of_call), str(came_at), str(organization_id))


def use_of_key(
    db: sqlite3.Connection, organization_id: str, key_name: str, *, since_second: int, since_day: str
) -> Use:
    """What a key has used: calls admitted after a Unix second, calls under way, spending from a day on."""
    key = (organization_id, key_name)
    db.execute("DELETE FROM admission WHERE organization_id = ? AND key_name = ? AND second <= ?", (*key, since_second))
    admitted = db.execute(
        "SELECT second, number FROM admission WHERE organization_id = ? AND key_name = ? ORDER BY second", key
    ).fetchall()
    running, reserved = db.execute(
        "SELECT coalesce(sum(running), 0), coalesce(sum(picos), 0) FROM reservation"
        " WHERE organization_id = ? AND key_name = ?",
        key,
    ).fetchone()
    # Added up here: SQLite's sum fails beyond 64 bits.
    spent = db.execute(
        "SELECT picos FROM spending WHERE organization_id = ? AND key_name = ? AND day >= ?", (*key, since_day)
    ).fetchall()
    return Use(admitted, running, reserved, sum(picos for (picos,) in spent))


def reserve(
    db: sqlite3.Connection,
    unique_id: str,
    organization_id: str,
    key_name: str,
    *,
    boot_id: str,
    second: int,
    day: str,
    picos: int,
) -> None:
    """Counts a call that was admitted, and keeps what it may cost."""
    db.execute(
        "INSERT INTO admission VALUES (?, ?, ?, 1)"
        " ON CONFLICT (organization_id, key_name, second) DO UPDATE SET number = number + 1",
        (organization_id, key_name, second),
    )
    db.execute(
        "INSERT INTO reservation VALUES (?, ?, ?, ?, ?, 1, ?)",
        (unique_id, organization_id, key_name, boot_id, day, picos),
    )


def stop_running(db: sqlite3.Connection, unique_id: str) -> None:
    """Says that a call has ended whose cost is not known yet."""
    db.execute("UPDATE reservation SET running = 0 WHERE unique_id = ?", (unique_id,))


def release(db: sqlite3.Connection, unique_id: str, cost_picos: int | None) -> None:
    """Gives back what a call had reserved, and adds what it cost to its key's spending; None: what was reserved."""
    row = db.execute(
        "DELETE FROM reservation WHERE unique_id = ? RETURNING organization_id, key_name, day, picos", (unique_id,)
    ).fetchone()
    if row is None:
        return
    *of_key_and_day, reserved = row
    db.execute(
        "INSERT INTO spending VALUES (?, ?, ?, ?)"
        f" ON CONFLICT (organization_id, key_name, day) DO UPDATE SET picos = min(picos + excluded.picos, {_MOST})",
        (*of_key_and_day, reserved if cost_picos is None else max(0, min(cost_picos, _MOST))),
    )


def boots_with_reservations(db: sqlite3.Connection) -> list[str]:
    """The processes whose calls hold something reserved."""
    return [boot_id for (boot_id,) in db.execute("SELECT DISTINCT boot_id FROM reservation")]


def give_back(db: sqlite3.Connection, boot_id: str) -> None:
    """Gives back what the calls of a process had reserved."""
    db.execute("DELETE FROM reservation WHERE boot_id = ?", (boot_id,))


def place_of(db: sqlite3.Connection, name: str) -> int | None:
    """How far one who follows the journal has come; None if it has not begun."""
    row = db.execute("SELECT seq FROM follower WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def begin_at(db: sqlite3.Connection, name: str, seq: int) -> None:
    """Notes where one begins who follows the journal, unless it has begun."""
    db.execute("INSERT INTO follower VALUES (?, ?) ON CONFLICT DO NOTHING", (name, seq))


def keep_place(db: sqlite3.Connection, name: str, seq: int) -> None:
    """Notes how far one has come."""
    db.execute("INSERT INTO follower VALUES (?, ?) ON CONFLICT DO UPDATE SET seq = excluded.seq", (name, seq))


def use_link(db: sqlite3.Connection, nonce: str, expires_at: int, now: int) -> bool:
    """Notes that a link is used, until a day after it was good; False if it was used before."""
    db.execute("DELETE FROM used_link WHERE expires_at <= ?", (now - _KEPT_AFTER_S,))
    return db.execute("INSERT INTO used_link VALUES (?, ?) ON CONFLICT DO NOTHING", (nonce, expires_at)).rowcount > 0


def end_session(db: sqlite3.Connection, session_id: str, expires_at: int, now: int) -> bool:
    """Notes that a session was ended, until a day after it would be over; False if it was ended before."""
    db.execute("DELETE FROM ended_session WHERE expires_at <= ?", (now - _KEPT_AFTER_S,))
    added = db.execute("INSERT INTO ended_session VALUES (?, ?) ON CONFLICT DO NOTHING", (session_id, expires_at))
    return added.rowcount > 0


def ended_sessions(db: sqlite3.Connection) -> dict[str, int]:
    """The sessions that were ended, and when they would be over."""
    return {row[0]: row[1] for row in db.execute("SELECT id, expires_at FROM ended_session")}


def take_seq(db: sqlite3.Connection) -> int:
    """The last place in the journal that was given away."""
    return int(db.execute("SELECT seq FROM journal").fetchone()[0])


def give_seq(db: sqlite3.Connection, seq: int) -> None:
    """Says that places up to `seq` are given away."""
    db.execute("UPDATE journal SET seq = ?", (seq,))


def add_to_ledger(db: sqlite3.Connection, entries: Mapping[Entry, int]) -> None:
    """Adds numbers to lines of the ledger."""
    db.executemany(
        "INSERT INTO ledger (organization_id, minute, entry, number) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (organization_id, minute, entry) DO UPDATE SET number = number + excluded.number",
        [(*entry, number) for entry, number in entries.items()],
    )


def audited_organizations(db: sqlite3.Connection) -> list[str]:
    """Every organization that sent anything."""
    return [found for (found,) in db.execute("SELECT DISTINCT organization_id FROM ledger ORDER BY 1")]


def ledger_sums(db: sqlite3.Connection, organization_id: str, start: str, end: str) -> dict[str, int]:
    """The ledger's numbers by entry, of the minutes from `start` up to, but without, `end`."""
    return dict(
        db.execute(
            "SELECT entry, sum(number) FROM ledger WHERE organization_id = ? AND minute >= ? AND minute < ?"
            " GROUP BY entry",
            (organization_id, start, end),
        ).fetchall()
    )


def call_counts(db: sqlite3.Connection, organization_id: str, start: str, end: str) -> list[CallCount]:
    """How many calls that began from `start` up to `end` there are, by how they stand."""
    # A call ends after it began, so that the index by time serves here too.
    rows = db.execute(
        "SELECT is_open, boot_id IS NOT NULL, status = 'failed', status_code, count(*) FROM span"
        " WHERE organization_id = ? AND timestamp >= ? AND is_call = 1 AND start_time >= ? AND start_time < ?"
        " GROUP BY 1, 2, 3, 4",
        (organization_id, start, start, end),
    )
    return [
        CallCount(bool(is_open), bool(has_boot) and not is_open, bool(failed), status_code, number)
        for is_open, has_boot, failed, status_code, number in rows
    ]


def posted_spans(db: sqlite3.Connection, organization_id: str, start: str, end: str) -> int:
    """How many posted spans that came from `start` up to `end` there are."""
    row = db.execute(
        "SELECT count(*) FROM span WHERE organization_id = ? AND is_call = 0 AND received_at >= ? AND received_at < ?",
        (organization_id, start, end),
    ).fetchone()
    return int(row[0])


def find_span(db: sqlite3.Connection, organization_id: str, unique_id: str) -> dict[str, Any] | None:
    """One row of the view `spans`."""
    row = db.execute(
        "SELECT * FROM spans WHERE organization_id = ? AND unique_id = ?", (organization_id, unique_id)
    ).fetchone()
    return None if row is None else dict(row)
