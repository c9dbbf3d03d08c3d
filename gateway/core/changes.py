"""Changes of spans as server-sent events (WHATWG HTML, section 9.2)."""

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


def event_of(change: Change, span: str | None) -> str:
    """A change as an event; `span`: the JSON of one that came or changed."""
    return event(change.kind, change.seq, dump({"id": change.unique_id}) if span is None else span)
