"""A question that a reader's thread asks, and that can be given up from another."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class GivenUp(Exception):
    """Nobody waits for the answer any more."""


class Question:
    """Knows of the connection while it is asked there, so that nothing else is ever interrupted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._is_given_up = False

    def give_up(self) -> None:
        """Ends it where it stands; one that has not begun does not begin."""
        with self._lock:
            self._is_given_up = True
            if self._db is not None:
                self._db.interrupt()

    def is_given_up(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._is_given_up

    @contextmanager
    def asked(self, db: sqlite3.Connection) -> Iterator[None]:
        """It is asked in here. Raises GivenUp."""
        with self._lock:
            if self._is_given_up:
                raise GivenUp
            self._db = db
        try:
            yield
        finally:
            with self._lock:
                self._db = None
