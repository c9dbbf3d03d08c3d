"""The grammar of filters: what is understood, and what is turned down by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.filters import CONDITIONS_AT_MOST, SPAN_FIELDS, Condition, Either, Every, Filter
from gateway.errors import MalformedBody

MODEL_A = Condition("model", "", ("a",))
MODEL_B = Condition("model", "", ("b",))
FAILED = Condition("status", "", ("failed",))


@pytest.mark.parametrize(
    ("filters", "meant"),
    [
        (None, Every()),
        ({}, Every()),
        ([], Every()),
        ({"model": {"operator": "", "value": ["a"]}}, MODEL_A),
        ({"model": {"value": "a"}}, MODEL_A),
        ({"model": "a"}, MODEL_A),
        ({"model": ["a", "b"]}, Condition("model", "", ("a", "b"))),
        ({"model": {"operator": "IN", "value": ["a", "b"]}}, Condition("model", "", ("a", "b"))),
        ({"model": {"operator": "not_in", "value": ["a"]}}, Condition("model", "not", ("a",))),
        ({"model": {"operator": "notEmpty", "value": [""]}}, Condition("model", "not_empty")),
        ({"model": {"operator": "empty"}}, Condition("model", "empty")),
        ({"model": {"operator": "isnull", "value": [False]}}, Condition("model", "not_empty")),
        ({"model": {"operator": None, "value": [None]}}, Condition("model", "", (None,))),
        ({"status": {"operator": "", "value": ["error"]}}, FAILED),
        ({"id": "x"}, Condition("unique_id", "", ("x",))),
        ({"trace_id": "x"}, Condition("trace_unique_id", "", ("x",))),
        ({"total_cost": {"operator": "gte", "value": ["0.5"]}}, Condition("cost", "gte", (0.5,))),
        ({"stream": {"operator": "", "value": ["true"]}}, Condition("stream", "", (True,))),
        ({"metadata__plan": {"operator": "", "value": [1]}}, Condition("metadata", "", ("1",), "plan")),
        ({"properties__n": {"operator": "gt", "value": [1]}}, Condition("properties", "gt", (1,), "n")),
        (
            {"cost": [{"operator": "gte", "value": [1]}, {"operator": "lt", "value": [2]}]},
            Every((Condition("cost", "gte", (1.0,)), Condition("cost", "lt", (2.0,)))),
        ),
        ({"model": "a", "status": "error"}, Every((MODEL_A, FAILED))),
        (
            {"connector": "OR", "filter_params": {"model": "a", "status": {"value": ["error"]}}},
            Either((MODEL_A, FAILED)),
        ),
        (
            {"model": "a", "any": {"connector": "or", "filter_params": {"status": "failed", "stream": True}}},
            Every((MODEL_A, Either((FAILED, Condition("stream", "", (True,)))))),
        ),
        ({"model": {"value": "a", "connector": "OR"}, "status": "failed"}, Either((MODEL_A, FAILED))),
        (
            {"model": [{"value": "a", "connector": "OR"}, {"value": "b", "connector": "AND"}], "status": "failed"},
            Every((Either((MODEL_A, MODEL_B)), FAILED)),
        ),
    ],
)
def test_what_is_understood(filters: Any, meant: Filter) -> None:
    assert SPAN_FIELDS.parse(filters) == meant


def test_a_whole_body_may_be_joined_by_or() -> None:
    assert SPAN_FIELDS.parse({"model": "a", "status": "failed"}, "OR") == Either((MODEL_A, FAILED))


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ([1], "filters: must be an object"),
        ("model", "filters: must be an object"),
        ({"modell": "a"}, "modell: not a field to filter by; use unique_id,"),
        ({"metadata__": "a"}, "metadata__: not a field"),
        ({"model": {"operator": "like", "value": ["a"]}}, "model: 'like' is no operator here; use '', in, not"),
        ({"cost": {"operator": "contains", "value": ["1"]}}, "cost: 'contains' is no operator here"),
        ({"model": {"operator": 5, "value": ["a"]}}, "an operator must be text"),
        ({"model": {"operator": "in"}}, "model: a condition has an operator and a value"),
        ({"model": {"operator": "in", "value": []}}, "model: the value is an empty list"),
        ({"model": {"operator": "contains", "value": [None]}}, "model: contains needs a value"),
        ({"model": {"operator": "regex", "value": ["("]}}, "model: '(' is no regular expression"),
        ({"model": {"operator": "regex", "value": ["a" * 1001]}}, "model: a pattern has at most 1000"),
        ({"model": "\ud800"}, "model: must be text without lone surrogates"),
        ({"metadata__\ud800": "x"}, "metadata: must be text without lone surrogates"),
        ({"model": {"operator": "icontains", "value": ["x"] * 51}}, "icontains takes at most 50 values"),
        ({"model": {"operator": "ilike", "value": ["x" * 1001]}}, "a pattern has at most 1000"),
        ({"input": {"operator": "full_text_search", "value": ["x " * 51]}}, "at most 50 words"),
        ({"properties__x": {"operator": "icontains", "value": [None]}}, "icontains needs a value"),
        ({"properties__x": {"operator": "regex", "value": ["("]}}, "is no regular expression"),
        ({"latency": 10**400}, "latency: the value must be a number"),
        ({"cost": "cheap"}, "cost: the value must be a number of USD"),
        ({"latency": True}, "latency: the value must be a number"),
        ({"prompt_tokens": "NaN"}, "prompt_tokens: the value must be a whole number"),
        ({"stream": "maybe"}, "stream: the value must be true or false"),
        ({"timestamp": {"operator": "gt", "value": ["soon"]}}, "timestamp: the value must be an ISO 8601 time"),
        ({"model": {"value": "a", "connector": "XOR"}}, "model: the connector must be AND or OR"),
        ({"any": {"connector": "OR", "filter_params": []}}, "filter_params: must be an object"),
        ({"any": {"filter_params": {}, "more": 1}}, "a bundle has connector and filter_params, not more"),
        (dict.fromkeys((f"metadata__{n}" for n in range(CONDITIONS_AT_MOST + 1)), "x"), "at most 200 conditions"),
    ],
)
def test_what_is_turned_down(filters: Any, named: str) -> None:
    with pytest.raises(MalformedBody) as refused:
        SPAN_FIELDS.parse(filters)
    assert named in str(refused.value)


def test_bundles_are_not_nested_without_end() -> None:
    filters: dict[str, Any] = {"model": "a"}
    for _ in range(100):
        filters = {"filter_params": {"more": filters}} if "filter_params" in filters else {"filter_params": filters}
    with pytest.raises(MalformedBody, match="nested deeper"):
        SPAN_FIELDS.parse(filters)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(["model", "cost", "stream", "timestamp", "metadata__a", "input", "metadata"]) | st.text(
    max_size=5
)


@given(st.dictionaries(NAMES, JSON | st.fixed_dictionaries({"operator": JSON, "value": JSON}), max_size=3), JSON)
def test_anything_else_is_turned_down_too(filters: dict[str, Any], connector: Any) -> None:
    try:
        SPAN_FIELDS.parse(filters, connector)
    except MalformedBody as error:
        assert str(error)
