"""The store on a real file."""

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.span import Span
from gateway.errors import StoreError, StoreFull
from gateway.store import sqlite
from gateway.store.rows import CONTENT_COLUMNS, COUNTED_COLUMNS, SPAN_COLUMNS
from gateway.store.store import Store
from tests.store.spans import draft

OpenStore = Callable[..., Store]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


@pytest.fixture
async def open_store(path: Path) -> AsyncIterator[OpenStore]:
    opened: list[Store] = []

    def open_one(queue_bytes: int = 2**20, **more: Any) -> Store:
        opened.append(Store(path, synchronous="normal", queue_bytes=queue_bytes, **more))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return open_store()


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What another program reads from the file."""
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def columns(path: Path, table: str) -> set[str]:
    return {name for (name,) in rows(path, f"SELECT name FROM pragma_table_info('{table}')")}


async def ids(store: Store, organization_id: str = "o", limit: int = 100, offset: int = 0) -> list[str]:
    rows = await store.newest(organization_id, [], limit=limit, offset=offset, shape=list)
    return [row["unique_id"] for row in rows]


async def test_a_span_is_on_disk_once_its_future_ends(store: Store, path: Path) -> None:
    assert await store.insert(draft("a", input="hi", metadata={"k": 1}))
    assert rows(path, "SELECT unique_id, model, input, metadata, status FROM spans") == [
        ("a", "m", '"hi"', '{"k":1}', "success")
    ]
    row = await store.find("o", "a", dict)
    assert row is not None
    assert (row["unique_id"], row["timestamp"]) == ("a", "2026-01-02T12:00:00.000000Z")


async def test_an_empty_store_can_be_read(store: Store) -> None:
    assert await ids(store) == []
    assert await store.find("o", "a", dict) is None


async def test_a_taken_id_changes_nothing(store: Store, path: Path) -> None:
    assert await store.insert(draft("a", note="first"))
    assert not await store.insert(draft("a", note="second"))
    assert await store.insert(draft("a", "other", note="other"))
    assert rows(path, "SELECT organization_id, note FROM spans ORDER BY seq") == [("o", "first"), ("other", "other")]
    assert rows(path, "SELECT count(*) FROM content") == [(2,)]


async def test_newest_first_the_later_stored_of_two_at_one_time(store: Store) -> None:
    for unique_id, after_s in (("b", 1.0), ("c", 2.0), ("a", 0.0), ("d", 1.0)):
        await store.insert(draft(unique_id, after_s=after_s))
    await store.insert(draft("x", "other"))
    assert await ids(store) == ["c", "d", "b", "a"]
    assert await ids(store, limit=2, offset=1) == ["d", "b"]
    assert await ids(store, offset=2**62) == []
    assert await ids(store, "other") == ["x"]


async def test_late_counts_take_a_new_place_in_the_journal(store: Store, path: Path) -> None:
    await store.insert(draft("a"))
    await store.insert(draft("b"))
    counted = draft("a", prompt_tokens=5, status="warning", note="not a count")
    counted.cost_picos = 7
    assert await store.update_counts(counted)
    assert rows(path, "SELECT unique_id, prompt_tokens, status, cost, note FROM spans ORDER BY seq") == [
        ("b", None, "success", None, None),
        ("a", 5, "warning", 7e-12, None),
    ]
    assert not await store.update_counts(draft("missing"))


async def test_places_in_the_journal_only_grow_also_with_two_stores_on_one_file(
    store: Store, open_store: OpenStore, path: Path
) -> None:
    other = open_store()
    committed: list[asyncio.Future[bool]] = []
    for number in range(200):
        committed += [store.insert(draft(f"a{number}")), other.insert(draft(f"b{number}"))]
    assert all(await asyncio.gather(*committed))
    places = [seq for (seq,) in rows(path, "SELECT seq FROM spans ORDER BY row_id")]
    assert places == sorted(set(places))
    assert len(places) == 400
    assert rows(path, "SELECT seq >= (SELECT max(seq) FROM span) FROM journal") == [(1,)]
    for one in (store, other):
        assert len(await ids(one, limit=1000)) == 400


async def test_both_of_two_stores_see_that_an_id_is_taken(store: Store, open_store: OpenStore) -> None:
    other = open_store()
    ends = await asyncio.gather(*(one.insert(draft("a")) for one in (store, other)))
    assert sorted(ends) == [False, True]


async def test_closing_commits_what_waits_and_the_next_store_goes_on(store: Store, open_store: OpenStore) -> None:
    committed = [store.insert(draft(str(number))) for number in range(1000)]
    await store.close()
    assert all(await asyncio.gather(*committed))
    again = open_store()
    assert await again.insert(draft("next"))
    assert len(await ids(again, limit=2000)) == 1001


async def test_the_file_is_its_owners_only(store: Store, path: Path) -> None:
    await store.insert(draft("a"))
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_the_queue_is_bounded_in_bytes_and_one_write_always_fits(open_store: OpenStore) -> None:
    sizes: list[int] = []
    store = open_store(queue_bytes=10_000, on_waiting=sizes.append)
    large = draft("large", input="x" * 50_000)
    committed = store.insert(large)
    with pytest.raises(StoreFull):
        store.insert(draft("more"))
    assert await committed
    assert sizes[0] > 50_000 and sizes[-1] == 0
    assert await store.insert(draft("more"))


async def test_ready_while_writes_go_through(store: Store, path: Path) -> None:
    assert await store.is_ready(30)
    assert store.oldest_wait_s() == 0
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    waiting = store.insert(draft("a"))
    assert not await store.is_ready(0.01)
    assert store.oldest_wait_s() > 0
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await waiting
    assert await store.is_ready(30)


def test_the_schema_has_every_field(path: Path) -> None:
    sqlite.create(path)
    assert columns(path, "span") == {"id", "seq", *SPAN_COLUMNS}
    assert columns(path, "content") == {"span_id", *CONTENT_COLUMNS}
    legacy = {"messages", "prompt_messages", "completion_message", "completion_messages"}
    assert columns(path, "spans") == ({*Span.model_fields} - legacy) | {"row_id", "seq", "extras", "cost_picos"}
    assert {*COUNTED_COLUMNS} <= {*SPAN_COLUMNS}


def test_migrations_are_numbered_from_one(path: Path) -> None:
    assert [number for number, _ in sqlite.migrations()] == list(range(1, len(sqlite.migrations()) + 1))
    sqlite.create(path)
    sqlite.create(path)
    assert rows(path, "PRAGMA user_version") == [(len(sqlite.migrations()),)]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_a_database_of_a_newer_gateway_is_refused_and_left_alone(path: Path) -> None:
    sqlite.create(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(StoreError, match=r"newer gateway \(schema 999, this one knows \d+\)"):
        sqlite.create(path)
    assert rows(path, "PRAGMA user_version") == [(999,)]


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_text("no database at all, but some text of a certain length\n" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        sqlite.create(path)
    assert path.read_text().startswith("no database")


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE span (a)")
    db.close()
    with pytest.raises(StoreError, match="cannot be used"):
        sqlite.create(path)
    assert rows(path, "SELECT name FROM sqlite_master") == [("span",)]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        sqlite.create(tmp_path / "missing" / "spans.db")


async def test_a_path_with_signs_that_mean_something_in_an_address(tmp_path: Path) -> None:
    odd = Store(tmp_path / "a?b=c#d %41.db", synchronous="full", queue_bytes=1000)
    assert await odd.insert(draft("a"))
    assert await ids(odd) == ["a"]
    await odd.close()
