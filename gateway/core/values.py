"""Which values a field has, for who is about to filter by it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from gateway.core.filters import Kind
from gateway.core.jsontext import dump, parse_or_none
from gateway.core.reading import shown_metadata

# Those whose values are few, or can be told by how they begin; of an object its keys.
LISTED_KINDS = frozenset({Kind.TEXT, Kind.BOOL, Kind.WHOLE, Kind.OBJECT})
# Nobody picks a value from a list that is longer.
VALUE_AT_MOST = 500
# Characters of what columns hold, in one look.
_ROOM = 64 * 1024 * 1024


def counted(stored: Iterable[Any], field: str, key: str | None, kind: Kind) -> tuple[int, Counter[Any]]:
    """How often each value comes that is not too long, see `held`; and in how many spans, as many as have room."""
    spans, room = 0, _ROOM
    found: Counter[Any] = Counter()
    for one in stored:
        spans += 1
        found.update(value for value in held((one,), field, key, kind) if not _is_long(value))
        room -= len(one) if isinstance(one, str) else 0
        if room <= 0:
            break
    return spans, found


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and len(value) > VALUE_AT_MOST


def held(stored: Iterable[Any], field: str, key: str | None, kind: Kind) -> Iterator[Any]:
    """The values of a field as they are filtered by, of what its column holds; of an object its keys, or what stands
    under `key`, as text."""
    for one in stored:
        if one is None or one == "":
            continue
        if key is not None or kind is Kind.OBJECT:
            yield from _members(field, key, parse_or_none(one))
        else:
            yield bool(one) if kind is Kind.BOOL else one


def _members(field: str, key: str | None, members: Any) -> Iterator[str]:
    shown = shown_metadata(members) if field == "metadata" else members
    if not isinstance(shown, dict):
        return
    if key is None:
        yield from shown
    elif shown.get(key) not in (None, ""):
        yield _text(shown[key])


def most_frequent(values: Counter[Any], prefix: str, limit: int) -> list[tuple[Any, int]]:
    """Those that begin so, without regard to case, and how often they come, most frequent first."""
    begin = prefix.casefold()
    found = [(value, number) for value, number in values.items() if _text(value).casefold().startswith(begin)]
    return sorted(found, key=lambda one: (-one[1], _text(one[0])))[:limit]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dump(value)
