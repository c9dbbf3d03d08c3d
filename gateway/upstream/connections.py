"""The connections to one upstream: those that are free for the next request, and all that are open."""

import asyncio
from time import monotonic

from gateway.upstream.dial import CannotConnect, Dialer
from gateway.upstream.http1 import Connection

# Ended at once, a connection is gone in the next round of the event loop.
_GONE_WITHIN_S = 1.0


class Connections:
    """Keeps connections for `idle_kept_s` after their answer, and uses the one that was free last.

    There may be any number of them. `looks_every_s`: see Connection.
    """

    def __init__(self, dialer: Dialer, idle_kept_s: float, looks_every_s: float) -> None:
        self._dialer = dialer
        self._idle_kept_s = idle_kept_s
        self._looks_every_s = looks_every_s
        # In the order in which they became free.
        self._free: list[Connection] = []
        self._open: set[Connection] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_gone: asyncio.Future[None] | None = None

    def take(self) -> Connection | None:
        """One that is free, where there is one."""
        while self._free:
            connection = self._free.pop()
            if connection.is_open and monotonic() - connection.freed_at < self._idle_kept_s:
                return connection
            connection.abort()
        return None

    async def open(self, within_s: float) -> Connection:
        """A new one. Raises CannotConnect, TimeoutError and ValueError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(within_s):
            connection = await self._dialer.dial(
                lambda: Connection(loop, self._on_free, self._on_lost, self._looks_every_s)
            )
        if self._closed or not connection.is_open:
            connection.abort()
            raise CannotConnect("it is being closed" if self._closed else "it closed the connection")
        self._open.add(connection)
        return connection

    async def close(self) -> None:
        """Ends them all, also those that are busy."""
        self._closed = True
        self._dialer.close()
        if self._alarm is not None:
            self._alarm.cancel()
        for connection in list(self._open):
            connection.fail(ConnectionAbortedError())
        if self._open:
            self._all_gone = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._all_gone], timeout=_GONE_WITHIN_S)

    def _on_free(self, connection: Connection) -> None:
        connection.freed_at = monotonic()
        self._free.append(connection)
        if self._alarm is None:
            self._look_in(self._idle_kept_s)

    def _on_lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if self._all_gone is not None and not self._open and not self._all_gone.done():
            self._all_gone.set_result(None)

    def _look_in(self, seconds: float) -> None:
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Ends those that have been free for too long."""
        self._alarm = None
        now = monotonic()
        stale = 0
        while stale < len(self._free) and now - self._free[stale].freed_at >= self._idle_kept_s:
            self._free[stale].abort()
            stale += 1
        del self._free[:stale]
        if self._free:
            self._look_in(self._idle_kept_s - (now - self._free[0].freed_at))
