"""Input and output: how they are read by log_type, and how they are kept within bounds."""

from typing import Any

from gateway.core.jsontext import dump, parse_or_none
from gateway.core.span import CONTENT, Span

# Types whose reads carry prompt_messages and completion_message as well.
CONVERSATIONS = frozenset({"chat", "completion", "text", "response", "generation"})

_MESSAGE_KEYS = frozenset({"role", "content", "tool_calls", "refusal"})
# The last to be cut comes first.
_KEEP_ORDER = ("output", "input", "tool_calls", "full_response", "full_request", "tools", "variables")


def fold_legacy(span: Span) -> None:
    """Fills input and output from the legacy fields, and reads JSON strings of chats."""
    if span.input is None:
        span.input = span.prompt_messages if span.prompt_messages is not None else span.messages
    if span.output is None:
        span.output = span.completion_message if span.completion_message is not None else span.completion_messages
    if span.log_type == "chat":
        span.input = _read_chat(span.input)
        span.output = _read_chat(span.output)
    if span.tool_calls is None and span.log_type in CONVERSATIONS:
        calls = (completion_message(span.output) or {}).get("tool_calls")
        if isinstance(calls, list) and calls and all(isinstance(call, dict) for call in calls):
            span.tool_calls = calls
    span.messages = span.prompt_messages = span.completion_message = span.completion_messages = None


def _read_chat(value: Any) -> Any:
    """A JSON string of messages is read; any other text stays text, also where it happens to be JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        parsed = parse_or_none(value)
        if _is_message(parsed) or (isinstance(parsed, list) and parsed and all(map(_is_message, parsed))):
            return parsed
    return value


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and bool(_MESSAGE_KEYS - {"role"} & value.keys())


def prompt_messages(value: Any) -> list[dict[str, Any]] | None:
    """An input as a list of messages; text is one user message."""
    if value is None:
        return None
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if isinstance(value, list) and value and not all(isinstance(item, (dict, str)) for item in value):
        value = dump(value)
    items = value if isinstance(value, list) else [value]
    return [item if isinstance(item, dict) else {"role": "user", "content": _as_text(item)} for item in items]


def completion_message(value: Any) -> dict[str, Any] | None:
    """An output as one assistant message; text is its content."""
    if value is None:
        return None
    if isinstance(value, dict):
        choices = value.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            message = choices[0].get("message")
            return message if isinstance(message, dict) else completion_message(choices[0].get("text"))
        if _MESSAGE_KEYS & value.keys():
            return value
    if isinstance(value, list):
        messages = [item for item in value if isinstance(item, dict) and _MESSAGE_KEYS & item.keys()]
        if messages:
            return messages[0]
    return {"role": "assistant", "content": _as_text(value)}


def completion_messages(value: Any) -> list[dict[str, Any]] | None:
    """An output of several choices as a list of assistant messages; None if there is one or none."""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(item, dict) for item in value):
        return list(value)
    return None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dump(value)


def drop(span: Span) -> None:
    """Takes out what was said, for `disable_log`; numbers and names stay."""
    for name in CONTENT:
        setattr(span, name, None)
    span.extras.clear()


def cut(span: Span, limit: int) -> list[str]:
    """Cuts long texts so that the content fits in `limit` bytes of JSON; gives the names of the fields it cut."""
    sizes = {name: len(dump(value).encode("utf-8", "replace")) for name, value in _contents(span).items()}
    if sum(sizes.values()) <= limit:
        return []
    was_cut: list[str] = []
    left = limit
    for name in (*_KEEP_ORDER, *(name for name in sizes if name not in _KEEP_ORDER)):
        size = sizes.get(name, 0)
        if size > left:
            value = shorten(_contents(span)[name], left)
            if name in Span.model_fields:
                setattr(span, name, value)
            else:
                span.extras[name] = value
            size = min(size, left)
            was_cut.append(name)
        left -= size
    return was_cut


def _contents(span: Span) -> dict[str, Any]:
    named = {name: getattr(span, name) for name in (*CONTENT, "metadata", "properties")}
    return {name: value for name, value in {**named, **span.extras}.items() if value is not None}


def shorten(value: Any, limit: int) -> Any:
    """The value with its longest texts cut to one length, such that its JSON has at most `limit` bytes.

    A value that is too large without any long text becomes null.
    """
    lengths = sorted(_text_lengths(value))
    excess = len(dump(value).encode("utf-8", "replace")) - limit
    longest = _cut_length(lengths, excess)
    while longest > len(_MARK):
        shorter = _with_texts_cut(value, longest)
        if len(dump(shorter).encode("utf-8", "replace")) <= limit:
            return shorter
        longest //= 2
    return None


_MARK = "… [cut]"


def _cut_length(lengths: list[int], excess: int) -> int:
    """The length to which the longest texts have to be cut so that `excess` characters go away."""
    gained = 0
    for number, (longer, shorter) in enumerate(zip(reversed(lengths), [*reversed(lengths[:-1]), 0], strict=True), 1):
        gained += (longer - shorter) * number
        if gained >= excess:
            return shorter + (gained - excess) // number
    return 0


def _text_lengths(value: Any) -> list[int]:
    lengths: list[int] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            lengths.append(len(item))
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return lengths


def _with_texts_cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else value[: longest - len(_MARK)] + _MARK
    if isinstance(value, dict):
        return {key: _with_texts_cut(item, longest) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_texts_cut(item, longest) for item in value]
    return value
