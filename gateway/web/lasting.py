"""Answers that go on for long: how many at once, what they share, and how they end."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aiohttp import web

from gateway.errors import TooManyAtOnce

T = TypeVar("T")


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


@dataclass(slots=True)
class _Work(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


class Shared(Generic[T]):
    """Work that is done once for all who want the same at the same time, one after the other."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore()
        self._under_way: dict[Hashable, _Work[T]] = {}

    async def done(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What comes of the work that this key stands for; given up once nobody waits for it any more."""
        found = self._under_way.get(key)
        if found is None:
            found = self._under_way[key] = _Work(asyncio.create_task(self._in_turn(work)))
        found.waiting += 1
        try:
            return await asyncio.shield(found.task)
        finally:
            found.waiting -= 1
            if not found.waiting:
                found.task.cancel()
                del self._under_way[key]

    async def _in_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with self._turn:
            return await work()


def hang_up(request: web.Request) -> None:
    """Ends the connection as it stands."""
    if request.transport is not None:
        request.transport.abort()


async def until(ending: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Does this until it is done, or until the event is set; whether it is done."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(ending.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
    if working.cancelled():
        return False
    working.result()
    return True
