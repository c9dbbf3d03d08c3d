"""Puts the events of a stream together into the answer that the same call would have given without streaming.

One assembly per dialect. `add` takes one event's JSON and tells whether it carries generated content: text,
reasoning, a refusal, a tool call or audio. Role-only, empty and usage chunks and pings do not.
"""

import base64
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

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
# What a delta names beside the content itself.
_LABELS = _WHOLE | {"expires_at", "signature"}
# Content parts that come in pieces without an index, as Mistral sends them.
_GROWING_PARTS = ("text", "thinking")
# Deltas nest less; what is deeper is kept as it came, so that no answer can exhaust the stack.
_DEPTH = 8


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


class _Object(dict[str, Any]):
    """An object that deltas add to. A plain dict is a value that came whole."""


class _List(list[Any]):
    """A list that deltas add to."""


class ChatAssembly:
    """Chat completions and text completions (OpenAI's `chat.completion.chunk` and `text_completion`)."""

    def __init__(self, kind: str = "chat.completion") -> None:
        self.usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.error: Any = None
        self.done = False
        self._kind = kind
        self._head: dict[str, Any] = {}
        self._choices: dict[int, _Object] = {}

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
        whole = self._choices.setdefault(index, _Object(index=index))
        pieces = {name: value for name, value in choice.items() if _is_piece(name, value)}
        _merge(whole, pieces)
        for name, value in choice.items():
            if name not in pieces and name not in ("index", "delta") and (value is not None or name not in whole):
                whole[name] = value
        delta = pieces.get("delta")
        if delta is None:
            return bool(choice.get("text"))
        return any(_is_generated(delta.get(name)) for name in _GENERATED)

    def result(self) -> dict[str, Any] | None:
        if not self._head and not self._choices:
            return None
        answer = {
            **self._head,
            "object": self._kind,
            "choices": [_finished(_joined(self._choices[index])) for index in sorted(self._choices)],
        }
        if self.usage is not None:
            answer["usage"] = self.usage
        return answer


def _is_piece(name: str, value: Any) -> bool:
    """Whether a choice's member adds to what came before, or else replaces it."""
    return isinstance(value, dict) if name in ("delta", "logprobs") else name == "text" and isinstance(value, str)


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice as it is when not streamed."""
    message = choice.pop("delta", None)
    if not message:
        # Some repeat the message so far beside each delta; it counts only where no delta came.
        message = choice.get("message", message)
    if not isinstance(message, dict):
        return choice
    message = {"role": "assistant", "content": None, **message}
    if isinstance(calls := message.get("tool_calls"), list):
        message["tool_calls"] = [_without_index(call) for call in calls]
    return {**choice, "message": message}


def _without_index(call: Any) -> Any:
    return {name: value for name, value in call.items() if name != "index"} if isinstance(call, dict) else call


@dataclass(slots=True)
class _Item:
    """One output item of a response. `parts`: by list and place in it, the part's type and where its text goes."""

    head: dict[str, Any]
    whole: bool = False
    texts: dict[str, _Text] = field(default_factory=dict)
    parts: dict[tuple[str, int], tuple[str, str, _Text]] = field(default_factory=dict)

    def result(self) -> dict[str, Any]:
        if self.whole:
            return self.head
        item = {**self.head, **{name: "".join(text) for name, text in self.texts.items()}}
        for holder in {holder for holder, _ in self.parts}:
            item[holder] = []
        for (holder, _), (kind, name, text) in sorted(self.parts.items(), key=lambda entry: entry[0]):
            item[holder].append({"type": kind, name: "".join(text)})
        return item


class ResponsesAssembly:
    """OpenAI's Responses API: the closing event holds the whole response; until it comes, the items so far.

    https://platform.openai.com/docs/api-reference/responses-streaming
    """

    _CLOSING = ("response.completed", "response.incomplete", "response.failed")
    # Delta event → the item's list of parts, the event's member that tells the place in it, the part's type, its text.
    _PARTS: ClassVar = {
        "response.output_text.delta": ("content", "content_index", "output_text", "text"),
        "response.refusal.delta": ("content", "content_index", "refusal", "refusal"),
        "response.reasoning_text.delta": ("content", "content_index", "reasoning_text", "text"),
        "response.reasoning_summary_text.delta": ("summary", "summary_index", "summary_text", "text"),
    }
    # Delta event → the item's member.
    _TEXTS: ClassVar = {
        "response.function_call_arguments.delta": "arguments",
        "response.mcp_call_arguments.delta": "arguments",
        "response.custom_tool_call_input.delta": "input",
        "response.code_interpreter_call_code.delta": "code",
    }

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.error: Any = None
        self.done = False
        self._response: dict[str, Any] | None = None
        self._items: dict[int, _Item] = {}

    def add(self, event: dict[str, Any]) -> bool:
        kind = event.get("type")
        if not isinstance(kind, str):
            return False
        if isinstance(response := event.get("response"), dict):
            self._add_response(kind, response)
        elif kind == "error":
            self.error = event.get("error") or event
        elif kind in ("response.output_item.added", "response.output_item.done"):
            if isinstance(item := event.get("item"), dict):
                self._items[_index(event, "output_index")] = _Item(item, whole=kind.endswith(".done"))
        elif kind.endswith(".delta") and (delta := event.get("delta")):
            if isinstance(delta, str):
                self._add_text(kind, event, delta)
            return True
        return False

    def _add_response(self, kind: str, response: dict[str, Any]) -> None:
        self._response = response
        self.done = self.done or kind in self._CLOSING
        if isinstance(response.get("usage"), dict):
            self.usage = response["usage"]
        if isinstance(response.get("model"), str):
            self.model = response["model"]
        if response.get("error"):
            self.error = response["error"]

    def _add_text(self, kind: str, event: dict[str, Any], text: str) -> None:
        if kind not in self._PARTS and kind not in self._TEXTS:
            return
        blank = _Item({"type": "message", "role": "assistant"})
        item = self._items.setdefault(_index(event, "output_index"), blank)
        if kind in self._TEXTS:
            item.texts.setdefault(self._TEXTS[kind], _Text()).append(text)
            return
        holder, place, part, name = self._PARTS[kind]
        item.parts.setdefault((holder, _index(event, place)), (part, name, _Text()))[2].append(text)

    def result(self) -> dict[str, Any] | None:
        if self.done or not self._items:
            return self._response
        output = [self._items[index].result() for index in sorted(self._items)]
        return {**(self._response or {"object": "response"}), "output": output}


class MessagesAssembly:
    """Anthropic's Messages API (https://docs.anthropic.com/en/docs/build-with-claude/streaming)."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self.model: str | None = None
        self.error: Any = None
        self.done = False
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, _Object] = {}

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
            self._blocks[_index(event, "index")] = _Object(block)
            return bool(block.get("text") or block.get("thinking")) or str(block.get("type")).endswith("tool_use")
        elif kind == "content_block_delta" and isinstance(delta := event.get("delta"), dict):
            return self._add_delta(self._blocks.setdefault(_index(event, "index"), _Object()), delta)
        return False

    def _add_delta(self, block: _Object, delta: dict[str, Any]) -> bool:
        generated = False
        for name, value in delta.items():
            old = block.get(name)
            if name == "citation":
                citations = block.get("citations")
                if not isinstance(citations, _List):
                    block["citations"] = citations = _List(citations if isinstance(citations, list) else ())
                citations.append(value)
            elif name != "type" and isinstance(value, str):
                block[name] = _appended(old, value)
                generated = generated or (bool(value) and name != "signature")
        return generated

    def _add_usage(self, usage: Any) -> None:
        # message_delta repeats the counts that have changed; what it does not name still stands.
        if isinstance(usage, dict):
            self.usage = {**(self.usage or {}), **{name: value for name, value in usage.items() if value is not None}}

    def result(self) -> dict[str, Any] | None:
        if self._message is None and not self._blocks:
            return None
        blocks = [_joined(self._blocks[index]) for index in sorted(self._blocks)]
        head = self._message or {"type": "message", "role": "assistant"}
        answer = {**head, "content": [_with_input(block) for block in blocks]}
        if self.usage is not None:
            answer["usage"] = self.usage
        return answer


def _with_input(block: dict[str, Any]) -> dict[str, Any]:
    """A block whose input came as pieces of JSON; of a cut one, the text that came."""
    text = block.pop("partial_json", None)
    if isinstance(text, str) and text:
        value = parse_or_none(text)
        block["input"] = text if value is None else value
    return block


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
        return any(isinstance(event.get(name), str) and event[name] != "" for name in ("delta", "audio"))

    def result(self) -> dict[str, Any] | None:
        return None


def _index(event: dict[str, Any], name: str) -> int:
    index = event.get(name)
    return index if isinstance(index, int) else 0


def _is_generated(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a delta's value holds more than labels and empty texts."""
    if depth and isinstance(value, dict):
        return any(_is_generated(item, depth - 1) for name, item in value.items() if name not in _LABELS)
    if depth and isinstance(value, list):
        return any(_is_generated(item, depth - 1) for item in value)
    return bool(value)


def _merge(whole: _Object, delta: dict[str, Any], depth: int = _DEPTH) -> None:
    for name, value in delta.items():
        old = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(old, _List) and isinstance(value, str):
            _merge_list(old, [{"type": "text", "text": value}], depth)
        elif isinstance(value, str) and name not in _WHOLE:
            # Some providers repeat a function's whole name with every piece of its arguments.
            if name != "name" or not isinstance(old, _Text) or "".join(old) != value:
                whole[name] = _appended(old, value)
        elif isinstance(value, dict) and depth:
            if not isinstance(old, _Object):
                whole[name] = old = _Object()
            _merge(old, value, depth - 1)
        elif isinstance(value, list) and depth:
            if not isinstance(old, _List):
                said = isinstance(old, _Text) and any(old)
                whole[name] = old = _List([_Object(type="text", text=old)] if said else ())
            _merge_list(old, value, depth)
        elif value != "" or old is None:
            whole[name] = value


def _merge_list(whole: _List, delta: list[Any], depth: int) -> None:
    for item in delta:
        if not isinstance(item, dict) or not _grows(item):
            whole.append(item)
            continue
        known = _continued(whole, item)
        if known is None:
            known = _Object()
            whole.append(known)
        _merge(known, item, depth - 1)


def _grows(item: dict[str, Any]) -> bool:
    return isinstance(item.get("index"), int) or item.get("type") in _GROWING_PARTS


def _continued(whole: _List, item: dict[str, Any]) -> _Object | None:
    """The item of a list that a delta's item adds to."""
    candidates = whole if isinstance(item.get("index"), int) else whole[-1:]
    for old in candidates:
        same_type = not item.get("type") or not old.get("type") or item["type"] == old["type"]
        if isinstance(old, _Object) and old.get("index") == item.get("index") and same_type:
            return old
    return None


def _appended(old: Any, piece: str) -> _Text:
    text = old if isinstance(old, _Text) else _Text([old] if isinstance(old, str) else ())
    text.append(piece)
    return text


def _joined(value: Any, name: str = "") -> Any:
    if isinstance(value, _Text):
        return _joined_base64(value) if name == "data" else "".join(value)
    if isinstance(value, _Object):
        return {key: _joined(item, key) for key, item in value.items()}
    if isinstance(value, _List):
        items = [_joined(item) for item in value]
        if all(isinstance(item, dict) and isinstance(item.get("index"), int) for item in items):
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
    except ValueError:
        return text
