"""Answers that go on for long: how many at once, and how they end."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from gateway.errors import TooManyAtOnce


class Room:
    """How many of one kind may go on at once in this process."""

    def __init__(self, at_most: int, what: str) -> None:
        self._at_most = at_most
        self._what = what
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One more goes on. Raises TooManyAtOnce."""
        if self._taken >= self._at_most:
            raise TooManyAtOnce(f"{self._what}: no more than {self._at_most} at once. Try again later.")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


async def until(ending: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Does this until it is done, or until the event is set."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(ending.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
    if not working.cancelled():
        working.result()
