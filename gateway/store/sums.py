"""Sums over spans, as a whole and by what they have in common."""

import sqlite3
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core.filters import Filter
from gateway.core.walk import Order
from gateway.store import conditions, hours
from gateway.store.arithmetic import ONCE, of_halves, whole
from gateway.store.conditions import Sql
from gateway.store.hours import OF_SPANS, Key

# An average beyond that is no number of JSON.
_LARGEST = sys.float_info.max


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


def sums(db: sqlite3.Connection, organization_id: str, which: Filter) -> Sums:
    """Over all of these spans of an organization."""
    source = Source(organization_id, which, ()).sums()
    return as_sums(db.execute(source.text, source.values).fetchone())


# By what groups can be sorted, in terms of the sums.
GROUP_SORTS: Mapping[str, str] = {
    "number_of_requests": "spans",
    "span_count": "spans",
    "total_cost": of_halves("cost"),
    "total_tokens": of_halves("total"),
    "total_prompt_tokens": of_halves("prompt"),
    "total_completion_tokens": of_halves("completion"),
    "error_count": "failed",
    "error_percentage": "failed * 1.0 / spans",
    "average_cost": f"{of_halves('cost')} / with_cost",
    "average_tokens": f"{of_halves('total')} / spans",
    "average_latency": "latency_sum / latency_count",
    "average_ttft": "time_to_first_token_sum / time_to_first_token_count",
    "average_tps": "tokens_per_second_sum / tokens_per_second_count",
    "timestamp": "newest",
    "date_group": "newest",
}


def groups(
    db: sqlite3.Connection,
    organization_id: str,
    which: Filter,
    field: str,
    by: Order,
    *,
    limit: int,
    offset: int,
) -> list[tuple[Any, Sums]]:
    """Sums by a field; spans that have none are in no group. `by`: of GROUP_SORTS."""
    direction = "DESC" if by.descending else "ASC"
    source = Source(organization_id, which, (field_key(field),)).sums()
    found = db.execute(
        f"SELECT * FROM ({source.text}) ORDER BY {GROUP_SORTS[by.field]} {direction} NULLS LAST, key LIMIT ? OFFSET ?",
        (*source.values, limit, offset),
    )
    return [(row["key"], as_sums(row)) for row in found]


def field_key(field: str) -> Key:
    """A field as what sums are grouped by; `key` in the rows."""
    expression = conditions.named(field)
    return Key("key", expression if field in hours.DIMENSIONS else None, expression)


class Source:
    """Sums of these spans by keys: of whole hours and of what is in none, or of the spans alone. Spans that have none
    of a `key` are in no group."""

    def __init__(self, organization_id: str, which: Filter, keys: Sequence[Key]) -> None:
        self._organization_id = organization_id
        self._keys = keys
        self._where = conditions.of_spans(which)
        self._within = hours.within(which) if all(key.of_hours is not None for key in keys) else None
        self._named = Sql(" AND ".join(f"{key.of_spans} <> ''" for key in keys if key.name == "key") or "1")

    def sums(self) -> Sql:
        """A row of sums for each key; one row where there are no keys."""
        if self._within is not None:
            return hours.summed_up(self._organization_id, self._within, self._keys, self._named)
        return self._of_spans(OF_SPANS, len(self._keys))

    def spread(self, measure: str) -> Sql:
        """How often (`number`) each value of a measure (`measured`) came, by keys."""
        if self._within is not None:
            of = (self._organization_id, self._within, self._keys, self._named)
            return hours.spread_out(*of, measure)
        found = self._of_spans(
            f"{hours.VALUE.format(measure)} AS measured, count({measure}) AS number",
            len(self._keys) + 1,
        )
        return Sql(f"SELECT * FROM ({found.text}) WHERE number > 0", found.values)

    def _of_spans(self, shown: str, by: int) -> Sql:
        return Sql(
            f"SELECT {hours.shown(self._keys)}{shown} FROM span WHERE organization_id = ? AND {ONCE}"
            f" AND {self._where.text} AND {self._named.text}{hours.grouped(by)}",
            (self._organization_id, *self._where.values),
        )


def _whole(row: sqlite3.Row, name: str) -> int:
    return whole(row[f"{name}_high"], row[f"{name}_low"])


def as_sums(row: sqlite3.Row) -> Sums:
    """A row of such a source."""

    def average(name: str) -> float | None:
        total, number = row[f"{name}_sum"], row[f"{name}_count"]
        return max(-_LARGEST, min(total / number, _LARGEST)) if number and total is not None else None

    return Sums(
        spans=row["spans"] or 0,
        cost_picos=_whole(row, "cost"),
        total_tokens=_whole(row, "total"),
        prompt_tokens=_whole(row, "prompt"),
        completion_tokens=_whole(row, "completion"),
        latency=average("latency"),
        tokens_per_second=average("tokens_per_second"),
        time_to_first_token=average("time_to_first_token"),
        failed=row["failed"] or 0,
        with_cost=row["with_cost"] or 0,
        newest=row["newest"],
    )
