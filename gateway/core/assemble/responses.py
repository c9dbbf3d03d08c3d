"""Responses, from their events."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from gateway.core.assemble.assembly import Assembly
from gateway.core.assemble.pieces import Text, place_in


@dataclass(slots=True)
class _Item:
    """One output item of a response. `parts`: by list and place in it, the part's type and where its text goes."""

    head: dict[str, Any]
    whole: bool = False
    texts: dict[str, Text] = field(default_factory=dict)
    parts: dict[tuple[str, int], tuple[str, str, Text]] = field(default_factory=dict)

    def result(self) -> dict[str, Any]:
        if self.whole:
            return self.head
        item = {**self.head, **{name: "".join(text) for name, text in self.texts.items()}}
        for holder in {holder for holder, _ in self.parts}:
            item[holder] = []
        for (holder, _), (kind, name, text) in sorted(self.parts.items(), key=lambda entry: entry[0]):
            item[holder].append({"type": kind, name: "".join(text)})
        return item


class ResponsesAssembly(Assembly):
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
        super().__init__()
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
                self._items[place_in(event, "output_index")] = _Item(item, whole=kind.endswith(".done"))
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
        item = self._items.setdefault(place_in(event, "output_index"), blank)
        if kind in self._TEXTS:
            item.texts.setdefault(self._TEXTS[kind], Text()).append(text)
            return
        holder, place, part, name = self._PARTS[kind]
        item.parts.setdefault((holder, place_in(event, place)), (part, name, Text()))[2].append(text)

    def result(self) -> dict[str, Any] | None:
        if self.done or not self._items:
            return self._response
        output = [self._items[index].result() for index in sorted(self._items)]
        return {**(self._response or {"object": "response"}), "output": output}
