"""The one writer: batches, faults and the end."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.store import queries, sqlite
from gateway.store.batch import Apply, Batch
from gateway.store.boots import Boot
from gateway.store.rows import content_row, span_row
from gateway.store.writer import Writer, _checkpoint
from tests.fakes.client import soon
from tests.store.spans import draft


@pytest.fixture
def path(tmp_path: Path) -> Path:
    sqlite.create(tmp_path / "spans.db")
    return tmp_path / "spans.db"


def new_writer(path: Path, boot: Boot, **more: Any) -> Writer:
    return Writer(path, boot, synchronous="normal", **{"queue_bytes": 2**20, **more})


@pytest.fixture
def boot(path: Path) -> Iterator[Boot]:
    made = Boot(path)
    yield made
    made.end()


@pytest.fixture
async def writer(path: Path, boot: Boot) -> AsyncIterator[Writer]:
    made = new_writer(path, boot)
    yield made
    await made.close()


def inserting(unique_id: str) -> Apply:
    made = draft(unique_id)
    return lambda batch: queries.insert_span(batch.db, batch.next_seq(), span_row(made), content_row(made))


def stored(path: Path) -> list[str]:
    db = sqlite3.connect(path)
    try:
        return [unique_id for (unique_id,) in db.execute("SELECT unique_id FROM spans ORDER BY seq")]
    finally:
        db.close()


async def test_what_comes_while_a_commit_runs_makes_up_one_batch(writer: Writer, path: Path) -> None:
    given_away: set[int] = set()

    def in_batch(number: int) -> Apply:
        insert = inserting(str(number))

        def apply(batch: Batch) -> bool:
            # Within one transaction the journal's counter stands still.
            given_away.add(queries.take_seq(batch.db))
            return insert(batch)

        return apply

    assert all(await asyncio.gather(*(writer.put(in_batch(number), 1).done for number in range(1000))))
    assert len(stored(path)) == 1000
    assert len(given_away) < 50


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.IntegrityError("bad"),
        sqlite3.DataError("bad"),
        sqlite3.ProgrammingError("bad"),
        sqlite3.InterfaceError("bad"),
        OverflowError("bad"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "bad"),
    ],
)
async def test_a_bad_write_fails_alone(writer: Writer, path: Path, error: Exception) -> None:
    def bad(batch: Batch) -> bool:
        raise error

    ends = await asyncio.gather(
        *(writer.put(apply, 1).done for apply in (inserting("a"), bad, inserting("b"), bad, inserting("c"))),
        return_exceptions=True,
    )
    assert ends == [True, error, True, error, True]
    assert stored(path) == ["a", "b", "c"]
    assert await writer.put(inserting("d"), 1).done


async def test_while_the_store_is_locked_writes_wait(writer: Writer, path: Path) -> None:
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    waiting = writer.put(inserting("a"), 1).done
    assert stored(path) == []
    assert not waiting.done()
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await waiting


async def test_trouble_with_the_store_is_outlasted(writer: Writer, path: Path) -> None:
    troubles = [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("database disk image is malformed")]
    insert = inserting("a")

    def troubled(batch: Batch) -> bool:
        if troubles:
            raise troubles.pop()
        return insert(batch)

    assert await asyncio.gather(writer.put(inserting("b"), 1).done, writer.put(troubled, 1).done) == [True, True]
    assert sorted(stored(path)) == ["a", "b"]


async def test_an_asker_who_has_left_does_not_matter(writer: Writer, path: Path) -> None:
    writer.put(inserting("a"), 1).done.cancel()
    assert await writer.put(inserting("b"), 1).done
    assert stored(path) == ["a", "b"]


async def test_closing_gives_up_on_a_broken_store(path: Path, boot: Boot) -> None:
    writer = new_writer(path, boot, give_up_s=0.0)

    def broken(batch: Batch) -> bool:
        raise sqlite3.OperationalError("disk I/O error")

    waiting = writer.put(broken, 1).done
    await writer.close()
    with pytest.raises(sqlite3.OperationalError):
        await waiting
    assert stored(path) == []


async def test_closing_gives_up_on_what_is_only_counted_too(
    path: Path, boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.sqlite._BUSY_TIMEOUT_S", 0.1)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    writer = new_writer(path, boot, give_up_s=0.0)
    # The second waits for the first, which waits for the store.
    for _ in range(2):
        writer.note(queries.Entry("o", "2026-01-02T03:04", "refused"))
    await soon(writer.close())
    blocker.close()


async def test_the_write_ahead_log_is_checkpointed(writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.writer._CHECKPOINT_EVERY_BYTES", 1)
    before = path.stat().st_size
    async with asyncio.timeout(30):
        number = 0
        while path.stat().st_size == before:
            number += 1
            await writer.put(inserting(str(number)), 1).done


async def test_of_rows_that_go_in_together_the_one_at_fault_fails_alone(writer: Writer, path: Path) -> None:
    def gathered(unique_id: str, *, bad: bool = False) -> Apply:
        made = draft(unique_id)
        span = span_row(made)
        # No environment: the column takes no NULL.
        at = span.columns.index("environment")
        span = span._replace(values=(*span.values[:at], None, *span.values[at + 1 :])) if bad else span
        return lambda batch: batch.insert(span, content_row(made))

    writes = [writer.put(gathered(str(number), bad=number in (3, 7)), 1) for number in range(10)]
    ends = await asyncio.gather(*(write.done for write in writes), return_exceptions=True)
    assert [type(end) for end in ends] == [sqlite3.IntegrityError if n in (3, 7) else bool for n in range(10)]
    assert sorted(stored(path)) == [str(number) for number in range(10) if number not in (3, 7)]
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM content JOIN span ON span.id = span_id").fetchone() == (8,)
    db.close()


async def test_a_checkpoint_that_a_reader_keeps_from_its_end_says_so(writer: Writer, path: Path) -> None:
    await writer.put(inserting("a"), 1).done
    with closing(sqlite3.connect(path, isolation_level=None)) as reader, closing(sqlite3.connect(path)) as db:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM span").fetchone()
        await writer.put(inserting("b"), 1).done
        assert not _checkpoint(db)
        reader.execute("COMMIT")
        assert _checkpoint(db)


async def test_the_log_starts_over_once_it_can(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.writer._START_LOG_OVER_BYTES", 1000)
    tries: list[int] = []

    def try_it(db: sqlite3.Connection) -> bool:
        tries.append(writer._logged)
        return len(tries) > 1

    await writer.put(inserting("a"), 1).done
    # Its threads have nothing more to do with it.
    await writer.close()
    monkeypatch.setattr("gateway.store.writer._checkpoint", try_it)
    writer._logged = 0
    for _ in range(6):
        # As the other thread says behind each of its own.
        writer._checkpointed.set()
        writer._checkpoint_after(600)
    assert tries == [1200, 1800, 1200]
