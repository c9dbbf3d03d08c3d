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
# A value nested deeper than this has no room for what is in there.
_DEPTH_AT_MOST = PREVIEW_AT_MOST
# Control characters, what turns the direction of all that follows, what is not to be seen but may say something to a
# model (tags, fillers), and halves of surrogate pairs. What joins signs into one (U+200D) stays.
_ODD = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    r"\ud800-\udfff\U000e0000-\U000e007f]+"
)
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
    for told in (items, [{"tool_calls": tool_calls}]):
        calls = (call for item in told for call in _calls(item))
        if found := ", ".join(islice(calls, _TEXTS_AT_MOST)):
            return _line([found])
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
        told = "" if sent is None else sent[:_LOOKED_AT] if isinstance(sent, str) else _beginning(sent)
        yield f"{name[:_LOOKED_AT]}({told})"
    except MalformedBody:
        yield f"{name[:_LOOKED_AT]}(…)"


def _beginning(value: Any) -> str:
    """How the JSON of a value begins. Raises MalformedBody for one nested too deeply."""
    text = ""
    for piece in _written(value, _DEPTH_AT_MOST):
        text += piece
        if len(text) > _LOOKED_AT:
            break
    return text


def _written(value: Any, depth: int) -> Iterator[str]:
    """JSON piece by piece, of each text what may be shown."""
    if depth == 0:
        raise MalformedBody("The value is nested too deeply.")
    if isinstance(value, dict):
        for number, (key, item) in enumerate(value.items()):
            yield f"{',' if number else '{'}{dump(key[:_LOOKED_AT])}:"
            yield from _written(item, depth - 1)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield "," if number else "["
            yield from _written(item, depth - 1)
        yield "]" if value else "[]"
    else:
        yield dump(value[:_LOOKED_AT] if isinstance(value, str) else value)
