"""The long tests: each takes a stride of its work by itself, and goes on for as long as `--minutes` says.

What a test did is printed at the end, as figures.
"""

import faulthandler
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

FIGURES = pytest.StashKey[list[str]]()

Figures = Callable[..., None]


@dataclass(frozen=True)
class HowLong:
    """How much of its work a test does."""

    minutes: float | None

    def rounds(self, stride: int, long: int | None = None) -> Iterator[int]:
        """Counts rounds from 0: `stride` of them; with `--minutes`, at least `long` and until the time is over."""
        number = 0
        at_least = stride if self.minutes is None else (long or stride)
        until = time.monotonic() + 60 * (self.minutes or 0)
        while number < at_least or time.monotonic() < until:
            yield number
            number += 1


@pytest.fixture
def how_long(request: pytest.FixtureRequest) -> HowLong:
    minutes = request.config.getoption("minutes")
    if minutes is not None:
        # One that is told to go on does not hang.
        faulthandler.cancel_dump_traceback_later()
    return HowLong(minutes)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Prints what a test did: `figures(kills=5, lost=0)`."""
    lines = request.config.stash.setdefault(FIGURES, [])

    def print_at_end(**counted: float) -> None:
        numbers = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in counted.items())
        lines.append(f"{request.node.name}: {numbers}")

    return print_at_end


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = terminalreporter.config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.write_line(line)
