"""Reads and edits single fields of a multipart form (RFC 7578) and leaves every other byte as it was."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from email.message import Message

_name = re.compile(rb';[ \t]*name="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


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
    message["Content-Type"] = content_type
    found = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(found, str) or not found:
        return None
    return found.encode("latin-1", "replace")


def parts(body: bytes, limit: bytes) -> Iterator[Part]:
    """The parts of a form whose boundary is `limit`; a broken form gives the parts that are whole."""
    delimiter = b"--" + limit
    start = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if start == 1:
        return
    while (next_start := body.find(b"\r\n" + delimiter, start) + 2) > 1:
        head_end = body.find(b"\r\n\r\n", start, next_start)
        if head_end >= 0 and (match := _name.search(body, start, head_end)):
            name = match[1].decode("utf-8", "replace")
            yield Part(name, start, head_end + 4, max(next_start - 2, head_end + 4), next_start)
        start = next_start


def fields(body: bytes, limit: bytes, names: Collection[str]) -> dict[str, str]:
    """The text of the named fields; the last of a name counts."""
    return {
        part.name: body[part.content : part.content_end].decode("utf-8", "replace")
        for part in parts(body, limit)
        if part.name in names
    }


def without(body: bytes, limit: bytes, names: Collection[str]) -> bytes:
    """The form without the named fields."""
    for part in reversed([part for part in parts(body, limit) if part.name in names]):
        body = body[: part.start] + body[part.end :]
    return body


def with_value(body: bytes, limit: bytes, name: str, value: str) -> bytes:
    """The form with the content of each field called `name` replaced."""
    for part in reversed([part for part in parts(body, limit) if part.name == name]):
        body = body[: part.content] + value.encode() + body[part.content_end :]
    return body
