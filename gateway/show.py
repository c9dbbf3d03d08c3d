"""Spans and traces on a terminal, read from the file whether a gateway runs on it or not."""

import json
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.core.filters import BETWEEN, SPAN_FIELDS, Condition, Filter, both
from gateway.core.reading import page_of, public, stored_time
from gateway.core.trace import CUT_MARK, linked, node, public_trace, whole_trace
from gateway.core.walk import NEWEST_FIRST
from gateway.errors import GatewayError, StoreError
from gateway.store import conditions, lists, queries, traces
from gateway.store import sqlite as files

_LOOK_EVERY_S = 0.5
_AT_ONCE = 500
# Characters of a terminal with room for every column; and those that others have none for.
_WIDE = 100
_OF_SPEED = ("1st token", "tok/s")
# Characters of a trace's name.
_NAME = 100
# Spans further in are shown here, with how far in they are.
_DEPTH_SHOWN = 20
_CONDITION = re.compile(r"([\w.-]+?)\s*(>=|<=|!=|=|>|<|~)\s*(.*)", re.DOTALL)
_OPERATORS = {"=": "", "!=": "not", ">=": "gte", "<=": "lte", ">": "gt", "<": "lt", "~": "icontains"}


@dataclass(frozen=True, slots=True)
class Options:
    """Which spans. `where`: conditions like `cost>=0.01`; `since`: only those that ended from then on."""

    path: Path
    organization: str | None = None
    where: Sequence[str] = ()
    since: datetime | None = None
    limit: int = 50
    follow: bool = False
    json: bool = False


def spans(options: Options, console: Console) -> int:
    """The newest spans, the newest last; with `follow` those that come as well, until it is interrupted.

    Raises StoreError and MalformedBody.
    """
    which = conditions.of_spans(_which(options))
    with reader(options.path) as db:
        organization_id = organization(db, options.organization)
        with files.one_moment(db):
            found = lists.page(db, organization_id, which, NEWEST_FIRST, size=options.limit)
            seq = queries.take_seq(db)
        ids = found.ids[::-1]
        for at in range(0, max(1, len(ids)), _AT_ONCE):
            _print(console, options, list(lists.rows(db, ids[at : at + _AT_ONCE])), head=at == 0)
        changed: list[tuple[int, int]] = []
        while options.follow:
            if len(changed) < _AT_ONCE:
                time.sleep(_LOOK_EVERY_S)
            changed = lists.since(db, organization_id, which, seq, _AT_ONCE)
            if changed:
                seq = changed[-1][1]
                _print(console, options, list(lists.rows(db, [row_id for row_id, _ in changed])), head=False)
    return 0


def trace(path: Path, whose: str | None, trace_unique_id: str, console: Console, *, as_json: bool) -> int:
    """The tree of a trace; exit status 1 where there is none. Raises StoreError."""
    with reader(path) as db, files.one_moment(db):
        organization_id = organization(db, whose)
        found = traces.find(db, organization_id, trace_unique_id)
        if found is None:
            raise GatewayError(f"There is no trace {trace_unique_id} of {organization_id}.")
        rows = list(traces.spans(db, organization_id, trace_unique_id))
    if as_json:
        console.out(whole_trace(found.sums, found.root, rows), highlight=False)
    else:
        for line in _tree(public_trace(found.sums, found.root), [node(row) for row in rows]):
            console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")
    return 0


@contextmanager
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database that is there. Raises StoreError, also of what is read in here."""
    if not path.exists():
        raise StoreError(f"There is no database {path}: name its configuration with --config.")
    try:
        with closing(files.connect_reader(path)) as db:
            yield db
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} cannot be read: {error}.") from error


def organization(db: sqlite3.Connection, wanted: str | None) -> str:
    """Whose spans are meant, where nobody said so: of the only organization that there is. Raises GatewayError."""
    there = queries.audited_organizations(db)
    if wanted is None and len(there) == 1:
        return there[0]
    if wanted in there:
        return wanted
    if not there:
        raise GatewayError("Nothing is stored yet.")
    raise GatewayError(f"Say whose with --organization; there are {', '.join(there)}.")


def _which(options: Options) -> Filter:
    found: list[Filter] = [condition(text) for text in options.where]
    if options.since is not None:
        found.append(Condition("timestamp", BETWEEN, (stored_time(options.since), None)))
    return both(*found)


def condition(text: str) -> Filter:
    """A condition like `cost>=0.01`. Raises GatewayError."""
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        raise GatewayError(f"{text!r} is no condition like model=gpt-4o, cost>=0.01 or span_name~weather.")
    return SPAN_FIELDS.condition(parts[1], _OPERATORS[parts[2]], parts[3])


def _print(console: Console, options: Options, rows: Sequence[Mapping[str, Any]], *, head: bool) -> None:
    if options.json:
        for text in page_of(rows):
            console.out(text, highlight=False)
    elif rows or head:
        console.print(spans_table([public(row) for row in rows], console.width, times=True, head=head))


def _tree(whole: Mapping[str, Any], nodes: list[dict[str, Any]]) -> Iterator[str]:
    """A line for the trace, then one for each span, further in than its parent's."""
    yield (
        f"[bold]{escape(_short(whole['name'] or whole['id'], _NAME))}[/]  {_seconds(whole['duration'])},"
        f" {whole['span_count']} spans, {whole['total_tokens']:,} tokens, ${whole['total_cost']:.6f}"
    )
    children, roots = linked(nodes)
    begin = datetime.fromisoformat(whole["start_time"])
    under_way = [iter(roots)]
    while under_way:
        place = next(under_way[-1], None)
        if place is None:
            under_way.pop()
            continue
        depth = len(under_way) - 1
        indent = "│  " * min(depth, _DEPTH_SHOWN) + (f"({depth}) " if depth > _DEPTH_SHOWN else "")
        yield f"[dim]{indent}├─[/] {_step(nodes[place], begin)}"
        under_way.append(iter(children[place]))


def _step(one: Mapping[str, Any], begin: datetime) -> str:
    start = one["start_time"] or one["timestamp"]
    after = (datetime.fromisoformat(start) - begin).total_seconds()
    told = [f"[bold]{escape(_short(one['span_name'] or one['model'] or one['unique_id'], 40))}[/]"]
    told.append(escape(_short(one["log_type"], 20)))
    told.append(f"at {_seconds(after)}, {_seconds(one['latency'])}")
    if one["prompt_tokens"] is not None:
        told.append(f"{_tokens(one)} tokens")
    if one["cost"] is not None:
        told.append(f"${one['cost']:.6f}")
    if one["status"] != "success":
        told.append(_status(one))
    if one.get(CUT_MARK):
        told.append("[yellow]its parent is one of its descendants[/]")
    return "  ".join(told)


def spans_table(
    spans: Sequence[Mapping[str, Any]], width: int, *, title: str | None = None, times: bool = False, head: bool = True
) -> Table:
    """A line for each span, as the API shows it; `times`: when it ended, too."""
    table = Table(
        title=title, title_justify="left", box=SIMPLE if head else None, collapse_padding=True, show_header=head
    )
    # What a narrow terminal has no room for is left out.
    is_wide = width >= (_WIDE if times else 0)
    if times:
        table.add_column("ended", no_wrap=True, min_width=14 if is_wide else 8)
    table.add_column("what", no_wrap=True, min_width=13, max_width=13)
    table.add_column("status", no_wrap=True, min_width=10)
    numbers = {"tokens": 6, "cost $": 8, "1st token": 9, "tok/s": 6, "latency": 7}
    for name, least in numbers.items():
        if is_wide or name not in _OF_SPEED:
            table.add_column(name, justify="right", no_wrap=True, min_width=least)
    # The one that gives way where there is no room for all: rich takes from columns that may wrap first.
    table.add_column("output")
    room = max(8, min(60, width - (71 if is_wide else 52) - (17 if is_wide else 11) * times))
    for span in spans:
        speed = (
            _seconds(span["time_to_first_token"]),
            "–" if span["tokens_per_second"] is None else f"{span['tokens_per_second']:,.0f}",
        )
        table.add_row(
            *([_local(span["timestamp"], "%m-%d %H:%M:%S" if is_wide else "%H:%M:%S")] if times else []),
            escape(_short(span["span_name"] or span["model"], 13)),
            _status(span),
            _tokens(span),
            "–" if span["cost"] is None else f"{span['cost']:.6f}",
            *(speed if is_wide else ()),
            _seconds(span["latency"]),
            Text(_short(_output(span), room), no_wrap=True, overflow="ellipsis"),
        )
    return table


def _short(text: str, length: int) -> str:
    """The beginning of a text, on one line. What would steer a terminal is left out: others wrote the text."""
    text = "".join([sign if sign.isprintable() else " " for sign in text[: length + 1]])
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _status(span: Mapping[str, Any]) -> str:
    if span["status"] == "failed":
        return f"[red]failed {span['status_code']}[/]"
    return f"[green]{escape(_short(span['status'], 10))}[/]"


def _tokens(span: Mapping[str, Any]) -> str:
    if span["prompt_tokens"] is None:
        return "–"
    answered = span["completion_tokens"]
    return f"{span['prompt_tokens']}→{'–' if answered is None else answered}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:,.1f}ms"


def _output(span: Mapping[str, Any]) -> str:
    if span["error_message"]:
        text = span["error_message"]
    elif span["tool_calls"]:
        text = f"{span['tool_calls'][0]['function']['name']}(…)"
    elif span["completion_message"]:
        text = span["completion_message"].get("content") or ""
    else:
        text = (
            span["output"]
            if isinstance(span["output"], str)
            else ""
            if span["output"] is None
            else json.dumps(span["output"])
        )
    return str(text)


def _local(timestamp: str, form: str) -> str:
    return datetime.fromisoformat(timestamp).astimezone().strftime(form)
