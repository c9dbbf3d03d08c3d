"""Anthropic's messages, from their events."""

from typing import Any

from gateway.core.assemble.assembly import Assembly
from gateway.core.assemble.pieces import List, Object, appended, joined, place_in
from gateway.core.jsontext import parse_or_none


class MessagesAssembly(Assembly):
    """Anthropic's Messages API (https://docs.anthropic.com/en/docs/build-with-claude/streaming)."""

    def __init__(self) -> None:
        super().__init__()
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, Object] = {}

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
            self._blocks[place_in(event, "index")] = Object(block)
            return bool(block.get("text") or block.get("thinking")) or str(block.get("type")).endswith("tool_use")
        elif kind == "content_block_delta" and isinstance(delta := event.get("delta"), dict):
            return self._add_delta(self._blocks.setdefault(place_in(event, "index"), Object()), delta)
        return False

    def _add_delta(self, block: Object, delta: dict[str, Any]) -> bool:
        generated = False
        for name, value in delta.items():
            old = block.get(name)
            if name == "citation":
                citations = block.get("citations")
                if not isinstance(citations, List):
                    block["citations"] = citations = List(citations if isinstance(citations, list) else ())
                citations.append(value)
            elif name != "type" and isinstance(value, str):
                block[name] = appended(old, value)
                generated = generated or (bool(value) and name != "signature")
        return generated

    def _add_usage(self, usage: Any) -> None:
        # message_delta repeats the counts that have changed; what it does not name still stands.
        if isinstance(usage, dict):
            self.usage = {**(self.usage or {}), **{name: value for name, value in usage.items() if value is not None}}

    def result(self) -> dict[str, Any] | None:
        if self._message is None and not self._blocks:
            return None
        blocks = [joined(self._blocks[index]) for index in sorted(self._blocks)]
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
