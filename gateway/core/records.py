"""Spans as records of a file, which can be read back: what `gateway export` writes, line by line or cell by cell."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.jsontext import dump, parse_or_none
from gateway.core.reading import BOOL_COLUMNS, JSON_COLUMNS


def record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the view `spans`, with its JSON read."""
    found = dict(row)
    for name in JSON_COLUMNS:
        if found[name] is not None:
            found[name] = parse_or_none(found[name])
    for name in BOOL_COLUMNS:
        if found[name] is not None:
            found[name] = bool(found[name])
    return found


def cells(columns: Sequence[str], of: Mapping[str, Any]) -> list[Any]:
    """A record as a line of CSV, with JSON in its cells where a value is no text."""
    return [_cell(name, of[name]) for name in columns]


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str) and name not in JSON_COLUMNS:
        # As JSON where it would be read as nothing, or as JSON.
        return value if value and not value.startswith('"') else dump(value)
    return dump(value) if name in JSON_COLUMNS or isinstance(value, (bool, float)) else value
