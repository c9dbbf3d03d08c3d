"""Walks through a list, page by page: its order, and the cursor that says where a walk stands.

A walk shows what was there when it began, in the order that it had then: a span that came later is left out, and one
that has changed since stands where it stood. `at_seq` is where the journal stood when the walk began.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.jsontext import dump, parse
from gateway.errors import MalformedBody

TIMESTAMP = "timestamp"
# What spans can be sorted by. A span that has no such value comes last, both ways.
SPAN_SORTS: Mapping[str, str] = {
    "timestamp": TIMESTAMP,
    "id": TIMESTAMP,
    **{
        name: name
        for name in (
            *("cost", "latency", "time_to_first_token", "prompt_tokens", "completion_tokens"),
            *("total_request_tokens", "tokens_per_second"),
        )
    },
    "all_tokens": "total_request_tokens",
    "total_tokens": "total_request_tokens",
    "total_cost": "cost",
}


@dataclass(frozen=True, slots=True)
class Order:
    """By which field, and whether the largest comes first."""

    field: str
    descending: bool = True


NEWEST_FIRST = Order(TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Place:
    """Behind which row a walk goes on: its part of the walk, its value there, and its id."""

    at_seq: int
    part: int
    value: Any
    row_id: int


def order(text: str | None, sorts: Mapping[str, str]) -> Order:
    """What `sort_by` says: a name, with a minus for the largest first. Raises MalformedBody."""
    text = text or f"-{TIMESTAMP}"
    field = sorts.get(text.removeprefix("-"))
    if field is None:
        names = ", ".join(sorts)
        raise MalformedBody(f"sort_by: {text!r} is nothing to sort by; use one of {names}, with - for descending.")
    return Order(field, text.startswith("-"))


def cursor(place: Place, by: Order) -> str:
    """The place as text for a URL; good for this order only."""
    told = dump([by.field, by.descending, place.at_seq, place.part, place.value, place.row_id])
    return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")


def place(text: str, by: Order) -> Place:
    """The place that a cursor names. Raises MalformedBody."""
    try:
        told = parse(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, MalformedBody):
        told = None
    match told:
        case [by.field, by.descending, int(at_seq), int(part), None | str() | int() | float() as value, int(row_id)]:
            numbers = [one for one in (at_seq, part, row_id, value) if isinstance(one, int)]
            if part in (0, 1) and not any(isinstance(one, bool) or abs(one) >= 2**63 for one in numbers):
                return Place(at_seq, part, value, row_id)
    raise MalformedBody("cursor: not one that this list gave; begin again without it.")
