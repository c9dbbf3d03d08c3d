"""A gateway whose store gets into trouble, and what must hold all the while and afterwards."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from tests.fakes.client import soon
from tests.fakes.upstream import COMPLETION, USAGE_CHUNK, Received, ScriptedUpstream, Wire, chunk
from tests.processes import Process, run, serving
from tests.soak.evidence import rows

KEY = "key-in-trouble"
QUEUE_MB = 0.1
_CONFIG = """
[store]
path = "{database}"
queue_mb = {queue_mb}
commit_wait_ms = 20

[[keys]]
name = "team"
key = "{key}"

[[upstreams]]
name = "main"
base_url = "{upstream}/v1"
"""
_FIRST, *_REST = [
    f"data: {json.dumps(event)}\n\n"
    for event in (chunk({"role": "assistant", "content": "Hello"}), chunk({}, finish_reason="stop"), USAGE_CHUNK)
] + ["data: [DONE]\n\n"]
# What a client gets, by whether it asked for a stream: everything but the usage chunk.
_ANSWERS = {False: json.dumps(COMPLETION).encode(), True: (_FIRST + _REST[0] + _REST[2]).encode()}
# Posts that fill the queue: large ones until no more fits, then smaller ones.
_LENGTHS = (20_000, 2_000, 0)
_CONTENT_DROPPED = "content dropped: the store was full"


class Gateway:
    """A gateway in a process of its own, and all that was sent to it."""

    def __init__(self, process: Process, path: Path, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.path = path
        self.calls: set[str] = set()
        # By id: whether it was acknowledged; None while it waits.
        self.posts: dict[str, bool | None] = {}
        self._session = session

    # What clients do

    async def call(self, *, streamed: bool, held: bool = False) -> None:
        """One call, whose client gets the very bytes. `held`: the upstream ends it when it is told."""
        headers = {"X-Held": "1"} if held else {}
        body = {"model": "m", "stream": streamed}
        async with self._session.post("/v1/chat/completions", json=body, headers=headers) as response:
            self.calls.add(response.headers["X-Respan-Log-Id"])
            assert (response.status, await response.read()) == (200, _ANSWERS[streamed])

    async def make_calls(self, number: int = 8) -> None:
        """Calls at once, every other one streamed."""
        await asyncio.gather(*(self.call(streamed=bool(one % 2)) for one in range(number)))

    async def post(self, length: int = 0) -> int:
        """Posts a span with so long an input; the status."""
        span = self._span(length)
        async with self._session.post("/api/request-logs/", json=span) as response:
            answer = await response.json()
            self.posts[span["unique_id"]] = response.status == 201
            assert response.headers.get("Retry-After") == (None if response.status == 201 else "1")
            assert answer.get("unique_id") == (span["unique_id"] if response.status == 201 else None)
            return response.status

    async def post_bulk(self) -> int:
        """Posts two spans at once; the status."""
        spans = [self._span(_LENGTHS[0]) for _ in range(2)]
        async with self._session.post("/api/request-logs/bulk/", json={"logs": spans}) as response:
            self.posts |= {span["unique_id"]: response.status == 201 for span in spans}
            assert response.headers.get("Retry-After") == (None if response.status == 201 else "1")
            return response.status

    def _span(self, length: int) -> dict[str, Any]:
        unique_id = uuid4().hex
        self.posts[unique_id] = None
        return {"model": "m", "log_type": "tool", "input": "x" * length, "unique_id": unique_id}

    async def fill(self) -> list[asyncio.Task[int]]:
        """Posts until the queue has no more room; the posts that wait."""
        waiting: list[asyncio.Task[int]] = []
        for length in _LENGTHS:
            post = None
            while post is None or not post.done():
                before = await self.metric("gateway_store_waiting_bytes")
                post = asyncio.create_task(self.post(length))
                waiting.append(post)
                async with asyncio.timeout(60):
                    while not post.done() and await self.metric("gateway_store_waiting_bytes") <= before:
                        pass
            assert waiting.pop().result() == 503
        assert await self.post_bulk() == 503
        return waiting

    # What it says of itself

    async def ready(self) -> bool:
        async with self._session.get("/ready") as response:
            assert response.status in (200, 503)
            return response.status == 200

    async def metric(self, name: str) -> float:
        async with self._session.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    async def audit(self) -> dict[str, Any]:
        async with self._session.get("/api/request-logs/audit/") as response:
            assert response.status == 200
            found: dict[str, Any] = await response.json()
            return found

    # What must hold

    async def accounts_for_everything(self) -> int:
        """Once the store is well again: what was acknowledged is there, once, and of calls what is not was dropped
        and is told of. How many were dropped."""
        async with asyncio.timeout(60):
            while not await self.ready():
                pass
        with closing(sqlite3.connect(self.path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {row["unique_id"]: row for row in rows(self.path)}
        assert len(found) == len(rows(self.path))
        assert None not in self.posts.values()
        stored = {unique_id for unique_id, acknowledged in self.posts.items() if acknowledged}
        assert set(found) - self.calls == stored
        for unique_id in self.calls & set(found):
            row = found[unique_id]
            is_whole = row["output"] is not None
            assert (row["is_open"], row["status"], row["status_code"]) == (0, "success" if is_whole else "warning", 200)
            assert is_whole or json.loads(row["warnings"]) == _CONTENT_DROPPED
        dropped = len(self.calls - set(found))
        assert await self.metric("gateway_spans_dropped_total") == dropped
        lines = self.process.log_lines
        logged = [line for line in lines if line.endswith("of a call is dropped: the store is full")]
        assert {line.split()[3] for line in logged} == self.calls - set(found)
        expected = {
            **{"start_time": None, "end_time": None, "accepted": len(self.calls), "open": 0, "interrupted": 0},
            **{"settled": {"success": len(self.calls) - dropped}, "dropped": dropped},
            **{"posted": len(stored), "stored": len(stored)},
            **{"repeated": 0, "refused": len(self.posts) - len(stored), "missing": 0, "balanced": True},
            **{"deleted_calls": 0, "deleted_posts": 0},
        }
        told: dict[str, Any] = {}
        # What is only counted may be written a little later.
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                while told != expected:
                    told = await self.audit()
        assert told == expected
        assert run("audit", folder=self.process.folder).returncode == 0
        return dropped


@asynccontextmanager
async def running(
    folder: Path, upstream: ScriptedUpstream, *arguments: str, database: str = "gateway.db"
) -> AsyncIterator[Gateway]:
    """A gateway with a small queue before this upstream."""
    (folder / "config.toml").write_text(
        _CONFIG.format(database=database, key=KEY, queue_mb=QUEUE_MB, upstream=upstream.url)
    )
    with serving(folder, *arguments) as process:
        # No connection is used twice: with several workers, any of them may get the next.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(process.url, connector=connector, headers=headers) as session:
            yield Gateway(process, folder / database, session)


async def begin_stream(gateway: Gateway, upstream: ScriptedUpstream) -> Callable[[], Awaitable[None]]:
    """Begins a stream; what is given lets the upstream end it, and its client has the right bytes then."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def play(received: Received, wire: Wire) -> None:
        if not received.json()["stream"]:
            await wire.json(COMPLETION)
            return
        await wire.stream_head()
        await wire.chunk(_FIRST)
        if "X-Held" in received.headers:
            begun.set()
            await go_on.wait()
        await wire.chunk(*_REST)
        await wire.end_chunks()

    async def end() -> None:
        go_on.set()
        await soon(stream)

    upstream.play = play
    stream = asyncio.create_task(gateway.call(streamed=True, held=True))
    await soon(begun.wait())
    return end


async def through(
    trouble: Callable[[Gateway], AbstractContextManager[None]],
    gateway: Gateway,
    upstream: ScriptedUpstream,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Leads a gateway through trouble with its store: calls go on, before the queue is full and after, and posts wait
    or are refused. `meanwhile` comes last. How many calls left no span."""
    end_stream = await begin_stream(gateway, upstream)
    await gateway.make_calls()
    assert [await gateway.post(20_000) for _ in range(5)] == [201] * 5
    with trouble(gateway):
        await gateway.make_calls()
        async with asyncio.timeout(60):
            while not await gateway.metric("gateway_store_troubles_total"):
                assert not await gateway.ready()
        waiting = await gateway.fill()
        await gateway.make_calls()
        await end_stream()
        if meanwhile is not None:
            await meanwhile()
        assert not await gateway.ready()
        assert not any(post.done() for post in waiting)
        # Room is kept for the ends of calls that have a row, without their content.
        assert await gateway.metric("gateway_store_waiting_bytes") < 2 * QUEUE_MB * 1024**2
    assert set(await asyncio.gather(*waiting)) == {201}
    return await gateway.accounts_for_everything()
