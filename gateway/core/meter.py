"""Measures a relay: when content was generated, what was answered, with which usage.

The meter works on a copy of the bytes. Nothing here can fail the relay, and what it keeps is bounded.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.core.assemble import AnyAssembly, Assembly, ChatAssembly, MessagesAssembly, ResponsesAssembly
from gateway.core.encoding import BodyDecoder
from gateway.core.jsontext import parse_or_none
from gateway.core.sse import EventParser

_PARSE_AFTER = 32 * 1024
_TAIL = 64 * 1024
_UNREADABLE = "the answer is compressed in a way that cannot be read"


@dataclass(slots=True)
class Reading:
    """What a meter has seen of one answer. Times are seconds on the caller's monotonic line.

    `understood` is false only for an answer that could be read and made no sense.
    """

    understood: bool = False
    first_generated_at: float | None = None
    last_generated_at: float | None = None
    response: Any = None
    usage: dict[str, Any] | None = None
    model: str | None = None
    error: Any = None
    done: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def generating_s(self) -> float | None:
        """Seconds between the first and the last arrival of generated content; None with fewer than two arrivals."""
        if self.first_generated_at is None or self.last_generated_at is None:
            return None
        return self.last_generated_at - self.first_generated_at or None


class Meter(Protocol):
    def feed(self, at: float, piece: bytes) -> None:
        """Takes one piece of the answer, arrived at monotonic second `at`. Never raises."""
        ...

    def read(self) -> Reading:
        """What has been measured so far."""
        ...


class StreamMeter:
    """For an event stream. Pieces are parsed some time after they came, off the relay's way."""

    def __init__(self, log_type: str, limit: int, content_encoding: str = "") -> None:
        self._events = EventParser(limit)
        self._assembly = _assembly(log_type)
        self._reading = Reading()
        self._waiting: list[tuple[float, bytes]] = []
        self._waiting_size = 0
        self._left = limit
        self._decoder = BodyDecoder(content_encoding, limit)
        self._unread = 0

    def feed(self, at: float, piece: bytes) -> None:
        self._waiting.append((at, piece))
        self._waiting_size += len(piece)
        if self._waiting_size >= _PARSE_AFTER:
            self._parse()

    def read(self) -> Reading:
        self._parse()
        reading, assembly = self._reading, self._assembly
        reading.usage, reading.model, reading.error = assembly.usage, assembly.model, assembly.error
        reading.response = assembly.result()
        reading.done = reading.done or assembly.done
        reading.warnings = []
        if self._unread:
            reading.warnings.append(f"{self._unread} events of the stream were no JSON objects")
        if self._events.overlong or self._left < 0:
            reading.warnings.append("the stream was too long to keep whole")
        if not self._decoder.readable:
            reading.warnings.append(_UNREADABLE)
            reading.understood = True
        return reading

    def _parse(self) -> None:
        waiting, self._waiting, self._waiting_size = self._waiting, [], 0
        for at, piece in waiting:
            for event in self._events.feed(self._decoder.feed(piece)):
                self._event(at, event.data)

    def _event(self, at: float, data: str) -> None:
        if data.strip() == "[DONE]":
            self._reading.done = self._reading.understood = True
            return
        value = parse_or_none(data)
        if not isinstance(value, dict):
            self._unread += 1
            return
        self._left -= len(data)
        if self._left < 0:
            # Too much to keep: only its usage still counts.
            value = {name: value[name] for name in ("type", "usage", "model", "error") if name in value}
        self._reading.understood = True
        if self._assembly.add(value):
            if self._reading.first_generated_at is None:
                self._reading.first_generated_at = at
            self._reading.last_generated_at = at


class BodyMeter:
    """For an answer in one piece. Of one that is longer than `limit`, the usage at its end is still read."""

    def __init__(self, limit: int, content_encoding: str = "", *, json: bool = True) -> None:
        self._limit = limit
        self._decoder = BodyDecoder(content_encoding, limit)
        self._json = json
        self._pieces: list[bytes] = []
        self._tail = b""
        self._size = 0

    def feed(self, at: float, piece: bytes) -> None:
        piece = self._decoder.feed(piece)
        self._size += len(piece)
        if self._size <= self._limit:
            self._pieces.append(piece)
        else:
            self._tail = (self._tail + piece)[-_TAIL:]

    def read(self) -> Reading:
        reading = Reading()
        if not self._decoder.readable:
            reading.warnings.append(_UNREADABLE)
            reading.understood = True
            return reading
        if not self._json:
            reading.response = {"bytes": self._size}
            reading.understood = True
            return reading
        if self._size > self._limit:
            reading.warnings.append("the answer was too long to keep")
            reading.usage = _usage_in(self._tail)
            reading.understood = True
            return reading
        body = b"".join(self._pieces)
        value = parse_or_none(body)
        reading.response = body.decode("utf-8", "replace") if value is None else value
        if isinstance(value, dict):
            reading.understood = True
            reading.usage = value["usage"] if isinstance(value.get("usage"), dict) else None
            reading.model = value["model"] if isinstance(value.get("model"), str) else None
            reading.error = value.get("error")
        return reading


def _assembly(log_type: str) -> Assembly:
    match log_type:
        case "chat":
            return ChatAssembly()
        case "completion":
            return ChatAssembly("text_completion")
        case "response":
            return ResponsesAssembly()
        case "message":
            return MessagesAssembly()
        case _:
            return AnyAssembly()


def _usage_in(tail: bytes) -> dict[str, Any] | None:
    text = tail.decode("utf-8", "replace")
    at = text.rfind('"usage"')
    if at < 0:
        return None
    opening = text.find("{", at)
    closing = text.find("}", opening)
    while opening > 0 and closing > 0:
        value = parse_or_none(text[opening : closing + 1])
        if isinstance(value, dict):
            return value
        closing = text.find("}", closing + 1)
    return None
