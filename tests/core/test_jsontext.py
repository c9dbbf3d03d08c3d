"""JSON from anywhere, and JSON that every reader takes."""

import codecs
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.jsontext import (
    FAST_DEPTH,
    Texts,
    _dump_slowly,
    _parse_slowly,
    decode_text,
    dump,
    is_unicode,
    parse,
    parse_at,
    parse_object,
    parse_or_none,
)
from gateway.errors import MalformedBody

any_text = st.text(st.characters(exclude_categories=()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=15,
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@settings(max_examples=300)
@given(json_values)
def test_what_is_dumped_is_parsed_back(value: Any) -> None:
    text = dump(value)
    assert is_unicode(text)
    assert parse(text) == value
    assert parse(text.encode()) == value


# Pieces of JSON, and of what some take for it, in any order.
_PIECES = (
    *(
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        '"a"',
        " ",
        "\n",
        "\x00",
        "0",
        "1",
        "-",
        ".",
        "e",
        "E",
        "+",
        "NaN",
        "Infinity",
    ),
    *("1e400", "-0", "-0.0", "9" * 30, "1" * 4301, "true", "null", "tru", "\\", "u", "\\ud83d", "\\ude00", "é", "😀"),
    *("\ufeff", "\ud800", "/", "#", "'"),
)
almost_json = st.lists(st.sampled_from(_PIECES), max_size=12).map("".join)


def outcome(read: Callable[[Any], Any], given: Any) -> str:
    try:
        return repr(read(given))
    except MalformedBody as error:
        return str(error)


@settings(max_examples=1000)
@given(almost_json | any_text | json_values.map(json.dumps))
def test_the_fast_way_reads_what_the_slow_way_reads(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    assert outcome(parse, body) == outcome(_parse_slowly, body)
    assert outcome(parse, text) == outcome(_parse_slowly, text)


@settings(max_examples=500)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | any_text,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
        max_leaves=15,
    )
)
def test_the_fast_way_writes_what_the_slow_way_writes(value: Any) -> None:
    assert repr(parse(dump(value))) == repr(parse(_dump_slowly(value)))


@settings(max_examples=100)
@given(json_values, st.sampled_from(ENCODINGS), st.booleans())
def test_a_body_in_any_encoding_is_parsed(value: Any, encoding: str, ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii).encode(encoding, "surrogatepass")
    assert parse(body) == value
    text, mark, found = decode_text(body)
    assert mark + text.encode(found, "surrogatepass") == body


def test_a_byte_order_mark_of_either_order() -> None:
    for mark, name in ((codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF32_BE, "utf-32-be")):
        assert decode_text(mark + '{"a":1}'.encode(name)) == ('{"a":1}', mark, name)


@settings(max_examples=300)
@given(st.binary(max_size=50))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    try:
        parse(body)
    except MalformedBody:
        assert parse_or_none(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a":}',
        b"{'a':1}",
        b'{"a":1}x',
        b"\xff\xfe\x00",
        b'{"\xff":1}',
        b'{"a":"\n"}',
        b"\xef\xbb\xbf",
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        parse(body)


@pytest.mark.parametrize("body", [b"[]", b"7", b'"x"', b"null"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="must be a JSON object"):
        parse_object(body)


def test_what_is_no_number_keeps_its_text() -> None:
    assert parse("[NaN, Infinity, -Infinity]") == ["NaN", "Infinity", "-Infinity"]


def test_numbers_without_bounds() -> None:
    digits = "1" * 5000
    assert parse(f'{{"a":{digits},"b":7,"c":123456789012345678901234567890}}') == {
        "a": digits,
        "b": 7,
        "c": 123456789012345678901234567890,
    }
    assert parse("1e400") == math.inf
    with pytest.raises(MalformedBody, match="column 5003"):
        parse(f"[{digits},]")


def test_numbers_that_json_cannot_write_become_text() -> None:
    assert dump([math.nan, {"a": math.inf}, -math.inf, 1.5]) == '["NaN",{"a":"Infinity"},"-Infinity",1.5]'


def test_lone_surrogates_become_escapes() -> None:
    assert dump({"a": "\ud800é"}) == '{"a":"\\ud800\\u00e9"}'
    assert dump({"a": "é"}) == '{"a":"é"}'


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_nesting_that_is_too_deep_is_refused(depth: int) -> None:
    with pytest.raises(MalformedBody, match="nested too deeply"):
        parse("[" * depth + "]" * depth)
    value: Any = math.nan
    for _ in range(depth):
        value = [value]
    with pytest.raises(MalformedBody, match="nested too deeply"):
        dump(value)


def test_a_value_is_parsed_where_it_begins() -> None:
    assert parse_at('x{"a":[1]}}}', 1) == {"a": [1]}
    for broken in ("x", "x{", "x" + "[" * 100_000, "x" + "1" * 5000):
        assert parse_at(broken, 1) is None


@pytest.mark.parametrize("innermost", [1, [], {}])
def test_a_written_value_tells_whether_it_may_be_nested_deeply(innermost: Any) -> None:
    value = innermost
    for _ in range(FAST_DEPTH - 2):
        value = [value]
    texts = Texts()
    assert not texts.may_be_deep(value)
    assert texts.may_be_deep({"a": [[value]]})
    assert texts.may_be_deep("\ud800")
    assert texts.of({"a": [[value]]}) == dump({"a": [[value]]})
