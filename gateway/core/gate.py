"""Decides which bytes of an answer may go on to the client now, and when the answer is complete.

A gate never changes a byte. It holds back the usage chunk that we asked for and the client did not, and it tells
which piece is the last, so that the piece can wait for its span's commit.
"""

import re
from typing import Any, Protocol

from gateway.core.jsontext import parse_or_none

_HELD_AT_MOST = 64 * 1024
# What is longer is not looked at with each byte that comes, but when it has grown by a quarter.
_LOOKED_AT_ANEW = 16 * 1024

_line_end = rb"(?:\r\n|\n|\r(?!\n))"
_event_end = re.compile(_line_end * 2)
# Blank lines and comments in front of an event are no part of a chunk: they pass at once.
_no_field = rb"(?:(?::[^\r\n]*)?" + _line_end + rb")"
_before_event = re.compile(_no_field + rb"+")
# Nor is a byte order mark in front of the first.
_mark = b"\xef\xbb\xbf"
_before_first_event = re.compile(_mark + _no_field + rb"*|" + _no_field + rb"+")
_done = re.compile(rb"[\r\n]data:[ \t]*\[DONE\][ \t]*(?:[\r\n]|\Z)")
_done_reach = 32
# JSON may go on over several data lines.
_gap = rb"(?:\s|data:)*+"
_usage = re.compile(rb'"usage"' + _gap + rb":" + _gap + rb"\{")
_has_choice = re.compile(rb'"choices"\s*:\s*\[\s*[^\]\s]')


class Gate(Protocol):
    """`complete` turns true with the piece that ends the answer, where that can be told from the bytes."""

    complete: bool

    def feed(self, piece: bytes) -> bytes:
        """The bytes that may go on now."""
        ...

    def end(self) -> bytes:
        """What was held back and may go on, now that the answer has ended."""
        ...


class BodyGate:
    """For an answer that is no event stream: complete when `length` bytes have come (None: told by its end only)."""

    def __init__(self, length: int | None) -> None:
        self._missing = length
        self.complete = False

    def feed(self, piece: bytes) -> bytes:
        if self._missing is not None:
            self._missing -= len(piece)
            self.complete = self._missing <= 0
        return piece

    def end(self) -> bytes:
        return b""


class StreamGate:
    """For an event stream: complete with `data: [DONE]` at the start of a line."""

    def __init__(self, *, hold_usage: bool) -> None:
        self._usage_gate = UsageGate() if hold_usage else None
        self._tail = b"\n"
        self.complete = False

    def feed(self, piece: bytes) -> bytes:
        if not self.complete:
            seen = self._tail + piece
            self.complete = b"[DONE]" in seen and _done.search(seen) is not None
            self._tail = seen[-_done_reach:]
        return piece if self._usage_gate is None else self._usage_gate.feed(piece)

    def end(self) -> bytes:
        return b"" if self._usage_gate is None else self._usage_gate.end()


class UsageGate:
    """Lets every event pass but the extra usage chunk (usage, and no choices or empty ones).

    It holds an incomplete event only while that can still be such a chunk, and 64 KB at most.
    """

    def __init__(self) -> None:
        self._event = b""  # the incomplete event so far
        self._sent = 0  # how many bytes of it have been passed on
        self._after_cr = False  # the last event ended in CR: an LF that follows belongs to it
        self._last_dropped = False
        self._leading = _before_first_event
        self._next_look = 0  # of the incomplete event, at which length

    def feed(self, piece: bytes) -> bytes:
        if not self._event and not self._after_cr and piece.endswith(b"\n\n") and not _usage.search(piece):
            self._leading = _before_event
            return piece
        passed: list[bytes] = []
        if self._after_cr and piece:
            self._after_cr = False
            if piece.startswith(b"\n"):
                if not self._last_dropped:
                    passed.append(b"\n")
                piece = piece[1:]
        text = self._event + piece
        at = self._harmless(text)
        if at:
            passed.append(text[:at])
            self._ended_at(text, at, dropped=False)
        search_from = max(at, len(self._event) - 3)
        # Without an end of a line nothing is complete but a byte order mark.
        may_lead = b"\n" in piece or b"\r" in piece or (self._leading is _before_first_event and text.startswith(_mark))
        while True:
            if may_lead and self._sent == 0 and (leading := self._leading.match(text, at)):
                passed.append(text[at : leading.end()])
                at = leading.end()
                self._ended_at(text, at, dropped=False)
            ending = _event_end.search(text, max(at, search_from))
            if ending is None:
                break
            event = text[at : ending.end()]
            dropped = self._sent == 0 and _is_usage_chunk(event)
            if not dropped:
                passed.append(event[self._sent :])
            self._sent = 0
            at = ending.end()
            self._ended_at(text, at, dropped=dropped)
        self._event = text[at:]
        passed.append(self._release())
        return b"".join(passed)

    def _harmless(self, text: bytes) -> int:
        """How much of the text is whole events of which none tells a usage: these pass unlooked at, one by one."""
        if self._sent:
            return 0
        # None ends in what was held so far.
        end = text.rfind(b"\n\n", max(0, len(self._event) - 1)) + 2
        return end if end > 1 and b"\r" not in text and not _usage.search(text, 0, end) else 0

    def end(self) -> bytes:
        held = self._event[self._sent :]
        self._event, self._sent = b"", 0
        return b"" if _is_usage_chunk(held) else held

    def _ended_at(self, text: bytes, at: int, *, dropped: bool) -> None:
        self._leading = _before_event
        self._next_look = 0
        self._last_dropped = dropped
        self._after_cr = at == len(text) and text.endswith(b"\r")

    def _release(self) -> bytes:
        """The part of the incomplete event that cannot belong to a usage chunk."""
        held = self._event[self._sent :]
        if not held or (self._sent == 0 and len(held) <= _HELD_AT_MOST and self._may_become_usage_chunk(held)):
            return b""
        # Only the end of what has been passed on is needed, to see where the event ends.
        self._event = self._event[-3:]
        self._sent = len(self._event)
        return held

    def _may_become_usage_chunk(self, held: bytes) -> bool:
        if len(held) < self._next_look:
            return True
        self._next_look = len(held) + len(held) // 4 if len(held) > _LOOKED_AT_ANEW else 0
        return _may_become_usage_chunk(held)


def _may_become_usage_chunk(start: bytes) -> bool:
    data = b"\n".join(_data_lines(start)).lstrip()
    return (not data or data.startswith(b"{")) and not _has_choice.search(data)


def _is_usage_chunk(event: bytes) -> bool:
    if not _usage.search(event):
        return False
    chunk: Any = parse_or_none(b"\n".join(_data_lines(event)).decode("utf-8", "replace"))
    return (
        isinstance(chunk, dict)
        and isinstance(chunk.get("usage"), dict)
        and not chunk.get("choices")
        and not chunk.get("error")
    )


def _data_lines(event: bytes) -> list[bytes]:
    return [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
