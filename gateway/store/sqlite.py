"""Opens the database file: connections, and the schema brought up to date."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from gateway.errors import StoreError
from gateway.store import functions

# Columns of `content` that may be compressed: nothing else of a span grows with what was said.
COMPRESSED = ("input", "output", "full_request", "full_response")

_BUSY_TIMEOUT_S = 5.0
# What the write-ahead log is cut to when it starts over.
_LOG_KEPT_BYTES = 64 * 1024 * 1024
# The upper pages of the indexes of millions of spans, and what a batch touches.
_PAGES_KEPT_KB = 16 * 1024
_PAUSE_S = 0.01
# Steps of SQLite's machine, some ten million a second.
_LOOK_AT_CLOCK_EVERY = 200_000


def create(path: Path) -> None:
    """Makes the file (mode 0600) and its schema, or brings an older schema up to date.

    Raises StoreError if the file is no database of ours or comes from a newer version.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        db = connect(path)
        try:
            _log_ahead(db)
            _migrate(db, path)
        finally:
            db.close()
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The database {path} cannot be used: {error}.") from error


def _log_ahead(db: sqlite3.Connection) -> None:
    """Switches to the write-ahead log. For that SQLite does not wait while another process does the same."""
    until = time.monotonic() + _BUSY_TIMEOUT_S
    # Each try says at once whether it is in vain.
    db.execute("PRAGMA busy_timeout = 0")
    while True:
        try:
            if db.execute("PRAGMA page_count").fetchone()[0] == 0:
                # Of a new file, before anything else: so that space can be given back bit by bit.
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_S * 1000:.0f}")
            return
        except sqlite3.OperationalError as error:
            # The lowest byte is the code of SQLITE_BUSY_RECOVERY and of its like too (SQLite: rescode).
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_PAUSE_S)


class FileMoved(Exception):
    """The file at the database's path is not the one that is open."""


# The database, its write-ahead log and the log's index: device and inode of each, None where there is no such file.
Identity = tuple[tuple[int, int] | None, ...]
SUFFIXES = ("", "-wal", "-shm")


def identity(path: Path) -> Identity:
    """Which files are at the database's path now. Raises OSError."""
    return tuple(_inode(f"{path}{suffix}") for suffix in SUFFIXES)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for with each commit, and a Path costs more than the call
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode: transactions are begun by hand. It makes no file."""
    return _connected(path, "rw")


def connect_behind(path: Path) -> sqlite3.Connection:
    """A connection for what is done behind the calls, which wait while it holds the lock."""
    db = connect(path)
    db.execute("PRAGMA foreign_keys = ON")
    # What power loss takes of such work is done again; and no call is to wait for the disk.
    db.execute("PRAGMA synchronous = NORMAL")
    # Some builds of SQLite write zeros over all that is deleted, and calls wait for that too. These pages go.
    db.execute("PRAGMA secure_delete = FAST").fetchall()
    return db


def connect_writer(path: Path, *, synchronous: str) -> tuple[sqlite3.Connection, Identity]:
    """The connection that spans are written on, which leaves checkpoints to others, and the files that it has open.

    Raises sqlite3.Error, OSError and FileMoved.
    """
    before = _inode(str(path))
    db = connect(path)
    try:
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute(f"PRAGMA cache_size = -{_PAGES_KEPT_KB}")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT_BYTES}")
        db.execute("PRAGMA foreign_keys = ON")
        # SQLite opens its files at the first access.
        db.execute("SELECT seq FROM journal").fetchone()
        opened = identity(path)
        if opened[0] != before:
            raise FileMoved
    except BaseException:
        db.close()
        raise
    return db, opened


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, and reads what is compressed as if it were not."""
    db = _connected(path, "ro")
    db.row_factory = sqlite3.Row
    functions.add(db)
    try:
        _show_inflated(db)
    except BaseException:
        db.close()
        raise
    return db


def _show_inflated(db: sqlite3.Connection) -> None:
    """For this connection alone, views stand in the places of the table `content` and of the view `spans`."""
    columns = [str(name) for (name,) in db.execute("SELECT name FROM pragma_table_info('content', 'main')")]
    if not columns:
        # No database of ours: whoever asks it for spans learns that.
        return
    shown = [
        f"CASE typeof({name}) WHEN 'blob' THEN inflated({name}) ELSE {name} END AS {name}"
        if name in COMPRESSED
        else name
        for name in columns
    ]
    db.execute(f"CREATE TEMP VIEW content AS SELECT {', '.join(shown)} FROM main.content")
    (spans,) = db.execute("SELECT sql FROM main.sqlite_master WHERE name = 'spans'").fetchone()
    db.execute(str(spans).replace("CREATE VIEW", "CREATE TEMP VIEW", 1))


@contextmanager
def one_moment(db: sqlite3.Connection) -> Iterator[None]:
    """What is read in here is of one moment, however many statements it takes."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        # What fails may have ended it already.
        if db.in_transaction:
            db.execute("ROLLBACK")


@contextmanager
def within(db: sqlite3.Connection, seconds: float, is_given_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """What is asked in here is given up after so long, see `gave_up`; or sooner, once nobody waits for it."""
    until = time.monotonic() + seconds
    # What was interrupted between two statements goes on with the next one.
    db.set_progress_handler(lambda: is_given_up() or time.monotonic() > until, _LOOK_AT_CLOCK_EVERY)
    try:
        yield
    finally:
        db.set_progress_handler(None, 0)


def gave_up(error: sqlite3.Error) -> bool:
    """Whether a statement took too long, as a whole or a function in it with one value."""
    return error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT or "user-defined function raised" in str(error)


def tidy(path: Path) -> None:
    """Puts the write-ahead log into a database that nobody has open: of two who close it at once, neither does."""
    with suppress(sqlite3.Error), closing(connect(path)) as db:
        db.execute("SELECT seq FROM journal").fetchone()


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def migrations() -> list[tuple[int, str]]:
    """The steps from an empty file to the current schema: number and SQL, in order."""
    folder = resources.files("gateway.store") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(int(file.name.split("_", 1)[0]), file.read_text("utf-8")) for file in files]


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    steps = migrations()
    newest = steps[-1][0]
    if _version(db) == newest:
        return
    # The lock comes first: several processes may start at once.
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)
        if version > newest:
            raise StoreError(
                f"The database {path} was written by a newer gateway (schema {version}, this one knows {newest}): "
                "upgrade the gateway or use another [store] path."
            )
        for number, sql in steps:
            if number > version:
                for statement in _statements(sql):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _statements(sql: str) -> list[str]:
    statements: list[str] = []
    begun = ""
    for line in sql.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            statements.append(begun)
            begun = ""
    return statements
