"""What was said in a span, in a line: the first words of its input and of its output, for lists."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from gateway.core.content import CONVERSATIONS, texts_in, unwrapped_input, unwrapped_output
from gateway.core.jsontext import dump
from gateway.errors import MalformedBody

PREVIEW_AT_MOST = 200
# Of one text; nobody looks for the first word behind more white space than that.
_LOOKED_AT = 10 * PREVIEW_AT_MOST
_TEXTS_AT_MOST = PREVIEW_AT_MOST
# Control characters, what turns the direction of all that follows, and halves of surrogate pairs. What joins signs into
# one (U+200D) stays.
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")
_TEXT_PARTS = frozenset({None, "text", "input_text", "output_text"})
_CALLS = frozenset({"function_call", "custom_tool_call", "mcp_call", "tool_use"})


def of_input(value: Any, log_type: Any) -> str | None:
    """The first words of an input: of a conversation those of the last user message, or of the last one that has text
    where no user's has; None where there are none."""
    if log_type not in CONVERSATIONS:
        return _line(texts_in(value))
    items = _items(unwrapped_input(value))
    asked = [item for item in items if isinstance(item, str) or _role(item) == "user"]
    for some in (asked, items):
        if (found := _first(map(_text, reversed(some)))) is not None:
            return found
    return None if any(map(_is_message, items)) else _line(texts_in(value))


def of_output(value: Any, tool_calls: Any, log_type: Any) -> str | None:
    """The first words of an output: of a conversation what the assistant said, else the tools that it called, which may
    be told beside it; None where there are none."""
    if log_type not in CONVERSATIONS:
        return _line(texts_in(value))
    items = _items(unwrapped_output(value))
    if (found := _first(map(_text, items))) is not None:
        return found
    calls = [call for item in items for call in _calls(item)] or list(_calls({"tool_calls": tool_calls}))
    if calls:
        return _line([", ".join(calls[:_TEXTS_AT_MOST])])
    return None if any(map(_is_message, items)) else _line(texts_in(value))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _first(found: Iterable[Iterable[str]]) -> str | None:
    return next((line for one in found if (line := _line(one)) is not None), None)


def _line(pieces: Iterable[str]) -> str | None:
    """The beginning of these texts, on one line."""
    line = ""
    for piece in islice(pieces, _TEXTS_AT_MOST):
        words = _words(piece)
        line = f"{line} {words}" if line and words else line or words
        if len(line) > PREVIEW_AT_MOST:
            return line[: PREVIEW_AT_MOST - 1].rstrip() + "…"
    return line or None


def _words(text: str) -> str:
    found = " ".join(text.lstrip()[:_LOOKED_AT].split())
    return " ".join(_ODD.sub(" ", found[: 2 * PREVIEW_AT_MOST]).split())


def _role(item: Any) -> Any:
    return item.get("role") if isinstance(item, dict) else None


def _is_message(item: Any) -> bool:
    """Whether it is of a conversation, so that what it has besides text is nothing to read: images, audio."""
    return isinstance(item, dict) and ("role" in item or ("type" in item and ("id" in item or "call_id" in item)))


def _text(item: Any) -> Iterator[str]:
    """What a message says."""
    if isinstance(item, str):
        yield item
    if not isinstance(item, dict) or item.get("type") == "reasoning":
        return
    for part in _items(item.get("content")):
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            said = part.get("text") if _kind(part) in _TEXT_PARTS else part.get("refusal")
            if isinstance(said, str):
                yield said
    audio = item.get("audio")
    for said in (item.get("refusal"), audio.get("transcript") if isinstance(audio, dict) else None):
        if isinstance(said, str):
            yield said


def _kind(part: dict[str, Any]) -> str | None:
    kind = part.get("type")
    return kind if kind is None or isinstance(kind, str) else ""


def _calls(item: Any) -> Iterator[str]:
    """The tools that a message calls, in the dialects of Chat Completions, of Responses and of Anthropic."""
    if not isinstance(item, dict):
        return
    if _kind(item) in _CALLS:
        yield from _call(item)
    for call in (*_items(item.get("tool_calls")), item.get("function_call")):
        if isinstance(call, dict):
            yield from _call(call.get("function") or call.get("custom") or call)
    for part in _items(item.get("content")):
        if isinstance(part, dict) and _kind(part) in _CALLS:
            yield from _call(part)


def _call(called: Any) -> Iterator[str]:
    if not isinstance(called, dict) or not isinstance(name := called.get("name"), str):
        return
    sent = called.get("arguments", called.get("input"))
    try:
        yield f"{name}({'' if sent is None else sent if isinstance(sent, str) else dump(sent)})"
    except MalformedBody:
        yield f"{name}(…)"
