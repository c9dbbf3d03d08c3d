"""The limits of a key, in a running gateway: calls a minute, calls at a time, and a budget."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from tests.conftest import Gateway, Reply, StartGateway
from tests.fakes.client import raw_client, soon
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire
from tests.processes import kill, serving

PATH = "/v1/chat/completions"
KEY = "key-with-limits"
# 100 bytes and 40 tokens: 0.25 + 0.4 USD.
BODY = json.dumps({"model": "m", "max_tokens": 40, "messages": [{"role": "user", "content": "x" * 21}]})
RESERVE = 0.65
# Its usage, 9 and 2 tokens, costs 0.09 + 0.02 USD.
COST = 0.11
PRICES = '[prices."m"]\nprompt = 10_000\ncompletion = 10_000\n'
OTHER_PRICES = '[prices."gpt-4o-mini-2024-07-18"]\nprompt = 10_000\ncompletion = 10_000\n'


def limited(text: str) -> str:
    return f'[[keys]]\nname = "limited"\nkey = "{KEY}"\norganization_id = "org-l"\n{text}\n{PRICES}{OTHER_PRICES}'


def test_the_body_is_as_long_as_this_reckons_with() -> None:
    assert len(BODY) == 100


async def call(gateway: Gateway, body: str = BODY, path: str = PATH) -> Reply:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return await gateway.call(path, data=body, headers=headers)


async def span_of(gateway: Gateway, reply: Reply) -> dict[str, Any]:
    async with gateway.session.get(f"/api/request-logs/{reply.log_id}", headers={"Authorization": KEY}) as response:
        assert response.status == 200
        span: dict[str, Any] = await response.json()
        return span


def used(path: Path) -> dict[str, Any]:
    """What the database holds of the key."""
    db = sqlite3.connect(path)
    try:
        return {
            "reserved": db.execute("SELECT count(*), coalesce(sum(picos), 0) / 1e12 FROM reservation").fetchone(),
            "spent": db.execute("SELECT day, picos / 1e12 FROM spending ORDER BY day").fetchall(),
        }
    finally:
        db.close()


class Held:
    """An upstream that answers when it is told to, and counts."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.fails = False

    async def play(self, received: Received, wire: Wire) -> None:
        await self.go_on.wait()
        if self.fails:
            await wire.json({"error": {"message": "no"}}, 500)
        else:
            await wire.json(COMPLETION)


async def test_calls_over_the_rate_get_429_and_a_span_until_the_minute_has_passed(
    start_gateway: StartGateway, clock: FakeClock, upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway(limited("rate_limit = 2"), clock=clock)
    assert (await call(gateway)).status == 200
    clock.advance(20)
    assert (await call(gateway)).status == 200
    refused = await call(gateway)
    message = "This key may make no more calls a minute than 2 (rate_limit)."
    assert (refused.status, refused.headers["Retry-After"], refused.json()) == (
        429,
        "40",
        {"error": {"message": message, "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}},
    )
    span = await span_of(gateway, refused)
    assert (span["status"], span["status_code"], span["error_code"], span["error_message"], span["upstream"]) == (
        *("failed", 429, "rate_limit_exceeded", message, "main"),
    )
    assert len(upstream.requests) == 2
    # Posts are no calls.
    headers = {"Authorization": KEY}
    assert (await gateway.post({"model": "m"}, headers=headers))[0] == 201
    clock.advance(39)
    assert (await call(gateway)).status == 429
    clock.advance(1)
    assert (await call(gateway)).status == 200
    assert (await call(gateway)).status == 429
    # What is refused is told of without what it said.
    assert (span["model"], span["input"], span["full_request"]) == ("m", None, None)
    # Other keys have limits of their own, or none.
    assert [(await gateway.call(PATH, data=BODY)).status for _ in range(3)] == [200] * 3


async def test_calls_at_a_time(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    gateway = await start_gateway(limited("max_concurrent = 2"))
    upstream.play = (held := Held()).play
    calling = [asyncio.create_task(call(gateway)) for _ in range(20)]
    async with asyncio.timeout(60):
        while sum(task.done() for task in calling) < 18:
            await asyncio.sleep(0)
    assert {(task.result().status, task.result().headers["Retry-After"]) for task in calling if task.done()} == {
        (429, "1")
    }
    held.go_on.set()
    replies = await soon(asyncio.gather(*calling))
    assert sorted(reply.status for reply in replies) == [200] * 2 + [429] * 18
    assert (await call(gateway)).status == 200
    assert used(gateway.path)["reserved"] == (0, 0)


async def test_a_budget_for_ten_admits_ten_of_two_hundred(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway(limited(f"budget_usd = {10 * RESERVE}"))
    upstream.play = (held := Held()).play
    calling = [asyncio.create_task(call(gateway)) for _ in range(200)]
    async with asyncio.timeout(60):
        while sum(task.done() for task in calling) < 190:
            await asyncio.sleep(0.01)
    assert used(gateway.path)["reserved"] == (10, 10 * RESERVE)
    held.go_on.set()
    replies = await soon(asyncio.gather(*calling))
    assert sorted(reply.status for reply in replies) == [200] * 10 + [429] * 190
    # What they did not use is free again: 6.5 - 1.1 USD are room for eight more at a time.
    found = used(gateway.path)
    assert (found["reserved"], [spent for _, spent in found["spent"]]) == ((0, 0), [pytest.approx(10 * COST)])
    held.go_on.clear()
    calling = [asyncio.create_task(call(gateway)) for _ in range(20)]
    async with asyncio.timeout(60):
        while sum(task.done() for task in calling) < 12:
            await asyncio.sleep(0.01)
    held.go_on.set()
    assert sorted(reply.status for reply in await soon(asyncio.gather(*calling))) == [200] * 8 + [429] * 12


async def test_a_budget_is_spent_by_cost_and_lasts_for_its_period(
    start_gateway: StartGateway, clock: FakeClock, upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway(limited('budget_usd = 0.8\nbudget_period = "day"'), clock=clock)
    assert [(await call(gateway)).status for _ in range(2)] == [200, 200]
    refused = await call(gateway)
    # It is 03:04:05.
    assert (refused.status, refused.headers["Retry-After"]) == (429, str(86_400 - (3 * 3600 + 4 * 60 + 5) + 1))
    assert refused.json()["error"]["code"] == "budget_exceeded"
    assert refused.json()["error"]["message"] == (
        "This key may spend 0.8 USD a day (budget_usd): 0.22 are spent, 0 reserved by calls under way, and this call "
        "may cost 0.65."
    )
    clock.advance(86_400 - (3 * 3600 + 4 * 60 + 5))
    assert (await call(gateway)).status == 200
    assert used(gateway.path) == {
        "reserved": (0, 0),
        "spent": [("2026-01-02", pytest.approx(2 * COST)), ("2026-01-03", pytest.approx(COST))],
    }


async def test_what_fails_is_given_back(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    gateway = await start_gateway(limited(f"budget_usd = {RESERVE}"))
    upstream.play = (held := Held()).play
    held.fails = True
    held.go_on.set()
    assert [(await call(gateway)).status for _ in range(3)] == [500] * 3
    await upstream.stop()
    assert [(await call(gateway)).status for _ in range(3)] == [502] * 3
    found = used(gateway.path)
    assert (found["reserved"], [spent for _, spent in found["spent"]]) == ((0, 0), [0])


async def test_a_call_whose_client_left_is_settled_with_what_it_used(
    start_gateway: StartGateway, upstream: ScriptedUpstream
) -> None:
    gateway = await start_gateway(limited(f"budget_usd = {RESERVE}\nmax_concurrent = 1"))
    upstream.play = Held().play
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(gateway), 0.2)
    async with asyncio.timeout(60):
        while used(gateway.path)["reserved"] != (0, 0):
            await asyncio.sleep(0.01)
    upstream.play = answer_without_usage
    reply = await call(gateway)
    assert reply.status == 200
    # Counted afterwards, and then spent.
    async with asyncio.timeout(60):
        while (span := await span_of(gateway, reply))["cost"] is None:
            await asyncio.sleep(0.01)
    assert span["status"] == "warning"
    found = used(gateway.path)
    assert (found["reserved"], [spent for _, spent in found["spent"]]) == ((0, 0), [pytest.approx(span["cost"])])


async def answer_without_usage(received: Received, wire: Wire) -> None:
    await wire.json({name: value for name, value in COMPLETION.items() if name != "usage"})


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        (
            PATH,
            {"model": "nobody-knows-it", "messages": []},
            "the model 'nobody-knows-it' has no price: give it one under [prices].",
        ),
        ("/v1/files", {"purpose": "batch"}, "what this request may cost is unknown: it names no model."),
    ],
)
async def test_what_has_no_price_is_refused_where_there_is_a_budget(
    start_gateway: StartGateway, upstream: ScriptedUpstream, path: str, body: dict[str, Any], what: str
) -> None:
    gateway = await start_gateway(limited("budget_usd = 1000"))
    refused = await call(gateway, json.dumps(body), path)
    # OpenAI's SDKs do not wait for what time does not heal.
    headers = (refused.headers["Retry-After"], refused.headers["x-should-retry"])
    assert (refused.status, headers) == (429, ("86400", "false"))
    assert refused.json()["error"]["message"] == f"This key has a budget (budget_usd), and {what}"
    assert (await span_of(gateway, refused))["error_code"] == "model_not_priced"
    assert upstream.requests == []


async def test_a_client_that_leaves_while_its_call_is_admitted_leaves_no_reservation(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(limited(f"budget_usd = {10 * RESERVE}\nmax_concurrent = 1"))
    blocker = sqlite3.connect(gateway.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    async with raw_client(gateway.url, KEY) as client:
        await client.post(PATH, BODY.encode())
        async with asyncio.timeout(60):
            while b"gateway_store_waiting_bytes 0.0" in await (await gateway.session.get("/metrics")).read():
                await asyncio.sleep(0)
        client.leave()
        async with asyncio.timeout(60):
            while b'outcome="client_gone"' not in await (await gateway.session.get("/metrics")).read():
                await asyncio.sleep(0)
    blocker.execute("ROLLBACK")
    blocker.close()
    async with asyncio.timeout(60):
        while (await call(gateway)).status != 200:
            await asyncio.sleep(0)
    assert used(gateway.path)["reserved"] == (0, 0)


@pytest.mark.parametrize(("completion_tokens", "spent"), [(2**63 - 1, (2**63 - 1) / 1e12), (-1_000_000, 0)])
async def test_an_absurd_usage_breaks_no_budget(
    start_gateway: StartGateway, upstream: ScriptedUpstream, completion_tokens: int, spent: float
) -> None:
    gateway = await start_gateway(limited("budget_usd = 1000\nmax_concurrent = 1"))

    async def play(received: Received, wire: Wire) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": completion_tokens, "total_tokens": 1}
        await wire.json({**COMPLETION, "usage": usage})

    upstream.play = play
    reply = await call(gateway)
    assert (reply.status, (await span_of(gateway, reply))["status"]) == (200, "success")
    found = used(gateway.path)
    assert (found["reserved"], [picos for _, picos in found["spent"]]) == ((0, 0), [pytest.approx(spent)])
    assert (await call(gateway)).status == (429 if spent else 200)


async def test_a_key_with_limits_calls_by_post_alone(start_gateway: StartGateway, upstream: ScriptedUpstream) -> None:
    gateway = await start_gateway(limited("budget_usd = 0"))
    for method in ("PUT", "PATCH"):
        async with gateway.session.request(method, PATH, data=BODY, headers={"Authorization": KEY}) as response:
            assert response.status == 405
            assert (await response.json())["error"]["message"] == (
                f"A key with limits sends bodies by POST, not by {method}."
            )
    assert upstream.requests == []


async def test_a_store_in_trouble_breaks_no_call(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limiter._WITHIN_S", 0.0)
    gateway = await start_gateway(limited(f"budget_usd = {RESERVE}\nmax_concurrent = 1"), store="commit_wait_ms = 1")
    blocker = sqlite3.connect(gateway.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    assert [(await call(gateway)).status for _ in range(3)] == [200] * 3
    blocker.execute("ROLLBACK")
    blocker.close()
    async with asyncio.timeout(60):
        while not used(gateway.path)["spent"] or used(gateway.path)["reserved"] != (0, 0):
            await asyncio.sleep(0.01)


async def test_openais_sdk_sees_a_rate_limit(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(limited("rate_limit = 1"))
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        request: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        await client.chat.completions.create(**request)
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(**request)
    assert raised.value.code == "rate_limit_exceeded"
    assert int(raised.value.response.headers["Retry-After"]) > 0


def config(folder: Path, upstream: ScriptedUpstream, limits: str) -> None:
    (folder / "config.toml").write_text(
        f'[[upstreams]]\nname = "main"\nbase_url = "{upstream.url}/v1"\n{limited(limits)}'
    )


async def statuses(session: aiohttp.ClientSession, url: str, number: int) -> list[int]:
    async def one() -> int:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Connection": "close"}
        async with session.post(f"{url}{PATH}", data=BODY, headers=headers) as response:
            await response.read()
            return response.status

    return sorted(await asyncio.gather(*(one() for _ in range(number))))


async def test_workers_share_a_budget_and_a_restart_does_not_forget_it(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    config(tmp_path, upstream, f"budget_usd = {10 * RESERVE}\nrate_limit = 15")
    upstream.play = (held := Held()).play
    async with aiohttp.ClientSession() as session:
        with serving(tmp_path, "--workers", "2") as process:
            calling = asyncio.create_task(statuses(session, process.url, 200))
            async with asyncio.timeout(60):
                while len(upstream.requests) < 10 or refusals(tmp_path) < 190:
                    await asyncio.sleep(0.01)
            held.go_on.set()
            assert await soon(calling) == [200] * 10 + [429] * 190
            assert await statuses(session, process.url, 10) == [200] * 5 + [429] * 5
            assert process.stop() == 0
        with serving(tmp_path) as process:
            # The minute's fifteen are used up, by two processes that are no more.
            assert await statuses(session, process.url, 5) == [429] * 5
            assert used(tmp_path / "gateway.db")["spent"][0][1] == pytest.approx(15 * COST)


def refusals(folder: Path) -> int:
    db = sqlite3.connect(folder / "gateway.db")
    try:
        found: int = db.execute("SELECT count(*) FROM span WHERE status_code = 429").fetchone()[0]
        return found
    finally:
        db.close()


async def test_what_a_killed_process_had_reserved_is_given_back(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    config(tmp_path, upstream, f"budget_usd = {RESERVE}\nmax_concurrent = 1")
    upstream.play = (held := Held()).play
    async with aiohttp.ClientSession() as session:
        with serving(tmp_path) as process:
            calling = asyncio.create_task(statuses(session, process.url, 1))
            async with asyncio.timeout(60):
                while not upstream.requests or used(tmp_path / "gateway.db")["reserved"][0] == 0:
                    await asyncio.sleep(0.01)
            process.kill()
            with pytest.raises(aiohttp.ClientError):
                await calling
        assert used(tmp_path / "gateway.db")["reserved"] == (1, RESERVE)
        held.go_on.set()
        with serving(tmp_path) as process:
            assert await statuses(session, process.url, 1) == [200]


async def test_what_a_killed_worker_had_reserved_is_given_back(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    config(tmp_path, upstream, f"budget_usd = {10 * RESERVE}\nmax_concurrent = 1")
    upstream.play = (held := Held()).play
    async with aiohttp.ClientSession() as session:
        with serving(tmp_path, "--workers", "2") as process:
            calling = asyncio.create_task(statuses(session, process.url, 1))
            async with asyncio.timeout(60):
                while used(tmp_path / "gateway.db")["reserved"][0] == 0:
                    await asyncio.sleep(0.01)
            assert await statuses(session, process.url, 4) == [429] * 4
            # Whichever of the two has the call; the one that comes in its place gives it back.
            kill(process.workers())
            with pytest.raises(aiohttp.ClientError):
                await calling
            async with asyncio.timeout(60):
                while used(tmp_path / "gateway.db")["reserved"] != (0, 0):
                    await asyncio.sleep(0.01)
            held.go_on.set()
            async with asyncio.timeout(60):
                while True:
                    try:
                        assert await statuses(session, process.url, 1) == [200]
                        break
                    except aiohttp.ClientConnectorError:
                        # The worker that comes back is not listening yet.
                        await asyncio.sleep(0.01)
