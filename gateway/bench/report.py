"""The results as tables for a terminal, and as Markdown."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.bench.results import ADDED, DIRECT, Results, Row

_BEGIN = "<!-- bench: begin -->"
_END = "<!-- bench: end -->"
# What stands first in the README; the rest is folded away.
_FIRST = ("calls", "64 connections")
# Of these figures it is told what they are of the yardstick's.
_COMPARED = ("requests a second", "chunks a second", "spans a second", "CPU ms per 1,000")


@dataclass(frozen=True, slots=True)
class Case:
    """One case of one measure: a line of cells for each contender."""

    measure: str
    name: str
    figures: list[str]
    lines: list[list[str]]
    note: str


def show(results: Results, console: Console) -> None:
    """Tables, behind what they were measured on; then what is void or was left out."""
    console.print(_machine(results), highlight=False, markup=False)
    for case in _cases(results):
        table = Table(title=_title(case), title_justify="left", box=SIMPLE, caption=case.note, caption_justify="left")
        table.add_column("contender", no_wrap=True)
        for name in case.figures:
            table.add_column(name, justify="right")
        for line in case.lines:
            table.add_row(*map(escape, line))
        console.print(table)
    for text in _remarks(results):
        console.print(text, highlight=False, markup=False)


def markdown(results: Results) -> str:
    """The same, for the README."""
    cases = list(_cases(results))
    first = [case for case in cases if (case.measure, case.name) == _FIRST]
    lines = [f"{_machine(results)}."]
    for case in first:
        lines += _markdown_table(case)
    if rest := [case for case in cases if case not in first]:
        lines += ["", "<details><summary>Everything that was measured</summary>"]
        for case in rest:
            lines += _markdown_table(case)
        lines += ["", "</details>"]
    for text in _remarks(results):
        lines += ["", text]
    return "\n".join(lines) + "\n"


def put_into(text: str, results: Results) -> str:
    """A README's text with the results between its two marks. Raises ValueError where it has none."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"it has no {_BEGIN} … {_END}")
    return f"{before}{begin}\n{markdown(results)}{end}{after}"


def _markdown_table(case: Case) -> list[str]:
    note = f" {case.note}" if case.note else ""
    heads = ["contender", *case.figures]
    rows = [f"| {' | '.join(cells)} |" for cells in (heads, *case.lines)]
    return ["", f"**{_title(case)}**{note}", "", rows[0], "|---" + "|---:" * len(case.figures) + "|", *rows[1:]]


def _machine(results: Results) -> str:
    of = results.machine
    return (
        f"{of['processor']}; {of['system']}; {of['python']}; SQLite {of['sqlite']}; {of['pinning']}; load average "
        f"before: {of['load average before']}. Contenders in turn; medians of so many rounds"
    )


def _title(case: Case) -> str:
    return f"{case.measure}: {case.name}" if case.name else case.measure


def _cases(results: Results) -> Iterator[Case]:
    for measure, name in dict.fromkeys((row.measure, row.case) for row in results.rows):
        rows = [row for row in results.rows if (row.measure, row.case) == (measure, name)]
        shown = dict.fromkeys(figure.removeprefix(ADDED) for row in rows for figure in row.medians)
        lines = [[row.contender, *(_cell(results, row, figure) for figure in shown)] for row in rows]
        yield Case(measure, name, list(shown), lines, _note(results, rows))


def _cell(results: Results, row: Row, figure: str) -> str:
    medians = row.medians
    if (added := medians.get(ADDED + figure)) is not None:
        return f"{'-' if added < 0 else '+'}{number(abs(added))}"
    if figure not in medians:
        return "void" if row.void and not medians else ""
    other = results.yardstick_of(row)
    ratio = row.ratio_to(other, figure) if other is not None and figure in _COMPARED else None
    return number(medians[figure]) + ("" if ratio is None else f" ({ratio:.2f} ×)")


def _rounds(row: Row) -> str:
    rounds = "1 round" if len(row.rounds) == 1 else f"{len(row.rounds)} rounds"
    return f"{rounds}." if row.seconds is None else f"{rounds} of {row.seconds:g} s."


def _note(results: Results, rows: list[Row]) -> str:
    """What the signs in the cells mean."""
    notes = [_rounds(rows[0])]
    if any(name.startswith(ADDED) for row in rows for name in row.medians):
        notes.append(f"+: added to what {DIRECT} has.")
    others = {other.contender for row in rows if (other := results.yardstick_of(row)) is not None}
    if others and any(name in _COMPARED for row in rows for name in row.medians):
        notes.append(f"×: of {others.pop()}, in the same rounds.")
    return " ".join(notes)


def _remarks(results: Results) -> Iterator[str]:
    for row in results.rows:
        for reason in row.void:
            yield f"Void: {row.measure}, {row.case}, {row.contender}, {reason}"
    for reason in results.left_out:
        yield f"Left out: {reason}"


def number(value: float) -> str:
    """With as many places as matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
