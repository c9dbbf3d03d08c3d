"""The results as tables for a terminal, as Markdown, and as a plot."""

from collections.abc import Iterator
from html import escape

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from gateway.bench.results import Results, Row

_BEGIN = "<!-- bench: begin -->"
_END = "<!-- bench: end -->"
# What of a run the README shows.
_SHOWN = ("calls", "latency", "streams", "paced", "posts", "start", "memory", "workers", "stored")
# Of these figures it is told what they are of the yardstick's.
_COMPARED = ("requests a second", "chunks a second", "CPU ms per 1,000")
_PLOTTED = ("calls", "64 connections")
_BAR_WIDTH, _BAR_HEIGHT, _LEFT, _WIDTH = 300, 18, 210, 660


def show(results: Results, console: Console) -> None:
    """Tables, a measure each, behind what they were measured on."""
    console.print(" · ".join(results.machine.values()), highlight=False)
    for measure, rows in _by_measure(results):
        names = _figures(rows)
        table = Table(title=measure, title_justify="left", box=SIMPLE)
        for name in ("case", "contender", *names, "÷ bare aiohttp", "void"):
            table.add_column(name, justify="left" if name in ("case", "contender") else "right")
        for row in rows:
            medians = row.medians
            table.add_row(
                row.case,
                row.contender,
                *(_number(medians.get(name)) for name in names),
                _ratios(results, row),
                str(len(row.void) or ""),
            )
        console.print(table)
        for row in rows:
            for reason in row.void:
                console.print(f"void: {row.contender}, {row.case}, {reason}", highlight=False)


def markdown(results: Results) -> str:
    """The same, for the README."""
    settings = results.settings
    lines = [
        f"{results.machine['processor']}; {results.machine['system']}; {results.machine['python']}; SQLite "
        f"{results.machine['sqlite']}; {results.machine['pinning']}. Rounds: {settings['rounds']} of "
        f"{settings['seconds']:g} s each, contenders in turn; medians."
    ]
    for measure, rows in _by_measure(results):
        if measure not in _SHOWN:
            continue
        names = _figures(rows)
        lines += ["", f"**{measure}**", "", f"| case | contender | {' | '.join(names)} | ÷ bare aiohttp |"]
        lines.append("|" + "---|" * (len(names) + 3))
        for row in rows:
            medians = row.medians
            figures = " | ".join(_number(medians.get(name)) for name in names)
            lines.append(f"| {row.case} | {row.contender} | {figures} | {_ratios(results, row)} |")
    return "\n".join(lines) + "\n"


def put_into(text: str, results: Results) -> str:
    """A README's text with the results between its two marks. Raises ValueError where it has none."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"it has no {_BEGIN} … {_END}")
    return f"{before}{begin}\n{markdown(results)}{end}{after}"


def plot(results: Results) -> str:
    """Bars as SVG: calls a second at 64 connections, and CPU a call."""
    # The upstream by itself is so far ahead that the others could not be told apart beside it.
    rows = [row for row in results.rows if (row.measure, row.case) == _PLOTTED and row.medians]
    rows = [row for row in rows if row.contender != "direct"]
    parts: list[str] = []
    at = 30
    for name in ("requests a second", "CPU ms per 1,000"):
        shown = [row for row in rows if row.medians.get(name)]
        most = max((row.medians[name] for row in shown), default=1.0)
        parts.append(f'<text x="10" y="{at}" font-weight="bold">{escape(name)}, 64 connections, one core</text>')
        for row in shown:
            at += _BAR_HEIGHT + 6
            value = row.medians[name]
            width = max(1.0, value / most * _BAR_WIDTH)
            colour = "#d9822b" if row.contender.startswith("gateway") else "#8a94a3"
            parts.append(f'<text x="{_LEFT - 8}" y="{at + 13}" text-anchor="end">{escape(row.contender)}</text>')
            parts.append(f'<rect x="{_LEFT}" y="{at}" width="{width:.1f}" height="{_BAR_HEIGHT}" fill="{colour}"/>')
            parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{at + 13}">{_number(value)}</text>')
        at += _BAR_HEIGHT + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{at}" viewBox="0 0 {_WIDTH} {at}" '
        'font-family="sans-serif" font-size="12" fill="#1c2733">\n'
        '<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _by_measure(results: Results) -> Iterator[tuple[str, list[Row]]]:
    for measure in dict.fromkeys(row.measure for row in results.rows):
        yield measure, [row for row in results.rows if row.measure == measure]


def _figures(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.medians))


def _ratios(results: Results, row: Row) -> str:
    """Of the speed, and of the CPU where it is known."""
    other = results.yardstick_of(row)
    if other is None:
        return ""
    found = [row.ratio_to(other, name) for name in _COMPARED if name in row.medians]
    return " · CPU ".join(f"{ratio:.2f}" for ratio in found if ratio)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
