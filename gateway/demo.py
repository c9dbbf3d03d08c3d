"""`gateway demo`: a few real calls through the gateway's own port, and the spans they left."""

import asyncio
import base64
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from gateway import config, dashboard
from gateway.app import local_key, opened, served
from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.show import spans_table

_PORT = 8080
# What gpt-4o-mini costs, so that the table has costs to show.
_CONFIG = """
[server]
port = {port}

[store]
path = {path}

[prices.echo]
prompt = 0.15
completion = 0.60
"""
_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"input": {"type": "string"}}}},
}


async def run(*, port: int | None, once: bool, stop: Callable[[], AbstractContextManager[asyncio.Event]]) -> int:
    """Serves from a fresh database in a temporary folder, makes the calls, prints their spans, serves on."""
    console = Console()
    chosen = port if port is not None else (0 if once else _PORT)
    with stop() as stopped, tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        path = json.dumps(str(Path(folder) / "demo.db"))
        settings = config.parse(_CONFIG.format(port=chosen, path=path), "demo", os.environ)
        key = local_key(settings)
        assert key is not None
        async with opened(settings) as gateway, served(settings, gateway) as url:
            async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {key.key}"}) as session:
                with console.status("Making a few calls …"):
                    await _make_calls(session)
                console.print(
                    spans_table(await _spans(session), console.width, title="The spans of these calls, newest first")
                )
            if not once:
                page = dashboard.told(settings, url, Clock().now(), with_links=True)
                _explain(console, url, key.key, page, has_openai=len(settings.upstreams) > 1)
                print(f"listening on {url}", flush=True)
                await stopped.wait()
    return 0


async def _make_calls(session: aiohttp.ClientSession) -> None:
    await _chat(session, "Say hello to the gateway")
    await _chat(session, "This answer comes back word by word, as it is made", stream=True)
    await _chat(session, "What is the weather in Paris?", tools=[_TOOL], tool_choice="required")
    await _chat(session, "Nobody serves this model", model="no-such-model")
    await _trace(session)


async def _trace(session: aiohttp.ClientSession) -> None:
    """A trace of three spans: a workflow that was posted, and in it a posted tool call and a proxied chat."""
    ids = {"trace_unique_id": "demo-trace", "span_workflow_name": "travel"}
    root = {**ids, "span_unique_id": "demo-root", "span_name": "plan a trip"}
    found = {"temperature": 21, "sky": "clear"}
    await _post(session, {**root, "log_type": "workflow", "input": "Paris", "output": "Go!", "latency": 0.9})
    step = {**ids, "span_parent_id": "demo-root"}
    lookup = {**step, "span_unique_id": "demo-tool", "span_name": "look up the weather"}
    await _post(session, {**lookup, "log_type": "tool", "input": {"city": "Paris"}, "output": found, "latency": 0.2})
    await _chat(session, "Clear and 21 degrees: go!", params={**step, "span_name": "advise"}, stream=True)


async def _chat(
    session: aiohttp.ClientSession, text: str, *, params: dict[str, Any] | None = None, **more: Any
) -> None:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], **more}
    headers = {}
    if params:
        headers["X-Data-Respan-Params"] = base64.b64encode(json.dumps(params).encode()).decode()
    expected = 200 if body["model"] == "echo" else 404
    async with session.post("/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        if response.status != expected:
            raise GatewayError(f"A call of the demo was answered with {response.status}, not {expected}; see the log.")


async def _post(session: aiohttp.ClientSession, span: dict[str, Any]) -> None:
    async with session.post("/api/request-logs/", json={"model": "none", **span}) as response:
        response.raise_for_status()


async def _spans(session: aiohttp.ClientSession) -> list[dict[str, Any]]:
    async with session.get("/api/request-logs/list/") as response:
        response.raise_for_status()
        listed: list[dict[str, Any]] = (await response.json())["results"]
        return listed


def _explain(console: Console, url: str, key: str, page: list[str], *, has_openai: bool) -> None:
    models = '"echo", or any OpenAI model' if has_openai else '"echo"; with OPENAI_API_KEY set also OpenAI\'s'
    lines = (
        *page,
        "",
        "Point an OpenAI SDK at it:",
        "",
        "  from openai import OpenAI",
        f'  client = OpenAI(base_url="{url}/v1", api_key="{key}")',
        '  print(client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "Hi"}]))',
        "",
        f"Models: {models}. The spans: curl -H 'Authorization: Bearer {key}' {url}/api/request-logs/list/",
        "This database goes away when the demo ends (Ctrl-C).",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
