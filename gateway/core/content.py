"""Input and output: how they are read by log_type, and how they are kept within bounds."""

from collections.abc import Collection, Iterator
from typing import Any

from gateway.core.jsontext import FAST_DEPTH, Texts, dump, parse_or_none
from gateway.core.span import CONTENT, FIELDS, LEGACY, Span
from gateway.errors import MalformedBody

# Types whose reads carry prompt_messages and completion_message as well.
CONVERSATIONS = frozenset({"chat", "completion", "text", "response", "generation"})

_MESSAGE_KEYS = frozenset(
    {"role", "content", "tool_calls", "function_call", "refusal", "audio", "reasoning", "reasoning_content"}
)
# Far from where Python's own recursion ends, on the way in as well as on the way out; and writing a value tells whether
# it is within, so that none has to be walked.
DEPTH_AT_MOST = FAST_DEPTH
# The last to be cut comes first.
_KEEP_ORDER = ("output", "input", "tool_calls", "full_response", "full_request", "tools", "variables")
# Fields of this part of the room, or less, are cut only after all larger ones.
_SMALL = 1 / 100
# Fields that may hold objects or lists.
_NESTING = (
    *("warnings", "usage", "customer_params", "metadata", "properties"),
    *LEGACY,
    *CONTENT,
)
_CONTAINERS = (dict, list)
_OTHER_TEXTS = ("metadata", "properties", "customer_params", "usage", "error_message", "note")


def fold_legacy(span: Span) -> None:
    """Fills input and output from the legacy fields, and reads JSON strings of chats."""
    fields = vars(span)
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
    for name in LEGACY:
        if fields[name] is not None:
            setattr(span, name, None)


def _read_chat(value: Any) -> Any:
    """A JSON string of messages is read; any other text stays text, also where it happens to be JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        parsed = parse_or_none(value)
        messages = parsed if isinstance(parsed, list) else [parsed]
        if messages and all(map(_is_message, messages)) and not _is_deeper(parsed):
            return parsed
    return value


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and bool(_MESSAGE_KEYS - {"role"} & value.keys())


def unwrapped_input(value: Any) -> Any:
    """The messages of a whole chat request, or the items of a whole Responses request; else the input itself."""
    if not isinstance(value, dict) or "role" in value:
        return value
    if isinstance(value.get("messages"), list):
        return value["messages"]
    if isinstance(items := value.get("input"), (str, list)):
        items = [{"role": "user", "content": items}] if isinstance(items, str) else items
        instructions = value.get("instructions")
        return [{"role": "system", "content": instructions}, *items] if isinstance(instructions, str) else items
    return value


def unwrapped_output(value: Any) -> Any:
    """The messages or texts of a whole completion, or the items of a whole response; else the output itself."""
    if not isinstance(value, dict) or "role" in value:
        return value
    if isinstance(choices := value.get("choices"), list):
        said = [choice.get("message", choice.get("text")) for choice in choices if isinstance(choice, dict)]
        return [item for item in said if item is not None] or None
    return value["output"] if isinstance(value.get("output"), list) else value


def prompt_messages(value: Any) -> list[dict[str, Any]] | None:
    """An input as a list of messages; text is one user message."""
    value = unwrapped_input(value)
    if value is None:
        return None
    if isinstance(value, list) and value and not all(isinstance(item, (dict, str)) for item in value):
        value = dump(value)
    items = value if isinstance(value, list) else [value]
    return [item if isinstance(item, dict) else {"role": "user", "content": _as_text(item)} for item in items]


def completion_message(value: Any) -> dict[str, Any] | None:
    """An output as one assistant message; text is its content."""
    value = unwrapped_output(value)
    if value is None:
        return None
    if isinstance(value, dict) and _MESSAGE_KEYS & value.keys():
        return value
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], str):
            value = value[0]
        messages = [item for item in value if isinstance(item, dict) and _MESSAGE_KEYS & item.keys()]
        if messages:
            # Among the items of a Responses answer, reasoning may come before the message.
            return next((item for item in messages if "role" in item), messages[0])
    return {"role": "assistant", "content": _as_text(value)}


def plain(value: Any) -> str:
    """What is said in an input or an output, as text."""
    return "\n".join(texts_in(value))


def texts_in(value: Any) -> Iterator[str]:
    """Every text that is in an input or an output, but for what only names or sorts it."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list):
            left += reversed(one)
        elif isinstance(one, dict):
            left += [item for name, item in reversed(one.items()) if name not in _NAMING]
        elif one is not None:
            yield dump(one)


_NAMING = frozenset({"role", "type", "id", "tool_call_id", "object", "finish_reason"})


def completion_messages(value: Any) -> list[dict[str, Any]] | None:
    """An output of several choices as a list of assistant messages; None if there is one or none."""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(item, dict) for item in value):
        return list(value)
    return None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else dump(value)


def parts(span: Span) -> set[str]:
    """The fields that are a part of the whole request or answer that the span holds too: see `PARTS`."""
    fields = vars(span)
    request, response = span.full_request, span.full_response
    found: set[str] = set()
    if request is not None:
        found = {
            name for name, key in _PARTS_OF_REQUEST if (held := fields[name]) is not None and held is request.get(key)
        }
    if response is not None:
        if span.usage is not None and span.usage is response.get("usage"):
            found.add("usage")
        if span.output is not None and span.output is _only_message(response):
            found.add("output")
            if span.tool_calls is not None and span.tool_calls is span.output.get("tool_calls"):
                found.add("tool_calls")
    return found


_PARTS_OF_REQUEST = (
    ("input", "messages"),
    ("tools", "tools"),
    ("tool_choice", "tool_choice"),
    ("response_format", "response_format"),
    ("stop", "stop"),
)
# Where each of them stands: the field and the path in it.
PARTS = {
    **{name: ("full_request", f"$.{key}") for name, key in _PARTS_OF_REQUEST},
    "output": ("full_response", "$.choices[0].message"),
    "tool_calls": ("full_response", "$.choices[0].message.tool_calls"),
    "usage": ("full_response", "$.usage"),
}


def _only_message(response: dict[str, Any]) -> Any:
    choices = response.get("choices")
    if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
        return None
    message = choices[0].get("message")
    return message if type(message) is dict else None


def too_deep(span: Span, texts: Texts, inside: Collection[str] = ()) -> list[str]:
    """The fields that are nested deeper than DEPTH_AT_MOST. `inside`: those that are parts of others."""
    fields = vars(span)
    held = [(name, fields[name]) for name in _NESTING if type(fields[name]) in _CONTAINERS]
    deep = [name for name, value in (*held, *span.extras.items()) if name not in inside and _is_too_deep(value, texts)]
    if not deep:
        # Nor is what is inside.
        return deep
    return [name for name, value in (*held, *span.extras.items()) if name in deep or _is_too_deep(value, texts)]


def _is_too_deep(value: Any, texts: Texts) -> bool:
    if type(value) not in _CONTAINERS:
        return False
    try:
        return texts.may_be_deep(value) and _is_deeper(value)
    except MalformedBody:
        return True


def _is_deeper(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_AT_MOST):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def put(span: Span, name: str, value: Any) -> None:
    """Sets a field or an extra."""
    if name in FIELDS:
        setattr(span, name, value)
    else:
        span.extras[name] = value


def drop(span: Span) -> None:
    """Takes out what was said, for `disable_log`; numbers and names stay."""
    for name in CONTENT:
        setattr(span, name, None)
    span.extras.clear()


def cut(span: Span, limit: int, texts: Texts, inside: Collection[str] = ()) -> list[str]:
    """Cuts long texts so that the content fits in `limit` bytes of JSON; gives the names of the fields it cut.

    `inside`: the fields that are parts of others, and are kept there only.
    """
    contents = {name: value for name, value in _contents(span).items() if name not in inside}
    if sum(len(texts.of(value)) for value in contents.values()) * _BYTES_A_CHARACTER <= limit:
        return []
    contents = _contents(span)
    sizes = {name: _size(value) for name, value in contents.items()}
    if sum(sizes.values()) <= limit:
        return []
    was_cut: list[str] = []
    left = limit
    for name in sorted(sizes, key=lambda name: (sizes[name] > limit * _SMALL, _rank(name))):
        if sizes[name] > left:
            put(span, name, shorten(_contents(span)[name], left))
            was_cut.append(name)
        left -= min(sizes[name], left)
    return was_cut


def _rank(name: str) -> int:
    return _KEEP_ORDER.index(name) if name in _KEEP_ORDER else len(_KEEP_ORDER)


def _contents(span: Span) -> dict[str, Any]:
    fields = vars(span)
    named = {name: fields[name] for name in (*CONTENT, *_OTHER_TEXTS) if fields[name] is not None}
    return {**named, **{name: value for name, value in span.extras.items() if value is not None}}


def shorten(value: Any, limit: int) -> Any:
    """The value with its longest texts cut to one size, such that its JSON has at most `limit` bytes.

    A value that is too large without any long text becomes null.
    """
    longest = _cut_size(sorted(_text_sizes(value)), _size(value) - limit)
    while longest > len(_MARK):
        shorter = _with_texts_cut(value, longest)
        if _size(shorter) <= limit:
            return shorter
        # Texts that need more bytes at their beginning than at their end.
        longest = longest * 3 // 4
    return None


_MARK = "... [cut]"
# In UTF-8, at most.
_BYTES_A_CHARACTER = 4


def _size(value: Any) -> int:
    """How many bytes of JSON a value has, a text without its quotes."""
    return len(dump(value).encode()) - (2 if isinstance(value, str) else 0)


def _cut_size(sizes: list[int], excess: int) -> int:
    """The size to which the longest texts have to be cut so that `excess` bytes go away."""
    gained = 0
    for number, (longer, shorter) in enumerate(zip(reversed(sizes), [*reversed(sizes[:-1]), 0], strict=False), 1):
        gained += (longer - shorter) * number
        if gained >= excess:
            return shorter + (gained - excess) // number
    return 0


def _text_sizes(value: Any) -> list[int]:
    sizes: list[int] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            sizes.append(_size(item))
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return sizes


def _with_texts_cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        size = _size(value)
        return value if size <= longest else value[: len(value) * (longest - len(_MARK)) // size] + _MARK
    if isinstance(value, dict):
        return {key: _with_texts_cut(item, longest) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_texts_cut(item, longest) for item in value]
    return value
