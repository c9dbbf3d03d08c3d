"""`gateway export` and `gateway import`: what is written is read back as it was."""

import asyncio
import csv
import json
import os
import pty
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway import transfer
from tests.conftest import Gateway
from tests.processes import environment
from tests.test_show import run

SPANS: list[dict[str, Any]] = [
    {
        "model": "m",
        "input": [{"role": "user", "content": 'Grüße, "x"\n'}],
        "output": "plain",
        "metadata": {"n": 1, "_h": 2},
    },
    {"model": "m", "cost": 9_000_000.000000000001, "stream": True, "positive_feedback": False, "extra": {"a": [1]}},
    {"model": "1", "input": "123", "note": "true", "customer_identifier": "5", "status": "error", "latency": 1e-7},
    {"model": "m", "trace_unique_id": "t", "prompt_tokens": 2**62, "warnings": {"w": 1}, "properties": {"b": True}},
]


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    for number, span in enumerate(SPANS):
        assert (await gateway.post({"unique_id": f"s{number}", **span}))[0] == 201
    await gateway.call("/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    (gateway.path.parent / "config.toml").write_text(f"[store]\npath = '{gateway.path}'\n")
    (gateway.path.parent / "other.toml").write_text("[store]\npath = 'other.db'\n")
    return gateway


def rows(path: Path) -> list[dict[str, Any]]:
    """All spans, but for their places."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        found = map(dict, db.execute("SELECT * FROM spans ORDER BY row_id"))
        return [{name: value for name, value in row.items() if name not in ("row_id", "seq")} for row in found]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
async def test_what_is_written_is_read_back(filled: Gateway, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    await run(filled, "export", f"spans.{ending}")
    _, told = await run(filled, "import", f"spans.{ending}", "--config", "other.toml")
    assert told.endswith("5 spans stored, 0 known already, 0 wrong.\n")
    assert rows(filled.path.parent / "other.db") == rows(filled.path)
    _, told = await run(filled, "import", f"spans.{ending}", "--config", "other.toml")
    assert told.endswith("0 spans stored, 5 known already, 0 wrong.\n")
    await run(filled, "export", f"again.{ending}", "--config", "other.toml")
    if ending != "parquet":
        folder = filled.path.parent
        assert (folder / f"again.{ending}").read_bytes() == (folder / f"spans.{ending}").read_bytes()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
async def test_what_is_odd_is_read_back(filled: Gateway, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = filled.path.parent / "other.db"
    call = await filled.call(
        "/v1/chat/completions",
        json={"model": "m", "messages": [], "respan_params": {"trace_unique_id": "t", "span_parent_id": "p"}},
    )
    spans: list[dict[str, Any]] = [
        # The caller's own span of that call.
        {"model": "m", "trace_unique_id": "t", "span_unique_id": "p", "prompt_tokens": 1, "completion_tokens": 1},
        {"model": "m", "cost": 1e10},
        {
            "model": "m",
            "note": "",
            "category": '"',
            "span_name": '""',
            "prompt_name": "\r\n,\0",
            "input": "",
            "stop": "",
        },
        {"model": "m", "extras": {"extras": 1}, "cost_picos": "1", "properties": {"n": 10**30, "\0": None}},
    ]
    for number, span in enumerate(spans):
        assert (await filled.post({"unique_id": f"odd{number}", **span}))[0] == 201
    await run(filled, "export", f"spans.{ending}")
    await run(filled, "import", f"spans.{ending}", "--config", "other.toml")
    assert rows(path) == rows(filled.path)
    linked = [row["gateway_log_id"] for row in rows(path) if row["unique_id"] == "odd0"]
    assert linked == [call.log_id]


async def test_lines_and_cells(filled: Gateway) -> None:
    out, _ = await run(filled, "export", "--where", "model=m", "--where", "cost>1")
    (line,) = out.splitlines()
    told = json.loads(line)
    assert (told["unique_id"], told["cost_picos"], told["extras"]) == (
        "s1",
        9_000_000_000_000_000_000,
        {"extra": {"a": [1]}},
    )
    assert None not in told.values()
    out, _ = await run(filled, "export", "--format", "csv", "--where", "unique_id=s0")
    (cells,) = csv.DictReader(out.splitlines(keepends=True))
    assert json.loads(cells["input"]) == SPANS[0]["input"] and cells["latency"] == "" and cells["stream"] == "false"


async def shell(gateway: Gateway, command: str) -> tuple[int | None, str]:
    """A command for bash, where $GATEWAY stands for ours: its status, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", command),
        cwd=gateway.path.parent,
        env=environment(GATEWAY=f"{sys.executable} -m gateway"),
        stderr=subprocess.PIPE,
    )
    _, told = await process.communicate()
    return process.returncode, told.decode()


@pytest.mark.parametrize("form", ["jsonl", "csv"])
async def test_who_reads_no_further_ends_it(filled: Gateway, form: str) -> None:
    # More than a pipe holds.
    await filled.post({"model": "m", "input": "x" * 1_000_000})
    assert await shell(filled, f"$GATEWAY export --format {form} | head -c 1 > /dev/null") == (141, "")


async def test_a_full_disk_is_told(filled: Gateway) -> None:
    full = "No space left on device.\n"
    assert await shell(filled, "$GATEWAY export > /dev/full") == (1, f"standard output: {full}")
    assert await shell(filled, "$GATEWAY export /dev/full") == (1, f"/dev/full: {full}")
    assert await shell(filled, "$GATEWAY spans > /dev/full") == (1, f"The output cannot be written: {full}")


def test_a_file_is_there_once_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "link.jsonl"
    file.symlink_to("spans.jsonl")
    whole = tmp_path / "spans.jsonl"
    whole.write_text("old")
    whole.chmod(0o600)
    with pytest.raises(KeyboardInterrupt), transfer._once_whole(file) as part:
        part.write_text("ha")
        raise KeyboardInterrupt
    assert whole.read_text() == "old"
    with transfer._once_whole(file) as part:
        part.write_text("new")
        assert whole.read_text() == "old"
    assert whole.read_text() == "new" and whole.stat().st_mode & 0o777 == 0o600 and file.is_symlink()
    assert sorted(tmp_path.iterdir()) == [file, whole]


async def test_the_database_is_not_overwritten(filled: Gateway) -> None:
    _, told = await run(filled, "export", str(filled.path), status=1)
    assert told == f"{filled.path} is the database itself: name another file.\n"
    assert len(rows(filled.path)) == 5


async def test_what_comes_meanwhile_is_left_out(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    file = filled.path.with_name("spans.jsonl")
    monkeypatch.setattr(transfer.queries, "take_seq", lambda db: 2)
    assert transfer.export(transfer.Export(filled.path, file)) == 0
    assert [json.loads(line)["unique_id"] for line in file.read_text().splitlines()] == ["s0", "s1"]


async def test_rows_are_gathered_for_parquet(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(transfer, "_AT_ONCE", 2)
    file = filled.path.with_name("spans.parquet")
    transfer.export(transfer.Export(filled.path, file))
    assert parquet.ParquetFile(file).metadata.num_row_groups == 1
    monkeypatch.setattr(transfer, "_GROUP_BYTES", 1)
    transfer.export(transfer.Export(filled.path, file))
    assert (parquet.ParquetFile(file).metadata.num_row_groups, parquet.ParquetFile(file).metadata.num_rows) == (3, 5)


async def test_no_progress_between_the_lines_of_a_terminal(filled: Gateway) -> None:
    terminal, its_end = pty.openpty()
    command = (sys.executable, "-m", "gateway", "export", "--where", "unique_id=s2")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=filled.path.parent, env=environment(TERM="xterm"), stdout=its_end, stderr=its_end
    )
    os.close(its_end)
    assert await process.wait() == 0
    with os.fdopen(terminal, "rb") as screen:
        assert json.loads(screen.readline())["unique_id"] == "s2"


@pytest.mark.parametrize("command", [("spans",), ("trace", "t"), ("export",)])
async def test_what_is_no_database_is_told(filled: Gateway, command: tuple[str, ...]) -> None:
    (filled.path.parent / "other.db").write_text("no database " * 100)
    _, told = await run(filled, *command, "--config", "other.toml", status=1)
    assert told == "The database other.db cannot be read: file is not a database.\n"


async def test_what_cannot_be_stored_is_told(filled: Gateway) -> None:
    folder = filled.path.parent
    good = {"unique_id": "g", "environment": "prod", "timestamp": "2026-01-02T03:04:05Z", "model": "m"}
    lines = [json.dumps(good), "{", json.dumps({**good, "unique_id": "h", "latency": "long"}), "5", json.dumps({})]
    (folder / "bad.jsonl").write_text("\n".join(lines))
    _, told = await run(filled, "import", "bad.jsonl", "--config", "other.toml", "--organization", "org-x", status=1)
    assert "bad.jsonl, line 2: The body is not valid JSON" in told and "line 3: latency:" in told
    assert (
        "line 4: The body must be a JSON object." in told
        and "line 5: unique_id, environment, timestamp: missing." in told
    )
    assert told.endswith("1 spans stored, 0 known already, 4 wrong.\n")
    assert [row["organization_id"] for row in rows(folder / "other.db")] == ["org-x"]
    _, told = await run(filled, "import", "none.jsonl", "--config", "other.toml", status=1)
    assert told.endswith("\nnone.jsonl: No such file or directory.\n")


GOOD = {"unique_id": "g", "environment": "prod", "timestamp": "2026-01-02T03:04:05Z", "model": "m"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"cost_picos": {}}, "cost_picos: must be a whole number."),
        ({"cost_picos": 10**400}, "cost_picos: must be a whole number."),
        ({"cost_picos": 0.5}, "cost_picos: must be a whole number."),
        ({"organization_id": "\ud800"}, "organization_id: must be text without lone surrogates."),
        ({"input": json.loads("[" * 300 + "]" * 300)}, "input: nested deeper than 255 levels."),
    ],
)
async def test_a_line_that_is_wrong_ends_nothing(filled: Gateway, line: dict[str, Any], expected: str) -> None:
    lines = [GOOD | {"unique_id": "a"}, GOOD | line, GOOD | {"unique_id": "b", "cost": 0.5}]
    (filled.path.parent / "bad.jsonl").write_text("\n".join(map(json.dumps, lines)))
    _, told = await run(filled, "import", "bad.jsonl", "--config", "other.toml", status=1)
    assert told == f"bad.jsonl, line 2: {expected}\n2 spans stored, 0 known already, 1 wrong.\n"
    # A cost that only USD tell is kept too.
    assert [row["cost_picos"] for row in rows(filled.path.parent / "other.db")] == [None, 5 * 10**11]


async def test_rows_that_are_wrong_end_nothing(filled: Gateway) -> None:
    names = ("unique_id", "organization_id", "environment", "timestamp", "latency", "metadata", "note")
    cells = "prod,2026-01-02T03:04:05Z"
    lines = [
        # Spreadsheets begin with a byte order mark, and write a name in quotes.
        f'\ufeff"{names[0]}",{",".join(names[1:])}',
        f'a,org-x,{cells},1,{{}},"x\n"',
        f"b,org-x,{cells},long,{{}},",
        f"c,org-x,{cells},1,{{,",
        f"d,org-x,{cells}",
        f'e,org-x,{cells},1,"{{}}"x,',
        f"f,org-x,{cells},,,",
    ]
    (filled.path.parent / "bad.csv").write_text("\n".join(lines))
    _, told = await run(filled, "import", "bad.csv", "--config", "other.toml", status=1)
    assert told.splitlines() == [
        "bad.csv, line 4: latency: must be JSON.",
        "bad.csv, line 5: metadata: must be JSON.",
        "bad.csv, line 6: has 4 cells where the first line has 7.",
        "bad.csv, line 7: is no CSV: ',' expected after '\"'.",
        "2 spans stored, 0 known already, 4 wrong.",
    ]
    found = rows(filled.path.parent / "other.db")
    assert [(row["unique_id"], row["organization_id"], row["note"]) for row in found] == [
        ("a", "org-x", "x\n"),
        ("f", "org-x", None),
    ]


@pytest.mark.parametrize(
    ("name", "begin", "expected"),
    [
        ("x.jsonl.gz", b"\x1f\x8b\x08", "is compressed with gzip: unpack it first."),
        ("x.csv", b"\x1f\x8b\x08", "is compressed with gzip: unpack it first."),
        ("x.jsonl", b"PAR1\n", "is Parquet: its name must end in .parquet."),
        ("x.parquet", b"{}", "Parquet"),
        ("x.csv", b"\xff", "'utf-8' codec can't decode byte 0xff"),
    ],
)
async def test_a_file_of_another_kind_is_told(filled: Gateway, name: str, begin: bytes, expected: str) -> None:
    if name == "x.parquet":
        pytest.importorskip("pyarrow")
    (filled.path.parent / name).write_bytes(begin)
    _, told = await run(filled, "import", name, "--config", "other.toml", status=1)
    counts, why = told.splitlines()
    assert counts == "0 spans stored, 0 known already, 0 wrong." and why.startswith(f"{name}: {expected}")


async def test_what_was_read_before_a_file_breaks_off_is_stored(filled: Gateway) -> None:
    good = b"unique_id,environment,timestamp\na,prod,2026-01-02T03:04:05Z\n"
    # Behind more than is read at once.
    (filled.path.parent / "bad.csv").write_bytes(good + b"\n" * 100_000 + b"\xff")
    _, told = await run(filled, "import", "bad.csv", "--config", "other.toml", status=1)
    assert told.startswith("1 spans stored, 0 known already, 0 wrong.\nbad.csv: 'utf-8' codec")


async def test_spans_come_in_beside_a_running_gateway(filled: Gateway) -> None:
    await run(filled, "export", "spans.jsonl")
    async with filled.session.delete("/api/request-logs/s1") as response:
        assert response.status == 204
    _, told = await run(filled, "import", "spans.jsonl")
    assert told.endswith("1 spans stored, 4 known already, 0 wrong.\n")
    assert (await filled.get("s1"))["extra"] == {"a": [1]}
    async with filled.session.get("/api/request-logs/audit/") as response:
        assert (await response.json())["balanced"]
