"""`gateway bench`: measures, then tells."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from gateway.bench import contenders, report
from gateway.bench.contenders import BenchError, Cores
from gateway.bench.harness import Harness, upstream_and_load
from gateway.bench.measures import MEASURES, ROUNDS, ROUNDS_ELSE, ROUNDS_QUICK
from gateway.bench.peers import peers, why_not
from gateway.bench.plot import plot
from gateway.bench.results import Results, machine
from gateway.web.server import raise_file_limit


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `seconds`: how long a round goes on. Without them each measure has its own."""

    only: Sequence[str]
    rounds: int | None
    seconds: float | None
    quick: bool
    json: Path | None
    plot: Path | None
    readme: Path | None
    peers: Path | None


def run(options: Options) -> int:
    """Exit status 0, or 1 where a round of ours was void. Raises BenchError."""
    # Handed on to every process that is started from here.
    raise_file_limit()
    cores = contenders.cores()
    if cores.others is not None:
        os.sched_setaffinity(0, cores.others)
    results = Results(machine(cores.told()))
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder, _progress() as progress:
        _measure(options, Path(folder), cores, results, progress)
    report.show(results, Console())
    return 1 if results.is_void else 0


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(20), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _measure(options: Options, folder: Path, cores: Cores, results: Results, progress: Progress) -> None:
    look_in = [] if options.peers is None else [options.peers]
    for reason in why_not(look_in):
        results.leave_out(reason)
    task = progress.add_task("starting", total=None)
    with upstream_and_load(cores, folder) as (port, load):
        harness = Harness(
            folder,
            cores,
            port,
            load,
            results,
            partial(_tell, progress, task),
            quick=options.quick,
            peers=peers(folder, f"http://{contenders.HOST}:{port}/v1", look_in),
        )
        for measure in options.only or MEASURES:
            progress.console.print(measure)
            rounds, seconds = ROUNDS_QUICK if options.quick else ROUNDS.get(measure, ROUNDS_ELSE)
            harness.rounds, harness.seconds = options.rounds or rounds, options.seconds or seconds
            MEASURES[measure](harness)
            _write(options, results)


def _tell(progress: Progress, task: TaskID, what: str, done: int = 0, of: int | None = None) -> None:
    progress.update(task, description=what, completed=done, total=of)


def _write(options: Options, results: Results) -> None:
    """After each measure: a long run that is broken off leaves what it has."""
    if options.json is not None:
        options.json.write_text(json.dumps(results.as_json(), indent=1) + "\n", "utf-8")
    if options.plot is not None:
        options.plot.write_text(plot(results), "utf-8")
    if options.readme is not None:
        try:
            text = report.put_into(options.readme.read_text("utf-8"), results)
        except ValueError as error:
            raise BenchError(f"{options.readme}: {error}.") from error
        options.readme.write_text(text, "utf-8")
