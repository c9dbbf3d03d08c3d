"""`gateway bench` as it is run, and how it tells what it found."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from gateway.bench import contenders, report
from gateway.bench.contenders import Contender, Running
from gateway.bench.fill import fill
from gateway.bench.harness import Harness, helpers, posts
from gateway.bench.measures import MEASURES
from gateway.bench.results import Results, Row
from gateway.cli import _parser
from gateway.store.store import Store, audits
from tests.processes import environment


def test_a_whole_run(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "bench", "--quick", "--seconds", "0.2", "--only", "calls", "posts",
         "--json", "found.json", "--plot", "found.svg", "--readme", "README.md"],
        cwd=tmp_path, env=environment(COLUMNS="200"), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "bare aiohttp" in ended.stdout and "64 connections" in ended.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert {row["contender"] for row in found["rows"]} == {"direct", "bare aiohttp", "gateway", "gateway, log off"}
    assert all(row["void"] == [] and row["medians"] for row in found["rows"])
    assert ElementTree.parse(tmp_path / "found.svg").getroot().tag.endswith("svg")
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| 64 connections | gateway |" in text


def test_every_measure_can_be_chosen() -> None:
    assert _parser().parse_args(["bench", "--only", *MEASURES]).only == list(MEASURES)


def test_a_span_that_is_not_stored_makes_a_round_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.bench.harness._SPANS_WITHIN_S", 0.0)
    cores = contenders.cores()
    with helpers(cores, tmp_path / "log") as (port, load):
        results = Results({}, {"rounds": 1, "seconds": 0.1})
        harness = Harness(tmp_path, cores, port, load, results, str, rounds=1, seconds=0.1, quick=True)
        with harness.running(contenders.gateway(tmp_path, harness.upstream)) as (running,):
            monkeypatch.setattr(Running, "spans", lambda self, after=0: 1)
            sample, wrong = harness.round(running, posts(running, connections=1, seconds=0.1, bulk=3))
    assert wrong == f"1 spans stored of {3 * sample.result.answered}"


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    contender = Contender("broken", [sys.executable, "-c", "import sys; sys.exit('no such thing')"])
    with (
        pytest.raises(contenders.BenchError, match="broken did not start: no such thing"),
        contenders.started(contender, None, tmp_path / "log"),
    ):
        pass


async def test_a_filled_database_is_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    fill(path, 120)
    store = Store(path, synchronous="normal", queue_bytes=2**20)
    await store.recover()
    rows = await store.newest("default", [], limit=200, offset=0, shape=list)
    await store.close()
    assert len(rows) == 120
    assert len({row["unique_id"] for row in rows}) == 120
    newest = rows[0]
    assert (newest["input"], newest["output"]) == (
        '[{"role":"user","content":"Say hello."}]',
        '{"role":"assistant","content":"Hello."}',
    )
    assert (newest["usage"], newest["seq"]) == ('{"prompt_tokens":250,"completion_tokens":250,"total_tokens":500}', 120)
    found = audits(path, None, None)["default"]
    assert (found.accepted, found.settled, found.missing) == (120, {"success": 120}, 0)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT seq FROM journal").fetchone() == (120,)


def results() -> Results:
    def figures(speed: float, cpu: float) -> dict[str, float]:
        return {"requests a second": speed, "CPU ms per 1,000": cpu}

    bare = Row("calls", "64 connections", "bare aiohttp", [figures(100.0, 10.0)] * 3)
    ours = Row("calls", "64 connections", "gateway", [figures(90.0, 20.0), None, figures(50.0, 5.0)])
    ours.void.append("round 2: 1 requests failed")
    machine = dict.fromkeys(("processor", "system", "python", "sqlite", "gateway", "pinning"), "x")
    return Results(machine, {"rounds": 3, "seconds": 1.0}, [bare, ours])


def test_ratios_are_of_rounds_that_count() -> None:
    found = results()
    bare, ours = found.rows
    assert ours.medians == {"requests a second": 70.0, "CPU ms per 1,000": 12.5}
    assert ours.ratio_to(bare, "requests a second") == 0.7
    assert found.yardstick_of(bare) is None


def test_what_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(results(), Console(width=200))
    told = capsys.readouterr().out
    assert "void: gateway, 64 connections, round 2: 1 requests failed" in told
    assert "0.70 · CPU 1.25" in told
    assert "| 64 connections | gateway | 70.0 | 12.5 | 0.70 · CPU 1.25 |" in report.markdown(results())
    with pytest.raises(ValueError, match="bench: begin"):
        report.put_into("no marks", results())
