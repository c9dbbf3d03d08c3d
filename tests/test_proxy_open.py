"""The row of a call while it runs, and what the audit makes of calls and posts."""

import asyncio
import json
import sqlite3
from typing import Any

import pytest

from gateway.core.reading import public
from tests.conftest import KEY, OTHER_KEY, Gateway, StartGateway
from tests.fakes.client import raw_client, soon
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire, chunk
from tests.processes import run

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
PATH = "/v1/chat/completions"


class Held:
    """An upstream that begins an answer and goes on when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def play(self, received: Received, wire: Wire) -> None:
        if not received.json().get("stream"):
            await self.go_on.wait()
            await wire.json(COMPLETION)
            return
        await wire.stream_head()
        await wire.chunk(f"data: {json.dumps(chunk({'content': 'Hello'}))}\n\n")
        await self.go_on.wait()
        await wire.chunk("data: [DONE]\n\n")
        await wire.end_chunks()


async def running(gateway: Gateway) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while not (spans := await gateway.spans()):
            await asyncio.sleep(0)
    return spans[0]


async def test_a_call_has_a_row_from_when_it_is_forwarded(
    start_gateway: StartGateway, upstream: ScriptedUpstream, clock: FakeClock
) -> None:
    gateway = await start_gateway(clock=clock)
    upstream.play = (held := Held()).play
    ids = {"trace_unique_id": "t", "span_parent_id": "p", "span_name": "n", "note": "later", "thread_identifier": 5}
    calling = asyncio.create_task(gateway.call(PATH, json={**CHAT, "respan_params": ids}))
    row = await running(gateway)
    assert row == {
        **public(dict.fromkeys(row) | {"log_type": "chat", "is_custom_prompt": False, "stream": False, "extras": None}),
        **{"id": f"{1:032x}", "unique_id": f"{1:032x}", "model": "gpt-4o-mini", "upstream": "main"},
        **{"status": "running", "status_code": 0, "log_type": "chat", "log_method": "inference"},
        **{"organization_id": "org-a", "unique_organization_id": "org-a", "environment": "prod"},
        **{"organization_key_id": "team-a", "organization_key_name": "team-a"},
        **{"start_time": "2026-01-02T03:04:05.000000Z", "timestamp": "2026-01-02T03:04:05.000000Z"},
        **{"trace_unique_id": "t", "span_parent_id": "p", "span_unique_id": f"{1:032x}", "span_name": "n"},
        **{"temperature": 1.0, "top_p": 1.0},
    }
    # Its id is taken while it runs.
    status, posted = await gateway.post({"model": "m", "unique_id": row["unique_id"]})
    assert (status, posted) == (201, {**row, "message": "log successful"})
    assert await audit(gateway) == counted(accepted=1, open=1, repeated=1)
    clock.advance(2)
    held.go_on.set()
    assert (await soon(calling)).log_id == row["unique_id"]
    span = await gateway.only_span()
    assert (span["status"], span["latency"], span["note"], span["trace_unique_id"]) == ("success", 2.0, "later", "t")
    assert span["completion_message"]["content"] == "Hello there"
    assert await audit(gateway) == counted(accepted=1, settled={"success": 1}, repeated=1)


async def audit(gateway: Gateway, **params: str) -> dict[str, Any]:
    async with gateway.session.get("/api/request-logs/audit/", params=params) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


def counted(**numbers: Any) -> dict[str, Any]:
    names = (
        "accepted",
        "open",
        "interrupted",
        "dropped",
        "posted",
        "repeated",
        "refused",
        "missing",
        "deleted_calls",
        "deleted_posts",
    )
    times = {"start_time": None, "end_time": None}
    stored = numbers.get("posted", 0)
    return {**times, **dict.fromkeys(names, 0), "settled": {}, "stored": stored, "balanced": True, **numbers}


async def test_the_audit_accounts_for_every_call_and_post(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway()
    for body in (CHAT, {**CHAT, "stream": True}):
        assert (await gateway.call(PATH, json=body)).status == 200
    assert (await gateway.call(PATH, data=b"no JSON")).status == 400
    # A relayed GET is no call, and a wrong key nobody's.
    async with gateway.session.get("/v1/files") as response:
        await response.read()
    async with gateway.session.post(PATH, json=CHAT, headers={"Authorization": "Bearer wrong"}) as response:
        assert response.status == 401
    upstream.play = fail
    assert (await gateway.call(PATH, json=CHAT)).status == 500
    upstream.play = hold
    async with raw_client(gateway.url, KEY) as client:
        await client.post(PATH, json.dumps({**CHAT, "stream": True}).encode())
        await client.read_head()
        client.leave()
    for post in ({"model": "m"}, {"model": "m", "unique_id": "u"}, {"model": "m", "unique_id": "u"}, {}, []):
        await gateway.post(post)
    bulk = {"logs": [{"model": "m"}, {"model": 5}, "no span"]}
    async with gateway.session.post("/api/request-logs/bulk", json=bulk) as response:
        assert response.status == 201
    async with gateway.session.post("/api/request-logs/bulk", json={}) as response:
        assert response.status == 422
    expected = counted(
        accepted=5, settled={"4xx": 1, "5xx": 1, "client_gone": 1, "success": 2}, posted=3, repeated=1, refused=5
    )
    async with asyncio.timeout(60):
        while (found := await audit(gateway)) != expected:
            assert found["balanced"], found
            await asyncio.sleep(0.01)
    # Another organization sees its own alone.
    async with gateway.session.get("/api/request-logs/audit", headers={"Authorization": OTHER_KEY}) as response:
        assert await response.json() == counted()
    done = await asyncio.to_thread(run_audit, gateway, "--json")
    assert {**json.loads(done.stdout)["org-a"], "start_time": None, "end_time": None} == expected


async def fail(received: Received, wire: Wire) -> None:
    await wire.json({"error": {"message": "no"}}, 500)


async def hold(received: Received, wire: Wire) -> None:
    await wire.stream_head()
    await wire.gone()


def run_audit(gateway: Gateway, *arguments: str) -> Any:
    folder = gateway.path.parent
    (folder / "config.toml").write_text(f"[store]\npath = '{gateway.path}'\n")
    return run("audit", *arguments, folder=folder)


async def test_the_audits_range_is_whole_minutes(start_gateway: StartGateway, clock: FakeClock) -> None:
    gateway = await start_gateway(clock=clock)
    await gateway.call(PATH, json=CHAT)
    times = {"start_time": "2026-01-02T03:04:59Z", "end_time": "2026-01-02T03:04:59+00:00"}
    assert await audit(gateway, **times) == counted(
        accepted=1,
        settled={"success": 1},
        start_time="2026-01-02T03:04:00.000000Z",
        end_time="2026-01-02T03:05:00.000000Z",
    )
    times = {"end_time": "2026-01-02T03:04:00Z"}
    assert await audit(gateway, **times) == counted(end_time="2026-01-02T03:04:00.000000Z")
    for wrong in ({"start_time": "yesterday"}, {"page": "1"}):
        async with gateway.session.get("/api/request-logs/audit", params=wrong) as response:
            assert response.status == 400


async def test_the_audit_command_shows_what_is_missing(gateway: Gateway) -> None:
    await gateway.call(PATH, json=CHAT)
    await gateway.call(PATH, json=CHAT)
    done = await asyncio.to_thread(run_audit, gateway)
    assert (done.returncode, done.stdout) == (
        0,
        "organization org-a\n"
        "calls accepted                     2\n"
        "  settled: success                 2\n"
        "  open                             0\n"
        "  interrupted                      0\n"
        "  dropped                          0\n"
        "  deleted                          0\n"
        "spans posted                       0\n"
        "  repeated ids                     0\n"
        "  refused                          0\n"
        "  deleted                          0\n"
        "Everything is accounted for.\n",
    )
    db = sqlite3.connect(gateway.path)
    db.execute("DELETE FROM span WHERE id = 1")
    db.commit()
    db.close()
    done = await asyncio.to_thread(run_audit, gateway)
    assert done.returncode == 1
    assert "MISSING: 1." in done.stdout
    done = await asyncio.to_thread(run_audit, gateway, "--start", "soon")
    assert done.returncode == 2
    assert "'soon' is no time like 2026-01-02T03:04" in done.stderr


async def test_a_call_that_was_opened_keeps_its_numbers_when_the_store_is_full(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway(store="queue_mb = 0.02\ncommit_wait_ms = 1")
    upstream.play = (held := Held()).play
    calling = [asyncio.create_task(gateway.call(PATH, json=CHAT)) for _ in range(3)]
    async with asyncio.timeout(60):
        while len(await gateway.spans()) < 3:
            await asyncio.sleep(0)
    blocker = sqlite3.connect(gateway.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    filler = asyncio.create_task(gateway.post({"model": "m", "log_type": "tool", "output": "x" * 20_000}))
    async with asyncio.timeout(60):
        while b"gateway_store_waiting_bytes 0.0" in await (await gateway.session.get("/metrics")).read():
            await asyncio.sleep(0)
    held.go_on.set()
    assert [reply.status for reply in await soon(asyncio.gather(*calling))] == [200] * 3
    # One that comes now finds no room at all; it is answered all the same.
    dropped = await gateway.call(PATH, json=CHAT)
    assert (dropped.status, dropped.json()) == (200, COMPLETION)
    status, refused = await gateway.post({"model": "m", "output": "x" * 1000})
    assert (status, refused) == (503, {"detail": "The store is not keeping up; try again shortly."})
    blocker.execute("ROLLBACK")
    blocker.close()
    assert (await soon(filler))[0] == 201
    expected = counted(accepted=4, settled={"success": 3}, dropped=1, posted=1, refused=1)
    async with asyncio.timeout(60):
        while await audit(gateway) != expected:
            await asyncio.sleep(0.01)
    calls = [span for span in await gateway.spans() if span["log_method"] == "inference"]
    assert [(span["status"], span["warnings"], span["prompt_tokens"], span["input"]) for span in calls] == [
        ("warning", "content dropped: the store was full", 9, None)
    ] * 3
    metrics = await (await gateway.session.get("/metrics")).text()
    assert "gateway_spans_dropped_total 1.0" in metrics.splitlines()


@pytest.mark.parametrize("head", [(200, {"Content-Length": "0"}), (204, {}), (304, {"Content-Length": "7"})])
async def test_an_answer_without_a_body_waits_for_its_span_as_well(
    start_gateway: StartGateway, upstream: ScriptedUpstream, head: tuple[int, dict[str, str]]
) -> None:
    gateway = await start_gateway(store="commit_wait_ms = 60_000")

    async def play(received: Received, wire: Wire) -> None:
        await wire.head(*head)

    upstream.play = play
    blocker = sqlite3.connect(gateway.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    async with raw_client(gateway.url, KEY) as client:
        await client.post("/v1/files", b"{}")
        reading = asyncio.create_task(client.read_head())
        async with asyncio.timeout(60):
            while (metrics := await (await gateway.session.get("/metrics")).text()).count("gateway_calls_total{") == 0:
                assert not reading.done(), metrics
        assert not reading.done()
        blocker.execute("ROLLBACK")
        blocker.close()
        await reading
        assert client.status == head[0]
        assert (await gateway.get(client.headers["X-Respan-Log-Id"]))["status_code"] == head[0]
