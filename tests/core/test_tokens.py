"""What is counted of which input and output."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.tokens import Countable, Counted, completion, estimate, prompt

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    ("log_type", "value", "expected"),
    [
        ("chat", "hi", Countable(("user", "hi"), 6)),
        ("chat", [{"role": "user", "content": "hi"}], Countable(("user", "hi"), 6)),
        (
            "chat",
            [{"role": "system", "content": "a"}, {"role": "user", "name": "bob", "content": "b"}],
            Countable(("system", "a", "user", "bob", "b"), 10),
        ),
        (
            "chat",
            [{"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE]}],
            Countable(("user", "look"), 6),
        ),
        (
            "chat",
            [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "42"}],
            Countable(("assistant", "f", '{"a":1}', "tool", "42"), 9),
        ),
        ("completion", "hi", Countable(("hi",))),
        ("response", "hi", Countable(("hi",))),
        ("embedding", "hi", Countable(("hi",))),
        ("embedding", ["a", "b"], Countable(("a", "b"))),
        ("embedding", [1, 2, 3], Countable((), 3)),
        ("embedding", [[1, 2], [3]], Countable((), 3)),
        ("embedding", [], Countable(())),
    ],
)
def test_prompts(log_type: str, value: Any, expected: Countable) -> None:
    assert prompt(log_type, value) == expected


def test_tools_are_part_of_the_prompt() -> None:
    assert prompt("chat", "hi", [{"type": "function"}]) == Countable(("user", "hi", '[{"type":"function"}]'), 6)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("hi", ("hi",)),
        ({"role": "assistant", "content": "hi", "refusal": None}, ("hi",)),
        ({"role": "assistant", "content": "hi", "reasoning_content": "hm"}, ("hi", "hm")),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, ("f", '{"a":1}')),
        ({"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}]}, ("t",)),
        ([{"type": "message", "content": [{"type": "output_text", "text": "a"}]}], ("a",)),
        ([{"type": "function_call", "name": "f", "arguments": "{}"}], ("f", "{}")),
        ({"answer": 42}, ('{"answer":42}',)),
        (42, ("42",)),
    ],
)
def test_completions(value: Any, texts: tuple[str, ...]) -> None:
    assert completion(value) == Countable(texts)


def test_without_a_tokenizer_four_bytes_are_a_token() -> None:
    assert estimate(()) == Counted(0, "length")
    assert estimate(("abcd", "e")) == Counted(2, "length")
    assert estimate(("ü\ud800",)) == Counted(1, "length")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "tool_calls", "function", "name", "arguments", "type"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from(["chat", "response", "completion", "embedding", "generation"]), JSON)
def test_any_json_can_be_counted(log_type: str, value: Any) -> None:
    for countable in (prompt(log_type, value), completion(value)):
        assert all(isinstance(text, str) for text in countable.texts)
        assert estimate(countable.texts).tokens >= 0
