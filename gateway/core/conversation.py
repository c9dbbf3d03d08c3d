"""A thread as one conversation."""

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.jsontext import dump

Message = Mapping[str, Any]


def conversation(spans: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a thread's spans (as `reading.public` shows them), oldest first, each once.

    Most calls repeat what was said before: of each, only what comes behind the last message that is known already is
    new. Each message says of which span it is.
    """
    said: list[dict[str, Any]] = []
    known: set[str] = set()
    for span in spans:
        asked = list(span["prompt_messages"] or ())
        fresh = asked[_known_until(asked, known) :]
        answered = [] if span["completion_message"] is None else [span["completion_message"]]
        for message in (*fresh, *answered):
            known.add(_key(message))
            said.append({**message, "unique_id": span["unique_id"], "timestamp": span["timestamp"]})
    return said


def _known_until(messages: list[Message], known: set[str]) -> int:
    for place in range(len(messages) - 1, -1, -1):
        # A user may say the same thing again: what comes last was not said before.
        if place < len(messages) - 1 and _key(messages[place]) in known:
            return place + 1
    return 0


def _key(message: Message) -> str:
    return dump([message.get("role"), message.get("content") or message.get("tool_calls")])
