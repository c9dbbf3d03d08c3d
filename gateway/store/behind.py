"""Work on the database that is done behind the calls: in steps, each in a thread, with pauses between them."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)


async def now_and_then(steps: Callable[[], Iterator[object]], every_s: float, what: str, *, rest: float = 1.0) -> None:
    """Each time that so long has passed, does the steps that there are, until it is cancelled. Not at once: who starts
    has enough to do.

    `rest`: how many times as long as a step is the pause behind it. Trouble with the database is logged, as what could
    not be done.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every_s)
        todo = steps()
        try:
            began = loop.time()
            while await asyncio.to_thread(next, todo, None) is not None:
                await asyncio.sleep(rest * (loop.time() - began))
                began = loop.time()
        except sqlite3.Error as error:
            log.warning("%s: %s", what, error)
