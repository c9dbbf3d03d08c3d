"""Values that come in pieces: what deltas add to, and how they end up."""

import base64
from typing import Any

# These are said once or repeated whole; everything else that is text comes in pieces.
_WHOLE = frozenset({"role", "id", "type", "index", "object", "format"})
# What a delta names beside the content itself.
_LABELS = _WHOLE | {"expires_at", "signature"}
# Content parts that come in pieces without an index, as Mistral sends them.
_GROWING_PARTS = ("text", "thinking")
# Deltas nest less; what is deeper is kept as it came, so that no answer can exhaust the stack.
_DEPTH = 8


class Text(list[str]):
    """Text in pieces: appending to a list keeps a long answer linear."""


class Object(dict[str, Any]):
    """An object that deltas add to. A plain dict is a value that came whole."""


class List(list[Any]):
    """A list that deltas add to."""


def place_in(event: dict[str, Any], name: str) -> int:
    index = event.get(name)
    return index if isinstance(index, int) else 0


def is_generated(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a delta's value holds more than labels and empty texts."""
    if depth and isinstance(value, dict):
        return any(is_generated(item, depth - 1) for name, item in value.items() if name not in _LABELS)
    if depth and isinstance(value, list):
        return any(is_generated(item, depth - 1) for item in value)
    return bool(value)


def merge(whole: Object, delta: dict[str, Any], depth: int = _DEPTH) -> None:
    for name, value in delta.items():
        old = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(old, List) and isinstance(value, str):
            _merge_list(old, [{"type": "text", "text": value}], depth)
        elif isinstance(value, str) and name not in _WHOLE:
            # Some providers repeat a function's whole name with every piece of its arguments.
            if name != "name" or not isinstance(old, Text) or "".join(old) != value:
                whole[name] = appended(old, value)
        elif isinstance(value, dict) and depth:
            if not isinstance(old, Object):
                whole[name] = old = Object()
            merge(old, value, depth - 1)
        elif isinstance(value, list) and depth:
            if not isinstance(old, List):
                said = isinstance(old, Text) and any(old)
                whole[name] = old = List([Object(type="text", text=old)] if said else ())
            _merge_list(old, value, depth)
        elif value != "" or old is None:
            whole[name] = value


def _merge_list(whole: List, delta: list[Any], depth: int) -> None:
    for item in delta:
        if not isinstance(item, dict) or not _grows(item):
            whole.append(item)
            continue
        known = _continued(whole, item)
        if known is None:
            known = Object()
            whole.append(known)
        merge(known, item, depth - 1)


def _grows(item: dict[str, Any]) -> bool:
    return isinstance(item.get("index"), int) or item.get("type") in _GROWING_PARTS


def _continued(whole: List, item: dict[str, Any]) -> Object | None:
    """The item of a list that a delta's item adds to."""
    candidates = whole if isinstance(item.get("index"), int) else whole[-1:]
    for old in candidates:
        same_type = not item.get("type") or not old.get("type") or item["type"] == old["type"]
        if isinstance(old, Object) and old.get("index") == item.get("index") and same_type:
            return old
    return None


def appended(old: Any, piece: str) -> Text:
    text = old if isinstance(old, Text) else Text([old] if isinstance(old, str) else ())
    text.append(piece)
    return text


def joined(value: Any, name: str = "") -> Any:
    if isinstance(value, Text):
        return _joined_base64(value) if name == "data" else "".join(value)
    if isinstance(value, Object):
        return {key: joined(item, key) for key, item in value.items()}
    if isinstance(value, List):
        items = [joined(item) for item in value]
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
