"""The results as bars, in SVG: calls a second at 64 connections, and CPU a call."""

from html import escape

from gateway.bench.report import number
from gateway.bench.results import DIRECT, Results

_CASE = ("calls", "64 connections")
_FIGURES = ("requests a second", "CPU ms per 1,000")
_BAR_WIDTH, _BAR_HEIGHT, _GAP, _LEFT, _WIDTH, _TOP = 330, 18, 6, 215, 660, 28
# On a ground of its own, so that it can be read on a light page and on a dark one.
_GROUND, _TEXT, _OURS, _OTHERS = "#ffffff", "#1c2733", "#d9822b", "#8a94a3"


def plot(results: Results) -> str:
    """One group of bars for each figure; those of the gateway stand out. Without that case, a drawing that says so."""
    # The upstream by itself is so far ahead that the others could not be told apart beside it.
    rows = [row for row in results.rows if (row.measure, row.case) == _CASE and row.contender != DIRECT]
    parts: list[str] = []
    at = _TOP
    for figure in _FIGURES:
        values = [(row.contender, row.medians[figure]) for row in rows if figure in row.medians]
        if values:
            parts.append(_text(10, at, f"{figure}, {_CASE[1]}, one core", 'font-weight="bold"'))
            at = _bars(parts, values, at + 12) + _TOP
    if not parts:
        parts.append(_text(10, at, f"{_CASE[0]} with {_CASE[1]} were not measured"))
        at += _TOP
    bottom = at - _TOP + 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{bottom}" viewBox="0 0 {_WIDTH} {bottom}" '
        f'font-family="sans-serif" font-size="12" fill="{_TEXT}">\n'
        f'<rect width="100%" height="100%" rx="6" fill="{_GROUND}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bars(parts: list[str], values: list[tuple[str, float]], at: int) -> int:
    """Draws from this height on; gives the height where it ends."""
    most = max(value for _, value in values)
    for name, value in values:
        width = max(1.0, value / most * _BAR_WIDTH) if most else 1.0
        colour = _OURS if name.startswith("gateway") else _OTHERS
        parts.append(_text(_LEFT - 8, at + 13, name, 'text-anchor="end"'))
        parts.append(f'<rect x="{_LEFT}" y="{at}" width="{width:.1f}" height="{_BAR_HEIGHT}" fill="{colour}"/>')
        parts.append(_text(_LEFT + width + 6, at + 13, number(value)))
        at += _BAR_HEIGHT + _GAP
    return at


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}" {more}>{escape(text)}</text>'
