"""Server-sent events from bytes, however they are cut.

The format: WHATWG HTML, section 9.2.6 (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_DATA = b"data: "


class Event(NamedTuple):
    """One event: its type (empty if none was given) and its data, lines joined by a newline."""

    type: str
    data: str


class EventParser:
    """Takes bytes as they arrive and gives the events that they complete.

    An event whose lines (comments aside) are longer than `limit` bytes together is passed over whole, so that memory
    stays bounded; `overlong` counts those.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest: list[bytes] = []  # the incomplete line, in pieces
        self._rest_size = 0
        self._after_cr = False
        self._start: bytes | None = b""  # what may be a byte order mark; None once that is settled
        self._type = b""
        self._data: list[bytes] = []
        self._size = 0  # of the event's complete lines
        self._skipping = False
        self.overlong = 0

    def feed(self, piece: bytes) -> list[Event]:
        """The events that end in this piece."""
        if self._is_between and (events := _plain_events(piece, self._limit)) is not None:
            return events
        if self._start is not None:
            piece = self._without_mark(self._start + piece)
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if b"\n" not in piece and b"\r" not in piece:
            self._keep(piece)
            return []
        self._after_cr = piece.endswith(b"\r")
        lines = b"".join([*self._rest, piece]).splitlines()
        self._rest, self._rest_size = [], 0
        incomplete = b"" if piece.endswith((b"\n", b"\r")) else lines.pop()
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._keep(incomplete)
        return events

    @property
    def _is_between(self) -> bool:
        """Whether an event has ended and nothing has come behind it."""
        return self._start is None and not (self._rest or self._data or self._type or self._size or self._after_cr)

    def end(self) -> Event | None:
        """The event that the end of the stream leaves without its blank line."""
        if self._rest:
            self._line(b"".join(self._rest))
        self._rest, self._rest_size, self._after_cr = [], 0, False
        return self._dispatch()

    def _without_mark(self, start: bytes) -> bytes:
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(_BOM)

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        self._rest.append(piece)
        self._rest_size += len(piece)
        if self._skipping or self._size + self._rest_size > self._limit:
            start = b"".join(self._rest)
            if not start.startswith(b":"):
                self._skip()
            # One byte stays, so that the line still looks like what it is: a comment, or at least not an empty one.
            self._rest, self._rest_size = [start[:1]], 1

    def _skip(self) -> None:
        self._skipping = True
        self._data = []

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        if line.startswith(b":"):
            return None
        self._size += len(line)
        if self._size > self._limit:
            self._skip()
        if self._skipping:
            return None
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._type = value.removeprefix(b" ")
        return None

    def _dispatch(self) -> Event | None:
        event = None
        if self._skipping:
            self.overlong += 1
        elif self._data:
            data = b"\n".join(self._data)
            event = Event(self._type.decode("utf-8", "replace"), data.decode("utf-8", "replace"))
        self._type, self._data, self._size, self._skipping = b"", [], 0, False
        return event


def _plain_events(piece: bytes, limit: int) -> list[Event] | None:
    """The events of a piece that holds whole ones of one line of data each, as most do; None for any other."""
    if not piece.startswith(_DATA) or not piece.endswith(b"\n\n") or b"\r" in piece or len(piece) > limit:
        return None
    events: list[Event] = []
    for event in piece[:-2].split(b"\n\n"):
        if not event.startswith(_DATA) or b"\n" in event:
            return None
        events.append(Event("", event[len(_DATA) :].decode("utf-8", "replace")))
    return events
