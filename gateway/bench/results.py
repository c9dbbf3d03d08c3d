"""What was measured, round by round, and what it comes to."""

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


@dataclass(slots=True)
class Row:
    """One contender in one case of one measure. A round is None where it is void; `void` says why."""

    measure: str
    case: str
    contender: str
    rounds: list[Figures | None] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

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
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    def yardstick_of(self, row: Row) -> Row | None:
        """What a row is laid beside: bare aiohttp in the same case, or else the first of the measure's contenders."""
        case = [other for other in self.rows if (other.measure, other.case) == (row.measure, row.case)]
        found = next((other for other in case if other.contender == YARDSTICK), None)
        return found if found is not row else None

    def as_json(self) -> dict[str, Any]:
        """For a file; see the README for what the names mean."""
        return {
            "machine": self.machine,
            "settings": self.settings,
            "rows": [
                {
                    "measure": row.measure,
                    "case": row.case,
                    "contender": row.contender,
                    "medians": row.medians,
                    "rounds": row.rounds,
                    "void": row.void,
                }
                for row in self.rows
            ],
        }


def machine(pinning: str) -> dict[str, str]:
    """On what it was measured."""
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "gateway": __version__,
        "pinning": pinning,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or sys.platform
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
