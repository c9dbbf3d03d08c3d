"""What the long tests compare in the end, and what they compare it with."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def rows(path: Path, columns: str = "*", *, above: int = 0) -> list[dict[str, Any]]:
    """The spans in a database file whose `row_id` is above that, with columns of the view `spans`."""
    with closing(sqlite3.connect(path)) as db:
        found = db.execute(f"SELECT {columns} FROM spans WHERE row_id > ?", [above])
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]


def difference(got: bytes, expected: bytes) -> str:
    """Where two texts begin to differ, with some bytes around."""
    same = next(
        (at for at, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), min(len(got), len(expected))
    )
    shown = slice(max(0, same - 100), same + 300)
    return f"from byte {same} on it was\n{got[shown]!r}\nand should have been\n{expected[shown]!r}"


def without_usage_chunks(stream: bytes) -> bytes:
    """What a client is to see of a stream, told from all of it at once: not the events that are usage and nothing else.

    Comments and blank lines in front of an event are no part of it.
    """
    seen: list[bytes] = []
    event: list[bytes] = []
    mark, stream = (stream[:3], stream[3:]) if stream.startswith(b"\xef\xbb\xbf") else (b"", stream)
    for line in stream.splitlines(keepends=True):
        text = line.rstrip(b"\r\n")
        if not event and (not text or text.startswith(b":")):
            seen.append(line)
            continue
        event.append(line)
        if not text:
            seen += [] if is_usage_alone(event) else event
            event = []
    return mark + b"".join(seen + ([] if is_usage_alone(event) else event))


def is_usage_alone(event: list[bytes]) -> bool:
    data = [line.rstrip(b"\r\n").removeprefix(b"data:") for line in event if line.startswith(b"data:")]
    try:
        value = json.loads(b"\n".join(data).decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict) or value.get("error"):
        return False
    return isinstance(value.get("usage"), dict) and not value.get("choices")
