"""Chat completions and text completions, from their chunks."""

from typing import Any

from gateway.core.assemble.assembly import Assembly
from gateway.core.assemble.pieces import Object, Text, is_generated, joined, merge

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


class ChatAssembly(Assembly):
    """Chat completions and text completions (OpenAI's `chat.completion.chunk` and `text_completion`)."""

    def __init__(self, kind: str = "chat.completion") -> None:
        super().__init__()
        self._kind = kind
        self._head: dict[str, Any] = {}
        self._choices: dict[int, Object] = {}
        # What stood around the last delta: where it is the same again, there is only the delta to be added.
        self._around: dict[str, Any] | None = None
        self._choice_around: dict[int, dict[str, Any]] = {}

    def add(self, event: dict[str, Any]) -> bool:
        choices = event.pop("choices", None)
        if event == self._around and type(choices) is list:
            generated = [self._add_choice(position, choice) for position, choice in enumerate(choices)]
            return any(generated)
        self._around = None
        if event.get("error"):
            self.error = event["error"]
        if not isinstance(choices, list):
            if not isinstance(event.get("usage"), dict):
                return False
            choices = []
        for name, value in event.items():
            if name not in ("usage", "obfuscation") and (value is not None or name not in self._head):
                self._head[name] = value
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        if isinstance(event.get("model"), str):
            self.model = event["model"]
        self._around = event
        generated = [self._add_choice(position, choice) for position, choice in enumerate(choices)]
        return any(generated)

    def _add_choice(self, position: int, choice: Any) -> bool:
        if not isinstance(choice, dict):
            return False
        index = choice.get("index")
        index = index if isinstance(index, int) else position
        if (added := self._add_text(index, choice)) is not None:
            return added
        whole = self._choices.setdefault(index, Object(index=index))
        pieces = {name: value for name, value in choice.items() if _is_piece(name, value)}
        merge(whole, pieces)
        for name, value in choice.items():
            if name not in pieces and name not in ("index", "delta") and (value is not None or name not in whole):
                whole[name] = value
        delta = pieces.pop("delta", None)
        if pieces:
            self._choice_around.pop(index, None)
        else:
            self._choice_around[index] = {name: value for name, value in choice.items() if name != "delta"}
        if delta is None:
            return bool(choice.get("text"))
        return any(is_generated(delta.get(name)) for name in _GENERATED)

    def _add_text(self, index: int, choice: dict[str, Any]) -> bool | None:
        """Adds what most chunks are, a piece of text and nothing else that is new; None where it is another."""
        delta = choice.get("delta")
        if type(delta) is not dict or len(delta) != 1:
            return None
        text = delta.get("content")
        around = self._choice_around.get(index)
        if type(text) is not str or around is None or len(choice) != len(around) + 1:
            return None
        known = self._choices[index].get("delta")
        said = known.get("content") if type(known) is Object else None
        if type(said) is not Text or any(choice.get(name, self) != value for name, value in around.items()):
            return None
        said.append(text)
        return text != ""

    def result(self) -> dict[str, Any] | None:
        if not self._head and not self._choices:
            return None
        answer = {
            **self._head,
            "object": self._kind,
            "choices": [_finished(joined(self._choices[index])) for index in sorted(self._choices)],
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
