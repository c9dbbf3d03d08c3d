"""Health, readiness and metrics: for everyone, and nothing secret."""

import json
import sqlite3
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conftest import KEY, Gateway
from tests.fakes.client import raw_client
from tests.fakes.upstream import ScriptedUpstream

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi, I am a-secret"}]}


@pytest.fixture
async def anyone(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a key."""
    async with aiohttp.ClientSession(gateway.url) as session:
        yield session


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("path", "said"), [("/health", "ok"), ("/ready", "ready")])
async def test_all_is_well(anyone: aiohttp.ClientSession, path: str, said: str, slash: str) -> None:
    async with anyone.get(path + slash, allow_redirects=False) as response:
        assert (response.status, await response.json()) == (200, {"status": said})


async def test_head_is_answered_as_get_without_the_body(gateway: Gateway) -> None:
    async with raw_client(gateway.url, "") as client:
        for path in ("/health", "/ready", "/metrics", "/openapi.json", "/docs", "/docs/style.css"):
            heads = []
            for method in ("GET", "HEAD"):
                await client.send_head(method, path)
                # A body behind the answer to HEAD would be read as the next head.
                await (client.read_answer() if method == "GET" else client.read_head())
                client.headers.pop("Date")
                heads.append((client.status, client.headers))
            assert heads[0] == heads[1]
            assert heads[0][0] == 200


async def test_who_takes_the_gateway_for_an_http_proxy_is_told(gateway: Gateway) -> None:
    async with raw_client(gateway.url, KEY) as client:
        await client.send_head("CONNECT", "api.openai.com:443")
        told = "The gateway opens no tunnels (CONNECT): its address is an SDK's base_url, not an HTTP proxy."
        assert json.loads(await client.read_answer()) == {"detail": told}
        assert client.status == 404


async def test_it_is_not_ready_while_the_store_takes_no_spans(anyone: aiohttp.ClientSession, gateway: Gateway) -> None:
    db = sqlite3.connect(gateway.path, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            async with anyone.get("/ready") as response:
                assert response.status == 503
                assert (await response.json())["status"] == "not ready"
        async with anyone.get("/health") as response:
            assert response.status == 200
        db.execute("ROLLBACK")
    finally:
        db.close()
    # What waited for the lock is written first.
    assert (await gateway.post({"model": "m"}))[0] == 201
    async with anyone.get("/ready") as response:
        assert response.status == 200


async def test_metrics_name_every_metric_and_nothing_secret(
    anyone: aiohttp.ClientSession, gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    await gateway.call("/v1/chat/completions", json={**CHAT, "customer_identifier": "a-secret", "stream": True})
    await gateway.post({})
    await gateway.post({"model": "a-secret"})
    async with anyone.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await response.text()
    for line in (
        'gateway_calls_total{outcome="success",upstream="main"} 1.0',
        'gateway_call_latency_seconds_count{upstream="main"} 1.0',
        'gateway_time_to_first_token_seconds_count{upstream="main"} 1.0',
        "gateway_spans_posted_total 1.0",
        "gateway_spans_refused_total 1.0",
        "gateway_spans_dropped_total 0.0",
        "gateway_store_troubles_total 0.0",
        "gateway_commit_waits_over_total 0.0",
        "gateway_sign_ins_refused_total 0.0",
        "gateway_store_waiting_bytes 0.0",
    ):
        assert line in text.splitlines()
    assert "a-secret" not in text
    assert KEY not in text
