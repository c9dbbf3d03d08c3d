"""`gateway bench`: measures, then tells."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gateway.bench import contenders, report
from gateway.bench.contenders import BenchError
from gateway.bench.harness import Harness, helpers
from gateway.bench.measures import MEASURES
from gateway.bench.peers import peers, why_not
from gateway.bench.results import Results, machine


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `seconds`: how long a round goes on."""

    only: Sequence[str]
    rounds: int
    seconds: float
    quick: bool
    json: Path | None
    plot: Path | None
    readme: Path | None
    peers: Path | None


def run(options: Options) -> int:
    """Exit status 0, or 1 where a round was void. Raises BenchError."""
    progress, console = Console(stderr=True), Console()
    cores = contenders.cores()
    results = Results(
        machine(cores.told()), {"rounds": options.rounds, "seconds": options.seconds, "quick": options.quick}
    )
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name, progress.status("starting") as status:
        folder = Path(name)
        with helpers(cores, folder / "helpers.log") as (port, load):
            look_in = [] if options.peers is None else [options.peers]
            upstream = f"http://{contenders.HOST}:{port}/v1"
            harness = Harness(
                folder,
                cores,
                port,
                load,
                results,
                status.update,
                rounds=options.rounds,
                seconds=options.seconds,
                quick=options.quick,
                peers=peers(folder, upstream, look_in),
            )
            for left_out in why_not(look_in):
                progress.print(f"left out: {left_out}", highlight=False)
            for measure in options.only or MEASURES:
                MEASURES[measure](harness)
                _write(options, results)
    report.show(results, console)
    return 1 if any(row.void for row in results.rows) else 0


def _write(options: Options, results: Results) -> None:
    """After each measure: a long run that is broken off leaves what it has."""
    if options.json is not None:
        options.json.write_text(json.dumps(results.as_json(), indent=1) + "\n", "utf-8")
    if options.plot is not None:
        options.plot.write_text(report.plot(results), "utf-8")
    if options.readme is not None:
        try:
            text = report.put_into(options.readme.read_text("utf-8"), results)
        except ValueError as error:
            raise BenchError(f"{options.readme}: {error}.") from error
        options.readme.write_text(text, "utf-8")
