"""A database whose file is deleted, replaced, full or locked while it is in use."""

import asyncio
import resource
import shutil
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.filters import Every
from gateway.core.walk import NEWEST_FIRST
from gateway.errors import StoreFull, StoreUnavailable
from gateway.store import boots, sqlite, writer
from gateway.store.boots import Boot
from gateway.store.store import Store
from tests.store.spans import NOON, draft, open_call

OpenStore = Callable[..., Store]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


@pytest.fixture
async def open_store(path: Path) -> AsyncIterator[OpenStore]:
    opened: list[Store] = []

    def open_one(**more: Any) -> Store:
        opened.append(Store(path, synchronous="normal", **{"queue_bytes": 2**20, **more}))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


def stored(path: Path) -> list[str]:
    """What another program finds in the file, once it has found it sound."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [unique_id for (unique_id,) in db.execute("SELECT unique_id FROM spans ORDER BY seq")]


async def read(store: Store) -> list[str]:
    rows, _ = await store.page("o", Every(), NEWEST_FIRST, size=100, shape=list)
    return [row["unique_id"] for row in rows]


def delete_all(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def move_all(path: Path, folder: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.rename(folder / file.name)


def delete_database(path: Path) -> None:
    path.unlink()


def delete_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def delete_index_of_log(path: Path) -> None:
    path.with_name(f"{path.name}-shm").unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def put_an_empty_file(path: Path) -> None:
    path.unlink()
    path.touch()


@pytest.mark.parametrize(
    "harm", [delete_all, delete_database, delete_log, delete_index_of_log, move, put_an_empty_file]
)
async def test_a_database_that_is_gone_is_written_back_before_anything_is_acknowledged(
    open_store: OpenStore, path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    for unique_id in ("a", "b"):
        assert await store.insert(draft(unique_id))
    assert sorted(await read(store)) == ["a", "b"]
    harm(path)
    assert await store.insert(draft("c"))
    assert stored(path) == ["a", "b", "c"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(await read(store)) == ["a", "b", "c"]
    assert await store.insert(draft("d"))
    # A second time is no different.
    delete_all(path)
    assert await store.is_ready(30)
    assert await store.insert(draft("e"))
    assert stored(path) == ["a", "b", "c", "d", "e"]
    assert [record.getMessage() for record in caplog.records] == [
        f"The database {path} was moved or deleted while in use; it has been written back."
    ] * 2


async def test_a_whole_copy_is_there_after_the_process_has_ended(open_store: OpenStore, path: Path) -> None:
    store = Store(path, synchronous="normal", queue_bytes=2**20)
    await store.insert(draft("a"))
    delete_all(path)
    await store.insert(draft("b"))
    await store.close()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]
    assert stored(path) == ["a", "b"]
    again = open_store()
    assert await again.insert(draft("c"))
    assert stored(path) == ["a", "b", "c"]


async def test_a_file_that_somebody_put_in_its_place_is_kept(open_store: OpenStore, path: Path) -> None:
    store = open_store()
    await store.insert(draft("a"))
    foreign = path.with_name("foreign.db")
    with closing(sqlite3.connect(foreign)) as db:
        db.execute("CREATE TABLE theirs (a)")
    foreign.rename(path)
    await store.insert(draft("b"))
    assert stored(path) == ["a", "b"]
    (kept,) = path.parent.glob("spans.db.set-aside-*")
    with closing(sqlite3.connect(kept)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


async def test_with_several_processes_nothing_is_acknowledged_until_the_file_is_back(
    open_store: OpenStore, path: Path
) -> None:
    store, neighbour = open_store(), open_store()
    await asyncio.gather(store.insert(draft("a")), neighbour.insert(draft("b")))
    aside = path.with_name("aside")
    path.rename(aside)
    posted = store.insert(draft("c"))
    with pytest.raises(StoreUnavailable, match="restart the gateway"):
        await posted
    with pytest.raises(StoreUnavailable, match="restart the gateway"):
        store.insert(draft("d"))
    assert not await store.is_ready(30)
    # Spans of calls wait.
    call = store.settle(draft("call"), None)
    assert not call.done()
    aside.rename(path)
    assert await call
    assert await store.insert(draft("e"))
    assert sorted(stored(path)) == ["a", "b", "call", "e"]


async def test_a_worker_among_several_brings_nothing_back(open_store: OpenStore, path: Path) -> None:
    sqlite.create(path)
    store = open_store(shared=True)
    await store.insert(draft("a"))
    aside = path.with_name("aside")
    path.rename(aside)
    with pytest.raises(StoreUnavailable):
        await store.insert(draft("b"))
    assert not path.exists()
    aside.rename(path)


async def test_who_has_once_refused_leaves_alone_what_others_have_written_since(
    open_store: OpenStore, path: Path
) -> None:
    tries: list[None] = []
    store, neighbour = open_store(on_trouble=lambda: tries.append(None)), Boot(path)
    await store.insert(draft("a"))
    aside = path.with_name("aside")
    aside.mkdir()
    move_all(path, aside)
    neighbour.renew()
    with pytest.raises(StoreUnavailable):
        await store.insert(draft("b"))
    sqlite.create(path)
    written = path.stat()
    neighbour.end()
    before = len(tries)
    async with asyncio.timeout(20):
        while len(tries) < before + 2:
            await asyncio.sleep(0)
    assert path.stat() == written
    delete_all(path)
    move_all(aside / path.name, path.parent)
    assert await store.settle(draft("call"), None)
    assert stored(path) == ["a", "call"]


async def test_neighbours_can_see_who_is_about_to_write_the_file_back(
    open_store: OpenStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Path]] = []
    look = boots.others

    def others(database: Path, own: Boot) -> list[str]:
        seen.append(list(path.parent.glob(f"{path.name}.boot-{own.id}")))
        return look(database, own)

    store = open_store()
    await store.insert(draft("a"))
    monkeypatch.setattr(boots, "others", others)
    delete_all(path)
    assert await store.insert(draft("b"))
    assert seen and all(seen)


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What a full disk is to SQLite, for every file of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_what_finds_no_room_on_the_disk_lands_when_there_is_room(open_store: OpenStore, path: Path) -> None:
    troubles: list[None] = []
    store = open_store(queue_bytes=200_000, on_trouble=lambda: troubles.append(None))
    await store.insert(draft("a", input="x"))
    large = "x" * 50_000
    with no_file_larger_than(path.with_name(f"{path.name}-wal").stat().st_size + 20_000):
        posted = [store.insert(draft(str(number), input=large)) for number in range(3)]
        await trouble_of(store)
        assert not await store.is_ready(30)
        with pytest.raises(StoreFull):
            store.insert(draft("too much", input=large))
        # What is stored can be read all the while.
        assert await read(store) == ["a"]
    assert all(await asyncio.gather(*posted))
    assert stored(path) == ["a", "0", "1", "2"]
    assert troubles and store.trouble is None
    assert await store.is_ready(30)


async def trouble_of(store: Store) -> None:
    async with asyncio.timeout(60):
        while store.trouble is None:
            await asyncio.sleep(0)


async def test_calls_that_find_no_room_in_the_queue_are_counted(open_store: OpenStore, path: Path) -> None:
    store = open_store(queue_bytes=3000)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    store.settle(draft("a", input="x" * 2000, start_time=NOON), None)
    with pytest.raises(StoreFull):
        store.settle(draft("b", input="x" * 2000, start_time=NOON), None)
    for unique_id in ("b", "c", "d"):
        store.drop(draft(unique_id, start_time=NOON))
    blocker.execute("ROLLBACK")
    blocker.close()
    async with asyncio.timeout(60):
        while (found := await store.audit("o", None, None)).dropped < 3:
            await asyncio.sleep(0)
    assert (found.accepted, found.settled, found.dropped, found.missing) == (4, {"success": 1}, 3, 0)


async def test_a_worker_that_finds_no_database_makes_none(open_store: OpenStore, path: Path) -> None:
    store = open_store(shared=True)
    with pytest.raises(StoreUnavailable, match="restart the gateway"):
        await store.insert(draft("a"))
    assert not path.exists()
    # There is nothing to be waited for at the end.
    store._writer._give_up_s = 0.0


async def test_what_was_given_up_at_the_end_is_in_the_next_audit(
    open_store: OpenStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.sqlite._BUSY_TIMEOUT_S", 0.1)
    store = Store(path, synchronous="normal", queue_bytes=2**20)
    await store.recover()
    opened = open_call(store, {**CALL, "unique_id": "opened before"})
    assert opened is not None
    await opened.write.done
    store._writer._give_up_s = 0.0
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    ends = [
        store.settle(draft("opened before", start_time=NOON), opened),
        store.settle(draft("never opened", start_time=NOON), None),
        store.settle(
            draft("opened too late", start_time=NOON), open_call(store, {**CALL, "unique_id": "opened too late"})
        ),
        store.insert(draft("posted")),
    ]
    await store.close()
    assert store.abandoned == 5
    blocker.execute("ROLLBACK")
    blocker.close()
    assert all(isinstance(end, sqlite3.Error) for end in await asyncio.gather(*ends, return_exceptions=True))
    for _ in range(2):
        again = open_store()
        await again.recover()
        found = await again.audit("o", None, None)
        assert (found.accepted, found.interrupted, found.dropped, found.refused) == (3, 1, 2, 1)
        assert found.missing == 0
    assert not list(path.parent.glob("*.lost-*"))


CALL = {
    **{"organization_id": "o", "environment": "prod", "model": "m", "log_type": "chat", "stream": True},
    **{"status": "running", "status_code": 0, "start_time": NOON, "timestamp": NOON},
    **{"is_custom_prompt": False, "temperature": 1.0, "top_p": 1.0},
}


async def test_a_span_that_cannot_be_stored_closes_its_row(open_store: OpenStore, path: Path) -> None:
    store = open_store()
    opened = open_call(store, {**CALL, "unique_id": "a"})
    assert opened is not None
    await opened.write.done
    store.abandon("a", "o", opened, NOON)
    store.abandon("never opened", "o", None, NOON)
    assert await store.is_ready(30)
    found = await store.audit("o", None, None)
    assert (found.accepted, found.settled, found.open, found.dropped, found.missing) == (2, {"5xx": 1}, 0, 1, 0)


async def test_the_log_does_not_grow_while_writes_never_pause(
    open_store: OpenStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.writer._CHECKPOINT_EVERY_BYTES", 200_000)
    monkeypatch.setattr("gateway.store.writer._START_LOG_OVER_BYTES", 400_000)
    store = open_store(queue_bytes=2**30)

    log = path.with_name(f"{path.name}-wal")
    await store.insert(draft("first"))
    checkpoint = writer._checkpoint
    by_threads: list[str] = []

    def seen(db: sqlite3.Connection) -> bool:
        by_threads.append(threading.current_thread().name)
        return checkpoint(db)

    monkeypatch.setattr(writer, "_checkpoint", seen)

    def is_started_over() -> bool:
        # By the writer, for which it is sure to be possible; and how often it was (SQLite's file format, section 4.1).
        with log.open("rb") as file:
            return "span-writer" in by_threads and int.from_bytes(file.read(16)[12:], "big") > 0

    async def keep_writing(name: str) -> None:
        for number in range(400):
            if is_started_over():
                return
            await asyncio.gather(
                *(store.insert(draft(f"{name}.{number}.{one}", input="x" * 5000)) for one in range(10))
            )

    # While some wait for their commit, others are on their way.
    await asyncio.gather(*(keep_writing(str(name)) for name in range(10)))
    assert is_started_over()


async def test_a_database_that_cannot_be_read_says_so(open_store: OpenStore, path: Path) -> None:
    sqlite.create(path)
    store = open_store(shared=True)
    await store.insert(draft("a"))
    shutil.copy(path, path.with_name("kept"))
    path.unlink()
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await read(store)
    path.with_name("kept").rename(path)


def test_neighbours_are_found_whatever_the_database_is_called(tmp_path: Path) -> None:
    path = tmp_path / "[a]*?.db"
    own, neighbour = Boot(path), Boot(path)
    assert boots.others(path, own) == [neighbour.id]
    assert boots.is_alive(path, neighbour.id)
    neighbour.end()
    assert boots.others(path, own) == []
    own.end()
