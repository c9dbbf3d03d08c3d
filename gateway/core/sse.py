"""Server-sent events from bytes, however they are cut.

The format: WHATWG HTML, section 9.2.6 (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its type (empty if none was given) and its data, lines joined by a newline."""

    type: str
    data: str


class EventParser:
    """Takes bytes as they arrive and gives the events that they complete.

    An event longer than `limit` bytes is passed over whole, so that memory stays bounded; `overlong` counts those.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._after_cr = False
        self._at_start = True
        self._type = b""
        self._data: list[bytes] = []
        self._data_size = 0
        self._skipping = False
        self.overlong = 0

    def feed(self, piece: bytes) -> list[Event]:
        """The events that end in this piece."""
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if b"\n" not in piece and b"\r" not in piece:
            self._keep(piece)
            return []
        self._after_cr = piece.endswith(b"\r")
        lines = b"".join([*self._rest, piece]).splitlines()
        self._rest, self._rest_size = [], 0
        if not piece.endswith((b"\n", b"\r")):
            self._keep(lines.pop())
        if self._at_start:
            lines[0] = lines[0].removeprefix(_BOM)
            self._at_start = False
        return [event for line in lines if (event := self._line(line)) is not None]

    def _keep(self, piece: bytes) -> None:
        self._rest_size += len(piece)
        if self._rest_size > self._limit:
            self._skip()
            # The first bytes stay, so that the line still does not look like an empty one.
            piece = b"".join(self._rest)[:16] or piece[:16]
            self._rest, self._rest_size = [], len(piece)
        self._rest.append(piece)

    def _skip(self) -> None:
        self._skipping = True
        self._data, self._data_size = [], 0

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        if self._skipping:
            return None
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._data_size += len(value) + 1
            if self._data_size > self._limit:
                self._skip()
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
        self._type, self._data, self._data_size, self._skipping = b"", [], 0, False
        return event
