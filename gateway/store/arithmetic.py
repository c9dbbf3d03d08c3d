"""Sums in SQL that are exact, however large."""

from collections.abc import Sequence
from typing import Any

# Of a call that its sender told of as well, only what the gateway logged.
ONCE = "gateway_log_id IS NULL"
TOTAL_TOKENS = "coalesce(total_request_tokens, coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0))"

# A sum of SQLite's fails beyond 64 bits; so it is made of two.
_HALF = 1_000_000_000


def summed(expression: str, name: str) -> str:
    """A sum as two columns, `NAME_high` and `NAME_low`, see `whole`."""
    return f"sum(({expression}) / {_HALF}) AS {name}_high, sum(({expression}) % {_HALF}) AS {name}_low"


def whole(high: int | None, low: int | None) -> int:
    """The sum that these two columns make up."""
    return int(high or 0) * _HALF + int(low or 0)


def folded(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The row with whole sums of these names in the place of their two columns."""
    for name in names:
        row[name] = whole(row.pop(f"{name}_high"), row.pop(f"{name}_low"))
    return row


def of_halves(name: str) -> str:
    """The same in SQL, as a double: to compare and to sort by."""
    return f"(coalesce({name}_high, 0) * {_HALF}.0 + coalesce({name}_low, 0))"
