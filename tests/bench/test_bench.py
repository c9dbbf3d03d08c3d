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

from gateway.bench import commits, contenders, report
from gateway.bench.contenders import BenchError, Contender, Running
from gateway.bench.fill import fill
from gateway.bench.harness import Harness, Load, Sample, chat, posts, upstream_and_load
from gateway.bench.load import Job, Result
from gateway.bench.measures import MEASURES
from gateway.bench.plot import plot
from gateway.bench.results import Figures, Results, Row
from gateway.cli import _parser
from gateway.core.filters import Every
from gateway.core.walk import NEWEST_FIRST
from gateway.store.store import Store, audits
from tests.processes import environment

PORTKEY = "@portkey-ai/gateway"


def test_a_whole_run(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "bench", "--quick", "--seconds", "0.1", "--only", "calls", "posts", "commits",
         "--json", "found.json", "--plot", "found.svg", "--readme", "README.md"],
        cwd=tmp_path, env=environment(BENCH_PEERS="", PATH=""), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "bare aiohttp" in ended.stdout and "calls: 64 connections" in ended.stdout
    assert max(map(len, ended.stdout.split("\n")[1:])) <= 80
    found = json.loads((tmp_path / "found.json").read_text())
    of = {name: {row["contender"] for row in found["rows"] if row["measure"] == name} for name in MEASURES}
    assert of["calls"] == {"direct", "bare aiohttp", "gateway", "gateway, log off"}
    assert {(len(row["rounds"]), row["seconds"]) for row in found["rows"]} == {(1, 0.1)}
    assert of["posts"] == {"bare aiohttp", "gateway"} and of["commits"] == {"SQLite by itself"}
    assert all(row["void"] == [] and row["medians"] for row in found["rows"])
    assert found["left_out"] == [f"{name}: not installed" for name in ("respan-gateway", "litellm", PORTKEY)]
    assert ElementTree.parse(tmp_path / "found.svg").getroot().tag.endswith("svg")
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.index("**calls: 64 connections**") < text.index("<details>") < text.index("**calls: 1 connection**")


def test_commits_are_of_whole_spans(tmp_path: Path) -> None:
    found = commits.measure(tmp_path / "spans.db", 3, 0.0)
    assert found.spans == 3 and 0 < found.transaction_s == found.seconds
    audit = audits(tmp_path / "spans.db", None, None)["default"]
    assert (audit.accepted, audit.settled, audit.missing) == (3, {"success": 3}, 0)


def test_every_measure_can_be_chosen() -> None:
    assert _parser().parse_args(["bench", "--only", *MEASURES]).only == list(MEASURES)


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--rounds", "x"], ["--seconds", "0"], ["--seconds", "inf"]])
def test_what_cannot_be_run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["bench", *arguments])
    assert f"{arguments[1]!r} is no number of" in capsys.readouterr().err


def harness(tmp_path: Path, load: Load, port: int = 1) -> Harness:
    found = Results({})
    return Harness(tmp_path, contenders.Cores(), port, load, found, lambda *a: None, rounds=1, seconds=0.1, quick=True)


def test_a_span_that_is_not_stored_makes_a_round_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_the_last(self: Running, after: int = 0) -> int:
        return counted(self, after) - 1

    counted = Running.spans
    with upstream_and_load(contenders.Cores(), tmp_path) as (port, load):
        bench = harness(tmp_path, load, port)
        with bench.running(contenders.gateway(tmp_path, bench.upstream)) as (running,):
            sample, wrong = bench.round(running, posts(running, connections=1, seconds=0.1, bulk=3))
            assert wrong == "" and sample.result.answered > 0
            monkeypatch.setattr("gateway.bench.harness._SPANS_WITHIN_S", 0.0)
            monkeypatch.setattr(Running, "spans", without_the_last)
            sample, wrong = bench.round(running, posts(running, connections=1, seconds=0.1, bulk=3))
    assert wrong == f"{3 * sample.result.answered - 1} spans stored of {3 * sample.result.answered}"


def test_a_load_that_has_ended_says_why(tmp_path: Path) -> None:
    with upstream_and_load(contenders.Cores(), tmp_path) as (_, load):
        load.process.kill()
        load.process.wait()
        load.log.write_text("no more memory")
        with pytest.raises(BenchError, match="The load has ended: no more memory"):
            load.run(Job("h", 1, "", "{}", connections=1))


class ScriptedLoad(Load):
    """Answers with what a test says."""

    def __init__(self, *results: Result) -> None:
        object.__setattr__(self, "results", iter(results))

    def run(self, job: Job) -> Result:
        found: Result = next(self.results)  # type: ignore[attr-defined]
        return found


def compared(tmp_path: Path, *results: Result) -> list[Row]:
    """Two warm-ups, then what direct and another contender have in one round."""
    bench = harness(tmp_path, ScriptedLoad(Result(answered=1), Result(answered=1), *results))
    other = Running(Contender("other", []), None, 1)

    def job(one: Running) -> Job:
        return Job("h", 1, "", "{}", connections=1, seconds=0.1)

    def figures(sample: Sample) -> Figures:
        return {"p50 ms": 1e3 * sample.result.latency[0]}

    bench.compare("m", "c", [bench.direct, other], job, figures, added=["p50 ms"])
    return bench.results.rows


def test_what_is_added_is_told_of_the_same_round(tmp_path: Path) -> None:
    direct, other = compared(tmp_path, Result(answered=1, latency=(1.0, 1.0)), Result(answered=1, latency=(3.0, 3.0)))
    assert (direct.rounds, other.rounds) == ([{"p50 ms": 1000.0}], [{"p50 ms": 3000.0, "added p50 ms": 2000.0}])


def test_without_direct_there_is_nothing_to_add_to(tmp_path: Path) -> None:
    direct, other = compared(tmp_path, Result(failed=2, error="e"), Result(answered=1))
    assert direct.void == ["round 1: 2 requests failed: e"] and other.rounds == [None]
    assert other.void == ["round 1: nothing to compare with: that of direct is void"]


def test_somebody_elses_that_does_not_start_is_left_out(tmp_path: Path) -> None:
    bench = harness(tmp_path, ScriptedLoad())
    peer = Contender("peer", [sys.executable, "-c", "import sys; sys.exit('no such thing')"], port=1, is_peer=True)
    with bench.running(peer) as running:
        assert running == []
    assert bench.results.left_out == ["peer did not start: no such thing"]


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    contender = Contender("broken", [sys.executable, "-c", "import sys; sys.exit('no such thing')"])
    with (
        pytest.raises(contenders.BenchError, match="broken did not start: no such thing"),
        contenders.started(contender, None, tmp_path / "log"),
    ):
        pass


SAID = (
    '{"model":"bench-whole-1000","messages":[{"role":"user","content":"Say hello."}]}',
    '{"choices":[{"message":{"role":"assistant","content":"Hello."}}],"usage":{"total_tokens":500}}',
)


def test_what_has_no_room_is_not_filled(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no room in"):
        fill(tmp_path / "spans.db", 10**15, *SAID)
    assert not (tmp_path / "spans.db").exists()


async def test_a_filled_database_is_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    fill(path, 120, *SAID)
    store = Store(path, synchronous="normal", queue_bytes=2**20)
    await store.recover()
    rows, _ = await store.page("default", Every(), NEWEST_FIRST, size=200, shape=list)
    await store.close()
    assert len(rows) == 120
    assert len({row["unique_id"] for row in rows}) == 120
    newest = rows[0]
    assert (newest["input"], newest["output"]) == (
        '[{"role":"user","content":"Say hello."}]',
        '{"role":"assistant","content":"Hello."}',
    )
    assert (newest["usage"], newest["seq"]) == ('{"total_tokens":500}', 120)
    found = audits(path, None, None)["default"]
    assert (found.accepted, found.settled, found.missing) == (120, {"success": 118, "5xx": 2}, 0)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT seq FROM journal").fetchone() == (120,)


def test_the_gateway_goes_on_from_a_filled_database(tmp_path: Path) -> None:
    with upstream_and_load(contenders.Cores(), tmp_path) as (port, load):
        bench = harness(tmp_path, load, port)
        contender = contenders.gateway(tmp_path, bench.upstream)
        assert contender.database is not None
        fill(contender.database, 120, *SAID)
        with bench.running(contender) as (running,):
            sample, wrong = bench.round(running, chat(running, "bench-whole-1000", connections=2, requests=10))
    assert wrong == "" and sample.result.answered == 10
    found = audits(contender.database, None, None)["default"]
    assert (found.accepted, found.settled, found.missing) == (130, {"success": 128, "5xx": 2}, 0)
    with closing(sqlite3.connect(contender.database)) as db:
        ids = [row[0] for row in db.execute("SELECT unique_id FROM span ORDER BY id")]
        # Those of one millisecond come in any order.
        assert ids[:120] == sorted(ids[:120]) and ids[119] < min(ids[120:])


def results() -> Results:
    def figures(speed: float, cpu: float) -> dict[str, float]:
        return {"requests a second": speed, "CPU ms per 1,000": cpu}

    bare = Row("calls", "64 connections", "bare aiohttp", rounds=[figures(100.0, 10.0)] * 3, seconds=1.5)
    ours = Row("calls", "64 connections", "gateway")
    ours.add(figures(90.0, 20.0))
    ours.add(None, "1 requests failed")
    ours.add(figures(50.0, 5.0))
    machine = dict.fromkeys(("processor", "system", "python", "sqlite", "pinning", "load average before"), "x")
    return Results(machine, [bare, ours])


def test_ratios_are_of_rounds_that_count() -> None:
    found = results()
    bare, ours = found.rows
    assert ours.medians == {"requests a second": 70.0, "CPU ms per 1,000": 12.5}
    assert ours.ratio_to(bare, "requests a second") == 0.7
    assert found.yardstick_of(bare) is None


def test_without_bare_aiohttp_the_first_is_the_yardstick() -> None:
    direct, one, two = (Row("workers", "", name) for name in ("direct", "1 worker", "2 workers"))
    found = Results({}, [direct, one, two])
    assert found.yardstick_of(two) is one and found.yardstick_of(one) is None


def test_a_void_round_of_somebody_elses_is_told_of_only() -> None:
    peer = Row("calls", "", "peer", is_peer=True)
    peer.add(None, "it fell over")
    assert not Results({}, [peer]).is_void and results().is_void


def test_what_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = results()
    found.leave_out("peer: not installed")
    report.show(found, Console(width=80))
    told = " ".join(capsys.readouterr().out.split())
    assert "Void: calls, 64 connections, gateway, round 2: 1 requests failed" in told
    assert "Left out: peer: not installed" in told
    assert "70.0 (0.70 ×)" in told and "×: of bare aiohttp, in the same rounds." in told
    assert "**calls: 64 connections** 3 rounds of 1.5 s. ×:" in report.markdown(found)
    assert "| gateway | 70.0 (0.70 ×) | 12.5 (1.25 ×) |" in report.markdown(found)
    with pytest.raises(ValueError, match="bench: begin"):
        report.put_into("no marks", found)


def test_what_is_added_is_told_with_its_sign() -> None:
    direct = Row("latency", "500", "direct", rounds=[{"p50 ms": 1.0}])
    other = Row("latency", "500", "gateway", rounds=[{"p50 ms": 3.5, "added p50 ms": 2.5}])
    gone = Row("latency", "500", "peer", rounds=[None], void=["round 1: gone"])
    found = results()
    found.rows = [direct, other, gone]
    told = report.markdown(found)
    assert "| direct | 1.00 |\n| gateway | +2.50 |\n| peer | void |" in told and "+: added to what direct has." in told


def test_a_plot_without_calls_says_so() -> None:
    assert "were not measured" in plot(Results({}))
    assert plot(results()).count("<rect") == 1 + 4
