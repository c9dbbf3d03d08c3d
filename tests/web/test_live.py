"""Spans as they come, as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from gateway import config
from gateway.app import opened, served
from gateway.errors import RefusedRequest, StoreUnavailable, TooMuchToRead
from gateway.store import changes
from gateway.store.store import Store
from gateway.web import live
from gateway.web.middleware import RUNNING
from tests import processes
from tests.conftest import KEY, OTHER_KEY, Gateway, StartGateway
from tests.fakes.upstream import COMPLETION, Received, ScriptedUpstream, Wire

HI = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


class Event(NamedTuple):
    name: str
    id: int
    data: Any


class Listener:
    """A client that listens; `ready` is the first event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.ready = Event("", 0, None)

    async def line(self) -> str:
        async with asyncio.timeout(60):
            return (await self.response.content.readline()).decode().rstrip("\n")

    async def next(self) -> Event:
        """The next event; comments and bare places are passed over."""
        fields: dict[str, str] = {}
        while True:
            line = await self.line()
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                return Event(fields["event"], int(fields["id"]), json.loads(fields["data"]))
            else:
                assert not self.response.content.at_eof(), "it has ended"

    async def next_ids(self, number: int) -> list[str]:
        return [(await self.next()).data["id"] for _ in range(number)]


@asynccontextmanager
async def listening(gateway: Gateway, query: str = "", **headers: str) -> AsyncIterator[Listener]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with gateway.session.get(f"/api/request-logs/live/{query}", headers=sent) as response:
        assert response.status == 200, await response.text()
        listener = Listener(response)
        listener.ready = await listener.next()
        assert (listener.ready.name, listener.ready.data) == ("ready", {})
        yield listener


def looking() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "look at the journal"]


async def over(task: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(60):
        await asyncio.wait([task])


async def post(gateway: Gateway, unique_id: str, **fields: Any) -> None:
    assert (await gateway.post({"model": "m", "unique_id": unique_id, **fields}))[0] == 201


async def test_a_call_is_told_while_it_runs_and_when_it_has_ended(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    is_told = asyncio.Event()

    async def answer(received: Received, wire: Wire) -> None:
        await is_told.wait()
        await wire.json(COMPLETION)

    upstream.play = answer
    fields = "status,is_open,input_preview,output_preview"
    async with listening(gateway, f"?include_fields={fields}") as events:
        assert events.response.headers["Content-Type"] == "text/event-stream"
        assert events.response.headers["Cache-Control"] == "no-store"
        assert events.response.headers["X-Accel-Buffering"] == "no"
        call = asyncio.create_task(gateway.call("/v1/chat/completions", json=HI))
        running = await events.next()
        is_told.set()
        reply = await call
        ended = await events.next()
    assert running == (
        "span",
        running.id,
        {"id": reply.log_id, "status": "running", "is_open": True, "input_preview": None, "output_preview": None},
    )
    assert ended == (
        "span",
        ended.id,
        {
            **{"id": reply.log_id, "status": "success", "is_open": False},
            **{"input_preview": "Hi", "output_preview": "Hello there"},
        },
    )
    assert events.ready.id < running.id < ended.id


async def test_a_span_is_as_the_list_shows_it(gateway: Gateway) -> None:
    async with listening(gateway) as events:
        await post(gateway, "a", input="Hi\u2028", metadata={"n": 1}, extra=[1])
        told = await events.next()
    assert told.data == (await gateway.spans())[0]


async def test_only_what_fits_is_told_and_what_fits_no_more(gateway: Gateway) -> None:
    await post(gateway, "before", note="x")
    async with listening(gateway, "?note=x&search=world") as events:
        await post(gateway, "other", note="y", input="world")
        await post(gateway, "wordless", note="x", input="word")
        await post(gateway, "fits", note="x", input="Hello World")
        first = await events.next()
        async with gateway.session.patch("/api/request-logs/fits/", json={"note": "y"}) as response:
            assert response.status == 200
        second = await events.next()
        async with gateway.session.patch("/api/request-logs/fits/", json={"note": "x"}) as response:
            assert response.status == 200
        third = await events.next()
    assert (first.name, first.data["id"]) == ("span", "fits")
    assert second == ("left", second.id, {"id": "fits"})
    assert (third.name, third.data["note"]) == ("span", "x")


async def test_those_of_others_are_not_told(gateway: Gateway) -> None:
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    async with listening(gateway) as events:
        await gateway.post({"model": "m", "unique_id": "theirs"}, headers=headers)
        async with gateway.session.delete("/api/request-logs/theirs/", headers=headers) as response:
            assert response.status == 204
        await post(gateway, "ours")
        assert await events.next_ids(1) == ["ours"]


async def test_what_another_process_writes_is_told(start_gateway: StartGateway) -> None:
    first, second = await start_gateway(), await start_gateway()
    async with listening(first) as events:
        await post(second, "a")
        assert await events.next_ids(1) == ["a"]
    async with listening(second, Last_Event_ID=str(events.ready.id)) as events:
        assert await events.next_ids(1) == ["a"]


async def test_deletions_are_told(gateway: Gateway) -> None:
    await post(gateway, "a")
    async with listening(gateway, "?model=other") as events:
        async with gateway.session.delete("/api/request-logs/a/") as response:
            assert response.status == 204
        told = await events.next()
    assert told == ("deleted", told.id, {"id": "a"})


async def test_a_client_that_comes_back_goes_on_where_it_was(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_AT_ONCE", 2)
    async with listening(gateway) as events:
        await post(gateway, "0")
        left_at = (await events.next()).id
    for number in range(1, 6):
        await post(gateway, str(number))
    async with listening(gateway, f"?after={left_at}") as events:
        assert events.ready.id == left_at
        assert await events.next_ids(3) == ["1", "2", "3"]
        later = await events.next()
    # An EventSource asks with the URL that it had.
    async with listening(gateway, f"?after={left_at}", Last_Event_ID=str(later.id)) as events:
        assert await events.next_ids(1) == ["5"]


async def test_who_is_too_far_behind_is_told_so(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        await post(gateway, str(number))
    async with listening(gateway) as events:
        end = events.ready.id
    monkeypatch.setattr(changes, "BEHIND_AT_MOST", 4)
    async with listening(gateway, "?after=0") as events:
        assert await events.next() == ("gap", end, {})
        await post(gateway, "later")
        assert await events.next_ids(1) == ["later"]
    # A place of a journal that was another.
    async with listening(gateway, f"?after={2**63 - 1}") as events:
        assert (await events.next()).name == "gap"
    monkeypatch.undo()
    async with listening(gateway, "?after=0") as events:
        assert await events.next_ids(6) == ["0", "1", "2", "3", "4", "later"]


async def test_what_cannot_be_read_is_passed_over_or_ends_it(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Store.changes
    failures: list[RefusedRequest] = [TooMuchToRead("It took too long.")]

    async def failing(store: Store, *args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await read(store, *args, **kwargs)

    monkeypatch.setattr(Store, "changes", failing)
    await post(gateway, "a")
    async with listening(gateway, "?after=0") as events:
        told = await events.next()
        assert told.name == "gap" and told.id > 0
        failures.append(StoreUnavailable("It is gone."))
        await post(gateway, "b")
        assert await events.response.content.read() == b""
    # It comes back with the place that it had.
    async with listening(gateway, Last_Event_ID=str(told.id)) as events:
        assert await events.next_ids(1) == ["b"]


async def test_a_sign_of_life_moves_the_place_on(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SIGN_OF_LIFE_S", 0.01)
    async with listening(gateway, "?model=other") as events:
        assert [await events.line() for _ in range(3)] == [": ", f"id: {events.ready.id}", ""]
        await post(gateway, "a")
        async with asyncio.timeout(60):
            while (line := await events.line()) in (": ", "", f"id: {events.ready.id}"):
                pass
    assert int(line.removeprefix("id: ")) > events.ready.id


async def test_the_journal_is_looked_at_once_for_all_and_only_while_somebody_listens(gateway: Gateway) -> None:
    assert looking() == []
    async with listening(gateway) as one, listening(gateway) as other:
        (task,) = looking()
        await post(gateway, "a")
        assert await one.next_ids(1) == await other.next_ids(1) == ["a"]
    await over(task)
    assert looking() == []
    async with listening(gateway) as again:
        await post(gateway, "b")
        assert await again.next_ids(1) == ["b"]


@pytest.mark.parametrize("query", ["?page=1", "?after=x", "?after=-1", f"?after={2**63}", "?colour=red", "?sort_by=id"])
async def test_what_is_not_known_is_refused(gateway: Gateway, query: str) -> None:
    async with gateway.session.get(f"/api/request-logs/live/{query}") as response:
        assert response.status == 400
    async with gateway.session.get("/api/request-logs/live", headers={"Last-Event-ID": "x"}) as response:
        assert response.status == 400
    assert looking() == []


# What listeners may take


async def test_one_write_is_of_as_many_as_have_room(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_ROOM", 5000)
    written: list[bytes] = []
    write = live._Listener._write

    async def noted(listener: live._Listener, text: bytes) -> None:
        written.append(text)
        await write(listener, text)

    monkeypatch.setattr(live._Listener, "_write", noted)
    for number, size in enumerate((10, 10, 10_000, 100_000, 10)):
        await post(gateway, str(number), note="x" * size)
    async with listening(gateway, "?after=0&include_fields=note") as events:
        assert await events.next_ids(5) == ["0", "1", "2", "3", "4"]
    assert [text.count(b"event: span") for text in written] == [0, 3, 1, 1]


async def test_who_reads_no_more_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PIECE_WITHIN_S", 0.0)
    async with stopping(tmp_path) as (gateway, _, app):
        for number in range(20):
            await post(gateway, str(number), input="x" * 900_000)
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(f"GET /api/request-logs/live/?after=0 HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n".encode())
        await reader.readuntil(b"event: ready")
        async with asyncio.timeout(60):
            while app[RUNNING]._listening:
                await asyncio.sleep(0.01)
    writer.close()


async def test_those_for_whom_there_is_no_room_are_refused(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LISTENERS_AT_MOST", 1)
    gateway = await start_gateway()

    async def status() -> int:
        async with gateway.session.get("/api/request-logs/live/") as response:
            if response.status == 503:
                assert response.headers["Retry-After"] == "5"
                assert (await response.json())["detail"] == "Listeners: no more than 1 at once. Try again later."
            return response.status

    async with listening(gateway):
        assert await status() == 503
    async with asyncio.timeout(60):
        while await status() != 200:
            pass


async def test_listeners_of_the_same_share_a_look_and_one_is_taken_at_a_time(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Any] = []
    under_way, changes = 0, Store.changes

    async def noted(store: Store, organization_id: str, which: Any, *places: int, **kwargs: Any) -> Any:
        nonlocal under_way
        looks.append((organization_id, which, *places))
        under_way += 1
        assert under_way == 1
        found = await changes(store, organization_id, which, *places, **kwargs)
        under_way -= 1
        return found

    monkeypatch.setattr(Store, "changes", noted)
    async with AsyncExitStack() as stack:
        queries = ["?note=x"] * 5 + ["?model=m", "?model=n"]
        listeners = [await stack.enter_async_context(listening(gateway, query)) for query in queries]
        for number in range(3):
            await post(gateway, str(number), note="x")
            for events in listeners[:-1]:
                assert await events.next_ids(1) == [str(number)]
        async with gateway.session.delete("/api/request-logs/0/") as response:
            assert response.status == 204
        for events in listeners:
            assert (await events.next()).name == "deleted"
    assert len(looks) == len(set(looks)) >= 4 * 3


async def test_who_is_far_behind_is_told_so_without_a_look(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PLACES_AT_MOST", 4)
    monkeypatch.setattr(Store, "changes", None)
    for number in range(5):
        await post(gateway, str(number))
    async with listening(gateway) as events:
        end = events.ready.id
    async with listening(gateway, "?after=0") as events:
        assert await events.next() == ("gap", end, {})


# Who is let in no more

KEY_SECTION = """
[[keys]]
name = "{key}"
key = "{key}"
organization_id = "{organization}"
"""


@pytest.mark.parametrize("by_cookie", [False, True])
@pytest.mark.parametrize("now_of", [None, "org-b"])
async def test_whose_key_is_gone_or_of_others_hears_no_more(
    tmp_path: Path, by_cookie: bool, now_of: str | None
) -> None:
    stays = f"[server]\nport = 0\n[store]\npath = '{tmp_path}/spans.db'\n"
    stays += KEY_SECTION.format(key=KEY, organization="org-a")
    before, after = (
        config.parse(stays + ("" if of is None else KEY_SECTION.format(key=OTHER_KEY, organization=of)), "t.toml", {})
        for of in ("org-a", now_of)
    )
    async with opened(before) as running, served(before, running) as url, aiohttp.ClientSession(url) as session:
        gateway = Gateway(url, session, before.store.path)
        headers = {"Authorization": f"Bearer {OTHER_KEY}"}
        if by_cookie:
            form = {"key": OTHER_KEY}
            async with session.post("/login", data=form, headers={"Origin": url}, allow_redirects=False) as response:
                headers = {"Cookie": f"gw_session={response.cookies['gw_session'].value}"}
        for_others = {"Authorization": f"Bearer {KEY}"}
        async with listening(gateway, **headers) as events:
            await gateway.post({"model": "m", "unique_id": "a"}, headers=for_others)
            assert await events.next_ids(1) == ["a"]
            running.reload(after)
            await gateway.post({"model": "m", "unique_id": "b"}, headers=for_others)
            # To the end of a body that is whole.
            assert await events.response.content.read() == b""


# The end

SETTINGS = """
[server]
port = 0
drain_s = 3600
write_timeout_s = 3600
[store]
path = '{folder}/spans.db'
[[keys]]
name = "team-a"
key = "{key}"
organization_id = "org-a"
"""


@asynccontextmanager
async def stopping(folder: Path) -> AsyncIterator[tuple[Gateway, asyncio.Event, Any]]:
    """A gateway, what makes it stop, and its application; waits for the stop at the end."""
    settings = config.parse(SETTINGS.format(folder=folder, key=KEY), "test.toml", {})
    stop = asyncio.Event()
    ready: asyncio.Future[tuple[str, Any]] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        async with opened(settings) as gateway, served(settings, gateway) as url:
            ready.set_result((url, gateway.app))
            await stop.wait()

    running = asyncio.create_task(run())
    url, app = await ready
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {KEY}"}) as session:
        yield Gateway(url, session, settings.store.path), stop, app
        stop.set()
        async with asyncio.timeout(60):
            await running


async def test_a_stop_ends_it_at_once(tmp_path: Path) -> None:
    async with stopping(tmp_path) as (gateway, stop, _), listening(gateway) as events:
        await post(gateway, "a")
        assert await events.next_ids(1) == ["a"]
        stop.set()
        # To the end of a body that is whole.
        assert await events.response.content.read() == b""
    assert looking() == []


async def test_a_client_that_reads_no_more_holds_up_no_stop(tmp_path: Path) -> None:
    async with stopping(tmp_path) as (gateway, _, app):
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        head = f"GET /api/request-logs/live/?after=0 HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\n\r\n"
        for number in range(10):
            await post(gateway, str(number), input="x" * 900_000)
        writer.write(head.encode())
        await reader.readuntil(b"event: span")
        assert len(app[RUNNING]._tasks) == 1
    writer.close()


def test_sigterm_ends_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[server]\ndrain_s = 3600\n")
    with processes.serving(tmp_path, "--config", "config.toml", "--workers", "2") as process:

        async def listen() -> tuple[int, bytes]:
            headers = {"Authorization": f"Bearer {process.key}"}
            async with (
                aiohttp.ClientSession(process.url, headers=headers) as session,
                session.get("/api/request-logs/live/") as response,
            ):
                assert (await response.content.readline()) == b"event: ready\n"
                status = await asyncio.to_thread(process.stop)
                return status, await response.read()

        status, rest = asyncio.run(listen())
    assert status == 0 and rest.endswith(b"data: {}\n\n")


async def test_who_waits_for_calls_to_end_does_not_wait_for_listeners(tmp_path: Path) -> None:
    async with stopping(tmp_path) as (gateway, _, app), listening(gateway):
        async with asyncio.timeout(60):
            await app[RUNNING].ended()
