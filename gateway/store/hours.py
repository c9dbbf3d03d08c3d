"""Sums of whole hours, made behind the journal, so that a sum over millions of spans reads thousands of rows.

The table `span_hour` says which hours have spans, and of which the sums in `hourly_sum` stand. Triggers keep that true
in the transaction that changes a span, whoever changes it; a sum that is asked for reads the spans of all other hours.
"""

import json
import secrets
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from gateway.core.filters import BETWEEN, Condition, Every, Filter, conditions
from gateway.core.reading import stored_time
from gateway.store import behind, sqlite
from gateway.store import conditions as in_sql
from gateway.store.arithmetic import ONCE, TOTAL_TOKENS, summed
from gateway.store.conditions import Sql

# What these sums can be narrowed and grouped by.
DIMENSIONS = (
    *("environment", "model", "log_type", "status", "upstream", "provider_id"),
    *("organization_key_id", "organization_key_name"),
)
# Of these there are averages and percentiles.
MEASURES = ("latency", "tokens_per_second", "time_to_first_token")
_NUMBERS = (
    *("spans", "failed", "with_cost", "cost_high", "cost_low", "total_high", "total_low", "prompt_high"),
    *("prompt_low", "completion_high", "completion_low"),
    *(f"{name}_{part}" for name in MEASURES for part in ("sum", "count")),
)
_COLUMNS = (*DIMENSIONS, *_NUMBERS, "newest", *(f"{name}_spread" for name in MEASURES))
# Sums of rows of `span`, and sums of such sums.
OF_SPANS = ", ".join(
    (
        *("count(*) AS spans", "sum(status = 'failed') AS failed", "count(cost_picos) AS with_cost"),
        *(summed("cost_picos", "cost"), summed(TOTAL_TOKENS, "total"), summed("prompt_tokens", "prompt")),
        summed("completion_tokens", "completion"),
        *(f"sum({name}) AS {name}_sum, count({name}) AS {name}_count" for name in MEASURES),
        "max(timestamp) AS newest",
    )
)
OF_SUMS = ", ".join((*(f"sum({name}) AS {name}" for name in _NUMBERS), "max(newest) AS newest"))
# A measured value, to two digits: so few are different that each can be counted.
VALUE = "printf('%.1e', {})"

# An hour is summed once it has been over for so long: late counts come in the first seconds.
_OVER_FOR = timedelta(minutes=1)
_HOUR_LENGTH = len("2026-01-02T03")
_LOOK_EVERY_S = 20.0
_REST = 3.0
_STANDS = 1
# Spans of an hour that are read at once, as parts of it: of a minute each.
_PARTS = 60


async def sum_now_and_then(path: Path, now: Callable[[], datetime]) -> None:
    """Sums up the hours that are over, until it is cancelled."""
    await behind.now_and_then(lambda: sum_up(path, now()), _LOOK_EVERY_S, "Hours could not be summed up", rest=_REST)


def sum_up(path: Path, now: datetime) -> Iterator[str]:
    """Sums up what is over and not summed up; gives the hour behind each slice. Raises sqlite3.Error."""
    before = stored_time(now - _OVER_FOR)[:_HOUR_LENGTH]
    with closing(sqlite.connect_behind(path)) as db:
        db.row_factory = sqlite3.Row
        found = db.execute(
            "SELECT organization_id, hour, summed FROM span_hour WHERE summed <> ? AND hour < ? ORDER BY hour DESC",
            (_STANDS, before),
        ).fetchall()
        for organization_id, hour, was in found:
            yield from _sum_up(db, organization_id, hour, was)


def _sum_up(db: sqlite3.Connection, organization_id: str, hour: str, was: int) -> Iterator[str]:
    key = (organization_id, hour)
    # Who changes a span of that hour, or sums it up too, takes the claim away: then the sums are not kept.
    claim = secrets.randbelow(2**62) + _STANDS + 1
    claimed = db.execute(
        "UPDATE span_hour SET summed = ? WHERE organization_id = ? AND hour = ? AND summed = ?", (claim, *key, was)
    ).rowcount
    if not claimed:
        # Another process sums it up, or has done so.
        return
    sums: defaultdict[_Dimensions, _Hour] = defaultdict(_Hour)
    for part in range(_PARTS):
        minute = f"{hour}:{part:02}"
        if _add_part(db, sums, (organization_id, minute, f"{minute};")):
            yield hour
    db.execute("BEGIN IMMEDIATE")
    try:
        kept = db.execute(
            "UPDATE span_hour SET summed = ? WHERE organization_id = ? AND hour = ? AND summed = ?",
            (_STANDS, *key, claim),
        ).rowcount
        if kept:
            db.execute("DELETE FROM hourly_sum WHERE organization_id = ? AND hour = ?", key)
            db.executemany(
                f"INSERT INTO hourly_sum (organization_id, hour, {', '.join(_COLUMNS)})"
                f" VALUES ({', '.join('?' * (2 + len(_COLUMNS)))})",
                [(*key, *dimensions, *summed.values()) for dimensions, summed in sums.items()],
            )
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


_Dimensions = tuple[str | None, ...]


class _Hour:
    """The sums of an hour, for one combination of dimensions, as far as they are made."""

    def __init__(self) -> None:
        self._numbers: list[Any] = [None] * len(_NUMBERS)
        self._newest = ""
        self.spreads: Mapping[str, Counter[str]] = {name: Counter() for name in MEASURES}

    def add(self, row: sqlite3.Row) -> None:
        """Adds the sums of a part."""
        for place, name in enumerate(_NUMBERS):
            if row[name] is not None:
                self._numbers[place] = row[name] + (self._numbers[place] or 0)
        self._newest = max(self._newest, row["newest"])

    def values(self) -> tuple[Any, ...]:
        """Of the columns of `hourly_sum`, behind the dimensions."""
        spreads = (json.dumps(spread) if spread else None for spread in self.spreads.values())
        return (*self._numbers, self._newest, *spreads)


def _add_part(db: sqlite3.Connection, sums: defaultdict[_Dimensions, _Hour], part: tuple[str, str, str]) -> bool:
    """Adds the spans of a part: of an organization, from a time on, up to another. Whether there are any."""
    dimensions = ", ".join(DIMENSIONS)
    scope = f"FROM span WHERE organization_id = ? AND timestamp >= ? AND timestamp < ? AND {ONCE}"
    rows = db.execute(f"SELECT {dimensions}, {OF_SPANS} {scope} GROUP BY {dimensions}", part).fetchall()
    for row in rows:
        sums[tuple(row[name] for name in DIMENSIONS)].add(row)
    for measure in MEASURES if rows else ():
        found = db.execute(
            f"SELECT {dimensions}, {VALUE.format(measure)} AS value, count(*) {scope} AND {measure} IS NOT NULL"
            f" GROUP BY {dimensions}, value",
            part,
        )
        for *key, value, number in found:
            sums[tuple(key)].spreads[measure][value] += number
    return bool(rows)


class Within(NamedTuple):
    """What a filter comes to for hours: which are wholly in its range, which at all, which of their spans are in it,
    and of these, as of sums, which by their dimensions."""

    whole: Sql
    near: Sql
    times: Sql
    those: Sql


def within(which: Filter) -> Within | None:
    """None where sums of hours cannot tell."""
    times: list[tuple[str, str]] = []
    others: list[Filter] = []
    for part in _all_of(which):
        if isinstance(part, Condition) and part.field == "timestamp" and part.operator in _SIGNS:
            times.append((_SIGNS[part.operator], part.values[0]))
        elif isinstance(part, Condition) and part.operator == BETWEEN:
            ends = zip((">=", "<="), part.values, strict=True)
            times += [(sign, end) for sign, end in ends if end is not None]
        elif all(one.key is None and one.field in DIMENSIONS for one in conditions(part)):
            others.append(part)
        else:
            return None
    return Within(
        whole=in_sql.every([Sql(f"hour || '{_EDGES[sign[0]]}' {sign} ?", (time,)) for sign, time in times]),
        near=in_sql.every([Sql(f"hour {sign[0]}= ?", (time[:_HOUR_LENGTH],)) for sign, time in times]),
        # The plus keeps SQLite from going, for each hour, through all that is in the range.
        times=in_sql.every([Sql(f"+timestamp {sign} ?", (time,)) for sign, time in times]),
        those=in_sql.of_spans(Every(tuple(others))),
    )


_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# Of an hour, what has to be later than a beginning, and earlier than an end.
_EDGES = {">": ":00:00.000000Z", "<": ":59:59.999999Z"}


def _all_of(of: Filter) -> Iterator[Filter]:
    if isinstance(of, Every):
        for part in of.parts:
            yield from _all_of(part)
    else:
        yield of


class Key(NamedTuple):
    """By what sums are grouped: a name for it, and what it is of a row of `hourly_sum`, if anything, and of `span`."""

    name: str
    of_hours: str | None
    of_spans: str


def summed_up(organization_id: str, asked: Within, keys: Sequence[Key], named: Sql) -> Sql:
    """Sums by keys: of whole hours whose sums stand, and of the spans of all others. `named`: whose keys count."""
    hours = _of_hours(organization_id, asked, named)
    spans = _of_spans(organization_id, asked, named)
    by = grouped(len(keys))
    names = "".join(f"{key.name}, " for key in keys)
    return Sql(
        f"SELECT {names}{OF_SUMS} FROM ("
        f"SELECT {shown(keys, of_hours=True)}{OF_SUMS} FROM hourly_sum WHERE {hours.text}{by} UNION ALL"
        f" SELECT {shown(keys)}{OF_SPANS} FROM span_hour AS h CROSS JOIN span {spans.text}{by}){by}",
        (*hours.values, *spans.values),
    )


def spread_out(organization_id: str, asked: Within, keys: Sequence[Key], named: Sql, measure: str) -> Sql:
    """How often (`number`) each value of a measure (`measured`) came, by keys, in the same."""
    hours = _of_hours(organization_id, asked, named)
    spans = _of_spans(organization_id, asked, named)
    by = grouped(len(keys) + 1)
    names = "".join(f"{key.name}, " for key in keys)
    return Sql(
        f"SELECT {names}measured, sum(number) AS number FROM ("
        f"SELECT {shown(keys, of_hours=True)}each.key AS measured, sum(each.value) AS number"
        f" FROM hourly_sum, json_each({measure}_spread) AS each WHERE {hours.text}{by}"
        f" UNION ALL SELECT {shown(keys)}{VALUE.format(measure)} AS measured, count(*) AS number"
        f" FROM span_hour AS h CROSS JOIN span {spans.text} AND {measure} IS NOT NULL{by}){by}",
        (*hours.values, *spans.values),
    )


def shown(keys: Sequence[Key], *, of_hours: bool = False) -> str:
    """The keys, in front of what else is selected."""
    return "".join(f"{key.of_hours if of_hours else key.of_spans} AS {key.name}, " for key in keys)


def grouped(number: int) -> str:
    """What a SELECT ends in that is grouped by so many of its first columns, if by any. Not by their names: tables that
    are read have columns of the same names, `json_each` a `key`, and these would be meant."""
    return f" GROUP BY {', '.join(str(place + 1) for place in range(number))}" if number else ""


def _of_hours(organization_id: str, asked: Within, named: Sql) -> Sql:
    return Sql(
        f"organization_id = ? AND hour IN (SELECT hour FROM span_hour WHERE organization_id = ? AND {_stands(asked)}"
        f" AND {asked.near.text}) AND {asked.those.text} AND {named.text}",
        (organization_id, organization_id, *asked.whole.values, *asked.near.values, *asked.those.values),
    )


def _of_spans(organization_id: str, asked: Within, named: Sql) -> Sql:
    # In this order, by the index of times.
    return Sql(
        "ON span.organization_id = ? AND timestamp >= hour AND timestamp < hour || ';'"
        f" WHERE h.organization_id = ? AND NOT {_stands(asked)} AND {asked.near.text} AND {ONCE}"
        f" AND {asked.times.text} AND {asked.those.text} AND {named.text}",
        (
            *(organization_id, organization_id, *asked.whole.values, *asked.near.values),
            *(*asked.times.values, *asked.those.values),
        ),
    )


def _stands(asked: Within) -> str:
    return f"(summed = {_STANDS} AND {asked.whole.text})"
