"""Changes of spans as server-sent events (WHATWG HTML, section 9.2)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.core.jsontext import dump

# What happened to a span: it came or changed, it changed and is none of those that are listened to, it was deleted.
SPAN, LEFT, DELETED = "span", "left", "deleted"
# What else is told: from where on, and that something between is not told.
READY, GAP = "ready", "gap"


class Change(NamedTuple):
    """What happened to a span, and its place in the journal."""

    seq: int
    kind: str
    unique_id: str


def event(name: str, seq: int, data: str = "{}") -> str:
    """One event; its id is the place behind which a listener goes on. `data`: JSON, which has no line breaks."""
    return f"event: {name}\nid: {seq}\ndata: {data}\n\n"


def sign_of_life(seq: int) -> str:
    """What is no event to the client, but moves on the place behind which it would go on."""
    return f": \nid: {seq}\n\n"


def events(changes: Sequence[Change], spans: Iterable[str]) -> str:
    """Changes as events; `spans`: JSON of those that came or changed, in the same order."""
    shown = iter(spans)
    return "".join(
        [event(one.kind, one.seq, next(shown) if one.kind == SPAN else dump({"id": one.unique_id})) for one in changes]
    )
