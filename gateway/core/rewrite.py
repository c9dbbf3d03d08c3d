"""Changes single members of a JSON object and leaves every other byte as it was."""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from gateway.core.jsontext import decode_text
from gateway.errors import MalformedBody

# Numbers are skipped, never needed: as texts they cost nothing and may have any length.
_decoder = json.JSONDecoder(parse_int=str, parse_float=str)
_space = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class Member:
    """Where one member of an object stands in its text: `text[start:end]`, its value from `value` on."""

    name: str
    start: int
    value: int
    end: int


def members(text: str, start: int = 0) -> list[Member]:
    """The members of the object that begins at `start`, in order, repeated names included.

    The text must be valid JSON (parse it first).
    """
    found: list[Member] = []
    at = _after_space(text, start) + 1
    at = _after_space(text, at)
    while text[at] != "}":
        name, colon = _decoder.raw_decode(text, at)
        value = _after_space(text, _after_space(text, colon) + 1)
        _, end = _decoder.raw_decode(text, value)
        found.append(Member(name, at, value, end))
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return found


def without(text: str, names: Collection[str]) -> str:
    """The object's text without the named members."""
    all_members = members(text)
    kept = [number for number, member in enumerate(all_members) if member.name not in names]
    if len(kept) == len(all_members):
        return text
    pieces = [text[: all_members[0].start]]
    for position, number in enumerate(kept):
        member = all_members[number]
        pieces.append(text[member.start : member.end])
        if position + 1 < len(kept):
            pieces.append(text[member.end : all_members[number + 1].start])
    pieces.append(text[all_members[-1].end :])
    return "".join(pieces)


def with_value(text: str, name: str, change: Callable[[str], str]) -> str:
    """The object's text with the value of each member called `name` replaced by `change(its text)`."""
    pieces: list[str] = []
    at = 0
    for member in members(text):
        if member.name == name:
            pieces += (text[at : member.value], change(text[member.value : member.end]))
            at = member.end
    return "".join([*pieces, text[at:]])


def with_member(text: str, name: str, value: str) -> str:
    """The object's text with one more member in front; `value` is JSON text."""
    opening = text.index("{") + 1
    comma = "" if text[_after_space(text, opening)] == "}" else ","
    return f"{text[:opening]}{json.dumps(name)}:{value}{comma}{text[opening:]}"


def json_text(value: str) -> str:
    """A text as JSON."""
    return json.dumps(value)


def in_bytes(body: bytes, change: Callable[[str], str]) -> bytes:
    """Applies a change of the text to a body, in the body's own encoding. Raises MalformedBody."""
    text, mark, encoding = decode_text(body)
    try:
        changed = change(text)
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None
    return mark + changed.encode(encoding, "surrogatepass")


def asking_for_usage(text: str) -> str:
    """A streamed request's text that asks for the usage chunk (`stream_options.include_usage`)."""
    if not any(member.name == "stream_options" for member in members(text)):
        return with_member(text, "stream_options", '{"include_usage":true}')
    return with_value(text, "stream_options", _including_usage)


def _including_usage(options: str) -> str:
    if options == "null":
        return '{"include_usage":true}'
    if not options.startswith("{"):
        return options
    return with_member(without(options, {"include_usage"}), "include_usage", "true")


def _after_space(text: str, at: int) -> int:
    match = _space.match(text, at)
    return match.end() if match else at
