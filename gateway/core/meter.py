"""Measures a relay: when content was generated, what was answered, with which usage.

The meter works on a copy of the bytes. Nothing here can fail the relay, and what it keeps is bounded.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.core.assemble import assembly_for
from gateway.core.encoding import BodyDecoder
from gateway.core.jsontext import parse_at, parse_or_none
from gateway.core.sse import EventParser

_PARSE_AFTER = 32 * 1024
_TAIL = 64 * 1024
_usage = re.compile(r'"usage"\s*:\s*(?=\{)')


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
        """What has been measured; an event that is still incomplete counts as the last one."""
        ...


class StreamMeter:
    """For an event stream. Pieces are parsed some time after they came, off the relay's way."""

    def __init__(self, dialect: str, limit: int, content_encoding: str = "") -> None:
        self._events = EventParser(limit)
        self._dialect = dialect
        self._assembly = assembly_for(dialect)
        self._reading = Reading()
        self._waiting: list[tuple[float, bytes]] = []
        self._waiting_size = 0
        self._last_at = 0.0
        self._left = limit
        self._decoder = BodyDecoder(content_encoding, limit)
        self._unread = 0

    def feed(self, at: float, piece: bytes) -> None:
        self._last_at = at
        self._waiting.append((at, piece))
        self._waiting_size += len(piece)
        if self._waiting_size >= _PARSE_AFTER:
            self._parse()

    def read(self) -> Reading:
        self._parse()
        self._parse_last()
        reading, assembly = self._reading, self._assembly
        reading.usage, reading.model, reading.error = assembly.usage, assembly.model, assembly.error
        reading.response = assembly.result()
        reading.done = reading.done or assembly.done
        reading.warnings = []
        if self._unread:
            reading.warnings.append(f"{self._unread} events of the stream were no JSON objects")
        if self._events.overlong or self._left < 0:
            reading.warnings.append("the stream was too long to keep whole")
        if self._decoder.problem:
            reading.warnings.append(self._decoder.problem)
            reading.understood = True
        return reading

    def _parse(self) -> None:
        waiting, self._waiting, self._waiting_size = self._waiting, [], 0
        for at, piece in waiting:
            for event in self._events.feed(self._decoder.feed(piece)):
                self._event(at, event.data)

    def _parse_last(self) -> None:
        """Some leave out the last blank line. What is only half there counts for nothing."""
        last = self._events.end()
        if last is not None and (_is_done(last.data) or isinstance(parse_or_none(last.data), dict)):
            self._event(self._last_at, last.data)

    def _event(self, at: float, data: str) -> None:
        if not data or data.isspace():
            return
        if _is_done(data):
            self._reading.done = self._reading.understood = True
            return
        value = parse_or_none(data)
        if not isinstance(value, dict):
            self._unread += 1
            return
        self._left -= len(data)
        self._reading.understood = True
        if self._add(value):
            if self._reading.first_generated_at is None:
                self._reading.first_generated_at = at
            self._reading.last_generated_at = at

    def _add(self, value: dict[str, Any]) -> bool:
        if self._left >= 0:
            return self._assembly.add(value)
        # Too much to keep: only its time and its usage still count.
        alone = assembly_for(self._dialect)
        generated = alone.add(value)
        self._assembly.add({name: value[name] for name in ("type", "usage", "model", "error") if name in value})
        if "usage" not in value and alone.usage is not None:
            self._assembly.usage = alone.usage
        return generated


class BodyMeter:
    """For an answer in one piece. Of one that is longer than `limit`, the usage at its end is still read."""

    def __init__(self, limit: int, content_encoding: str = "", *, json: bool = True) -> None:
        self._limit = limit
        self._decoder = BodyDecoder(content_encoding, limit)
        self._json = json
        self._pieces: list[bytes] = []
        self._kept = 0
        self._size = 0

    def feed(self, at: float, piece: bytes) -> None:
        piece = self._decoder.feed(piece)
        self._size += len(piece)
        if self._json:
            self._pieces.append(piece)
            self._kept += len(piece)
        if self._size > self._limit and self._kept > 2 * _TAIL:
            self._pieces = [b"".join(self._pieces)[-_TAIL:]]
            self._kept = _TAIL

    def read(self) -> Reading:
        body = b"".join(self._pieces)
        if self._decoder.problem:
            return Reading(understood=True, warnings=[self._decoder.problem])
        if not self._json:
            return Reading(understood=True, response={"bytes": self._size})
        if self._size > self._limit:
            return Reading(understood=True, usage=_usage_in(body), warnings=["the answer was too long to keep"])
        value = parse_or_none(body)
        if not isinstance(value, dict):
            return Reading(response=body.decode("utf-8", "replace") if value is None else value)
        return Reading(
            understood=True,
            response=value,
            usage=value["usage"] if isinstance(value.get("usage"), dict) else None,
            model=value["model"] if isinstance(value.get("model"), str) else None,
            error=value.get("error"),
        )


def _is_done(data: str) -> bool:
    return data.strip() == "[DONE]"


def _usage_in(tail: bytes) -> dict[str, Any] | None:
    """The last usage that a body's end tells."""
    usage = None
    text = tail.decode("utf-8", "replace")
    for found in _usage.finditer(text):
        value = parse_at(text, found.end())
        usage = value if isinstance(value, dict) else usage
    return usage
