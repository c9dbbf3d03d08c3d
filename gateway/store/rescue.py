"""Writes a database back whose file was moved or deleted while it is open."""

import contextlib
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from gateway.store.sqlite import SUFFIXES, Identity, identity


def copy_back(db: sqlite3.Connection, opened: Identity, path: Path) -> None:
    """Puts the whole content of `db` at `path` again, by a temporary file and a rename; then closes `db`.

    A file of somebody else's at that path is kept under another name. No other process may have the database open.
    Raises sqlite3.Error and OSError; `db` is still open then.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.copy")
    draft.unlink(missing_ok=True)
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with contextlib.closing(sqlite3.connect(draft)) as target:
            db.backup(target)
        _sync(draft)
        _set_aside(path, opened)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)
    # Not before the rename: until then this connection alone holds the spans. It takes its log along as it closes.
    db.close()


def _set_aside(path: Path, opened: Identity) -> None:
    """Other files than ours at the database's names: SQLite would take a log there for the log of ours."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    for suffix, found, ours in zip(SUFFIXES, identity(path), opened, strict=True):
        if found is not None and found != ours:
            Path(f"{path}{suffix}").rename(f"{path}.set-aside-{now}{suffix}")


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
