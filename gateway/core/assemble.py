"""Puts the events of a stream together into the answer that the same call would have given without streaming.

One assembly per dialect. `add` takes one event's JSON and tells whether it carries generated content: text,
reasoning, a refusal, a tool call or audio. Role-only, empty and usage chunks and pings do not.
"""

import base64
import binascii
from typing import Any, Protocol

from gateway.core.jsontext import parse_or_none

# What a delta generates, in the names that the providers use.
_GENERATED = (
    "content",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "thinking",
    "refusal",
    "tool_calls",
    "function_call",
    "audio",
)
# These are said once or repeated whole; everything else that is text comes in pieces.
_WHOLE = frozenset({"role", "id", "type", "index", "object", "format"})


class Assembly(Protocol):
    """`usage`, `model` and `error` are the last that any event named; `done`: the closing event has come."""

    usage: dict[str, Any] | None
    model: str | None
    error: Any
    done: bool

    def add(self, event: dict[str, Any]) -> bool: ...

    def result(self) -> dict[str, Any] | None:
        """The answer as far as it has come, or None if no event was understood."""
        ...


class _Text(list[str]):
    """Text in pieces: appending to a list keeps a long answer linear."""


class ChatAssembly:
    """Chat completions and text completions (OpenAI's `chat.completion.chunk` and `text_completion`)."""

    def __init__(self, kind: str = "chat.completion") -> None:
        self.usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.error: Any = None
        self.done = False
        self._kind = kind
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, event: dict[str, Any]) -> bool:
        if event.get("error"):
            self.error = event["error"]
        choices = event.get("choices")
        if not isinstance(choices, list):
            if not isinstance(event.get("usage"), dict):
                return False
            choices = []
        for name, value in event.items():
            if name not in ("choices", "usage", "obfuscation") and (value is not None or name not in self._head):
                self._head[name] = value
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        if isinstance(event.get("model"), str):
            self.model = event["model"]
        generated = [self._add_choice(position, choice) for position, choice in enumerate(choices)]
        return any(generated)

    def _add_choice(self, position: int, choice: Any) -> bool:
        if not isinstance(choice, dict):
            return False
        index = choice.get("index")
        index = index if isinstance(index, int) else position
        whole = self._choices.setdefault(index, {"index": index})
        for name, value in choice.items():
            if name == "delta":
                if isinstance(value, dict):
                    _merge(whole.setdefault("message", {}), value)
            elif name == "text" and isinstance(value, str):
                whole.setdefault("text", _Text()).append(value)
            elif name == "logprobs" and isinstance(value, dict):
                if not isinstance(whole.get("logprobs"), dict):
                    whole["logprobs"] = {}
                _merge(whole["logprobs"], value)
            elif name != "index" and (value is not None or name not in whole):
                whole[name] = value
        delta = choice.get("delta")
        if isinstance(delta, dict):
            return any(_is_generated(delta.get(name)) for name in _GENERATED)
        return bool(choice.get("text"))

    def result(self) -> dict[str, Any] | None:
        if not self._head and not self._choices:
            return None
        answer = {**self._head, "object": self._kind}
        choices: list[dict[str, Any]] = [_joined(self._choices[index]) for index in sorted(self._choices)]
        for choice in choices:
            if isinstance(message := choice.get("message"), dict):
                message.setdefault("role", "assistant")
                message.setdefault("content", None)
                for call in message.get("tool_calls") or ():
                    if isinstance(call, dict):
                        call.pop("index", None)
        answer["choices"] = choices
        if self.usage is not None:
            answer["usage"] = self.usage
        return answer


class ResponsesAssembly:
    """OpenAI's Responses API: the closing event holds the whole response; until it comes, the items done so far.

    https://platform.openai.com/docs/api-reference/responses-streaming
    """

    _CLOSING = ("response.completed", "response.incomplete", "response.failed")

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.error: Any = None
        self.done = False
        self._response: dict[str, Any] | None = None
        self._items: dict[int, dict[str, Any]] = {}
        self._texts: dict[tuple[int, int], _Text] = {}

    def add(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if not isinstance(kind, str):
            return False
        response = event.get("response")
        if isinstance(response, dict):
            self._response = response
            self.done = self.done or kind in self._CLOSING
            if isinstance(response.get("usage"), dict):
                self.usage = response["usage"]
            if isinstance(response.get("model"), str):
                self.model = response["model"]
            if response.get("error"):
                self.error = response["error"]
        elif kind == "error":
            self.error = event.get("error") or event
        index = event.get("output_index")
        index = index if isinstance(index, int) else 0
        if kind == "response.output_item.done" and isinstance(event.get("item"), dict):
            self._items[index] = event["item"]
        delta = event.get("delta")
        if not kind.endswith(".delta") or not delta:
            return False
        if kind == "response.output_text.delta" and isinstance(delta, str):
            part = event.get("content_index")
            self._texts.setdefault((index, part if isinstance(part, int) else 0), _Text()).append(delta)
        return True

    def result(self) -> dict[str, Any] | None:
        if self._response is None or self.done or not (self._items or self._texts):
            return self._response
        items = dict(self._items)
        for (index, _), text in sorted(self._texts.items()):
            if index not in self._items:
                item = items.setdefault(index, {"type": "message", "role": "assistant", "content": []})
                item["content"].append({"type": "output_text", "text": "".join(text)})
        return {**self._response, "output": [items[index] for index in sorted(items)]}


class MessagesAssembly:
    """Anthropic's Messages API (https://docs.anthropic.com/en/docs/build-with-claude/streaming)."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.error: Any = None
        self.done = False
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, dict[str, Any]] = {}

    def add(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if kind == "message_start" and isinstance(message := event.get("message"), dict):
            self._message = dict(message)
            self._add_usage(message.get("usage"))
            if isinstance(message.get("model"), str):
                self.model = message["model"]
        elif kind == "message_delta":
            if self._message is not None and isinstance(delta := event.get("delta"), dict):
                self._message.update(delta)
            self._add_usage(event.get("usage"))
        elif kind == "message_stop":
            self.done = True
        elif kind == "error":
            self.error = event.get("error") or event
        elif kind == "content_block_start" and isinstance(block := event.get("content_block"), dict):
            self._blocks[_index(event)] = {
                name: _Text([value]) if isinstance(value, str) and name in ("text", "thinking") else value
                for name, value in block.items()
            }
            return any(block.get(name) for name in ("text", "thinking")) or block.get("type") == "tool_use"
        elif kind == "content_block_delta" and isinstance(delta := event.get("delta"), dict):
            return self._add_delta(self._blocks.setdefault(_index(event), {}), delta)
        return False

    def _add_delta(self, block: dict[str, Any], delta: dict[str, Any]) -> bool:
        generated = False
        for name, value in delta.items():
            if name == "type":
                continue
            if name == "citation":
                block["citations"] = [*(block.get("citations") or []), value]
            elif isinstance(value, str):
                pieces = block.setdefault(name, _Text())
                if isinstance(pieces, _Text):
                    pieces.append(value)
                else:
                    block[name] = value
                generated = generated or (bool(value) and name != "signature")
        return generated

    def _add_usage(self, usage: Any) -> None:
        # message_delta repeats the counts that have changed; what it does not name still stands.
        if isinstance(usage, dict):
            self.usage = {**(self.usage or {}), **{name: value for name, value in usage.items() if value is not None}}

    def result(self) -> dict[str, Any] | None:
        if self._message is None:
            return None
        content: list[dict[str, Any]] = []
        for index in sorted(self._blocks):
            block = _joined(self._blocks[index])
            if "partial_json" in block:
                text = block.pop("partial_json")
                value = parse_or_none(text) if text else {}
                block["input"] = text if value is None else value
            content.append(block)
        answer = {**self._message, "content": content}
        if self.usage is not None:
            answer["usage"] = self.usage
        return answer


class AnyAssembly:
    """A stream in no dialect we know: usage and model wherever an event names them."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.error: Any = None
        self.done = False

    def add(self, event: dict[str, Any]) -> bool:
        for holder in (event, event.get("response"), event.get("message")):
            if isinstance(holder, dict):
                if isinstance(holder.get("usage"), dict):
                    self.usage = holder["usage"]
                if isinstance(holder.get("model"), str):
                    self.model = holder["model"]
        if event.get("error"):
            self.error = event["error"]
        return isinstance(event.get("delta"), str) and bool(event["delta"])

    def result(self) -> dict[str, Any] | None:
        return None


def _index(event: dict[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0


def _is_generated(value: Any) -> bool:
    if isinstance(value, dict):
        return any(bool(item) for name, item in value.items() if name not in ("id", "expires_at"))
    return bool(value)


def _merge(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        old = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, str) and name not in _WHOLE:
            if isinstance(old, _Text):
                # Some providers repeat a function's whole name with every piece of its arguments.
                if name != "name" or "".join(old) != value:
                    old.append(value)
            else:
                whole[name] = _Text([value])
        elif isinstance(value, dict):
            if not isinstance(old, dict):
                whole[name] = old = {}
            _merge(old, value)
        elif isinstance(value, list):
            if not isinstance(old, list) or isinstance(old, _Text):
                whole[name] = old = []
            _merge_list(old, value)
        elif value != "" or old is None:
            whole[name] = value


def _merge_list(whole: list[Any], delta: list[Any]) -> None:
    for item in delta:
        index = item.get("index") if isinstance(item, dict) else None
        if isinstance(index, int):
            known = next((old for old in whole if isinstance(old, dict) and old.get("index") == index), None)
            if known is None:
                known = {}
                whole.append(known)
            _merge(known, item)
        else:
            whole.append(item)


def _joined(value: Any, name: str = "") -> Any:
    if isinstance(value, _Text):
        return _joined_base64(value) if name == "data" else "".join(value)
    if isinstance(value, dict):
        return {key: _joined(item, key) for key, item in value.items()}
    if isinstance(value, list):
        items = [_joined(item) for item in value]
        if items and all(isinstance(item, dict) and isinstance(item.get("index"), int) for item in items):
            items.sort(key=lambda item: int(item["index"]))
        return items
    return value


def _joined_base64(pieces: list[str]) -> str:
    """Audio comes as base64, each piece encoded by itself; padding inside must go."""
    text = "".join(pieces)
    if "=" not in text.rstrip("="):
        return text
    try:
        return base64.b64encode(b"".join(base64.b64decode(piece, validate=True) for piece in pieces)).decode()
    except binascii.Error:
        return text
