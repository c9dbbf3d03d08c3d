"""Members of a JSON object are changed, and every other byte stays."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import rewrite
from gateway.core.jsontext import parse
from gateway.errors import MalformedBody

# JSON text as others write it: any space, any escapes, numbers that Python would write otherwise.
space = st.text(st.sampled_from(" \t\r\n"), max_size=2)
numbers = st.sampled_from(
    ["0", "-0", "1.0", "1e400", "-1E+2", "0.10", "123456789012345678901234567890", "1" * 5000, "NaN", "-Infinity"]
)
texts = st.sampled_from(
    ['""', '"a"', '"\\u0061"', '"\\ud800"', '"\ud800"', '"é\u2028"', '"\\/\\n\\""', '"}],{:"', '"\\ud83d\\ude00"']
)
scalars = numbers | texts | st.sampled_from(["true", "false", "null"])


def written(name: str) -> st.SearchStrategy[str]:
    """A member's name as JSON text, with some of its characters escaped."""
    return st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda escaped: '"' + "".join(f"\\u{ord(c):04X}" if e else c for c, e in zip(name, escaped, strict=True)) + '"'
    )


names = st.sampled_from(["model", "metadata", "respan_params", "stream_options", "a", "é", ""])


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    members = [
        f"{draw(space)}{draw(written(draw(names)))}{draw(space)}:{draw(space)}{draw(inner)}{draw(space)}"
        for _ in range(draw(st.integers(0, 5)))
    ]
    return "{" + (",".join(members) or draw(space)) + "}"


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    return "[" + ",".join(draw(space) + draw(inner) for _ in range(draw(st.integers(0, 3)))) + draw(space) + "]"


values = st.recursive(scalars, lambda inner: objects(inner) | arrays(inner), max_leaves=6)
bodies = st.builds(lambda before, body, behind: before + body + behind, space, objects(values), space)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


def member_texts(text: str) -> list[tuple[str, str]]:
    return [(member.name, text[member.start : member.end]) for member in rewrite.members(text)]


@settings(max_examples=300)
@given(bodies, st.sets(names))
def test_without_leaves_every_other_member_as_it_was(text: str, removed: set[str]) -> None:
    result = rewrite.without(text, removed)
    assert parse(result) == {name: value for name, value in parse(text).items() if name not in removed}
    assert member_texts(result) == [member for member in member_texts(text) if member[0] not in removed]
    if not removed & parse(text).keys():
        assert result is text


@settings(max_examples=200)
@given(bodies, names)
def test_with_value_changes_only_the_named_member(text: str, name: str) -> None:
    result = rewrite.with_value(text, name, lambda value: f"[{value}]")
    before, after = rewrite.members(text), rewrite.members(result)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert result[new.start : new.value] == text[old.start : old.value]
        value = text[old.value : old.end]
        assert result[new.value : new.end] == (f"[{value}]" if old.name == name else value)


@settings(max_examples=200)
@given(bodies)
def test_asking_for_usage_changes_only_the_options(text: str) -> None:
    result = rewrite.asking_for_usage(text)
    before, after = parse(text), parse(result)
    options = before.get("stream_options")
    if options is None or isinstance(options, dict):
        assert after == {**before, "stream_options": {**(options or {}), "include_usage": True}}
    else:
        assert after == before
    others = [member for member in member_texts(text) if member[0] != "stream_options"]
    assert [member for member in member_texts(result) if member[0] != "stream_options"] == others


@settings(max_examples=200)
@given(bodies, st.sampled_from(ENCODINGS), names)
def test_a_body_keeps_its_encoding(text: str, encoding: str, name: str) -> None:
    body = text.encode(encoding, "surrogatepass")
    assert rewrite.in_bytes(body, lambda text: text) == body
    changed = rewrite.in_bytes(body, lambda text: rewrite.without(text, {name}))
    assert changed == rewrite.without(text, {name}).encode(encoding, "surrogatepass")


def test_a_body_keeps_its_byte_order() -> None:
    body = b"\xfe\xff" + '{"a":1, "b":2}'.encode("utf-16-be")
    assert rewrite.in_bytes(body, lambda text: rewrite.without(text, {"b"})) == b"\xfe\xff" + '{"a":1}'.encode(
        "utf-16-be"
    )


@pytest.mark.parametrize(
    ("text", "removed", "expected"),
    [
        ('{"a":1,"b":2,"c":3}', "a", '{"b":2,"c":3}'),
        ('{"a":1,"b":2,"c":3}', "b", '{"a":1,"c":3}'),
        ('{"a":1,"b":2,"c":3}', "c", '{"a":1,"b":2}'),
        ('{"a":1,"b":2,"c":3}', "abc", "{}"),
        (' { "a" : 1.0 ,\n "b":2 }\n', "b", ' { "a" : 1.0 }\n'),
        ('{"b":1,"a":1e400,"b":{"b":2},"a":0}', "b", '{"a":1e400,"a":0}'),
        ('{"\\u0062":1,"a":"\\u00e9"}', "b", '{"a":"\\u00e9"}'),
        ('{"a":{"b":1}}', "b", '{"a":{"b":1}}'),
    ],
)
def test_without(text: str, removed: str, expected: str) -> None:
    assert rewrite.without(text, set(removed)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"stream":true}', '{"stream_options":{"include_usage":true},"stream":true}'),
        ("{}", '{"stream_options":{"include_usage":true}}'),
        (" { } ", ' {"stream_options":{"include_usage":true} } '),
        ('{"stream_options" : null }', '{"stream_options" : {"include_usage":true} }'),
        ('{"stream_options":{}}', '{"stream_options":{"include_usage":true}}'),
        ('{"stream_options":{"x": 1.0}}', '{"stream_options":{"include_usage":true,"x": 1.0}}'),
        ('{"stream_options":{"include_usage":false}}', '{"stream_options":{"include_usage":true}}'),
        ('{"stream_options":{"include_usage":null, "x":1}}', '{"stream_options":{"include_usage":true,"x":1}}'),
        ('{"stream_options":7}', '{"stream_options":7}'),
    ],
)
def test_asking_for_usage(text: str, expected: str) -> None:
    assert rewrite.asking_for_usage(text) == expected


def test_a_model_name_is_written_as_json() -> None:
    name = 'a"\\\n\ud800é'
    text = rewrite.with_value('{"model": "x/y" ,"model":1}', "model", lambda _: rewrite.json_text(name))
    assert text == f'{{"model": {json.dumps(name)} ,"model":{json.dumps(name)}}}'


def test_nesting_that_only_just_could_be_parsed_is_refused() -> None:
    def change(text: str) -> str:
        raise RecursionError

    with pytest.raises(MalformedBody):
        rewrite.in_bytes(b"{}", change)


def test_many_members_of_a_name() -> None:
    text = "{" + ",".join(['"model":"x"'] * 50_000) + "}"
    assert rewrite.with_value(text, "model", lambda _: "1").count('"model":1') == 50_000
    assert rewrite.without(text, {"model"}) == "{}"


@settings(max_examples=100)
@given(st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=8))
def test_members_name_all_of_an_object(value: Any) -> None:
    if isinstance(value, dict):
        text = json.dumps(value, indent=2)
        assert [member.name for member in rewrite.members(text)] == list(value)
