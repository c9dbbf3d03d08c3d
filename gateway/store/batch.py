"""One transaction of the writer."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.store import queries
from gateway.store.queries import Entry


@dataclass(slots=True)
class Batch:
    """What a write gets: the connection, the next place in the journal, and the ledger."""

    db: sqlite3.Connection
    seq: int
    ledger: Counter[Entry] = field(default_factory=Counter)

    def next_seq(self) -> int:
        """A new place in the journal, for a row that is new or changes."""
        self.seq += 1
        return self.seq

    def count(self, entry: Entry, number: int = 1) -> None:
        """Puts something that came in into the ledger."""
        self.ledger[entry] += number


# Does its change and says whether there was one.
Apply = Callable[[Batch], bool]


@dataclass(slots=True, eq=False)
class Write:
    """One change that waits for its commit.

    `size`: about how many bytes it holds while it waits. `patient`: it waits until the store is back, however long.
    `instead_of`: a write that this one makes needless where both are in one batch. `if_lost`: what the ledger has to
    hold if it is never committed.
    """

    apply: Apply
    size: int
    queued_at: float
    done: asyncio.Future[bool]
    patient: bool
    instead_of: "Write | None" = None
    if_lost: tuple[Entry, ...] = ()
    result: bool = False
    error: Exception | None = None


def commit(db: sqlite3.Connection, writes: Sequence[Write], check: Callable[[], None]) -> None:
    """Commits the writes in one transaction, or raises and changes nothing.

    A write that fails by its own fault fails alone and keeps its `error`; trouble with the store is raised as
    sqlite3.Error. `check` is called with the transaction open and may raise.
    """
    for write in writes:
        write.error = None
    applicable = list(writes)
    while (failed := _try(db, applicable, check)) is not None:
        applicable.remove(failed)


def _try(db: sqlite3.Connection, writes: list[Write], check: Callable[[], None]) -> Write | None:
    """Commits the writes, or rolls them back and gives the one that is at fault."""
    needless = {write.instead_of for write in writes}
    db.execute("BEGIN IMMEDIATE")
    try:
        first = queries.take_seq(db)
        batch = Batch(db, first)
        for write in writes:
            if write in needless:
                continue
            try:
                write.result = write.apply(batch)
            except Exception as error:
                if _is_trouble_with_the_store(error):
                    raise
                db.execute("ROLLBACK")
                write.error = error
                return write
        queries.add_to_ledger(db, batch.ledger)
        if batch.seq != first:
            queries.give_seq(db, batch.seq)
        check()
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return None


def _is_trouble_with_the_store(error: Exception) -> bool:
    of_the_write = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, of_the_write)
