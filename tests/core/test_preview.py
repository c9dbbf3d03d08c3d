"""The first words of inputs and outputs."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import preview
from gateway.core.content import CONVERSATIONS
from gateway.core.jsontext import dump
from gateway.core.preview import PREVIEW_AT_MOST


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ([], None),
        (" \n ", None),
        ("Hi\r\n  there\t!", "Hi there !"),
        (
            [user("first"), {"role": "assistant", "content": "a"}, user("last"), {"role": "tool", "content": "t"}],
            "last",
        ),
        ([{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}], "a"),
        ([user([{"type": "text", "text": "What is"}, IMAGE, {"type": "text", "text": "this?"}])], "What is this?"),
        ([user("look"), user([IMAGE])], "look"),
        ([user([IMAGE])], None),
        ([user("question"), user([{"type": "tool_result", "content": "42", "tool_use_id": "t"}])], "question"),
        ({"model": "m", "messages": [user("whole request")]}, "whole request"),
        ({"input": "of Responses", "instructions": "i"}, "of Responses"),
        ([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "item"}]}], "item"),
        (["one", "two"], "two"),
        ([1, 2, 3], "1 2 3"),
        ({"question": "own", "n": 5}, "own 5"),
        (5, "5"),
    ],
)
def test_what_was_asked(value: Any, expected: str | None) -> None:
    assert preview.of_input(value, "chat") == expected


@pytest.mark.parametrize(
    ("value", "tool_calls", "expected"),
    [
        (None, None, None),
        ("Hello", None, "Hello"),
        ({"role": "assistant", "content": "Hello", "tool_calls": [CALL]}, None, "Hello"),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, None, 'get_weather({"city": "Oslo"})'),
        (
            {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
            None,
            'get_weather({"city": "Oslo"}), get_weather({"city": "Oslo"})',
        ),
        ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}, None, "f()"),
        (None, [CALL], 'get_weather({"city": "Oslo"})'),
        ({"role": "assistant", "content": None, "refusal": "I cannot."}, None, "I cannot."),
        ({"role": "assistant", "content": None, "audio": {"transcript": "said"}}, None, "said"),
        ({"role": "assistant", "content": None}, None, None),
        (
            [{"role": "assistant", "content": "first choice"}, {"role": "assistant", "content": "second"}],
            None,
            "first choice",
        ),
        ({"choices": [{"message": {"role": "assistant", "content": "whole"}}]}, None, "whole"),
        ({"choices": [{"text": "completed"}]}, None, "completed"),
        (
            [
                {"type": "reasoning", "id": "r", "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "answer"}]},
            ],
            None,
            "answer",
        ),
        (
            [
                {"type": "reasoning", "id": "r", "summary": []},
                {"type": "function_call", "name": "f", "arguments": "{}"},
            ],
            None,
            "f({})",
        ),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]},
            None,
            'f({"a":1})',
        ),
        ({"answer": 42}, None, "42"),
        ([{"type": "image_generation_call", "id": "i", "result": "AAAA"}], None, None),
    ],
)
def test_what_was_answered(value: Any, tool_calls: Any, expected: str | None) -> None:
    assert preview.of_output(value, tool_calls, "chat") == expected


def test_of_anything_else_the_first_words() -> None:
    value = {"type": "x", "query": "weather", "hits": ["a", 1, True, None]}
    assert preview.of_input(value, "tool") == preview.of_output(value, None, "tool") == "weather a 1 true"
    assert preview.of_output([user("first"), user("last")], [CALL], "workflow") == "first last"


def test_a_long_text_is_cut_and_says_so() -> None:
    assert preview.of_input("a" * PREVIEW_AT_MOST, "chat") == "a" * PREVIEW_AT_MOST
    found = preview.of_input("a" * 10_000_000, "chat")
    assert found == "a" * (PREVIEW_AT_MOST - 1) + "…"
    assert preview.of_input(["x" * 150, {"y": "z" * 150}], "tool") == "x" * 150 + " " + "z" * 48 + "…"


def test_what_would_break_or_turn_a_line_is_a_gap() -> None:
    assert preview.of_input("a\u2028b\u202ec\x1b[0m\ud83dd\x00", "chat") == "a b c [0m d"
    # One sign of four.
    assert preview.of_input("👩\u200d🚀", "chat") == "👩\u200d🚀"


@pytest.mark.parametrize(
    "sign", [*"\u061c\u180e\xad\u3164\u115f\u1160\uffa0\u2061\u206a", *map(chr, (0xE0000, 0xE0001, 0xE0041, 0xE007F))]
)
def test_what_is_not_to_be_seen_does_not_get_through(sign: str) -> None:
    assert preview.of_input(f"a{sign}b{sign}", "chat") == "a b"
    assert preview.of_input(sign, "chat") is None
    call = {"function": {"name": f"f{sign}", "arguments": {sign: sign}}}
    assert preview.of_output({"role": "assistant", "tool_calls": [call]}, None, "chat") == 'f ({" ":" "})'


NAMES = st.sampled_from(
    [
        *("role", "content", "type", "text", "messages", "choices", "message", "tool_calls", "function", "name"),
        *("arguments", "input", "output", "refusal", "audio", "transcript", "id", "function_call", "instructions"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
LEAVES = (
    SCALARS
    | st.text(st.characters(codec=None, categories=None), max_size=300)
    | st.sampled_from(["user", "assistant", "text", "function_call", "tool_use", "reasoning"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=5)
)


@given(VALUES, VALUES, st.sampled_from([*sorted(CONVERSATIONS), "tool", ""]))
def test_any_json_makes_a_line_or_nothing(value: Any, other: Any, log_type: str) -> None:
    for found in (preview.of_input(value, log_type), preview.of_output(value, other, log_type)):
        if found is not None:
            assert 0 < len(found) <= PREVIEW_AT_MOST
            assert found == " ".join(found.split())
            assert not {"Cc", "Cs", "Zl", "Zp"} & {unicodedata.category(sign) for sign in found}


def call(sent: Any, name: str = "f") -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": name, "arguments": sent}}]}


def test_of_long_arguments_no_more_is_written_out_than_may_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def counted(value: Any) -> str:
        nonlocal written
        text = dump(value)
        written += len(text)
        return text

    monkeypatch.setattr(preview, "dump", counted)
    long = "x" * 1_000_000
    for sent in ({"a": long}, {long: 1}, [long], [1] * 1_000_000, {str(number): number for number in range(100_000)}):
        written = 0
        found = preview.of_output(call(sent), None, "chat")
        assert found is not None and len(found) == PREVIEW_AT_MOST
        assert found[:-1] == f"f({dump(sent)}"[: PREVIEW_AT_MOST - 1]
        assert written < 10_000
    assert preview.of_output(call(long), None, "chat") == preview.of_output(call(long[:5000]), None, "chat")
    assert preview.of_output(call({}, long), None, "chat") == preview.of_output(call({}, long[:5000]), None, "chat")


@given(st.recursive(SCALARS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_arguments_are_written_as_json(sent: Any) -> None:
    told = sent if isinstance(sent, str) else "" if sent is None else dump(sent)
    assert preview.of_output(call(sent), None, "chat") == preview.of_output(call(told), None, "chat")


def test_half_a_surrogate_pair_in_arguments_leaves_the_rest_readable() -> None:
    assert preview.of_output(call({"é": ["\ud800", "ü"]}), None, "chat") == 'f({"é":["\\ud800","ü"]})'


def test_deep_arguments_are_not_written_out() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    told = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": deep}}]}
    assert preview.of_output(told, None, "chat") == "f(…)"
    while deep:
        deep = deep.pop()
