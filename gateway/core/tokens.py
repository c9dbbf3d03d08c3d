"""Which texts of a span are to be counted, where the provider reported no usage.

For chats this is the formula of OpenAI's cookbook, "How to count tokens with tiktoken": three tokens around each
message, one for a name, three that open the answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.core.jsontext import dump

# Types whose prompt and completion are tokens, and the one that has a prompt only.
GENERATING = frozenset({"chat", "completion", "text", "response", "generation"})
EMBEDDING = "embedding"

_PER_MESSAGE = 3
_PER_NAME = 1
_OPENING_ANSWER = 3
_BYTES_PER_TOKEN = 4
_TEXT_KEYS = ("text", "content", "refusal", "reasoning", "reasoning_content", "thinking", "input_text", "output_text")


@dataclass(frozen=True, slots=True)
class Countable:
    """Texts whose tokens add up, and tokens that come on top of them."""

    texts: tuple[str, ...]
    extra: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """How many tokens, and by which tokenizer: an encoding's name, or `length` for an estimate from the size."""

    tokens: int
    tokenizer: str


def prompt(log_type: str, value: Any, tools: Any = None) -> Countable:
    """What to count of a prompt of any shape."""
    if log_type == EMBEDDING and (number := _token_ids(value)) is not None:
        return Countable((), number)
    extra_texts = (dump(tools),) if tools else ()
    if log_type in ("chat", "generation", "response") and isinstance(value, list):
        messages = [item if isinstance(item, dict) else {"content": item} for item in value]
        named = sum(1 for message in messages if message.get("name"))
        extra = _PER_MESSAGE * len(messages) + _PER_NAME * named + _OPENING_ANSWER
        texts = [text for message in messages for text in (*_strings(message, "role", "name"), *_texts(message))]
        return Countable((*texts, *extra_texts), extra)
    if log_type == "chat":
        texts = ["user", *_texts(value)]
        return Countable((*texts, *extra_texts), _PER_MESSAGE + _OPENING_ANSWER)
    return Countable((*_texts(value), *extra_texts))


def completion(value: Any) -> Countable:
    """What to count of an answer of any shape."""
    return Countable(tuple(_texts(value)))


def estimate(texts: tuple[str, ...]) -> Counted:
    """A count from the length alone, for when there is no tokenizer: four bytes a token."""
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return Counted(-(-size // _BYTES_PER_TOKEN), "length")


def _texts(value: Any) -> Iterator[str]:
    """The text of messages, parts, tool calls and items; of anything else its JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        known = [name for name in _TEXT_KEYS if value.get(name)]
        calls = [call for call in _list(value.get("tool_calls")) if isinstance(call, dict)]
        function = value.get("function") or value.get("function_call")
        for name in known:
            yield from _texts(value[name])
        for call in calls:
            yield from _texts(call)
        if isinstance(function, dict):
            yield from _strings(function, "name", "arguments")
        elif "arguments" in value:
            yield from _strings(value, "name", "arguments")
        elif not known and not calls and "role" not in value and value.get("type") in (None, "tool_use", "json"):
            yield dump(value)
    elif value is not None:
        yield dump(value)


def _token_ids(value: Any) -> int | None:
    """How many tokens an embedding's input has that came as token ids, or lists of them."""
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, int) for item in value):
        return len(value)
    counts = [_token_ids(item) if isinstance(item, list) else None for item in value]
    return sum(number for number in counts if number is not None) if None not in counts else None


def _strings(value: dict[str, Any], *names: str) -> Iterator[str]:
    for name in names:
        if isinstance(text := value.get(name), str):
            yield text


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
