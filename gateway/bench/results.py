"""What was measured, round by round, and what it comes to."""

import os
import platform
import sqlite3
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import __version__

Figures = dict[str, float]
# What a row is laid beside, where it was measured: figures are compared within one round.
YARDSTICK = "bare aiohttp"
DIRECT = "direct"
# Before a figure's name: what of it is added to that of the upstream by itself, in the same round.
ADDED = "added "


@dataclass(slots=True)
class Row:
    """One contender in one case of one measure. A round is None where it is void; `void` says why. `seconds`: how long
    a round was, where its length was given."""

    measure: str
    case: str
    contender: str
    is_peer: bool = False
    rounds: list[Figures | None] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    seconds: float | None = None

    def add(self, figures: Figures | None, wrong: str = "") -> None:
        """A round: its figures, or what makes it void."""
        self.rounds.append(figures)
        if figures is None:
            self.void.append(f"round {len(self.rounds)}: {wrong}")

    @property
    def medians(self) -> Figures:
        """The median of each figure over the rounds that count."""
        counted = [one for one in self.rounds if one is not None]
        return {name: statistics.median(one[name] for one in counted) for name in (counted[0] if counted else {})}

    def ratio_to(self, other: "Row", figure: str) -> float | None:
        """The median of this row's figure divided by the other's of the same round."""
        pairs = [(mine, its) for mine, its in zip(self.rounds, other.rounds, strict=False) if mine and its]
        ratios = [mine[figure] / its[figure] for mine, its in pairs if its.get(figure)]
        return statistics.median(ratios) if ratios else None


@dataclass(slots=True)
class Results:
    """A whole run."""

    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, why: str) -> None:
        """Says once why a contender is not among the rows."""
        if why not in self.left_out:
            self.left_out.append(why)

    @property
    def is_void(self) -> bool:
        """Whether a round is void; others' are told of only."""
        return any(row.void for row in self.rows if not row.is_peer)

    def yardstick_of(self, row: Row) -> Row | None:
        """What a row is laid beside: bare aiohttp in the same case, or else the first contender there."""
        case = [other for other in self.rows if (other.measure, other.case) == (row.measure, row.case)]
        others = [other for other in case if other.contender != DIRECT]
        found = next((other for other in others if other.contender == YARDSTICK), others[0] if others else row)
        return found if found is not row else None

    def as_json(self) -> dict[str, Any]:
        """For a file: `medians` of the figures in `rounds`, where a void round is null and `void` says why."""
        return {
            "machine": self.machine,
            "left_out": self.left_out,
            "rows": [
                {
                    "measure": row.measure,
                    "case": row.case,
                    "contender": row.contender,
                    "seconds": row.seconds,
                    "medians": row.medians,
                    "rounds": row.rounds,
                    "void": row.void,
                }
                for row in self.rows
            ],
        }


def machine(pinning: str) -> dict[str, str]:
    """On what it was measured."""
    busy = f"{os.getloadavg()[0]:.1f}"
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "gateway": __version__,
        "pinning": pinning,
        "load average before": busy,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or sys.platform
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
