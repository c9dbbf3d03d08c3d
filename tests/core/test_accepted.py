"""The schemas of what fields take say what is so."""

import json
from typing import Any

import jsonschema_rs
import pytest

from gateway.core.span import Span, validate
from gateway.errors import InvalidSpan

VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        2,
        -1,
        0.0,
        1.0,
        1.5,
        -0.5,
        1e18,
        1e300,
        2**31,
        2**63 - 1,
        2**63,
        -(2**63),
        -(2**63) - 1,
    ),
    *("", " ", "a", "model", "0", "1", "-1", "+1", " 7 ", "1.0", "1.50", ".5", "5.", "1e5", "1e", "0x1", "--1", "٣"),
    *("true", "TRUE", "tRue", "yes", "Off", "t", "truth", "2", "nan", "Infinity", "1" * 18, "c" * 254, "c" * 255),
    *("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678+01:00", "2026-01-02", "2026-02-30", "soon", "1767225600"),
    *(
        "1767225600.5",
        "24:00",
        1767225600,
        1767225600.5,
        253402300799999,
        253402300799999.5,
        253402300800000,
        -62135596800000,
        -62135596800001,
    ),
    *([], ["a"], [1], [None], [{}], [{"a": 1}], [{"a": 1}, "b"], {}, {"a": {"b": [1]}}, {"prompt_tokens": "x"}),
    *({"prompt_tokens": 1.0, "own": "x"}, {"total_tokens": "5"}, {"input_tokens": None}, {"output_tokens": 1.5}),
    *("list", "/bulk/", "listed", "a/b", "a/", ".", "..", "a/../b", "a..b", "...", "ä\n"),
]
SCHEMAS = Span.model_json_schema(mode="validation")["properties"]


def is_taken(name: str, value: Any) -> bool:
    try:
        validate({"model": "m", name: value})
    except InvalidSpan as error:
        assert list(error.errors) == [name]
        return False
    return True


@pytest.mark.parametrize("name", Span.model_fields)
def test_a_field_takes_what_its_schema_says_and_nothing_else(name: str) -> None:
    says = jsonschema_rs.Draft202012Validator(SCHEMAS[name], validate_formats=True).is_valid
    for value in VALUES:
        # Of text that holds JSON, a validator does not look at what it holds.
        if not (isinstance(value, str) and "contentSchema" in json.dumps(SCHEMAS[name])):
            assert is_taken(name, value) == says(value), value


@pytest.mark.parametrize(
    ("name", "text", "taken"),
    [
        *(("metadata", text, text == "{}") for text in ("{}", "[]", "5", '"{}"', "x")),
        *(("tools", text, text != "{}") for text in ("[]", '[{"a": 1}]', "{}")),
        *(("usage", text, True) for text in ('{"prompt_tokens": 1}', '{"prompt_tokens": "1"}')),
    ],
)
def test_a_text_is_taken_for_the_json_that_its_schema_says(name: str, text: str, taken: bool) -> None:
    content = next(form["contentSchema"] for form in SCHEMAS[name]["anyOf"] if "contentSchema" in form)
    try:
        assert jsonschema_rs.Draft202012Validator(content).is_valid(json.loads(text)) == taken
    except json.JSONDecodeError:
        assert not taken
    assert is_taken(name, text) == taken
