"""`gateway export` and `gateway import`: what is written is read back as it was."""

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Gateway
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
    assert told == "none.jsonl: No such file or directory.\n"


async def test_spans_come_in_beside_a_running_gateway(filled: Gateway) -> None:
    await run(filled, "export", "spans.jsonl")
    async with filled.session.delete("/api/request-logs/s1") as response:
        assert response.status == 204
    _, told = await run(filled, "import", "spans.jsonl")
    assert told.endswith("1 spans stored, 4 known already, 0 wrong.\n")
    assert (await filled.get("s1"))["extra"] == {"a": [1]}
    async with filled.session.get("/api/request-logs/audit/") as response:
        assert (await response.json())["balanced"]
