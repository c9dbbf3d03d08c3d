"""kill -9 at random moments: whatever a client was told is there afterwards, and every call is accounted for."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from tests.fakes.upstream import ScriptedUpstream
from tests.processes import Process, kill, run, serving
from tests.soak.conftest import Figures, HowLong
from tests.soak.evidence import rows
from tests.soak.load import CALLS, KEY, Address, Load, audit_of, configuration

# The moments of a load (what was sent, seen, or read to its end) before the kill.
EARLIEST, LATEST = 20, 600
BULK_AT_MOST = 500


class Gateway:
    """A gateway that is started again and again on one database."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.path = folder / "gateway.db"
        self.starts_s: list[float] = []
        self._stack = stack
        self.process: Process

    def start(self, workers: int) -> None:
        """Until the line that says it is ready."""
        began = time.monotonic()
        arguments = ["--workers", str(workers)] if workers > 1 else []
        self.process = self._stack.enter_context(serving(self.path.parent, *arguments))
        self.starts_s.append(time.monotonic() - began)

    @property
    def address(self) -> Address:
        return self.process.url, self.process.workers

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(sql).fetchall()

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession(self.process.url, headers={"Authorization": f"Bearer {KEY}"}) as session,
            session.request(method, path, **more) as response,
        ):
            return response.status, await response.json()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_what_was_acknowledged_outlives_kill_9(
    tmp_path: Path, upstream: ScriptedUpstream, how_long: HowLong, figures: Figures
) -> None:
    (tmp_path / "config.toml").write_text(configuration(upstream, store="commit_wait_ms = 60000"))
    random = Random(0)
    loads: list[Load] = []
    repeated = 0
    with ExitStack() as stack:
        gateway = Gateway(tmp_path, stack)
        gateway.start(workers=1)
        for number in how_long.rounds(stride=5, long=50):
            load = Load(upstream, random, f"{number}-")
            loads.append(load)
            # The only process, then one of two, then both of two.
            one_of_two = number % 3 == 1
            async with load.running(gateway.address):
                moment = random.randrange(EARLIEST, LATEST)
                if one_of_two:
                    await load.reaches(moment)
                    killed = await kill_one_of_two(gateway, load, random)
                else:
                    await load.reaches(moment, gateway.process.kill_all, at_an_end=random.random() < 0.5)
            if one_of_two:
                assert set(load.broken) <= {killed, None}, "the other worker's clients notice nothing"
            else:
                gateway.start(workers=2 if number % 3 == 0 else 1)
            repeated += await check(gateway, load)
            await check_audit(gateway, loads, repeated)
        found = rows(gateway.path)
        sent = {name: one for load in loads for name, one in load.sent.items()}
        without = [one for load in loads for one in load.check(load.own(found))]
    calls = [one for one in sent.values() if one.kind in CALLS]
    figures(
        kills=len(loads),
        calls=len(calls),
        spans_posted=len(sent) - len(calls),
        acknowledged=sum(one.ended_at is not None for one in sent.values()),
        lost=0,
        calls_interrupted=sum(row["error_code"] == "interrupted" for row in found),
        calls_without_a_row=len(without),
        posted_again_and_found=repeated,
        slowest_restart_ms=round(1000 * max(gateway.starts_s[1:])),
    )
    assert max(gateway.starts_s[1:]) < 10


async def kill_one_of_two(gateway: Gateway, load: Load, random: Random) -> int:
    """Kills one worker; the one that takes its place closes its calls, and none of the other's. Gives its id."""

    def open_calls() -> set[str]:
        return {name for (name,) in gateway.read("SELECT span_name FROM spans WHERE is_open")}

    both = gateway.process.workers()
    while {sent.worker for sent in load.held()} != set(both):
        await load.hold(gateway.address)
    await until(lambda: {sent.name for sent in load.held()} <= open_calls())
    killed, spared = random.sample(both, 2)
    kill([killed])
    await until(lambda: not {load.sent[name].worker for name in open_calls()} & {killed, None})
    assert {sent.name for sent in load.held() if sent.worker == spared} <= open_calls()
    return killed


async def check(gateway: Gateway, load: Load) -> int:
    """Lays what a load was told beside what is stored; how many of its posts were stored without its knowing it."""
    # What a start has to close is closed before anything else is committed.
    async with asyncio.timeout(60):
        while (await gateway.ask("GET", "/ready"))[0] != 200:
            pass
    assert gateway.read("PRAGMA integrity_check") == [("ok",)]
    found = load.own(rows(gateway.path))
    load.check(found)
    # Who got no answer to a post sends it again.
    unanswered = load.unanswered()
    for start in range(0, len(unanswered), BULK_AT_MOST):
        again = unanswered[start : start + BULK_AT_MOST]
        _, answer = await gateway.ask("POST", "/api/request-logs/bulk", json={"logs": [one.span for one in again]})
        assert answer == {"success_count": len(again), "error_count": 0, "errors": []}
    load.answered(unanswered)
    load.check(load.own(rows(gateway.path)))
    return len({row["span_name"] for row in found} & {one.name for one in unanswered})


async def check_audit(gateway: Gateway, loads: list[Load], repeated: int) -> None:
    """Both ways of asking tell what is stored, and that it is all."""
    sent = {name: one for load in loads for name, one in load.sent.items()}
    expected = audit_of(rows(gateway.path), sent, repeated)
    assert await gateway.ask("GET", "/api/request-logs/audit") == (
        200,
        {"start_time": None, "end_time": None, **expected},
    )
    told = run("audit", "--json", folder=gateway.path.parent)
    assert (told.returncode, json.loads(told.stdout)) == (0, {"default": expected})
