"""Percentiles of counted values."""

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.spread import percentiles


@given(st.lists(st.integers(0, 99), min_size=1, max_size=200))
def test_by_nearest_rank(values: list[int]) -> None:
    counted = [(f"{value:.1e}", values.count(value)) for value in set(values)]
    ordered = sorted(values)
    assert percentiles(counted) == tuple(ordered[math.ceil(share / 100 * len(values)) - 1] for share in (50, 95, 99))


def test_of_nothing() -> None:
    assert percentiles([]) == (None, None, None)
