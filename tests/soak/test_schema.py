"""Schemathesis over the gateway's own OpenAPI document: all its checks, every operation, odd upstreams behind it."""

import asyncio
import json
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp

from tests import processes
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire
from tests.soak.conftest import Figures, HowLong

HERE = Path(__file__).parent
KEYS = {"org-a": "key-of-org-a", "org-b": "key-of-org-b"}
CONFIG = """
[[keys]]
name = "a"
key = "key-of-org-a"
organization_id = "org-a"

[[keys]]
name = "b"
key = "key-of-org-b"
organization_id = "org-b"

[[upstreams]]
name = "odd"
base_url = "{upstream}/v1"
models = ["[!e]*", "e[!c]*"]

[[upstreams]]
name = "echo"
kind = "echo"
"""
# Status, headers and body. None is a server's error, and none breaks HTTP or what it says of itself: what becomes of
# such answers is shown in tests/test_proxy_*.py.
ODD: list[tuple[int, dict[str, str], bytes]] = [
    (200, {"Content-Type": "application/json"}, json.dumps(COMPLETION).encode()),
    (200, {"Content-Type": "application/json"}, b"[]"),
    (200, {"Content-Type": "application/json"}, b'{"data": [{"id": 5}, {"id": "m"}, 5], "usage": [], "choices": {}}'),
    (
        200,
        {"Content-Type": "application/json"},
        b'{"choices": [null, {"message": 5}], "usage": {"prompt_tokens": "x"}}',
    ),
    (
        200,
        {"Content-Type": "text/event-stream"},
        b'data: 5\n\ndata: {"choices": 5}\n\nevent: x\r\n\r\ndata: [DONE]\n\n',
    ),
    (200, {"Content-Type": "text/event-stream"}, b"data: {\n\n: end"),
    (200, {"Content-Type": "text/html; charset=utf-16"}, b"\xff\x00"),
    (201, {"Content-Type": "application/octet-stream"}, b""),
    (204, {}, b""),
    (404, {"Content-Type": "text/html"}, b"<html>"),
    (429, {"Content-Type": "application/json", "Retry-After": "1"}, b'{"error": "slow down"}'),
    (418, {"Content-Type": "application/problem+json"}, b'{"title": "teapot"}'),
]


async def test_every_answer_is_as_the_document_says(
    tmp_path: Path, upstream: ScriptedUpstream, how_long: HowLong, figures: Figures
) -> None:
    answers = cycle(ODD)

    async def answer_oddly(received: Received, wire: Wire) -> None:
        status, headers, body = next(answers)
        length = {} if status == 204 else {"Content-Length": str(len(body))}
        await wire.head(status, {**headers, **length})
        if received.method != "HEAD":
            await wire.send(body)

    upstream.play = answer_oddly
    (tmp_path / "config.toml").write_text(CONFIG.format(upstream=upstream.url))
    (tmp_path / "callers.json").write_text(json.dumps(_callers()))
    with processes.serving(tmp_path, "--config", "config.toml") as gateway:
        status, said = await _schemathesis(tmp_path, gateway.url, how_long)
        assert status == 0, said
        async with aiohttp.ClientSession(gateway.url) as session:
            async with session.get("/ready") as response:
                assert response.status == 200
            async with session.get("/openapi.json") as response:
                described = sum(map(len, (await response.json())["paths"].values()))
        report = json.loads((tmp_path / "report.json").read_text())
        tested, cases = report["operations"]["tested"], report["test_cases"]
        failures = cases["with_failures"] + cases["errored"]
        figures(operations=tested, requests=cases["generated"], failures=failures, log_bytes=len(gateway.log))
        # All but the one that it got the document from, and the one whose answer has no end.
        assert (tested, failures) == (described - 2, 0)
        assert [line for line in gateway.log_lines if not line.startswith("INFO ")] == [f"Dashboard: {gateway.url}/"]
        assert gateway.stop() == 0


async def _schemathesis(folder: Path, url: str, how_long: HowLong) -> tuple[int, str]:
    """Runs it as a user would; its exit status and what it said. A stride takes the same way each time."""
    if how_long.minutes is None:
        extent = ["--max-examples", "10", "--seed", "1"]
    else:
        extent = ["--max-time", str(int(how_long.minutes * 60))]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{url}/openapi.json", "--continue-on-failure", *extent),
        *("--report", "json", "--report-json-path", "report.json", "--output-truncate", "false"),
        cwd=folder,
        env=processes.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def _callers() -> dict[str, Any]:
    """The keys in the form that Schemathesis reads (Web Fuzzing Commons)."""
    return {
        "auth": [
            {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]}
            for name, key in KEYS.items()
        ]
    }
