"""Follows the journal and sends each span on, once it is stored: calls do not wait for it, and a restart goes on where
it was."""

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.errors import StoreUnavailable
from gateway.store.store import Store
from gateway.upstream.collector import Collector, NotDelivered

log = logging.getLogger(__name__)

_NAME = "otlp"
_AT_ONCE = 200
_LOOK_EVERY_S = 0.5
_PAUSE_FIRST_S = 1.0
_PAUSE_AT_MOST_S = 60.0


class Shipper:
    """Sends spans to a collector, in the order of the journal, one batch after the other.

    Each at least once: what was sent and not noted before the process died is sent again, under the same ids. Of
    several processes on one database one does it, and when it ends, another.
    """

    def __init__(self, store: Store, database: Path, collector: Collector) -> None:
        self._store = store
        self._lock_file = database.with_name(f"{database.name}.otlp-lock")
        self._collector = collector
        self._begun_at = 0

    async def begin(self) -> None:
        """What is stored from here on will be sent. Raises StoreUnavailable."""
        self._begun_at = await self._store.place_of(_NAME)

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        async with self._collector:
            lock, waited = await self._lock()
            try:
                await self._follow(waited=waited)
            finally:
                os.close(lock)

    async def _lock(self) -> tuple[int, bool]:
        """Waits until no other process does this; whether it had to wait."""
        waited = False
        while True:
            opened = os.open(self._lock_file, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return opened, waited
            except BlockingIOError:
                os.close(opened)
            waited = True
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _follow(self, *, waited: bool) -> None:
        seq: int | None = None
        while True:
            try:
                if seq is None:
                    # Another process may have come further meanwhile, or have begun before this one.
                    noted = await self._store.place_of(_NAME)
                    seq = noted if waited else min(noted, self._begun_at)
                taken = await self._store.journal(seq, _AT_ONCE, _encoded)
                if taken is not None:
                    body, seq = taken
                    await self._deliver(body)
                    await self._store.keep_place(_NAME, seq)
                    continue
            except (StoreUnavailable, sqlite3.Error) as error:
                log.warning("The spans that are to be exported cannot be read: %s", error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _deliver(self, body: bytes) -> None:
        """Tries until the collector has it, or will never take it."""
        pause = _PAUSE_FIRST_S
        while True:
            try:
                await self._collector.send(body)
            except NotDelivered as error:
                if error.for_good:
                    log.error("The collector of [otlp] takes no such spans, they are not exported: %s", error)
                    return
                if pause == _PAUSE_FIRST_S:
                    log.warning("Spans wait, the collector of [otlp] cannot be reached: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PAUSE_AT_MOST_S)
            else:
                if pause > _PAUSE_FIRST_S:
                    log.warning("The collector of [otlp] takes spans again.")
                return


def _encoded(rows: Iterable[Mapping[str, Any]]) -> bytes:
    # Not at the start: protobuf takes a tenth of a second to load.
    from gateway.core import otlp_export

    return otlp_export.request(rows)
