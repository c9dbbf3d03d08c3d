"""`gateway spans` and `gateway trace`, as processes beside a running gateway."""

import asyncio
import io
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gateway import show
from gateway.store import lists
from tests.conftest import Gateway
from tests.processes import environment

SPANS: list[dict[str, Any]] = [
    {"model": "m", "unique_id": "a", "trace_unique_id": "t", "span_unique_id": "r", "span_name": "root"},
    {"model": "m", "unique_id": "b", "trace_unique_id": "t", "span_parent_id": "r", "span_name": "step", "cost": 0.5},
    {"model": "gpt", "unique_id": "c", "status": "error", "error_message": "boom", "prompt_tokens": 5},
]


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    for number, span in enumerate(SPANS):
        times = {"start_time": f"2026-01-02T12:00:0{number}Z", "timestamp": f"2026-01-02T12:00:0{number + 3}Z"}
        assert (await gateway.post({**times, **span}))[0] == 201
    (gateway.path.parent / "config.toml").write_text(f"[store]\npath = '{gateway.path}'\n")
    return gateway


async def run(gateway: Gateway, *arguments: str, status: int = 0, columns: int = 200) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        cwd=gateway.path.parent,
        env=environment(COLUMNS=str(columns), TZ="UTC"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == status, err.decode()
    return out.decode(), err.decode()


async def test_spans_as_a_table(filled: Gateway) -> None:
    out, _ = await run(filled, "spans")
    lines = [line.split() for line in out.splitlines() if "01-02 " in line]
    assert [(line[1], line[2]) for line in lines] == [("12:00:03", "root"), ("12:00:04", "step"), ("12:00:05", "gpt")]
    assert "failed 200" in out and "boom" in out and "0.500000" in out and "3,000.0ms" in out


async def test_a_narrow_terminal_has_whole_lines(filled: Gateway) -> None:
    out, _ = await run(filled, "spans", columns=80)
    assert max(map(len, out.splitlines())) <= 80
    assert " 12:00:05 " in out and "1st token" not in out and "boom" in out and "5→–" in out


@pytest.mark.parametrize("columns", [80, 100, 120])
async def test_times_and_numbers_are_whole(filled: Gateway, columns: int) -> None:
    await filled.post({"model": "日本語" * 10, "prompt_tokens": 250, "completion_tokens": 250, "output": "x" * 100})
    out, _ = await run(filled, "spans", columns=columns)
    line = out.splitlines()[-2]
    assert re.search(r" \d\d:\d\d:\d\d ", line) and "250→250" in line and line.endswith("…  ")


async def test_what_others_wrote_steers_no_terminal(filled: Gateway) -> None:
    odd = "[/x]\x1b[2J\r\n\u202e\x9b5m"
    span = {"model": "m", "unique_id": "z", "trace_unique_id": "z", "output": odd}
    await filled.post({**span, "span_name": odd, "status": odd, "log_type": odd})
    for command in (("spans", "--where", "unique_id=z"), ("trace", "z")):
        out, _ = await run(filled, *command)
        assert not set("\x1b\r\u202e\x9b") & set(out) and "[/x] [2J" in out and len(out.splitlines()) <= 5


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["model=m"], ["a", "b"]),
        (["model!=m"], ["c"]),
        (["cost>=0.5", "span_name~STE"], ["b"]),
        (["status=failed"], ["c"]),
        (["latency<3"], []),
    ],
)
async def test_conditions(filled: Gateway, conditions: list[str], expected: list[str]) -> None:
    where = [part for condition in conditions for part in ("--where", condition)]
    out, _ = await run(filled, "spans", "--json", *where)
    assert [json.loads(line)["id"] for line in out.splitlines()] == expected


async def test_the_newest_and_those_since(filled: Gateway) -> None:
    out, _ = await run(filled, "spans", "--json", "--limit", "2")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["b", "c"]
    assert json.loads(out.splitlines()[0]) == await filled.get("b")
    out, _ = await run(filled, "spans", "--json", "--since", "2026-01-02T12:00:05")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["c"]


async def test_many_are_read_bit_by_bit(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "_AT_ONCE", 2)
    read: list[int] = []
    rows = lists.rows

    def counted(db: sqlite3.Connection, ids: Sequence[int], *more: Any) -> Iterator[dict[str, Any]]:
        read.append(len(ids))
        return rows(db, ids, *more)

    monkeypatch.setattr(lists, "rows", counted)
    text = io.StringIO()
    assert show.spans(show.Options(filled.path, json=True), Console(file=text, width=200)) == 0
    assert [json.loads(line)["id"] for line in text.getvalue().splitlines()] == ["a", "b", "c"] and read == [2, 1]


async def test_what_comes_while_it_begins_to_follow_is_shown(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    page = lists.page

    def late(db: sqlite3.Connection, *args: Any, **more: Any) -> lists.Found:
        found = page(db, *args, **more)
        with closing(sqlite3.connect(filled.path)) as other:
            other.execute("UPDATE journal SET seq = seq + 1")
            other.execute("UPDATE span SET seq = (SELECT seq FROM journal), note = 'late' WHERE unique_id = 'a'")
            other.commit()
        return found

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(lists, "page", late)
    monkeypatch.setattr(show.time, "sleep", sleep)
    text = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        show.spans(show.Options(filled.path, follow=True, json=True), Console(file=text, width=200))
    assert json.loads(text.getvalue().splitlines()[-1])["note"] == "late"


async def test_following(filled: Gateway) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "spans", "--json", "--follow", "--limit", "1"),
        *("--where", "model=m"),
        cwd=filled.path.parent,
        env=environment(),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["id"] == "b"
    await filled.post({"model": "other", "unique_id": "x"})
    await filled.post({"model": "m", "unique_id": "y"})
    assert json.loads(await process.stdout.readline())["id"] == "y"
    await filled.post({"model": "m", "unique_id": "z"})
    assert json.loads(await process.stdout.readline())["id"] == "z"
    process.terminate()
    await process.wait()


async def test_a_trace_as_a_tree(filled: Gateway) -> None:
    out, _ = await run(filled, "trace", "t")
    lines = out.splitlines()
    assert lines[0].startswith("root  4,000.0ms, 2 spans,") and lines[0].endswith("$0.500000")
    assert "root  chat  at 0.0ms, 3,000.0ms" in lines[1]
    assert "step  chat  at 1,000.0ms, 3,000.0ms" in lines[2] and lines[2].index("step") > lines[1].index("root")
    out, _ = await run(filled, "trace", "t", "--json")
    async with filled.session.get("/api/traces/t") as response:
        assert json.loads(out) == await response.json()


async def test_what_is_not_there_is_told(filled: Gateway, tmp_path: Path) -> None:
    _, err = await run(filled, "trace", "none", status=1)
    assert err == "There is no trace none of org-a.\n"
    _, err = await run(filled, "spans", "--where", "colour=red", status=1)
    assert err.startswith("colour: not a field to filter by; use unique_id")
    _, err = await run(filled, "spans", "--where", "colour", status=1)
    assert "is no condition like model=gpt-4o" in err
    (tmp_path / "none.toml").write_text("[store]\npath = 'none.db'\n")
    _, err = await run(filled, "spans", "--config", str(tmp_path / "none.toml"), status=1)
    assert "There is no database" in err
