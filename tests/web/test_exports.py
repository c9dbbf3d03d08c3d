"""Spans as a file to download."""

import asyncio
import csv
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.errors import StoreUnavailable
from gateway.store.store import Store
from gateway.web import exports
from gateway.web.middleware import RUNNING
from tests.conftest import KEY, OTHER_KEY, Gateway, StartGateway
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire
from tests.test_show import run
from tests.test_transfer import SPANS
from tests.web.test_live import stopping

EXPORT = "/api/request-logs/export/"


async def export(gateway: Gateway, query: str = "", **kwargs: Any) -> str:
    async with gateway.session.get(f"{EXPORT}{query}", **kwargs) as response:
        assert response.status == 200, await response.text()
        return await response.text()


def spans_in(text: str) -> list[Any]:
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


@pytest.fixture
async def filled(gateway: Gateway) -> Gateway:
    for number, span in enumerate(SPANS):
        sent = {"unique_id": f"s{number}", "timestamp": f"2026-01-01T00:00:0{number}Z", **span}
        assert (await gateway.post(sent))[0] == 201
    return gateway


async def test_lines_are_spans_as_the_list_shows_them(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = await filled.spans()
    assert spans_in(await export(filled)) == listed
    assert spans_in(await export(filled, "?format=jsonl&sort_by=timestamp")) == listed[::-1]
    assert spans_in(await export(filled, "?model=1")) == [span for span in listed if span["model"] == "1"]
    assert await export(filled, "?search=nowhere") == ""
    assert await export(filled, headers={"Authorization": f"Bearer {OTHER_KEY}"}) == ""
    # In however many pieces.
    monkeypatch.setattr(exports, "_AT_ONCE", 2)
    assert spans_in(await export(filled)) == listed
    monkeypatch.setattr(exports, "_ROOM", 1)
    assert spans_in(await export(filled)) == listed
    monkeypatch.setattr(exports, "_AT_ONCE", 200)
    assert spans_in(await export(filled)) == listed


async def test_csv_is_what_the_command_writes(filled: Gateway) -> None:
    (filled.path.parent / "config.toml").write_text(f"[store]\npath = '{filled.path}'\n")
    written, _ = await run(filled, "export", "--format", "csv")
    text = await export(filled, "?format=csv&sort_by=timestamp")
    assert list(csv.reader(text.splitlines(keepends=True))) == list(csv.reader(written.splitlines(keepends=True)))
    assert text.count("\r\n") > len(SPANS)
    nothing = await export(filled, "?format=csv&model=nothing")
    assert nothing == text[: text.index("\r\n") + 2]


async def test_the_head_says_what_it_is(start_gateway: StartGateway, clock: FakeClock) -> None:
    gateway = await start_gateway(clock=clock)
    for query, media, ending in (("", "application/jsonl", "jsonl"), ("?format=csv", "text/csv", "csv")):
        async with gateway.session.get(f"{EXPORT}{query}") as response:
            assert response.headers["Content-Type"] == f"{media}; charset=utf-8"
            assert response.headers["Content-Disposition"] == f'attachment; filename="spans-2026-01-02.{ending}"'
            assert response.headers["Cache-Control"] == "no-store"
            await response.read()
    for query in ("?format=parquet", "?sort_by=colour", "?page=1", "?colour=red"):
        async with gateway.session.get(f"{EXPORT}{query}") as response:
            assert response.status == 400


async def test_calls_that_run_and_what_comes_later_are_left_out(
    filled: Gateway, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    page, opened = Store.page, asyncio.Event()

    async def meanwhile(store: Store, *args: Any, **kwargs: Any) -> Any:
        answer = await page(store, *args, **kwargs)
        await filled.post({"model": "late"})
        return answer

    async def answer(received: Received, wire: Wire) -> None:
        async with asyncio.timeout(60):
            while len(await filled.spans()) <= len(SPANS):
                await asyncio.sleep(0.01)
        monkeypatch.setattr(Store, "page", meanwhile)
        monkeypatch.setattr(exports, "_AT_ONCE", 2)
        found.extend(spans_in(await export(filled)))
        opened.set()
        await wire.json(COMPLETION)

    upstream.play = answer
    await filled.call("/v1/chat/completions", json={"model": "m", "messages": []})
    assert opened.is_set()
    assert sorted(span["id"] for span in found) == ["s0", "s1", "s2", "s3"]


async def test_one_that_cannot_go_on_has_no_end(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_AT_ONCE", 1)
    page, asked = Store.page, []

    async def broken(store: Store, *args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["place"])
        if len(asked) == 3:
            raise StoreUnavailable("It is gone.")
        return await page(store, *args, **kwargs)

    monkeypatch.setattr(Store, "page", broken)
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        await export(filled)
    asked[:] = [None, None]
    async with filled.session.get(EXPORT) as response:
        assert response.status == 503


@pytest.mark.parametrize("sort_by", ["cost", "-cost", "latency", "-all_tokens"])
async def test_by_what_would_be_sorted_anew_it_is_refused(filled: Gateway, sort_by: str) -> None:
    async with filled.session.get(f"{EXPORT}?sort_by={sort_by}") as response:
        assert response.status == 400
        assert "sort_by: an export goes by timestamp or id" in (await response.json())["detail"]
    ids = [span["id"] for span in spans_in(await export(filled, "?sort_by=-id"))]
    assert ids == [span["id"] for span in await filled.spans()]


async def test_by_http_1_0_it_is_refused(filled: Gateway) -> None:
    host, port = filled.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {EXPORT} HTTP/1.0\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode())
    async with asyncio.timeout(60):
        answer = await reader.read()
    assert b" 400 " in answer.splitlines()[0] and b"An export takes HTTP/1.1" in answer
    writer.close()


async def test_after_each_part_it_pauses_as_long_as_that_took(
    start_gateway: StartGateway, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway(clock=clock)
    for number in range(5):
        await gateway.post({"model": "m", "unique_id": str(number)})
    monkeypatch.setattr(exports, "_AT_ONCE", 2)
    page, takes_s = Store.page, iter([3.0, 5.0, 7.0])

    async def slow(store: Store, *args: Any, **kwargs: Any) -> Any:
        clock.advance(next(takes_s))
        return await page(store, *args, **kwargs)

    monkeypatch.setattr(Store, "page", slow)
    assert len(spans_in(await export(gateway))) == 5
    assert clock.slept == [3.0, 5.0]


async def test_one_goes_on_at_a_time_and_none_once_the_gateway_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_AT_ONCE", 1)
    page, waits = Store.page, asyncio.Event()

    async def stuck(store: Store, *args: Any, **kwargs: Any) -> Any:
        if kwargs["place"] is not None:
            waits.set()
            await asyncio.Event().wait()
        return await page(store, *args, **kwargs)

    monkeypatch.setattr(Store, "page", stuck)
    async with stopping(tmp_path) as (gateway, stop, app):
        for number in range(3):
            await gateway.post({"model": "m", "unique_id": str(number)})
        async with gateway.session.get(EXPORT) as response:
            assert response.status == 200
            await waits.wait()
            async with gateway.session.get(EXPORT) as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
            async with asyncio.timeout(60):
                # Who waits for calls to end does not wait for it.
                await app[RUNNING].ended()
            stop.set()
            # It has no end, so that nobody takes it to be whole.
            with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
                await response.read()


async def test_a_client_that_leaves_ends_it(filled: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_AT_ONCE", 1)
    page, waits, is_left = Store.page, asyncio.Event(), asyncio.Event()

    async def slow(store: Store, *args: Any, **kwargs: Any) -> Any:
        if kwargs["place"] is not None:
            waits.set()
            try:
                await asyncio.Event().wait()
            finally:
                is_left.set()
        return await page(store, *args, **kwargs)

    monkeypatch.setattr(Store, "page", slow)
    async with filled.session.get(EXPORT) as response:
        assert re.match(b'{"', await response.content.readline())
        await waits.wait()
    async with asyncio.timeout(60):
        await is_left.wait()
