"""Orders and cursors."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import walk
from gateway.core.walk import SPAN_SORTS, Order, Place
from gateway.errors import MalformedBody


@pytest.mark.parametrize(
    ("text", "order"),
    [
        (None, Order("timestamp", True)),
        ("", Order("timestamp", True)),
        ("-id", Order("timestamp", True)),
        ("timestamp", Order("timestamp", False)),
        ("-all_tokens", Order("total_request_tokens", True)),
    ],
)
def test_orders(text: str | None, order: Order) -> None:
    assert walk.order(text, SPAN_SORTS) == order


def test_what_cannot_be_sorted_by_is_named() -> None:
    with pytest.raises(MalformedBody, match=r"sort_by: '-x' is nothing to sort by; use one of timestamp, id, cost"):
        walk.order("-x", SPAN_SORTS)


NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1)
VALUES = st.none() | st.text() | NUMBERS
PLACES = st.builds(Place, st.integers(0, 2**62), st.integers(0, 1), VALUES, st.integers(0, 2**62))


@given(PLACES, st.sampled_from([Order("cost"), Order("timestamp", False)]))
def test_a_cursor_leads_back_to_its_place(place: Place, by: Order) -> None:
    assert walk.place(walk.cursor(place, by), by) == place


@given(st.text(max_size=40) | st.binary(max_size=40).map(bytes.hex))
def test_what_is_no_cursor_is_turned_down(text: str) -> None:
    with pytest.raises(MalformedBody, match="cursor: not one that this list gave"):
        walk.place(text, Order("cost"))


@pytest.mark.parametrize(
    "told",
    [
        ["cost", True, 5, -3, None, 1],
        ["cost", True, 5, 0, 10**30, 1],
        ["cost", True, True, 0, 1, 1],
        ["cost", True, 5, 2, 1, 1],
        ["cost", True, 5, 0, 1],
    ],
)
def test_a_cursor_that_was_made_up_is_turned_down(told: list[Any]) -> None:
    text = base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
    with pytest.raises(MalformedBody, match="cursor: not one that this list gave"):
        walk.place(text, Order("cost"))


def test_a_cursor_is_for_its_order_alone() -> None:
    given_out = walk.cursor(Place(1, 0, 2.5, 3), Order("cost"))
    with pytest.raises(MalformedBody, match="cursor"):
        walk.place(given_out, Order("cost", False))
