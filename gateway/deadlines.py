"""Things that are looked at again after the same while."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# Of the loop, until what can be read now has been read, and who waits for it has gone on.
_TURNS = 3


class Deadlines(Generic[T]):
    """Hands each thing to `on_due`, `after_s` seconds from when it was added.

    One alarm for all, which rings for the oldest: a timer a call would cost as much as what is timed. Most things have
    nothing left to be done by then; it is for `on_due` to see that. What has come in by the time the alarm rings is
    taken in first: a busy loop has answers that wait to be read.
    """

    def __init__(self, after_s: float, on_due: Callable[[T], None]) -> None:
        """Must be called on the event loop."""
        self._after_s = after_s
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, T]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    def add(self, thing: T) -> None:
        """From now on."""
        self._waiting.append((self._loop.time() + self._after_s, thing))
        if self._alarm is None:
            self._alarm = self._loop.call_later(self._after_s, self._ring)

    def _ring(self) -> None:
        self._after_turns(_TURNS, self._loop.time())

    def _after_turns(self, turns: int, due_until: float) -> None:
        if turns:
            self._loop.call_soon(self._after_turns, turns - 1, due_until)
            return
        try:
            while self._waiting and self._waiting[0][0] <= due_until:
                self._on_due(self._waiting.popleft()[1])
        finally:
            # Whatever becomes of one, the others have their time.
            self._alarm = self._loop.call_at(self._waiting[0][0], self._ring) if self._waiting else None
