"""What SQLite lacks to filter by text, as functions of a connection."""

import re
import sqlite3
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gateway.core import content
from gateway.core.jsontext import parse_or_none
from gateway.store.rows import writable

if TYPE_CHECKING:
    import regex

# For one value. The engine lets go of the GIL meanwhile, so that no pattern holds up the event loop.
_MATCH_WITHIN_S = 0.5
_SIMILAR_FROM = 0.6
_PATTERNS_KEPT = 16


def add(db: sqlite3.Connection) -> None:
    """Adds `folded(text)`, `said(json, json)`, `matches(pattern, text)`, `similar(word, text)`, `legible(text)` and
    `inflated(blob)`.

    A text that may stem from JSON has to be given as a BLOB: with half a surrogate pair in it, it is no UTF-8, and
    no function is called with that.
    """
    db.create_function("folded", 1, folded, deterministic=True)
    db.create_function("said", 2, said, deterministic=True)
    db.create_function("matches", 2, matches, deterministic=True)
    db.create_function("similar", 2, similar, deterministic=True)
    db.create_function("legible", 1, legible, deterministic=True)
    db.create_function("inflated", 1, inflated, deterministic=True)


def legible(text: Any) -> str | None:
    """The text, with a sign in the place of what is no UTF-8."""
    return text.decode(errors="replace") if isinstance(text, bytes) else None if text is None else str(text)


def folded(text: Any) -> str | None:
    """Without regard to case."""
    return None if text is None else str(legible(text)).casefold()


def said(first: str | None, second: str | None) -> str | None:
    """What stands in two values of JSON, as text: see `content.plain`."""
    told = [content.plain(parse_or_none(value)) for value in (first, second) if value is not None]
    return writable("\n".join(told)) if told else None


def matches(pattern: str, text: Any) -> bool | None:
    """Whether the pattern is found in the text. Raises TimeoutError, which fails the statement."""
    if text is None:
        return None
    return _compiled(pattern).search(str(legible(text)), timeout=_MATCH_WITHIN_S, concurrent=True) is not None


def similar(word: str, text: Any) -> bool | None:
    """Whether most of the word's trigrams are among the text's, both as PostgreSQL's pg_trgm makes them."""
    if text is None:
        return None
    wanted = _trigrams(word)
    return bool(wanted) and len(wanted & _trigrams(str(legible(text)))) / len(wanted) >= _SIMILAR_FROM


# The view `spans` asks for one value several times.
@lru_cache(2)
def inflated(value: bytes) -> str:
    """The text that was compressed, see `compress`."""
    return zlib.decompress(value).decode()


@lru_cache(_PATTERNS_KEPT)
def _compiled(pattern: str) -> "regex.Pattern[str]":
    # Takes its time to load, and few need it.
    import regex

    return regex.compile(pattern)


def _trigrams(text: str) -> set[str]:
    padded = [f"  {word} " for word in re.findall(r"\w+", text.lower())]
    return {word[at : at + 3] for word in padded for at in range(len(word) - 2)}
