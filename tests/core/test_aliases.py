"""Which of several places a field is taken from, and under which name."""

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.aliases import header_params, merge


def encoded(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("generation_time", "latency"),
        ("ttft", "time_to_first_token"),
        ("id", "unique_id"),
        ("keywordsai_api_controls", "respan_api_controls"),
    ],
)
def test_an_alias_stands_for_its_field_and_the_public_name_wins(alias: str, name: str) -> None:
    assert merge({alias: 1}) == {name: 1}
    assert merge({alias: 1, name: 2}) == merge({name: 2, alias: 1}) == {name: 2}
    assert merge({alias: 1, name: None}) == {name: 1}


def test_nested_params_win_over_the_header_and_the_header_over_the_top_level() -> None:
    raw = {
        "note": "top",
        "category": "top",
        "span_name": "top",
        "group_identifier": "top",
        "respan_params": {"note": "respan"},
        "keywordsai_params": {"note": "keywordsai", "category": "keywordsai"},
    }
    header = {"note": "header", "category": "header", "span_name": "header"}
    assert merge(raw, header) == {
        "note": "respan",
        "category": "keywordsai",
        "span_name": "header",
        "group_identifier": "top",
    }


def test_an_alias_in_respan_params_wins_over_the_public_name_in_keywordsai_params() -> None:
    raw = {"respan_params": {"ttft": 1}, "keywordsai_params": {"time_to_first_token": 2}}
    assert merge(raw) == {"time_to_first_token": 1}


def test_an_alias_of_a_stronger_layer_wins_over_the_public_name_below() -> None:
    assert merge({"latency": 1, "respan_params": {"generation_time": 2}}) == {"latency": 2}


def test_nested_params_may_be_json_text() -> None:
    raw = {"respan_params": '{"note": "a"}', "keywordsai_params": '{"note": "b", "category": "c"}'}
    assert merge(raw) == {"note": "a", "category": "c"}


@pytest.mark.parametrize("value", ["no json", "[1]", "5", 5, [1], True, "", None])
def test_nested_params_that_are_no_object_are_ignored(value: Any) -> None:
    assert merge({"model": "m", "respan_params": value, "keywordsai_params": value}) == {"model": "m"}


def test_a_null_counts_as_not_sent_in_every_layer() -> None:
    raw = {"note": "top", "category": None, "respan_params": {"note": None}, "keywordsai_params": {"note": None}}
    assert merge(raw, {"note": None}) == {"note": "top"}


def test_variables_are_merged_by_name_and_the_top_level_wins() -> None:
    raw = {
        "variables": {"a": "top"},
        "respan_params": {"variables": {"a": "respan", "b": "respan"}},
        "keywordsai_params": {"variables": '{"b": "keywordsai", "c": "keywordsai"}'},
    }
    header = {"variables": {"c": "header", "d": "header"}}
    assert merge(raw, header)["variables"] == {"a": "top", "b": "respan", "c": "keywordsai", "d": "header"}


def test_variables_that_are_no_object_reach_the_validation() -> None:
    assert merge({"variables": "text", "respan_params": {"variables": {"a": 1}}})["variables"] == "text"


def test_customer_params_are_promoted_and_win_within_their_layer() -> None:
    raw = {
        "customer_identifier": "top",
        "customer_email": "top@x",
        "customer_params": {"customer_identifier": "c", "email": "c@x", "name": "C"},
    }
    assert merge(raw) == {
        "customer_params": raw["customer_params"],
        "customer_identifier": "c",
        "customer_email": "c@x",
        "customer_name": "C",
    }
    assert merge({**raw, "respan_params": {"customer_identifier": "r"}})["customer_identifier"] == "r"
    assert merge({"customer_identifier": "top", "customer_params": {"name": "N"}})["customer_identifier"] == "top"


def test_a_prompt_object_gives_its_name_and_id() -> None:
    prompt = {"prompt_id": "p", "prompt_name": "n", "is_custom_prompt": True}
    assert merge({"prompt": prompt}) == {"prompt": prompt, **prompt}
    assert merge({"prompt": prompt, "prompt_id": "own"})["prompt_id"] == "own"


def test_what_the_key_decides_is_never_taken_from_a_body() -> None:
    ours = dict.fromkeys(("organization_id", "organization_key_id", "organization_key_name", "environment"), "x")
    assert merge({**ours, "respan_params": ours}, ours) == {}


def test_unknown_fields_are_kept() -> None:
    assert merge({"message": "hello", "respan_params": {"a b": [1]}}) == {"message": "hello", "a b": [1]}


@pytest.mark.parametrize("name", ["X-Data-Respan-Params", "X-Data-Keywordsai-Params"])
def test_params_come_in_a_base64_header(name: str) -> None:
    assert header_params({name: encoded({"note": "ü?>~"})}) == {"note": "ü?>~"}
    assert header_params({name: encoded({"note": "unpadded"}).rstrip("=")}) == {"note": "unpadded"}
    url_safe = base64.urlsafe_b64encode(b'{"note": "\xc3\xbf\xc3\xbe>>>???"}').decode()
    assert "_" in url_safe or "-" in url_safe
    assert header_params({name: url_safe}) == {"note": "ÿþ>>>???"}


def test_the_new_header_wins_over_the_legacy_one_by_name() -> None:
    headers = {
        "X-Data-Respan-Params": encoded({"note": "new", "category": None}),
        "X-Data-Keywordsai-Params": encoded({"note": "old", "category": "old"}),
    }
    assert header_params(headers) == {"note": "new", "category": "old"}


@pytest.mark.parametrize("text", ["", "%%%", "a", "ü", encoded([1]), encoded("x"), base64.b64encode(b"{").decode()])
def test_a_header_that_cannot_be_read_counts_as_not_sent(text: str) -> None:
    assert header_params({"X-Data-Respan-Params": text}) == {}


NAMES = st.sampled_from(
    [
        *("latency", "generation_time", "ttft", "time_to_first_token", "id", "unique_id", "note", "variables"),
        *("customer_params", "customer_identifier", "customer_email", "prompt", "prompt_id", "environment"),
    ]
)
VALUES = st.one_of(
    st.none(),
    st.integers(0, 3),
    st.dictionaries(st.sampled_from(["customer_identifier", "email", "prompt_id", "a", "b"]), st.integers(0, 3)),
)
LAYERS = st.dictionaries(NAMES, VALUES)


@st.composite
def raw_and_shuffled(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    raw: dict[str, Any] = dict(draw(LAYERS))
    for name in ("respan_params", "keywordsai_params"):
        if draw(st.booleans()):
            raw[name] = draw(LAYERS)
    return raw, shuffled(raw, draw)


def shuffled(value: Any, draw: st.DrawFn) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: shuffled(value[name], draw) for name in draw(st.permutations(list(value)))}


@given(raw_and_shuffled(), LAYERS)
def test_what_wins_does_not_depend_on_the_order_of_keys_and_nothing_sent_is_changed(
    both: tuple[dict[str, Any], dict[str, Any]], header: dict[str, Any]
) -> None:
    raw, other = both
    before = copy.deepcopy(raw)
    assert merge(raw, header) == merge(other, dict(reversed(header.items())))
    assert raw == before
