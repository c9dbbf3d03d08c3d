"""Follows the journal and sends each span on, once it is stored: calls do not wait for it, and a restart goes on where
it was."""

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.core import secrets
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
        # Whether it has not taken the last span.
        self._refusing = False

    async def begin(self) -> None:
        """What is stored from here on will be sent. Raises StoreUnavailable."""
        self._begun_at = await self._store.place_of(_NAME)

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        async with self._collector:
            lock, waited = await self._lock()
            try:
                await self._follow(waited=waited)
            except Exception as error:
                log.error("No more spans are exported until a restart\n%s", secrets.trace(error))
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
        number = _AT_ONCE
        while True:
            try:
                if seq is None:
                    # Another process may have come further meanwhile, or have begun before this one.
                    noted = await self._store.place_of(_NAME)
                    seq = noted if waited else min(noted, self._begun_at)
                taken = await self._store.journal(seq, number, _encoded)
                if taken is not None:
                    (body, ids), end = taken
                    if not ids or await self._delivered(body, ids):
                        seq, number = end, min(2 * number, _AT_ONCE)
                        await self._store.keep_place(_NAME, seq)
                    else:
                        # Only those are given up that are at fault: they are looked for in smaller batches.
                        number = max(1, len(ids) // 2)
                    continue
            except (StoreUnavailable, sqlite3.Error) as error:
                log.warning("The spans that are to be exported cannot be read: %s", error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _delivered(self, body: bytes, ids: Sequence[str]) -> bool:
        """Tries until the collector has these spans, or will never take the only one; False: nor several at once."""
        pause = _PAUSE_FIRST_S
        while True:
            try:
                answer = await self._collector.send(body)
            except NotDelivered as error:
                if error.for_good and len(ids) > 1:
                    return False
                if error.for_good:
                    if not self._refusing:
                        log.error(
                            "The collector of [otlp] does not take the span %s, it is not exported: %s", *ids, error
                        )
                    self._refusing = True
                    return True
                if pause == _PAUSE_FIRST_S:
                    log.warning("Spans wait, the collector of [otlp] does not take them: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PAUSE_AT_MOST_S)
            else:
                self._refusing = False
                if pause > _PAUSE_FIRST_S:
                    log.warning("The collector of [otlp] takes spans again.")
                _tell_rejected(answer)
                return True


def _encoded(rows: Sequence[Mapping[str, Any]]) -> tuple[bytes, list[str]]:
    """A request with these spans, and their ids."""
    # Not at the start: protobuf takes a tenth of a second to load.
    from gateway.core import otlp_export

    try:
        body = otlp_export.request(rows)
    except Exception:
        # A span that we cannot write is to hold up none of the others.
        rows = [row for row in rows if _can_be_encoded(row)]
        body = otlp_export.request(rows)
    return body, [str(row["unique_id"]) for row in rows]


def _can_be_encoded(row: Mapping[str, Any]) -> bool:
    from gateway.core import otlp_export

    try:
        otlp_export.request([row])
    except Exception as error:
        log.error("The span %s cannot be exported\n%s", row["unique_id"], secrets.trace(error))
        return False
    return True


def _tell_rejected(answer: bytes) -> None:
    from gateway.core import otlp_export

    number, why = otlp_export.rejected(answer)
    if number:
        log.error("The collector of [otlp] has not taken %d spans, they are not exported: %.200r", number, why)
