"""A stream put together equals the answer that the same call would have given without streaming."""

import base64
import copy
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.assemble import AnyAssembly, Assembly, ChatAssembly, MessagesAssembly, ResponsesAssembly
from gateway.core.jsontext import parse

HEAD = {"id": "chatcmpl-1", "created": 1700000000, "model": "gpt-4o-mini", "system_fingerprint": "fp"}
USAGE: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def assembled(events: list[dict[str, Any]], assembly: Assembly | None = None) -> Any:
    assembly = assembly or ChatAssembly()
    for event in events:
        assembly.add(copy.deepcopy(event))
    return assembly.result()


def message_of(*deltas: dict[str, Any]) -> Any:
    return assembled([{**HEAD, "choices": [{"index": 0, "delta": delta}]} for delta in deltas])["choices"][0]["message"]


# Chat completions: any answer, cut up as providers cut it

texts = st.text(max_size=12)
some_text = st.text(min_size=1, max_size=12)


def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    ends = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@st.composite
def tool_calls(draw: st.DrawFn) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {
                "name": draw(some_text),
                "arguments": json.dumps(draw(st.dictionaries(texts, texts, max_size=2))),
            },
        }
        for number in range(draw(st.integers(1, 3)))
    ]


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | texts)}
    for name in ("refusal", "reasoning", "reasoning_content"):
        if draw(st.booleans()):
            message[name] = draw(some_text)
    if draw(st.booleans()):
        message["tool_calls"] = draw(tool_calls())
    if draw(st.booleans()):
        message["function_call"] = {"name": draw(some_text), "arguments": draw(some_text)}
    if draw(st.booleans()):
        sound = base64.b64encode(draw(st.binary(min_size=1, max_size=20))).decode()
        message["audio"] = {"id": "audio_1", "data": sound, "transcript": draw(some_text), "expires_at": 1700000000}
    return message


@st.composite
def deltas(draw: st.DrawFn, message: dict[str, Any]) -> list[dict[str, Any]]:
    """The deltas that a provider would send of a message; those of different members come in any order."""
    said: list[list[dict[str, Any]]] = [
        [{name: piece} for piece in pieces_of(draw, message[name])]
        for name in ("content", "refusal", "reasoning", "reasoning_content")
        if isinstance(message.get(name), str)
    ]
    repeats = draw(st.booleans())
    for index, call in enumerate(message.get("tool_calls", ())):
        first, *rest = pieces_of(draw, call["function"]["arguments"])
        name = call["function"]["name"]
        head = {**call, "index": index, "function": {"name": name, "arguments": first}}
        again = {"id": call["id"], "type": "function"} if repeats else {}
        named = {"name": name} if repeats else {}
        said.append(
            [
                {"tool_calls": [head]},
                *(
                    {"tool_calls": [{"index": index, **again, "function": {**named, "arguments": piece}}]}
                    for piece in rest
                ),
            ]
        )
    if "function_call" in message:
        first, *rest = pieces_of(draw, message["function_call"]["arguments"])
        said.append([{"function_call": {**message["function_call"], "arguments": first}}])
        said[-1] += [{"function_call": {"arguments": piece}} for piece in rest]
    if "audio" in message:
        audio = message["audio"]
        sound = base64.b64decode(audio["data"])
        size = draw(st.integers(1, 7))
        encoded = [base64.b64encode(sound[at : at + size]).decode() for at in range(0, len(sound), size)]
        said.append(
            [
                {"audio": {"id": audio["id"], "transcript": ""}},
                *({"audio": {"id": audio["id"], "data": piece}} for piece in encoded),
                *({"audio": {"transcript": piece}} for piece in pieces_of(draw, audio["transcript"])),
                {"audio": {"expires_at": audio["expires_at"]}},
            ]
        )
    first_content = None if message["content"] is None else ""
    return [{"role": "assistant", "content": first_content}, *draw(interleaved(said))]


@st.composite
def interleaved(draw: st.DrawFn, rows: list[list[Any]]) -> list[Any]:
    """The rows' items mixed, each row's own order kept."""
    turns = draw(st.permutations([number for number, row in enumerate(rows) for _ in row]))
    waiting = [iter(row) for row in rows]
    return [next(waiting[turn]) for turn in turns]


@st.composite
def chats(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A chat completion and the chunks of its stream."""
    choices: list[dict[str, Any]] = []
    rows: list[list[dict[str, Any]]] = []
    for index in range(draw(st.integers(1, 3))):
        message = draw(messages())
        tokens = [{"token": token, "logprob": -0.5, "top_logprobs": []} for token in draw(st.lists(texts, max_size=4))]
        logprobs = {"content": tokens, "refusal": None} if tokens else None
        choices.append({"index": index, "message": message, "logprobs": logprobs, "finish_reason": "stop"})
        row: list[dict[str, Any]] = [
            {"index": index, "delta": delta, "logprobs": None, "finish_reason": None} for delta in draw(deltas(message))
        ]
        for token in tokens:
            place = draw(st.integers(0, len(row)))
            logprob = {"content": [token], "refusal": None}
            row.insert(place, {"index": index, "delta": {}, "logprobs": logprob, "finish_reason": None})
        # Insertion anywhere would mix up the tokens; their order in the stream is the order of the answer.
        logged = iter(tokens)
        for choice in row:
            if choice["logprobs"]:
                choice["logprobs"]["content"] = [next(logged)]
        rows.append([*row, {"index": index, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    mixed = draw(interleaved(rows))
    chunks = [{**HEAD, "object": "chat.completion.chunk", "choices": [choice]} for choice in mixed]
    match draw(st.sampled_from(["last", "beside", "in each", "none"])):
        case "last":
            chunks.append({**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
        case "beside":
            chunks[-1]["usage"] = USAGE
        case "in each":
            for number, chunk in enumerate(chunks):
                chunk["usage"] = {**USAGE, "completion_tokens": number}
            chunks[-1]["usage"] = USAGE
        case _:
            chunks = [{**chunk, "usage": None} for chunk in chunks]
    usage = {"usage": USAGE} if chunks[-1]["usage"] else {}
    return {**HEAD, "object": "chat.completion", "choices": choices, **usage}, chunks


@settings(max_examples=200)
@given(chats())
def test_a_chat_completion_is_put_together(chat: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    whole, chunks = chat
    assert assembled(chunks) == whole


@settings(max_examples=100)
@given(chats(), st.data())
def test_choices_that_share_a_chunk(chat: tuple[dict[str, Any], list[dict[str, Any]]], data: st.DataObject) -> None:
    whole, chunks = chat
    size = data.draw(st.integers(1, 5))
    groups = [chunks[at : at + size] for at in range(0, len(chunks), size)]
    together = [
        {**group[-1], "choices": [choice for chunk in group for choice in chunk["choices"]]} for group in groups
    ]
    assert assembled(together)["choices"] == whole["choices"]


def test_a_text_completion_is_put_together() -> None:
    logprobs: dict[str, list[Any]] = {
        "tokens": ["a"],
        "token_logprobs": [-1.0],
        "top_logprobs": [None],
        "text_offset": [0],
    }
    events: list[dict[str, Any]] = [
        {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": None, "logprobs": None}]},
        {"id": "c", "choices": [{"index": 0, "text": "Hel", "logprobs": logprobs, "finish_reason": None}]},
        {"id": "c", "choices": [{"index": 1, "text": "Yo", "logprobs": None, "finish_reason": "stop"}]},
        {"id": "c", "choices": [{"index": 0, "text": "lo", "logprobs": logprobs, "finish_reason": "length"}]},
    ]
    both = {name: values * 2 for name, values in logprobs.items()}
    assert assembled(events, ChatAssembly("text_completion")) == {
        "id": "c",
        "object": "text_completion",
        "choices": [
            {"index": 0, "text": "Hello", "logprobs": both, "finish_reason": "length"},
            {"index": 1, "text": "Yo", "logprobs": None, "finish_reason": "stop"},
        ],
    }


def test_tool_calls_that_come_out_of_order_are_sorted() -> None:
    message = message_of(
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}}]},
        {"tool_calls": [{"index": 1, "id": None, "function": {"name": None, "arguments": "}"}}]},
        {"tool_calls": [{"index": 0, "id": "", "type": "", "function": {"name": "", "arguments": "2"}}]},
    )
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "12"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_tool_calls_without_an_index_come_whole() -> None:
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in "ab"]
    assert message_of({"tool_calls": calls[:1]}, {"tool_calls": calls[1:]})["tool_calls"] == calls


def test_content_parts_grow_as_mistral_sends_them() -> None:
    def thinking(text: str) -> dict[str, Any]:
        return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}

    message = message_of(
        {"role": "assistant", "content": ""},
        {"content": [thinking("Let me ")]},
        {"content": [thinking("see.")]},
        {"content": "It "},
        {"content": "is"},
        {"content": [{"type": "text", "text": " so."}, {"type": "reference", "reference_ids": [1]}]},
        {"content": [{"type": "text", "text": "End"}]},
    )
    assert message["content"] == [
        thinking("Let me see."),
        {"type": "text", "text": "It is so."},
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "End"},
    ]


def test_text_before_content_parts_is_kept() -> None:
    assert message_of({"content": "a"}, {"content": [{"type": "text", "text": "b"}]})["content"] == [
        {"type": "text", "text": "ab"}
    ]


def test_reasoning_details_grow_by_index_and_type() -> None:
    message = message_of(
        {"reasoning_details": [{"type": "reasoning.text", "index": 0, "format": "f", "text": "a"}]},
        {"reasoning_details": [{"type": "reasoning.text", "index": 0, "format": "f", "text": "b"}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "index": 0, "data": "QQ=="}]},
    )
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "format": "f", "text": "ab"},
        {"type": "reasoning.encrypted", "index": 0, "data": "QQ=="},
    ]


def test_a_message_repeated_beside_each_delta_is_not_taken_twice() -> None:
    def choice(delta: str, so_far: str) -> dict[str, Any]:
        return {"index": 0, "message": {"role": "assistant", "content": so_far}, "delta": {"content": delta}}

    events = [{"choices": [choice("Hel", "Hel")]}, {"choices": [choice("lo", "Hello")]}]
    assert assembled(events)["choices"] == [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}]


def test_a_message_without_any_delta_counts() -> None:
    message = {"role": "assistant", "content": "Hello"}
    assert assembled([{"choices": [{"index": 0, "message": message}]}])["choices"] == [{"index": 0, "message": message}]


@pytest.mark.parametrize(
    "pieces", [["QQ==", "QkM="], ["QUJD", "RA=="], ["QU", "JD"], ["QQ==", "\xe9"], ["=", "A"], [""]]
)
def test_audio_is_joined_as_one_base64_text(pieces: list[str]) -> None:
    joined = message_of(*({"audio": {"data": piece}} for piece in pieces))["audio"]["data"]
    expected = {"QQ==QkM=": "QUJD", "QUJDRA==": "QUJDRA=="}
    assert joined == expected.get("".join(pieces), "".join(pieces))


def test_a_long_answer_without_any_choice_is_none() -> None:
    assert assembled([]) is None
    assert assembled([{"type": "ping"}]) is None


def test_a_later_null_does_not_undo_what_was_said() -> None:
    events = [
        {
            **HEAD,
            "service_tier": "default",
            "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}],
        },
        {**HEAD, "service_tier": None, "choices": [{"index": 0, "delta": {"content": None}, "finish_reason": None}]},
    ]
    result = assembled(events)
    assert result["service_tier"] == "default"
    assert result["choices"] == [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}
    ]


def test_an_error_in_a_stream_is_kept() -> None:
    assembly = ChatAssembly()
    assembly.add({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    assert not assembly.add({"error": {"message": "overloaded"}})
    assert assembly.error == {"message": "overloaded"}


# What counts as generated


@pytest.mark.parametrize(
    ("delta", "generated"),
    [
        ({"role": "assistant", "content": "", "refusal": None}, False),
        ({}, False),
        ({"content": None, "tool_calls": []}, False),
        ({"content": []}, False),
        ({"content": [{"type": "text", "text": ""}]}, False),
        ({"audio": {"id": "a", "expires_at": 5}}, False),
        ({"audio": {"id": "a", "transcript": ""}}, False),
        ({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}, False),
        ({"reasoning_details": [{"type": "reasoning.text", "signature": "s", "index": 0}]}, False),
        ({"content": " "}, True),
        ({"content": [{"type": "text", "text": "a"}]}, True),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]}, True),
        ({"reasoning": "a"}, True),
        ({"reasoning_content": "a"}, True),
        ({"refusal": "a"}, True),
        ({"audio": {"id": "a", "transcript": "a"}}, True),
        ({"audio": {"id": "a", "data": "QQ=="}}, True),
        ({"function_call": {"name": "f", "arguments": ""}}, True),
        (
            {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            True,
        ),
    ],
)
def test_what_a_delta_generates(delta: dict[str, Any], generated: bool) -> None:
    assert ChatAssembly().add({"choices": [{"index": 0, "delta": delta}]}) is generated


def test_a_usage_chunk_generates_nothing() -> None:
    assert not ChatAssembly().add({"choices": [], "usage": USAGE})


@pytest.mark.parametrize(("text", "generated"), [("", False), (None, False), ("a", True)])
def test_what_a_text_completion_generates(text: str | None, generated: bool) -> None:
    assert ChatAssembly("text_completion").add({"choices": [{"index": 0, "text": text}]}) is generated


# Responses

RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-4o",
    "output": [],
    "usage": None,
    "error": None,
}


def test_a_closed_response_is_taken_from_its_closing_event() -> None:
    assembly = ResponsesAssembly()
    final = {**RESPONSE, "output": [{"type": "message"}], "usage": {"input_tokens": 1, "output_tokens": 2}}
    assert not assembly.add({"type": "response.created", "response": RESPONSE})
    assert assembly.add({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"})
    assert not assembly.add({"type": "response.output_text.delta", "output_index": 0, "delta": ""})
    assert not assembly.done
    assert not assembly.add({"type": "response.completed", "response": final})
    assert assembly.done
    assert (assembly.result(), assembly.usage, assembly.model) == (final, final["usage"], "gpt-4o")


def test_a_cut_response_has_the_items_so_far() -> None:
    reasoning = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "whole"}]}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": RESPONSE},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {"type": "reasoning", "id": "rs", "summary": []},
        },
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "who"},
        {"type": "response.output_item.done", "output_index": 0, "item": reasoning},
        {"type": "response.output_item.added", "output_index": 2, "item": {"type": "function_call", "name": "f"}},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": ":1"},
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "role": "assistant"}},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 1, "delta": "b"},
        {"type": "response.refusal.delta", "output_index": 1, "content_index": 0, "delta": "no"},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 1, "delta": "c"},
        {"type": "response.output_item.added", "output_index": 3, "item": {"type": "reasoning", "summary": []}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 3, "summary_index": 0, "delta": "why"},
    ]
    assert assembled(events, ResponsesAssembly()) == {
        **RESPONSE,
        "output": [
            reasoning,
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "refusal", "refusal": "no"}, {"type": "output_text", "text": "bc"}],
            },
            {"type": "function_call", "name": "f", "arguments": '{"a":1'},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "why"}]},
        ],
    }


def test_response_text_without_any_frame_is_kept() -> None:
    events = [
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.output_text.delta", "delta": "b"},
    ]
    assert assembled(events, ResponsesAssembly())["output"] == [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ab"}]}
    ]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "message": "m", "code": "c"},
        {"type": "response.failed", "response": {**RESPONSE, "error": {"code": "c", "message": "m"}}},
    ],
)
def test_a_failed_response_names_its_error(event: dict[str, Any]) -> None:
    assembly = ResponsesAssembly()
    assembly.add(event)
    assert assembly.error["code"] == "c"


# Anthropic's messages

START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1},
    },
}


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


MESSAGE_EVENTS: list[dict[str, Any]] = [
    START,
    {"type": "ping"},
    *block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Let me"},
        {"type": "thinking_delta", "thinking": " see"},
        {"type": "signature_delta", "signature": "EqQB"},
        {"type": "signature_delta", "signature": "CgIY"},
    ),
    *block(
        1,
        {"type": "text", "text": "", "citations": []},
        {"type": "text_delta", "text": "Hel"},
        {"type": "citations_delta", "citation": {"cited_text": "x"}},
        {"type": "text_delta", "text": "lo"},
        {"type": "citations_delta", "citation": {"cited_text": "y"}},
    ),
    *block(
        2,
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
        {"type": "input_json_delta", "partial_json": ""},
        {"type": "input_json_delta", "partial_json": '{"a": "\\u'},
        {"type": "input_json_delta", "partial_json": '00e9", "b": 1.50}'},
    ),
    *block(3, {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}}),
    *block(4, {"type": "compaction", "content": None}, {"type": "d", "content": "a"}, {"type": "d", "content": "b"}),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 15, "input_tokens": None},
    },
    {"type": "message_stop"},
]
MESSAGE = {
    **START["message"],
    "content": [
        {"type": "thinking", "thinking": "Let me see", "signature": "EqQBCgIY"},
        {"type": "text", "text": "Hello", "citations": [{"cited_text": "x"}, {"cited_text": "y"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "é", "b": 1.5}},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
        {"type": "compaction", "content": "ab"},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 15},
}


def test_an_anthropic_message_is_put_together() -> None:
    assembly = MessagesAssembly()
    assert assembled(MESSAGE_EVENTS, assembly) == MESSAGE
    assert (assembly.done, assembly.model, assembly.usage) == (True, "claude", MESSAGE["usage"])


@pytest.mark.parametrize("length", range(len(MESSAGE_EVENTS)))
def test_an_anthropic_message_that_is_cut_anywhere(length: int) -> None:
    assembly = MessagesAssembly()
    result = assembled(MESSAGE_EVENTS[:length], assembly)
    assert not assembly.done
    assert (result is None) == (length == 0)
    if result:
        assert result["id"] == "msg_1"
        assert [part["type"] for part in result["content"]] == [part["type"] for part in MESSAGE["content"]][
            : len(result["content"])
        ]


def test_a_cut_tool_input_is_kept_as_text() -> None:
    tool = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    events = [START, *block(0, tool, {"type": "input_json_delta", "partial_json": '{"a": 1'})]
    assert assembled(events, MessagesAssembly())["content"] == [{**tool, "input": '{"a": 1'}]


def test_blocks_without_a_start_of_the_message_are_kept() -> None:
    events = block(0, {"type": "text", "text": "a"}, {"type": "text_delta", "text": "b"})
    assert assembled(events, MessagesAssembly())["content"] == [{"type": "text", "text": "ab"}]


def test_what_an_anthropic_event_generates() -> None:
    generated = [MessagesAssembly().add(event) for event in MESSAGE_EVENTS]
    texts = [
        event
        for event, is_generated in zip(MESSAGE_EVENTS, generated, strict=True)
        if is_generated and event["type"] == "content_block_delta"
    ]
    assert {event["delta"]["type"] for event in texts} == {"thinking_delta", "text_delta", "input_json_delta", "d"}
    starts = [
        event for event in MESSAGE_EVENTS if MessagesAssembly().add(event) and event["type"] == "content_block_start"
    ]
    assert [event["content_block"]["type"] for event in starts] == ["tool_use", "tool_use"]


def test_an_anthropic_error_is_kept() -> None:
    assembly = MessagesAssembly()
    assembly.add({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    assert assembly.error == {"type": "overloaded_error", "message": "Overloaded"}


# Other streams


def test_an_unknown_stream_gives_usage_and_model_wherever_they_are() -> None:
    assembly = AnyAssembly()
    assert assembly.add({"type": "transcript.text.delta", "delta": "Hi"})
    assert assembly.add({"type": "speech.audio.delta", "audio": "QQ=="})
    assert not assembly.add({"type": "transcript.text.delta", "delta": ""})
    assembly.add({"response": {"model": "m", "usage": {"input_tokens": 1}}})
    assert (assembly.model, assembly.usage, assembly.result()) == ("m", {"input_tokens": 1}, None)


# Anything at all

ASSEMBLIES: list[Callable[[], Assembly]] = [
    ChatAssembly,
    lambda: ChatAssembly("text_completion"),
    ResponsesAssembly,
    MessagesAssembly,
    AnyAssembly,
]
WORDS = sorted(
    {
        *(
            "choices",
            "index",
            "delta",
            "message",
            "text",
            "logprobs",
            "content",
            "role",
            "tool_calls",
            "function",
            "name",
        ),
        *("arguments", "id", "type", "audio", "data", "usage", "model", "error", "response", "item", "output_index"),
        *("content_index", "content_block", "partial_json", "citation", "citations", "thinking", "output", "summary"),
        *("response.output_text.delta", "response.output_item.added", "response.output_item.done", "message_start"),
        *("response.function_call_arguments.delta", "response.completed", "message_delta", "content_block_start"),
        *("content_block_delta", "message_stop", "tool_use", "object", "created", "function_call", "reasoning_details"),
    }
)
words = st.sampled_from(WORDS)
scalars = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | words | st.just("") | st.just("=")
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5), max_leaves=12
)
choice_like = st.fixed_dictionaries({}, optional={"index": scalars, "delta": values, "text": values, "message": values})
event_like = st.fixed_dictionaries(
    {},
    optional={
        "type": words | values,
        "choices": st.lists(choice_like | values, max_size=3) | values,
        "delta": values,
        "index": scalars,
        "output_index": scalars,
        "content_block": values,
        "message": values,
        "item": values,
        "response": values,
        "usage": values,
    },
)
events = event_like | st.dictionaries(words, values, max_size=5)


@settings(max_examples=300)
@given(st.lists(events, max_size=6))
def test_no_object_makes_an_assembly_fail(events: list[dict[str, Any]]) -> None:
    for make in ASSEMBLIES:
        assembly = make()
        for event in events:
            assert isinstance(assembly.add(copy.deepcopy(event)), bool)
        result = assembly.result()
        assert json.loads(json.dumps(result)) == result
        assert assembly.usage is None or isinstance(assembly.usage, dict)
        assert assembly.model is None or isinstance(assembly.model, str)


@pytest.mark.parametrize("make", ASSEMBLIES)
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"content":', "}"), ('[{"index":0,"content":', "}]")])
def test_deep_nesting_does_not_exhaust_the_stack(make: Callable[[], Assembly], brackets: tuple[str, str]) -> None:
    depth = 300
    deep = brackets[0] * depth + "1" + brackets[1] * depth
    template = """{"type":"%s","choices":[{"index":0,"delta":%s,"logprobs":{"content":%s},"text":%s}],
        "delta":{"text":%s},"content_block":{"input":%s},"response":{"x":%s},"item":{"x":%s},"message":{"content":%s}}"""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        nested = [parse(template % (kind, *[deep] * 8)) for kind in WORDS]
    finally:
        sys.setrecursionlimit(limit)
    assembly = make()
    for event in nested * 2:
        assembly.add(event)
    assembly.result()


class Slow(ChatAssembly):
    """Looks at each chunk as if nothing like it had come before."""

    def add(self, event: dict[str, Any]) -> bool:
        self._around = None
        self._choice_around.clear()
        return super().add(event)


_maybe = st.sampled_from
_choices = st.fixed_dictionaries(
    {"delta": _maybe([{"content": "a"}, {"content": "b"}, {"content": ""}, {"content": None}, {"role": "assistant"}, {},
                      {"content": "c", "role": "assistant"}, {"content": [{"type": "text", "text": "d"}]},
                      {"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]}, None])},
    optional={"index": _maybe([0, 0, 0, 1]), "finish_reason": _maybe([None, "stop"]),
              "logprobs": _maybe([None, {"content": [1]}]), "text": st.just("t")},
)  # fmt: skip
_events = st.fixed_dictionaries(
    {"choices": st.lists(_choices, max_size=2)},
    optional={"id": _maybe(["i", "j"]), "model": _maybe(["m", "n", None]), "usage": _maybe([None, {"n": 1}, {"n": 2}]),
              "error": _maybe([None, {"code": 1}])},
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(_events, max_size=10))
def test_what_repeats_what_came_before_is_read_no_other_way(events: list[dict[str, Any]]) -> None:
    fast, slow = ChatAssembly(), Slow()
    for event in events:
        assert fast.add(copy.deepcopy(event)) == slow.add(copy.deepcopy(event))
    assert fast.result() == slow.result()
    assert (fast.usage, fast.model, fast.error) == (slow.usage, slow.model, slow.error)
