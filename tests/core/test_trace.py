"""The tree of a trace."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.trace import CUT_MARK, tree


def node(span_id: str, parent: str | None = None) -> dict[str, Any]:
    return {"span_unique_id": span_id, "span_parent_id": parent}


def shape(text: str) -> Any:
    """Ids alone: a leaf is its id, else (id, children)."""

    def of(one: Any) -> Any:
        return (
            (one["span_unique_id"], [of(child) for child in one["children"]])
            if one["children"]
            else one["span_unique_id"]
        )

    return [of(one) for one in json.loads(text)]


def test_children_stand_under_their_parents_in_the_order_of_the_spans() -> None:
    nodes = [node("c", "a"), node("a"), node("b", "a"), node("d", "c")]
    assert shape(tree(nodes)) == [("a", [("c", ["d"]), "b"])]


def test_who_has_no_parent_here_is_a_root() -> None:
    assert shape(tree([node("a", "gone"), node("b", ""), node("c", "a")])) == [("a", ["c"]), "b"]
    assert tree([]) == "[]"


def test_a_circle_is_cut_open_and_says_so() -> None:
    text = tree([node("x", "c"), node("a", "c"), node("b", "a"), node("c", "b"), node("self", "self")])
    assert shape(text) == [("a", [("b", [("c", ["x"])])]), "self"]
    assert [one.get(CUT_MARK) for one in json.loads(text)] == [True, True]


def test_of_spans_with_one_id_the_first_is_the_parent() -> None:
    assert shape(tree([node("a"), node("a"), node("b", "a")])) == [("a", ["b"]), "a"]


def test_a_chain_of_ten_thousand_is_written() -> None:
    text = tree([node(str(n), str(n - 1) if n else None) for n in range(10_000)])
    assert text.count('"children":[') == 10_000 and text.endswith("[]}" + "]}" * 9_999 + "]")


@given(st.lists(st.tuples(st.integers(0, 6), st.none() | st.integers(0, 8)), max_size=12))
def test_every_span_is_in_it_once(spans: list[tuple[int, int | None]]) -> None:
    nodes = [
        {**node(str(one), None if parent is None else str(parent)), "n": n} for n, (one, parent) in enumerate(spans)
    ]
    found: list[int] = []
    left = json.loads(tree(nodes))
    while left:
        it = left.pop()
        found.append(it["n"])
        for child in it["children"]:
            assert child["span_parent_id"] == it["span_unique_id"]
        left += it["children"]
    assert sorted(found) == list(range(len(spans)))
