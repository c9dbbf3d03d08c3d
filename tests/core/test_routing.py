"""What a request is about."""

from typing import Any

import pytest

from gateway.core.routing import input_of, kind_of, output_of


@pytest.mark.parametrize(
    ("path", "log_type", "is_chat", "has_usage_chunk", "is_json"),
    [
        ("/chat/completions", "chat", True, True, True),
        ("chat/completions/", "chat", True, True, True),
        ("/completions", "completion", False, True, True),
        ("/embeddings", "embedding", False, False, True),
        ("/responses", "response", False, False, True),
        ("/messages", "chat", False, False, True),
        ("/audio/speech", "speech", False, False, False),
        ("/audio/transcriptions", "transcription", False, False, False),
        ("/audio/translations", "transcription", False, False, False),
        ("/messages/count_tokens", "other", False, False, False),
        ("/responses/resp_1/cancel", "other", False, False, False),
        ("/images/generations", "other", False, False, False),
        ("/", "other", False, False, False),
    ],
)
def test_the_kind_is_told_by_the_path(
    path: str, log_type: str, is_chat: bool, has_usage_chunk: bool, is_json: bool
) -> None:
    kind = kind_of(path)
    assert kind.log_type == log_type
    assert (kind.is_chat, kind.has_usage_chunk, kind.is_json) == (is_chat, has_usage_chunk, is_json)


MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("chat/completions", {"messages": MESSAGES}, MESSAGES),
        ("completions", {"prompt": "Hi"}, "Hi"),
        ("embeddings", {"input": ["a", "b"]}, ["a", "b"]),
        ("responses", {"input": "Hi"}, "Hi"),
        ("messages", {"messages": MESSAGES}, MESSAGES),
        ("messages", {"messages": MESSAGES, "system": "Be"}, [{"role": "system", "content": "Be"}, *MESSAGES]),
        ("messages", {"messages": "nonsense", "system": "Be"}, "nonsense"),
        ("audio/speech", {"input": "Hi"}, "Hi"),
        ("audio/transcriptions", {"model": "m"}, None),
        ("images/generations", {"prompt": "Hi"}, None),
    ],
)
def test_the_input(path: str, body: dict[str, Any], expected: Any) -> None:
    assert input_of(kind_of(path), body) == expected
    assert input_of(kind_of(path), {}) is None


MESSAGE = {"role": "assistant", "content": "Hi"}


@pytest.mark.parametrize(
    ("path", "response", "expected"),
    [
        ("chat/completions", {"choices": [{"message": MESSAGE}]}, MESSAGE),
        ("chat/completions", {"choices": [{"message": MESSAGE}] * 2}, [MESSAGE] * 2),
        ("chat/completions", {"choices": [None, 7, {"message": MESSAGE}]}, MESSAGE),
        ("completions", {"choices": [{"text": "a"}]}, "a"),
        ("completions", {"choices": [{"text": "a"}, {"text": "b"}]}, ["a", "b"]),
        ("embeddings", {"data": [{"embedding": [0.5]}, {"embedding": "AAAA"}]}, [[0.5], "AAAA"]),
        ("responses", {"output": [{"type": "message"}]}, [{"type": "message"}]),
        ("messages", {"content": [{"type": "text"}]}, {"role": "assistant", "content": [{"type": "text"}]}),
        ("audio/transcriptions", {"text": "Hi"}, "Hi"),
        ("images/generations", {"data": []}, None),
    ],
)
def test_the_output(path: str, response: dict[str, Any], expected: Any) -> None:
    kind = kind_of(path)
    assert output_of(kind, response) == expected
    nothing: list[Any] = [None, "text", [], {}, {"choices": 7, "data": 7}, {"choices": [], "data": []}]
    for nonsense in nothing:
        assert output_of(kind, nonsense) is None
