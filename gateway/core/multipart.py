"""Reads and edits single fields of a multipart form (RFC 7578) and leaves every other byte as it was."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any

_disposition = re.compile(rb"\r\ncontent-disposition:([^\r\n]*)", re.IGNORECASE)
_parameter = re.compile(rb';[ \t]*([^;=" \t]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;" \t]*))')


@dataclass(frozen=True, slots=True)
class Part:
    """One part: `body[start:end]` from its delimiter to the next one, its content at `body[content:content_end]`."""

    name: str
    start: int
    content: int
    content_end: int
    end: int


def boundary(content_type: str) -> bytes | None:
    """The boundary that a Content-Type header names, or None if it is no multipart form."""
    message = Message()
    # Bytes as they came: of what is no UTF-8, email takes some and fails at the rest.
    message["Content-Type"] = content_type.encode("utf-8", "surrogateescape").decode("latin-1")
    found = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(found, str) or not found:
        return None
    return found.encode("latin-1", "replace")


def parts(body: bytes, limit: bytes) -> Iterator[Part]:
    """The parts of a form whose boundary is `limit`; a broken form gives the parts that are whole."""
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(limit) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    last: re.Match[bytes] | None = None
    for found in delimiter.finditer(body):
        if last is not None and (part := _part(body, last, found)) is not None:
            yield part
        if found[1]:
            return
        last = found


def _part(body: bytes, before: re.Match[bytes], behind: re.Match[bytes]) -> Part | None:
    # The line end in front of a delimiter belongs to it; the part begins with its dashes.
    start = body.index(b"--", before.start())
    end = body.index(b"--", behind.start())
    head_end = body.find(b"\r\n\r\n", before.end(), end)
    if head_end < 0 or (name := _name(body[before.end() : head_end])) is None:
        return None
    content = head_end + 4
    return Part(name, start, content, max(behind.start(), content), end)


def _name(head: bytes) -> str | None:
    """The field's name in a part's head."""
    disposition = _disposition.search(head)
    for parameter in _parameter.finditer(disposition[1] if disposition else b""):
        if parameter[1].lower() == b"name":
            name: bytes = parameter[3] if parameter[2] is None else parameter[2]
            return name.decode("utf-8", "replace")
    return None


def fields(body: bytes, limit: bytes, names: Collection[str]) -> dict[str, Any]:
    """The text of the named fields; the last of a name counts.

    Forms have no objects, so SDKs write one as `name[key][inner]`: such parts come back as the object they make up.
    """
    found: dict[str, Any] = {}
    for part in parts(body, limit):
        name, *keys = _path(part.name)
        if name in names:
            text = body[part.content : part.content_end].decode("utf-8", "replace")
            _put(found, [name, *keys], text)
    return found


def without(body: bytes, limit: bytes, names: Collection[str]) -> bytes:
    """The form without the named fields, also where an object is written as `name[key]`."""
    return _replaced(body, ((part.start, part.end, b"") for part in parts(body, limit) if _path(part.name)[0] in names))


def _path(name: str) -> list[str]:
    """`name[key][inner]` → name, key, inner."""
    first, bracket, rest = name.partition("[")
    return [first, *rest.removesuffix("]").split("][")] if bracket and rest.endswith("]") else [name]


def _put(found: dict[str, Any], path: list[str], text: str) -> None:
    *outer, last = path
    at = found
    for key in outer:
        inner = at.get(key)
        if not isinstance(inner, dict):
            at[key] = inner = {}
        at = inner
    at[last] = text


def with_value(body: bytes, limit: bytes, name: str, value: str) -> bytes:
    """The form with the content of each field called `name` replaced."""
    new = value.encode()
    return _replaced(body, ((part.content, part.content_end, new) for part in parts(body, limit) if part.name == name))


def _replaced(body: bytes, changes: Iterable[tuple[int, int, bytes]]) -> bytes:
    """The body with each `body[start:end]` replaced; they come in order."""
    pieces: list[bytes] = []
    at = 0
    for start, end, new in changes:
        pieces += (body[at:start], new)
        at = end
    return b"".join([*pieces, body[at:]])
