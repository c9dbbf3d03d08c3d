"""The store on a real file."""

import asyncio
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.core.audit import Audit, whole_minutes
from gateway.core.complete import Draft
from gateway.core.filters import Every
from gateway.core.span import Span
from gateway.core.walk import NEWEST_FIRST
from gateway.errors import StoreError, StoreFull
from gateway.store import queries, sqlite
from gateway.store.question import GivenUp, Question
from gateway.store.rows import CONTENT_COLUMNS, COUNTED_COLUMNS, OPEN_COLUMNS, SPAN_COLUMNS
from gateway.store.store import Store, audits
from tests.store.spans import NOON, draft, open_call

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
    rows, _ = await store.page(organization_id, Every(), NEWEST_FIRST, size=limit, offset=offset, shape=list)
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


async def test_closing_commits_what_waits_and_the_next_store_goes_on(path: Path, open_store: OpenStore) -> None:
    store = Store(path, synchronous="normal", queue_bytes=2**20)
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
    assert max(sizes) > 50_000 and sizes[-1] == 0
    assert await store.insert(draft("more"))


CALL = {
    **dict.fromkeys(OPEN_COLUMNS),
    **{"organization_id": "o", "environment": "prod", "model": "m", "log_type": "chat", "stream": True},
    **{"status": "running", "status_code": 0, "start_time": NOON, "timestamp": NOON},
    **{"is_custom_prompt": False, "temperature": 1.0, "top_p": 1.0},
}


def call(unique_id: str, **more: Any) -> dict[str, Any]:
    return {**CALL, "unique_id": unique_id, **more}


def settled(unique_id: str, **fields: Any) -> Draft:
    return draft(unique_id, start_time=NOON, after_s=2, **fields)


STANDS = (
    "SELECT unique_id, status, is_open, boot_id IS NOT NULL, error_code, latency, input"
    " FROM span LEFT JOIN content ON span_id = span.id"
)


async def test_a_call_has_an_open_row_until_it_is_settled(store: Store, path: Path) -> None:
    opened = open_call(store, call("a", span_name="n"))
    assert opened is not None and await opened.write.done
    assert rows(path, STANDS) == [("a", "running", 1, 1, None, None, None)]
    assert await store.settle(settled("a", input="hi", status="success"), opened)
    assert rows(path, STANDS) == [("a", "success", 0, 0, None, 2.0, '"hi"')]
    assert rows(path, "SELECT count(*) FROM content") == [(1,)]


async def test_a_call_that_ends_before_its_open_row_is_committed_is_stored_once(store: Store, path: Path) -> None:
    await store.recover()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    first = store.insert(draft("first"))
    opened = open_call(store, call("a"))
    ended = store.settle(settled("a"), opened)
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await first and await ended
    assert rows(path, "SELECT unique_id, seq, is_open FROM spans") == [("first", 1, 0), ("a", 3, 0)]
    assert (await store.audit("o", None, None)).as_json() == ledger(accepted=1, settled={"success": 1}, posted=1)


def ledger(**counted: Any) -> dict[str, Any]:
    """An audit in which all that is not said is 0."""
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
    stored = counted.get("posted", 0)
    return {**dict.fromkeys(names, 0), "settled": {}, "stored": stored, "balanced": True, **counted}


async def test_a_call_without_an_open_row_is_stored_all_the_same(store: Store, path: Path) -> None:
    assert await store.settle(settled("a", status_code=502, status="failed"), None)
    assert (await store.audit("o", None, None)).as_json() == ledger(accepted=1, settled={"5xx": 1})


async def test_open_rows_of_a_process_that_has_ended_are_closed_and_no_others(
    path: Path, open_store: OpenStore
) -> None:
    dead = Store(path, synchronous="normal", queue_bytes=2**20)
    for unique_id in ("a", "b"):
        open_call(dead, call(unique_id))
    # No call is settled on its way down: as if it had been killed.
    await dead.close()
    before = rows(path, "SELECT max(seq) FROM span")[0][0]
    neighbour = open_store()
    opened = open_call(neighbour, call("c"))
    assert opened is not None
    await opened.write.done
    await neighbour.insert(draft("posted", status="running"))
    again = open_store()
    await again.recover()
    assert sorted(rows(path, STANDS)) == [
        ("a", "failed", 0, 1, "interrupted", None, None),
        ("b", "failed", 0, 1, "interrupted", None, None),
        ("c", "running", 1, 1, None, None, None),
        ("posted", "running", 0, 0, None, None, None),
    ]
    # Whoever follows the journal learns of it.
    assert rows(path, f"SELECT unique_id FROM span WHERE seq > {before} AND NOT is_open AND is_call") == [
        ("a",),
        ("b",),
    ]
    assert (await again.audit("o", None, None)).as_json() == ledger(accepted=3, open=1, interrupted=2, posted=1)
    assert await neighbour.settle(settled("c"), opened)
    assert (await again.audit("o", None, None)).as_json() == ledger(
        accepted=3, settled={"success": 1}, interrupted=2, posted=1
    )


async def test_a_late_settle_wins_over_interrupted(path: Path, open_store: OpenStore) -> None:
    alive = open_store()
    opened = open_call(alive, call("a"))
    assert opened is not None
    await opened.write.done
    for lock in path.parent.glob("*.boot-*"):
        lock.unlink()
    await open_store().recover()
    assert rows(path, STANDS) == [("a", "failed", 0, 1, "interrupted", None, None)]
    assert await alive.settle(settled("a", status="success", input="hi"), opened)
    assert rows(path, STANDS) == [("a", "success", 0, 0, None, 2.0, '"hi"')]
    assert (await alive.audit("o", None, None)).as_json() == ledger(accepted=1, settled={"success": 1})


async def test_a_posted_span_is_never_settled_over(store: Store, path: Path) -> None:
    await store.insert(draft("a", status="running", note="posted"))
    assert not await store.settle(settled("a", status="success"), None)
    assert rows(path, "SELECT status, note FROM spans") == [("running", "posted")]


async def test_the_audit_counts_by_organization_and_whole_minutes(store: Store) -> None:
    late = NOON + timedelta(minutes=3, seconds=30)
    for unique_id, organization_id, at in (("a", "o", NOON), ("b", "o", late), ("c", "other", NOON)):
        opened = open_call(store, call(unique_id, organization_id=organization_id, start_time=at, timestamp=at))
        assert opened is not None
        await opened.write.done
    for number in range(3):
        store.refuse("o", NOON + timedelta(seconds=number))
    await store.insert(draft("p", "o"))
    await store.insert(draft("p", "o"))
    assert await asyncio.gather(
        *(store.audit("o", *whole_minutes(start, end)) for start, end in (
            (None, None), (NOON, NOON + timedelta(seconds=1)), (NOON + timedelta(minutes=3, seconds=59), None),
            (None, NOON), (late, late),
        ))
    ) == [
        Audit(2, {}, 2, 0, 0, 1, 1, 3, 1),
        Audit(1, {}, 1, 0, 0, 1, 1, 3, 1),
        Audit(1, {}, 1, 0, 0, 0, 0, 0, 0),
        Audit(0, {}, 0, 0, 0, 0, 0, 0, 0),
        Audit(1, {}, 1, 0, 0, 0, 0, 0, 0),
    ]  # fmt: skip


async def test_an_audit_shows_rows_that_are_gone(store: Store, path: Path) -> None:
    for unique_id in ("a", "b"):
        await store.settle(settled(unique_id), None)
        await store.insert(draft(f"posted {unique_id}"))
    db = sqlite3.connect(path)
    db.execute("DELETE FROM span WHERE unique_id IN ('a', 'posted b')")
    db.commit()
    db.close()
    assert (await store.audit("o", None, None)).as_json() == ledger(
        accepted=2, settled={"success": 1}, posted=2, stored=1, missing=2, balanced=False
    )


async def test_an_older_database_is_brought_up_to_date_with_its_ledger(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript(sqlite.migrations()[0][1])
    db.execute("PRAGMA user_version = 1")
    required = {"environment": "prod", "model": "m", "log_type": "chat", "stream": 0, "status": "success",
                "status_code": 200, "timestamp": "2026-01-02T03:05:06.000000Z", "is_custom_prompt": 0,
                "temperature": 1, "top_p": 1, "organization_id": "o"}  # fmt: skip
    for seq, more in enumerate((
        {"unique_id": "a", "log_method": "inference", "upstream": "u", "start_time": "2026-01-02T03:04:06.000000Z"},
        {"unique_id": "b", "log_method": "logging_api"},
    )):  # fmt: skip
        row = {**required, **more, "seq": seq}
        db.execute(f"INSERT INTO span ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
    db.commit()
    db.close()
    sqlite.create(path)
    assert audits(path, None, None) == {"o": Audit(1, {"success": 1}, 0, 0, 0, 1, 0, 0, 1)}


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


OF_THE_STORE = ("id", "seq", "is_call", "is_open", "boot_id", "received_at", "settled_seq", "counted_seq")


def test_the_schema_has_every_field(path: Path) -> None:
    sqlite.create(path)
    assert columns(path, "span") == {*OF_THE_STORE, *SPAN_COLUMNS}
    assert {*OPEN_COLUMNS} <= {*SPAN_COLUMNS}
    assert columns(path, "content") == {"span_id", "input_text", "output_text", *CONTENT_COLUMNS}
    legacy = {"messages", "prompt_messages", "completion_message", "completion_messages"}
    of_the_store = {"row_id", "seq", "is_open", "extras", "cost_picos"}
    assert columns(path, "spans") == ({*Span.model_fields} - legacy) | of_the_store
    assert {*COUNTED_COLUMNS} <= {*SPAN_COLUMNS}


def test_migrations_are_numbered_from_one(path: Path) -> None:
    assert [number for number, _ in sqlite.migrations()] == list(range(1, len(sqlite.migrations()) + 1))
    sqlite.create(path)
    sqlite.create(path)
    assert rows(path, "PRAGMA user_version") == [(len(sqlite.migrations()),)]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_processes_that_make_the_file_at_once_wait_for_each_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def end_the_others_transaction(_: float) -> None:
        other.execute("ROLLBACK")

    monkeypatch.setattr("time.sleep", end_the_others_transaction)
    sqlite.create(path)
    other.close()
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


# Takes the locks of a process that is about to put together the index of a log that was left (SQLite: walformat).
RECOVERING = """
import fcntl, os, struct, sys
index = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.truncate(index, 32768)
for kind, byte in ((fcntl.F_RDLCK, 128), (fcntl.F_WRLCK, 120), (fcntl.F_WRLCK, 122)):
    fcntl.fcntl(index, fcntl.F_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, byte, 1, 0))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_waits_for_one_that_puts_the_log_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite.create(path)
    command = [sys.executable, "-c", RECOVERING, f"{path}-shm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        waits: list[float] = []

        def end_the_other(pause_s: float) -> None:
            waits.append(pause_s)
            other.kill()
            other.wait()

        monkeypatch.setattr("time.sleep", end_the_other)
        sqlite.create(path)
    assert waits
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


async def test_a_log_that_was_left_is_put_into_the_database(path: Path) -> None:
    sqlite.create(path)
    db, _ = sqlite.connect_writer(path, synchronous="normal")
    queries.give_seq(db, 7)
    # As if its process had been killed: the copies are of files that nobody has open.
    for file in list(path.parent.iterdir()):
        shutil.copy(file, file.with_name(f"left-{file.name}"))
    db.close()
    left = path.with_name(f"left-{path.name}")
    sqlite.tidy(left)
    assert sorted(file.name for file in path.parent.iterdir()) == [left.name, path.name]
    assert rows(left, "SELECT seq FROM journal") == [(7,)]
    sqlite.tidy(path.with_name("none.db"))
    assert not path.with_name("none.db").exists()


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


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def test_what_nobody_waits_for_any_more_is_read_no_further(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.store._READ_WITHIN_S", 3600.0)
    begun, ended, was_asked = threading.Barrier(3), [], []

    def endless(db: sqlite3.Connection) -> None:
        begun.wait()
        try:
            db.execute(ENDLESS).fetchone()
        except sqlite3.OperationalError:
            ended.append(True)
            raise

    # As many as there are readers, and one for which there is none.
    running = [asyncio.create_task(store._read(endless)) for _ in range(2)]
    await asyncio.to_thread(begun.wait)
    queued = asyncio.create_task(store._read(lambda db: was_asked.append("given up")))
    waiting = asyncio.create_task(store._read(lambda db: was_asked.append("waited for")))
    await asyncio.sleep(0)
    for task in (queued, *running):
        task.cancel()
    async with asyncio.timeout(60):
        await waiting
        while len(ended) < 2:
            await asyncio.sleep(0.01)
    # Nothing else is hit: both readers answer, time and again.
    assert await asyncio.gather(*(ids(store) for _ in range(10))) == [[]] * 10
    assert was_asked == ["waited for"]


def test_a_question_that_is_given_up_does_not_begin_and_is_interrupted_only_while_it_is_asked() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        question = Question()
        with question.asked(db):
            pass
        question.give_up()
        assert question.is_given_up()
        assert db.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(GivenUp), question.asked(db):
            pytest.fail("it begins")
