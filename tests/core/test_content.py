"""How input and output are read by log_type, and kept within bounds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import content
from gateway.core.jsontext import Texts, dump
from gateway.core.span import Span, validate

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def folded(**fields: Any) -> Span:
    span = validate({"model": "m", **fields})
    content.fold_legacy(span)
    return span


@pytest.mark.parametrize("log_type", ["chat", "tool", "my-own"])
def test_legacy_fields_fill_input_and_output(log_type: str) -> None:
    span = folded(log_type=log_type, messages=[USER], completion_message=ANSWER)
    assert (span.input, span.output) == ([USER], ANSWER)
    span = folded(log_type=log_type, prompt_messages=[USER], completion_messages=[ANSWER, ANSWER])
    assert (span.input, span.output) == ([USER], [ANSWER, ANSWER])
    assert span.messages is span.prompt_messages is span.completion_message is span.completion_messages is None


def test_input_and_output_win_over_legacy_fields_and_prompt_messages_over_messages() -> None:
    span = folded(input="in", output="out", messages=[USER], prompt_messages=[USER], completion_message=ANSWER)
    assert (span.input, span.output) == ("in", "out")
    assert folded(messages=[USER], prompt_messages=[ANSWER]).input == [ANSWER]


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ('[{"role":"user","content":"hi"}]', [USER]),
        (' {"role":"assistant","content":"hello"}', ANSWER),
        ('{"role":"assistant","tool_calls":[]}', {"role": "assistant", "tool_calls": []}),
        *((text, text) for text in ("hi", "", "[]", "{}", "[1]", "5", "null", '{"answer":42}', '["a"]', "{no json")),
        *((text, text) for text in ('{"role":"user"}', '{"content":"x"}', '[{"role":"user","content":"x"},5]')),
        ('[{"role":"a","content":' + "[" * 400 + "]" * 400 + "}]",) * 2,
    ],
)
def test_a_chat_reads_json_text_of_messages_and_leaves_other_text(sent: str, read: Any) -> None:
    span = folded(input=sent, output=sent)
    assert (span.input, span.output) == (read, read)
    other = folded(log_type="tool", input=sent, output=sent)
    assert (other.input, other.output) == (sent, sent)


def test_tool_calls_are_taken_from_the_answer() -> None:
    answer = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert folded(output=answer).tool_calls == [CALL]
    assert folded(output=dump(answer)).tool_calls == [CALL]
    assert folded(output={"choices": [{"message": answer}]}).tool_calls == [CALL]
    assert folded(output=answer, tool_calls=[{"id": "own"}]).tool_calls == [{"id": "own"}]
    assert folded(output=answer, log_type="tool").tool_calls is None
    assert folded(output={**answer, "tool_calls": ["odd"]}).tool_calls is None


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        (None, None),
        ("hi", [USER]),
        ([USER, ANSWER], [USER, ANSWER]),
        (USER, [USER]),
        ({"messages": [USER]}, [USER]),
        (["hi", ANSWER], [USER, ANSWER]),
        ([], []),
        (5, [{"role": "user", "content": "5"}]),
        ([1, 2], [{"role": "user", "content": "[1,2]"}]),
    ],
)
def test_prompt_messages(value: Any, messages: Any) -> None:
    assert content.prompt_messages(value) == messages


REASONING = {"type": "reasoning", "content": [], "summary": []}
ITEM = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, None),
        ("hello", ANSWER),
        (ANSWER, ANSWER),
        ([ANSWER, USER], ANSWER),
        ({"choices": [{"message": ANSWER}]}, ANSWER),
        ({"choices": [{"text": "hello"}]}, ANSWER),
        ({"choices": [{}]}, None),
        ([REASONING, ITEM], ITEM),
        ({"object": "response", "output": [REASONING, ITEM]}, ITEM),
        ({"choices": [{"message": ANSWER}, {"message": USER}]}, ANSWER),
        ({"role": "assistant", "reasoning_content": "hm"}, {"role": "assistant", "reasoning_content": "hm"}),
        ({"a": 1}, {"role": "assistant", "content": '{"a":1}'}),
        (True, {"role": "assistant", "content": "true"}),
    ],
)
def test_completion_message(value: Any, message: Any) -> None:
    assert content.completion_message(value) == message


def test_several_choices() -> None:
    assert content.completion_messages([ANSWER, ANSWER]) == [ANSWER, ANSWER]
    assert content.completion_messages([ANSWER]) is content.completion_messages("hello") is None


def test_dropping_content_keeps_numbers_and_names() -> None:
    said: dict[str, Any] = {
        **{"input": "a", "output": "b", "tool_calls": [CALL], "full_request": {"a": 1}, "full_response": {"a": 1}},
        **{"tools": [{}], "tool_choice": "auto", "response_format": {"type": "x"}, "stop": "s", "variables": {"a": 1}},
        "secret_thoughts": "x",
    }
    kept = {"model": "m", "prompt_tokens": 5, "span_name": "s", "metadata": {"a": "b"}, "disable_log": True}
    span = validate({**said, **kept})
    content.drop(span)
    assert span == validate(kept)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_what_is_nested_too_deeply_is_named() -> None:
    limit = content.DEPTH_AT_MOST
    fits = {"a": nested(limit - 1)}
    deep = {"a": nested(limit)}
    span = validate({"model": "m", "input": deep, "metadata": deep, "own": deep, "output": fits, "other": fits})
    assert content.too_deep(span, Texts()) == ["metadata", "input", "own"]


def sized(value: Any) -> int:
    return len(dump(value).encode())


def test_nothing_is_cut_within_the_limit() -> None:
    span = validate({"model": "m", "input": "x" * 98})
    assert content.cut(span, 100, Texts()) == []
    assert span.input == "x" * 98


def test_the_longest_text_is_cut_and_small_fields_stay() -> None:
    span = validate({"model": "m", "output": "x" * 10_000, "metadata": {"a": "b"}, "own": "short", "note": "n"})
    assert content.cut(span, 5_000, Texts()) == ["output"]
    assert span.output.startswith("xxx") and span.output.endswith("... [cut]")
    assert 4_900 < sized(span.output) <= 5_002
    assert (span.metadata, span.extras, span.note) == ({"a": "b"}, {"own": "short"}, "n")


@pytest.mark.parametrize("text", ["ü" * 5_000, "漢" * 5_000, '"' * 5_000, "\n" * 5_000, "\ud800" * 2_000, "🙂" * 5_000])
def test_text_of_any_width_is_cut_to_about_the_limit(text: str) -> None:
    span = validate({"model": "m", "output": text})
    assert content.cut(span, 1_000, Texts()) == ["output"]
    assert span.output.startswith(text[:100]) and span.output.endswith("... [cut]")
    assert 900 < sized(span.output) <= 1_002


def test_text_that_is_wider_at_its_beginning_is_cut(text: str = "漢" * 500 + "a" * 5_000) -> None:
    shorter = content.shorten({"a": text}, 1_000)
    assert 500 < sized(shorter) <= 1_000


def test_a_long_value_without_long_texts_becomes_null() -> None:
    span = validate({"model": "m", "output": [0.125] * 1_000})
    assert content.cut(span, 1_000, Texts()) == ["output"]
    assert span.output is None


def test_the_raw_request_is_cut_before_what_was_said() -> None:
    span = validate(
        {
            "model": "m",
            "full_request": {"messages": [{"role": "user", "content": "x" * 4_000}]},
            "own": "x" * 4_000,
            "input": "x" * 4_000,
            "output": "x" * 4_000,
        }
    )
    assert content.cut(span, 10_000, Texts()) == ["full_request", "own"]
    assert (span.input, span.output, span.extras) == ("x" * 4_000, "x" * 4_000, {"own": None})
    assert span.full_request is not None
    assert span.full_request["messages"][0]["content"].endswith("... [cut]")


JSON = st.recursive(
    st.none() | st.integers() | st.text(st.characters(), max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(JSON, st.integers(0, 300))
def test_whatever_is_shortened_fits(value: Any, limit: int) -> None:
    shorter = content.shorten(value, limit)
    assert shorter is None or sized(shorter) <= limit + 2


@given(JSON, JSON, JSON, st.integers(0, 400))
def test_whatever_is_cut_fits(first: Any, second: Any, third: Any, limit: int) -> None:
    span = validate({"model": "m", "input": first, "output": second, "own": third})
    was_cut = content.cut(span, limit, Texts())
    left = [value for value in (span.input, span.output, span.extras["own"]) if value is not None]
    assert sum(map(sized, left)) <= limit + 6
    assert was_cut or (span.input, span.output, span.extras["own"]) == (first, second, third)


@pytest.mark.parametrize(
    ("value", "unwrapped"),
    [
        ({"messages": [USER], "model": "m", "temperature": 0.3}, [USER]),
        (
            {"input": "hi", "instructions": "be"},
            [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}],
        ),
        ({"input": [USER]}, [USER]),
        ({"input": 5}, {"input": 5}),
        (USER, USER),
        ("hi", "hi"),
        (None, None),
    ],
)
def test_a_whole_request_is_unwrapped(value: Any, unwrapped: Any) -> None:
    assert content.unwrapped_input(value) == unwrapped


@pytest.mark.parametrize("text", ['{"role":"assistant","function_call":{}}', '{"role":"assistant","audio":{"id":"a"}}'])
def test_a_message_without_content_is_read_from_its_json(text: str) -> None:
    assert content.completion_message(content._read_chat(text)) == content.parse_or_none(text)
