"""Time and ids, in one object that tests replace."""

import time
import uuid
from datetime import UTC, datetime


class Clock:
    """Where the gateway asks for the time and for new ids."""

    def now(self) -> datetime:
        """The wall clock, UTC; for timestamps only."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on a line that never jumps; for every duration."""
        return time.monotonic()

    def new_id(self) -> str:
        """A new span id: 32 hexadecimal digits."""
        return uuid.uuid4().hex
