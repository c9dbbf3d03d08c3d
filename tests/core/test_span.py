"""The span's types, defaults and limits."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.span import Span, of_call, validate, validate_leniently
from gateway.errors import InvalidSpan

NUMBERS = (
    *("latency", "time_to_first_token", "tokens_per_second", "routing_time", "cost", "prompt_unit_price"),
    *("completion_unit_price", "temperature", "top_p", "frequency_penalty", "presence_penalty"),
)
WHOLES = (
    *("status_code", "prompt_tokens", "completion_tokens", "total_request_tokens", "prompt_cache_hit_tokens"),
    *("prompt_cache_creation_tokens", "reasoning_tokens", "max_tokens"),
)
TEXTS = (
    *("model", "log_type", "status", "error_code", "error_message", "customer_identifier", "customer_email"),
    *("customer_name", "thread_identifier", "session_identifier", "custom_identifier", "group_identifier"),
    *("evaluation_identifier", "trace_unique_id", "trace_group_identifier", "span_unique_id", "span_parent_id"),
    *("span_name", "span_workflow_name", "note", "category", "prompt_id", "prompt_name", "unique_id", "log_method"),
)
OBJECTS = (
    *("usage", "customer_params", "metadata", "properties", "variables", "full_request", "full_response"),
    "completion_message",
)
LISTS = ("messages", "prompt_messages", "completion_messages", "tool_calls", "tools")
TIMES = ("start_time", "timestamp")
BOOLS = ("stream", "positive_feedback", "is_custom_prompt", "disable_log")


def errors(**fields: Any) -> dict[str, list[str]]:
    with pytest.raises(InvalidSpan) as raised:
        validate({"model": "m", **fields})
    return raised.value.errors


def test_defaults() -> None:
    span = validate({"model": "m"})
    sent = {name: value for name, value in span.model_dump().items() if value is not None}
    assert sent == {
        "model": "m",
        "log_type": "chat",
        "stream": False,
        "status_code": 200,
        "temperature": 1.0,
        "top_p": 1.0,
        "is_custom_prompt": False,
    }


def test_the_model_is_required() -> None:
    with pytest.raises(InvalidSpan) as raised:
        validate({})
    assert raised.value.errors == {"model": ["This field is required."]}
    assert str(raised.value) == "model: This field is required."


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    for value, read in ((1, 1.0), (-1.5, -1.5), ("2.5", 2.5), (1e300, 1e300), (0, 0.0)):
        assert getattr(validate({"model": "m", name: value}), name) == read
    for wrong in (True, "a", "", [], {}, "NaN", "Infinity", float("nan"), float("inf"), 10**400):
        assert list(errors(**{name: wrong})) == [name]


@pytest.mark.parametrize("name", WHOLES)
def test_whole_numbers(name: str) -> None:
    for value, read in ((1, 1), (-5, -5), ("7", 7), (8.0, 8), (2**63 - 1, 2**63 - 1), (-(2**63), -(2**63))):
        assert getattr(validate({"model": "m", name: value}), name) == read
    for wrong in (True, "a", 1.5, "1.5", [], {}, 2**63, -(2**63) - 1, 1e300, "9" * 5000, 10**400, float("nan")):
        assert list(errors(**{name: wrong})) == [name]


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str) -> None:
    for value in ("a", "ü\0", " ", "x" * 200):
        assert getattr(validate({"model": "m", name: value}), name) == value
    for wrong in (1, 1.5, True, [], {}):
        assert errors(**{name: wrong}) == {name: ["Must be a valid string."]}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_also_as_json_text(name: str) -> None:
    for value in ({"a": 1}, '{"a": 1}'):
        assert getattr(validate({"model": "m", name: value}), name) == {"a": 1}
    for wrong in (1, "text", [], "[1]", True, "{"):
        assert errors(**{name: wrong}) == {name: ["Must be a valid object."]}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_objects_also_as_json_text(name: str) -> None:
    for value in ([{"a": 1}], '[{"a": 1}]'):
        assert getattr(validate({"model": "m", name: value}), name) == [{"a": 1}]
    for wrong in (1, "text", {}, ["a"], [1], True):
        assert list(errors(**{name: wrong})) == [name]


@pytest.mark.parametrize("name", TIMES)
def test_times_are_utc(name: str) -> None:
    noon = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
    for value in ("2026-01-02T12:00:00Z", "2026-01-02T14:00:00+02:00", "2026-01-02T12:00:00", "2026-01-02 12:00:00Z"):
        assert getattr(validate({"model": "m", name: value}), name) == noon
    for wrong in ("", "soon", [], {}, True, "NaN", 1e30, "0001-01-01T00:00:00+10:00", "9999-12-31T23:00:00-10:00"):
        assert list(errors(**{name: wrong})) == [name]


@pytest.mark.parametrize("name", BOOLS)
def test_booleans(name: str) -> None:
    for value, read in ((True, True), (False, False), ("true", True), ("false", False)):
        assert getattr(validate({"model": "m", name: value}), name) is read
    for wrong in ("maybe", 2, [], {}):
        assert list(errors(**{name: wrong})) == [name]


def test_fields_of_several_types() -> None:
    for name, values, wrongs in (
        ("warnings", ("text", '{"a": 1}', {"a": 1}), (1, ["x"], True)),
        ("tool_choice", ("auto", {"type": "function"}), (1, ["x"], True)),
        ("stop", ("a", ["a", "b"], []), (1, {}, [1], True)),
    ):
        for value in values:
            assert getattr(validate({"model": "m", name: value}), name) == value
        for wrong in wrongs:
            assert list(errors(**{name: wrong})) == [name]


def test_response_format_as_a_bare_word() -> None:
    assert validate({"model": "m", "response_format": "json_object"}).response_format == {"type": "json_object"}
    assert list(errors(response_format=["json_object"])) == ["response_format"]


def test_the_customer_identifier_has_at_most_254_characters() -> None:
    assert validate({"model": "m", "customer_identifier": "ü" * 254}).customer_identifier == "ü" * 254
    assert errors(customer_identifier="x" * 255) == {"customer_identifier": ["Must have at most 254 characters."]}


@pytest.mark.parametrize(
    "unique_id",
    ["list", "audit", "summary", "bulk", "create", "groups", "live", "values", "export", "batch-update", "\ud800"],
)
def test_some_texts_are_no_ids(unique_id: str) -> None:
    assert list(errors(unique_id=unique_id)) == ["unique_id"]


def test_all_mistakes_come_at_once() -> None:
    found = errors(model=5, cost="x", stop=5, usage={"prompt_tokens": "x", "total_tokens": True})
    assert found == {
        "model": ["Must be a valid string."],
        "cost": ["Must be a valid number, unable to parse string as a number."],
        "stop": ["Must be a valid string.", "Must be a valid list."],
        "usage": ["Must have whole numbers in prompt_tokens, total_tokens."],
    }


def test_fields_that_are_no_part_of_a_span_are_kept_as_extras() -> None:
    extras = {"x": 1, "model_config": 2, "extras": {"a": None}, "__class__": 3, "\ud800": 4, "": 5}
    assert validate({"model": "m", **extras}).extras == extras


def test_a_lenient_reading_drops_what_is_wrong_and_says_so() -> None:
    span, wrong = validate_leniently({"model": "m", "cost": "x", "note": 5, "span_name": "s", "other": 1})
    assert (span.cost, span.note, span.span_name, span.extras) == (None, None, "s", {"other": 1})
    assert sorted(wrong) == ["cost", "note"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(Span.model_fields)) | st.text(st.characters(), max_size=3), JSON))
def test_any_json_either_fits_or_is_turned_down_by_name(fields: dict[str, Any]) -> None:
    given_fields = {"model": "m", **{name: value for name, value in fields.items() if value is not None}}
    try:
        validate(given_fields)
    except InvalidSpan as error:
        assert error.errors.keys() <= Span.model_fields.keys()
        assert all(texts for texts in error.errors.values())


_numbers = st.sampled_from(
    ["temperature", "top_p", "frequency_penalty", "presence_penalty", "max_tokens", "stop", "usage"]
)
_odd = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.text(max_size=2), max_size=2)
    | st.dictionaries(st.sampled_from(["prompt_tokens", "a"]), st.integers() | st.text(max_size=2), max_size=2)
)


@settings(max_examples=300)
@given(st.dictionaries(_numbers, _odd, max_size=4))
def test_what_is_told_of_a_call_is_checked_as_if_it_were_posted(told: dict[str, Any]) -> None:
    measured = {"model": "m", "log_type": "chat", "latency": 1.5}
    span, wrong = of_call(measured, told)
    checked, also_wrong = validate_leniently({**told, **measured})
    assert (repr(vars(span)), span.extras, wrong) == (repr(vars(checked)), checked.extras, also_wrong)
