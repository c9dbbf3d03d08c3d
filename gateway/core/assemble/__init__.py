"""Puts the events of a stream together into the answer that the same call would have given without streaming.

One assembly per dialect. `add` takes one event's JSON and tells whether it carries generated content: text,
reasoning, a refusal, a tool call or audio. Role-only, empty and usage chunks and pings do not.
"""

from typing import Any

from gateway.core.assemble.assembly import Assembly
from gateway.core.assemble.chat import ChatAssembly
from gateway.core.assemble.messages import MessagesAssembly
from gateway.core.assemble.responses import ResponsesAssembly

__all__ = ["AnyAssembly", "Assembly", "ChatAssembly", "MessagesAssembly", "ResponsesAssembly", "assembly_for"]


class AnyAssembly(Assembly):
    """A stream in no dialect we know: usage and model wherever an event names them."""

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


def assembly_for(dialect: str) -> Assembly:
    """The assembly of a dialect (see `routing.Kind`)."""
    match dialect:
        case "chat":
            return ChatAssembly()
        case "completion":
            return ChatAssembly("text_completion")
        case "response":
            return ResponsesAssembly()
        case "message":
            return MessagesAssembly()
        case _:
            return AnyAssembly()
