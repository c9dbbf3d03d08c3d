"""Things that come in one turn of the event loop after the other, and are handed on together."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# Has most of the gain: who came first does not wait for more.
_ENOUGH = 64
# Of the loop, however many come in each.
_TURNS_AT_MOST = 8


class Gathering(Generic[T]):
    """Hands on what was added as soon as a turn of the loop adds no more, or no more is to be expected."""

    def __init__(self, hand_on: Callable[[list[T]], None], expected: Callable[[], int]) -> None:
        """Must be called on the event loop. `expected`: how many there can be, those that were added among them."""
        self._hand_on = hand_on
        self._expected = expected
        self._loop = asyncio.get_running_loop()
        self._added: list[T] = []

    def add(self, thing: T) -> None:
        """To what is handed on next."""
        if not self._added:
            self._loop.call_soon(self._after_turn, _TURNS_AT_MOST, 0)
        self._added.append(thing)

    def flush(self) -> None:
        """Hands on what there is, without waiting for more."""
        added, self._added = self._added, []
        if added:
            self._hand_on(added)

    def _after_turn(self, turns_left: int, before: int) -> None:
        number = len(self._added)
        if turns_left and before < number < min(_ENOUGH, self._expected()):
            self._loop.call_soon(self._after_turn, turns_left - 1, number)
        else:
            self.flush()
