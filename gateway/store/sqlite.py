"""Opens the database file: connections, and the schema brought up to date."""

import os
import sqlite3
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from gateway.errors import StoreError

_BUSY_TIMEOUT_S = 5.0


def create(path: Path) -> None:
    """Makes the file (mode 0600) and its schema, or brings an older schema up to date.

    Raises StoreError if the file is no database of ours or comes from a newer version.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        db = connect(path)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            _migrate(db, path)
        finally:
            db.close()
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The database {path} cannot be used: {error}.") from error


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode: transactions are begun by hand."""
    return sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def connect_writer(path: Path, *, synchronous: str) -> sqlite3.Connection:
    """The connection that spans are written on; it leaves checkpoints to others."""
    db = connect(path)
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("PRAGMA foreign_keys = ON")
    return db


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write."""
    db = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    db.row_factory = sqlite3.Row
    return db


def migrations() -> list[tuple[int, str]]:
    """The steps from an empty file to the current schema: number and SQL, in order."""
    folder = resources.files("gateway.store") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(int(file.name.split("_", 1)[0]), file.read_text("utf-8")) for file in files]


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    steps = migrations()
    newest = steps[-1][0]
    # The lock comes first: several processes may start at once.
    db.execute("BEGIN IMMEDIATE")
    try:
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
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


def _statements(sql: str) -> list[str]:
    statements: list[str] = []
    begun = ""
    for line in sql.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            statements.append(begun)
            begun = ""
    return statements
