"""One transaction of the writer."""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.store import queries
from gateway.store.queries import Entry
from gateway.store.rows import Row, Values


class Batch:
    """What a write gets: the connection, the next place in the journal, and the ledger.

    Rows that can be written without a look at the database are gathered and go in together: each statement lets go
    of the GIL and takes it again, which costs more than the row. Whoever asks for `db` finds them written.
    """

    def __init__(self, db: sqlite3.Connection, seq: int, *, together: bool = True) -> None:
        self._db = db
        self._together = together
        self._opened: list[Values] = []
        self._settled: list[Values] = []
        # By their columns.
        self._spans: defaultdict[tuple[str, ...], list[Values]] = defaultdict(list)
        self._contents: defaultdict[tuple[str, ...], list[Values]] = defaultdict(list)
        self.seq = seq
        self.ledger: Counter[Entry] = Counter()

    @property
    def db(self) -> sqlite3.Connection:
        """The connection, with everything written that came before in this batch."""
        self.write()
        return self._db

    def write(self) -> None:
        """Writes the gathered rows."""
        if self._opened:
            queries.open_calls(self._db, self._opened)
            self._opened.clear()
        for columns, rows in self._spans.items():
            queries.insert_spans(self._db, columns, rows)
        self._spans.clear()
        if self._settled:
            queries.settle_calls(self._db, self._settled)
            self._settled.clear()
        for columns, rows in self._contents.items():
            queries.insert_contents(self._db, columns, rows)
        self._contents.clear()

    def open(self, boot_id: str, values: Values) -> int:
        """Gathers the open row of a call; gives its id."""
        seq = self.next_seq()
        self._opened.append(queries.open_row(seq, boot_id, values))
        self._gathered()
        return seq

    def insert(self, span: Row, content: Row, received_at: str | None = None) -> bool:
        """Gathers a span whose id is new, as those that are minted here are; False if it shows that it is not."""
        seq = self.next_seq()
        if not self._together:
            return queries.insert_span(self._db, seq, span, content, received_at=received_at)
        self._spans[span.columns].append(queries.stored_row(seq, span.values, received_at))
        self._contents[content.columns].append((seq, *content.values))
        return True

    def settle(self, row_id: int, span: Row, content: Row) -> None:
        """Gathers the span, with all its columns, of a call that has an open row."""
        self._settled.append(queries.stored_row(row_id, span.values, None, seq=self.next_seq()))
        self._contents[content.columns].append((row_id, *content.values))
        self._gathered()

    def _gathered(self) -> None:
        if not self._together:
            self.write()

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
    `if_lost`: what the ledger has to hold if it is never committed. `on_failure` is told why it was not.
    """

    apply: Apply
    size: int
    queued_at: float
    done: asyncio.Future[bool]
    patient: bool
    if_lost: tuple[Entry, ...] = ()
    on_failure: Callable[[Exception], None] | None = None
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
    together = True
    while True:
        try:
            failed = _try(db, applicable, check, together=together)
        except _OneOfThem:
            # Each by itself, so that it shows which.
            together = False
            continue
        if failed is None:
            break
        applicable.remove(failed)


class _OneOfThem(Exception):
    """A row that was written together with others is at fault."""


def _try(db: sqlite3.Connection, writes: list[Write], check: Callable[[], None], *, together: bool) -> Write | None:
    """Commits the writes, or rolls them back and gives the one that is at fault. Raises _OneOfThem."""
    db.execute("BEGIN IMMEDIATE")
    try:
        first = queries.take_seq(db)
        batch = Batch(db, first, together=together)
        for write in writes:
            try:
                write.result = write.apply(batch)
            except Exception as error:
                if _is_trouble_with_the_store(error):
                    raise
                if together:
                    raise _OneOfThem from error
                db.execute("ROLLBACK")
                write.error = error
                return write
        try:
            batch.write()
        except Exception as error:
            if _is_trouble_with_the_store(error) or not together:
                raise
            raise _OneOfThem from error
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
