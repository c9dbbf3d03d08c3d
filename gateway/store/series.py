"""Sums over time: points, each of the spans that ended within one step of it."""

import sqlite3
from collections import defaultdict
from typing import Any, NamedTuple

from gateway.core.filters import EQUALS, Condition, Filter, both
from gateway.core.spread import Percentiles, percentiles
from gateway.core.walk import Order
from gateway.store.hours import MEASURES, Key
from gateway.store.sums import Source, Sums, as_sums, field_key, groups, sums

_HOUR_S = 3600
# Weeks begin on Monday; the first day of Unix time was a Thursday.
_WEEK_S = 7 * 86_400
_FIRST_MONDAY_S = 4 * 86_400


class Point(NamedTuple):
    """`time`: where its step begins, in seconds of Unix time. `key`: None where it is not by a field. `percentiles` by
    measure."""

    time: int
    key: Any
    sums: Sums
    percentiles: dict[str, Percentiles]


def extent(db: sqlite3.Connection, organization_id: str) -> tuple[str, str] | None:
    """When the first and the last span ended; None without any."""
    # Each by the index of times; `span_hour` also knows hours whose spans are gone.
    first, last = db.execute(
        "SELECT (SELECT min(timestamp) FROM span WHERE organization_id = :of),"
        " (SELECT max(timestamp) FROM span WHERE organization_id = :of)",
        {"of": organization_id},
    ).fetchone()
    return None if first is None else (first, last)


def series(
    db: sqlite3.Connection, organization_id: str, which: Filter, step_s: int, field: str | None, keys_at_most: int
) -> tuple[list[Point], int]:
    """Points in the order of time, those without spans left out; with a field for each of its most frequent values, and
    how many of the spans are of others, or of none."""
    keys = [_time(step_s)]
    left_out = 0
    if field is not None:
        whole = sums(db, organization_id, which)
        found = groups(db, organization_id, which, field, Order("number_of_requests"), limit=keys_at_most, offset=0)
        left_out = whole.spans - sum(one.spans for _, one in found)
        if not found:
            return [], left_out
        which = both(which, Condition(field, EQUALS, tuple(key for key, _ in found)))
        keys.append(field_key(field))
    source = Source(organization_id, which, keys)
    spreads = {measure: _spreads(db, source, measure, by_key=field is not None) for measure in MEASURES}
    of_points = source.sums()
    order = ", ".join(key.name for key in keys)
    points = [
        (row["time"], row["key"] if field is not None else None, as_sums(row))
        for row in db.execute(f"SELECT * FROM ({of_points.text}) ORDER BY {order}", of_points.values)
    ]
    return [
        Point(time, key, summed, {measure: percentiles(spreads[measure][time, key]) for measure in MEASURES})
        for time, key, summed in points
    ], left_out


def _time(step_s: int) -> Key:
    shift = _FIRST_MONDAY_S if step_s == _WEEK_S else 0

    def step_of(time: str) -> str:
        seconds = f"(CAST(strftime('%s', {time}) AS INTEGER) - {shift})"
        # Towards the past also before 1970.
        return f"{seconds} - ({seconds} % {step_s} + {step_s}) % {step_s} + {shift}"

    of_hours = step_of("hour || ':00:00'") if step_s % _HOUR_S == 0 else None
    # Without the fraction, which SQLite would round.
    return Key("time", of_hours, step_of("substr(timestamp, 1, 19)"))


def _spreads(
    db: sqlite3.Connection, source: Source, measure: str, *, by_key: bool
) -> defaultdict[tuple[int, Any], list[tuple[str, int]]]:
    found: defaultdict[tuple[int, Any], list[tuple[str, int]]] = defaultdict(list)
    spread = source.spread(measure)
    for row in db.execute(spread.text, spread.values):
        found[row["time"], row["key"] if by_key else None].append((row["measured"], row["number"]))
    return found
