"""Percentiles of values that were counted, to two digits each."""

import sys
from collections.abc import Iterable
from typing import NamedTuple

_LARGEST = sys.float_info.max


class Percentiles(NamedTuple):
    """To two digits; None where there is no value."""

    p50: float | None
    p95: float | None
    p99: float | None


def percentiles(counted: Iterable[tuple[str, int]]) -> Percentiles:
    """Of values as text and how often each came; by nearest rank: the least value that so many are not above."""
    # The largest numbers there are would be rounded beyond them.
    values = sorted((max(-_LARGEST, min(float(value), _LARGEST)), number) for value, number in counted)
    total = sum(number for _, number in values)
    return Percentiles(*(_at(values, total, share) for share in (50, 95, 99)))


def _at(values: list[tuple[float, int]], total: int, share: int) -> float | None:
    passed = 0
    for value, number in values:
        passed += number
        if 100 * passed >= share * total:
            return value
    return None
