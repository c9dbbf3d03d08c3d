"""A trace: what its spans come to, and their tree."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from gateway.core.jsontext import dump, parse_or_none
from gateway.core.prices import usd
from gateway.core.reading import shown_metadata

# What counts as a call of a model.
LLM_CALLS = ("chat", "completion", "response", "text", "generation", "embedding", "transcription", "speech")
# Columns of the view `spans` that a node of the tree is made of.
NODE_COLUMNS = (
    *("unique_id", "span_unique_id", "span_name", "span_parent_id", "trace_unique_id", "customer_identifier"),
    *("thread_identifier", "session_identifier", "organization_key_id", "organization_id", "environment", "log_type"),
    *("timestamp", "start_time", "prompt_tokens", "completion_tokens", "total_request_tokens", "cost", "model"),
    *("latency", "status_code", "status", "input", "output", "metadata", "span_workflow_name", "extras"),
)
# And those that a trace has of its root.
ROOT_COLUMNS = (
    *("span_unique_id", "organization_id", "organization_key_id", "environment", "customer_identifier", "span_name"),
    *("span_workflow_name", "input", "output", "metadata", "trace_group_identifier", "session_identifier", "model"),
)
# What makes a large trace large.
CONTENT_COLUMNS = ("input", "output", "metadata")
# On the span at which a circle of parents was cut open.
CUT_MARK = "parent_is_descendant"


def public_trace(sums: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """A trace as lists show it: sums over its spans, and what its root says (ROOT_COLUMNS)."""
    return {
        "id": sums["trace_unique_id"],
        "trace_unique_id": sums["trace_unique_id"],
        "root_span_unique_id": root["span_unique_id"],
        "unique_organization_id": root["organization_id"],
        "organization_id": root["organization_id"],
        "organization_name": None,
        "organization_key_id": root["organization_key_id"],
        "environment": root["environment"],
        "customer_identifier": root["customer_identifier"] or sums["customer_identifier"],
        "start_time": sums["start_time"],
        "end_time": sums["end_time"],
        "duration": _seconds(sums["start_time"], sums["end_time"]),
        "span_count": sums["span_count"],
        "llm_call_count": sums["llm_call_count"],
        "total_cost": usd(sums["cost_picos"]),
        "total_prompt_tokens": sums["total_prompt_tokens"],
        "total_completion_tokens": sums["total_completion_tokens"],
        "total_tokens": sums["total_request_tokens"],
        "error_count": sums["error_count"],
        "name": root["span_name"] or root["span_workflow_name"],
        "input": _text(root["input"]),
        "output": _text(root["output"]),
        "metadata": shown_metadata(parse_or_none(root["metadata"] or "")),
        "trace_group_identifier": root["trace_group_identifier"] or sums["trace_group_identifier"],
        "session_identifier": root["session_identifier"] or sums["session_identifier"],
        "model": root["model"],
        "storage_object_key": None,
    }


def _seconds(start: str, end: str) -> float:
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def _text(written: str | None) -> str | None:
    """Input or output as text: what was no text is shown as JSON, which it is stored as."""
    if written is None or not written.startswith('"'):
        return written
    value = parse_or_none(written)
    return value if isinstance(value, str) else written


def node(row: Mapping[str, Any]) -> dict[str, Any]:
    """A span as a node of the tree, without its children."""
    extras = parse_or_none(row["extras"] or "")
    links = extras.get("span_links") if isinstance(extras, dict) else None
    shown = {name: row[name] for name in NODE_COLUMNS if name != "extras"}
    return shown | {
        "id": row["unique_id"],
        "end_time": row["timestamp"],
        "input": _text(row["input"]),
        "output": _text(row["output"]),
        "metadata": shown_metadata(parse_or_none(row["metadata"] or "")),
        "span_links": links if links is None or isinstance(links, str) else dump(links),
        "storage_object_key": None,
    }


def whole_trace(sums: Mapping[str, Any], root: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """A trace with its tree, as JSON; `rows`: of NODE_COLUMNS."""
    nodes = [node(row) for row in rows]
    return f'{dump(public_trace(sums, root))[:-1]},"span_tree":{tree(nodes)}}}'


def tree(nodes: Sequence[dict[str, Any]]) -> str:
    """JSON of the roots, each with its `children`, in the order of the nodes.

    A span whose parent is not among them is a root. Where parents go round in a circle, its first span is made a root
    and says so (CUT_MARK). However deep it is, it is written piece by piece.
    """
    children, roots = linked(nodes)
    pieces = ["["]
    for number, root in enumerate(roots):
        pieces += ("," if number else "", *_written(nodes, children, root))
    return "".join((*pieces, "]"))


def linked(nodes: Sequence[dict[str, Any]]) -> tuple[list[list[int]], list[int]]:
    """The children of each node, and the roots, all by their places; marks where a circle was cut open."""
    places: dict[str, int] = {}
    for place, one in enumerate(nodes):
        places.setdefault(one["span_unique_id"], place)
    parents = [places.get(one["span_parent_id"]) if one["span_parent_id"] else None for one in nodes]
    for place in _first_of_circles(parents):
        parents[place] = None
        nodes[place][CUT_MARK] = True
    children: list[list[int]] = [[] for _ in nodes]
    for place, parent in enumerate(parents):
        if parent is not None:
            children[parent].append(place)
    return children, [place for place, parent in enumerate(parents) if parent is None]


def _first_of_circles(parents: Sequence[int | None]) -> list[int]:
    found: list[int] = []
    # By which node's way up a node was come upon first.
    seen: dict[int, int] = {}
    for start in range(len(parents)):
        at: int | None = start
        way: list[int] = []
        while at is not None and at not in seen:
            seen[at] = start
            way.append(at)
            at = parents[at]
        if at is not None and seen[at] == start:
            found.append(min(way[way.index(at) :]))
    return found


def _written(nodes: Sequence[dict[str, Any]], children: Sequence[Sequence[int]], root: int) -> Iterator[str]:
    yield _begun(nodes[root])
    under_way = [iter(children[root])]
    is_first = True
    while under_way:
        child = next(under_way[-1], None)
        if child is None:
            under_way.pop()
            is_first = False
            yield "]}"
            continue
        if not is_first:
            yield ","
        is_first = True
        yield _begun(nodes[child])
        under_way.append(iter(children[child]))


def _begun(one: dict[str, Any]) -> str:
    return f'{dump(one)[:-1]},"children":['
