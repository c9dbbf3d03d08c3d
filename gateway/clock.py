"""Time and ids, in one object that tests replace."""

import asyncio
import random
import time
from datetime import UTC, datetime

# Seeded by the system; asking the system each time would let go of the GIL.
_random = random.Random()


class Clock:
    """Where the gateway asks for the time and for new ids."""

    def now(self) -> datetime:
        """The wall clock, UTC; for timestamps only."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on a line that never jumps; for every duration."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Waits; where nothing else is to be waited for."""
        await asyncio.sleep(seconds)

    def new_id(self) -> str:
        """A new span id: 32 hexadecimal digits, a version 7 UUID (RFC 9562, section 5.7).

        Ids that grow with time go to the end of the database's indexes, however many there are already.
        """
        milliseconds = time.time_ns() // 1_000_000
        bits = milliseconds << 80 | 0x7 << 76 | _random.getrandbits(12) << 64 | 0x2 << 62 | _random.getrandbits(62)
        return f"{bits:032x}"
