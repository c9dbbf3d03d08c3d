"""Which processes have the database open: each has an id, and a lock on a file that is free once it has ended.

The lock is the kernel's (flock): however a process ends, it is let go.
"""

import fcntl
import os
import secrets
from glob import escape
from pathlib import Path


class Boot:
    """This process's own mark."""

    def __init__(self, database: Path) -> None:
        """Raises OSError."""
        self.id = secrets.token_hex(8)
        self._file = _file(database, self.id)
        self._lock = _locked(self._file)

    def renew(self) -> None:
        """Puts the file back where somebody has deleted it. Raises OSError."""
        if not self._file.exists():
            os.close(self._lock)
            self._lock = _locked(self._file)

    def end(self) -> None:
        """Lets go of the lock."""
        self._file.unlink(missing_ok=True)
        os.close(self._lock)


def is_alive(database: Path, boot_id: str) -> bool:
    """Whether the process of this id still runs."""
    try:
        found = os.open(_file(database, boot_id), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at once do not take each other for the owner.
        fcntl.flock(found, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(found)
    return False


def forget(database: Path, boot_id: str) -> None:
    """Deletes the file of a process that has ended."""
    _file(database, boot_id).unlink(missing_ok=True)


def others(database: Path, own: Boot) -> list[str]:
    """The ids of the other processes that have a file here, running or not."""
    prefix = _file(database, "").name
    files = database.parent.glob(f"{escape(prefix)}*")
    ids = [file.name.removeprefix(prefix) for file in files if file.suffix != ".new"]
    return [boot_id for boot_id in ids if boot_id != own.id]


def _file(database: Path, boot_id: str) -> Path:
    return database.with_name(f"{database.name}.boot-{boot_id}")


def _locked(file: Path) -> int:
    # Locked before it has its name: whoever finds it finds it locked.
    draft = file.with_name(f"{file.name}.new")
    opened = os.open(draft, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(opened, fcntl.LOCK_EX)
    draft.rename(file)
    return opened
