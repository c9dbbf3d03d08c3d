"""What a running gateway does by itself, behind the calls."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from gateway.store import compress, hours
from gateway.store.behind import now_and_then
from tests.conftest import Gateway, StartGateway
from tests.fakes.clock import FakeClock

SAID = "Say what the quick brown fox does. " * 20


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(hours, "_LOOK_EVERY_S", 0.01)


async def until(gateway: Gateway, query: str, found: object) -> None:
    async with asyncio.timeout(60):
        with closing(sqlite3.connect(gateway.path)) as db:
            while db.execute(query).fetchone() != (found,):
                await asyncio.sleep(0.01)


async def test_old_spans_are_compressed_and_hours_summed_up(start_gateway: StartGateway, clock: FakeClock) -> None:
    gateway = await start_gateway(clock=clock, store='compress_after = "2h"')
    await gateway.post({"model": "m", "unique_id": "a", "input": SAID, "cost": 1})
    clock.advance(timedelta(hours=3).total_seconds())
    await gateway.post({"model": "m", "unique_id": "b", "input": SAID, "cost": 2})
    await until(gateway, "SELECT count(*) FROM content WHERE typeof(input) = 'blob'", 1)
    await until(gateway, "SELECT count(*) FROM span_hour WHERE summed = 1", 1)
    assert [(span["unique_id"], span["input"]) for span in await gateway.spans()] == [("b", SAID), ("a", SAID)]
    async with gateway.session.get("/api/request-logs/summary/") as answer:
        found = await answer.json()
    assert (found["number_of_requests"], found["total_cost"]) == (2, 3)


async def test_never_is_never(start_gateway: StartGateway, clock: FakeClock) -> None:
    gateway = await start_gateway(clock=clock, store='compress_after = "never"')
    await gateway.post({"model": "m", "unique_id": "a", "input": SAID})
    clock.advance(timedelta(days=999).total_seconds())
    await until(gateway, "SELECT count(*) FROM span_hour WHERE summed = 1", 1)
    await until(gateway, "SELECT typeof(input) FROM content", "text")
    assert "compress" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_trouble_is_told_and_passes(caplog: pytest.LogCaptureFixture) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    troubles = [sqlite3.OperationalError("database is locked")]

    def steps() -> Iterator[bool]:
        if troubles:
            raise troubles.pop()
        yield True
        loop.call_soon_threadsafe(done.set)

    task = asyncio.create_task(now_and_then(steps, 0.0, "It could not be done"))
    async with asyncio.timeout(60):
        await done.wait()
    task.cancel()
    await asyncio.wait([task])
    assert [record.message for record in caplog.records] == ["It could not be done: database is locked"]
