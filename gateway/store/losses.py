"""What a process had to give up at its end: kept beside the database until the next one enters it in the ledger."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from glob import escape
from pathlib import Path

from gateway.store.queries import Entry


def keep(database: Path, boot_id: str, entries: Mapping[Entry, int]) -> None:
    """Writes the entries down. Raises OSError."""
    lines = [[*entry, number] for entry, number in entries.items()]
    file = database.with_name(f"{database.name}.lost-{boot_id}")
    with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as opened:
        json.dump(lines, opened)


def claim(database: Path, boot_id: str) -> list[Path]:
    """The files that processes before this one have left, taken away from others who start now."""
    claimed: list[Path] = []
    for file in database.parent.glob(f"{escape(database.name)}.lost-*"):
        try:
            claimed.append(file.rename(f"{file}.{boot_id}"))
        except FileNotFoundError:
            continue
    return claimed


def read(file: Path) -> Counter[Entry]:
    """The entries of one file; none where it is no such file."""
    try:
        return Counter({Entry(*entry): number for *entry, number in json.loads(file.read_text("utf-8"))})
    except (OSError, ValueError, TypeError):
        return Counter()
