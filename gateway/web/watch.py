"""Looks where the journal stands, once for all who listen, and only while somebody does."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import RefusedRequest
from gateway.store.store import Store

LOOK_EVERY_S = 0.25
# While the store cannot be read, each look is a line in the log.
_LOOK_AGAIN_S = 5.0


class Watch:
    """Also sees what other processes write: it asks the database."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._seq = 0
        self._moved = asyncio.Event()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Somebody listens."""
        self._listeners += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="look at the journal")
        try:
            yield
        finally:
            self._listeners -= 1
            if self._listeners == 0:
                self._looking.cancel()
                self._looking = None

    @property
    def seq(self) -> int:
        """Where the journal stood at the last look; who goes no further meets the others there."""
        return self._seq

    async def wait_behind(self, seq: int, within_s: float) -> bool:
        """Waits until the journal goes on behind a place, at most so long; whether it does."""
        try:
            async with asyncio.timeout(within_s):
                while self._seq <= seq:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def _look(self) -> None:
        while True:
            try:
                seq = await self._store.end_of_journal()
            except (RefusedRequest, OSError):
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            if seq != self._seq:
                self._seq = seq
                self._moved.set()
                self._moved = asyncio.Event()
            await asyncio.sleep(LOOK_EVERY_S)
