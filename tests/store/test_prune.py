"""Old spans are deleted in slices, and the file gets smaller."""

import asyncio
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.core.filters import Every
from gateway.core.walk import NEWEST_FIRST
from gateway.store import prune as pruning
from gateway.store import sqlite
from gateway.store.prune import Forecast, Keep, forecast, number, prune, prune_now_and_then, used
from gateway.store.store import Store, audits
from tests.store.spans import NOON, draft, open_call
from tests.store.test_store import call, settled

AGE = timedelta(days=30)


@pytest.fixture(autouse=True)
def whole_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(pruning, "_SLICE_S", 1e9)


async def filled(path: Path, spans: int = 450, size: int = 3000) -> Store:
    """A span each hour from NOON on."""
    store = Store(path, synchronous="off", queue_bytes=2**26)
    ends = [store.insert(draft(str(n), after_s=3600 * n, input=f"{n}" + "x" * size)) for n in range(spans)]
    await asyncio.gather(*ends)
    return store


async def ids(store: Store) -> list[str]:
    rows, _ = await store.page("o", Every(), NEWEST_FIRST, size=1000, shape=list)
    return [row["unique_id"] for row in rows]


def later(hours: int) -> datetime:
    return NOON + AGE + timedelta(hours=hours, minutes=1)


async def test_what_is_too_old_goes_slice_by_slice(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    store = await filled(path)
    await store.settle(settled("call"), None)
    opened = open_call(store, call("running"))
    assert opened is not None and await opened.write.done
    assert number(path, Keep(age=AGE), later(429)) == 431
    steps = [step for step in prune(path, Keep(age=AGE), later(429)) if step]
    assert steps == [200, 200, 31]
    assert await ids(store) == ["running", *(str(n) for n in range(449, 429, -1))]
    found = audits(path, None, None)["o"]
    assert (found.deleted_posts, found.deleted_calls, found.missing) == (430, 1, 0)
    # Nor is anything left of what they said.
    with closing(sqlite.connect_reader(path)) as db:
        assert db.execute("SELECT count(*) FROM content").fetchone()[0] == 20
        assert db.execute("SELECT count(*) FROM tombstone").fetchone()[0] == 0
    assert list(prune(path, Keep(age=AGE), later(429))) == []
    await store.close()


async def test_large_spans_go_in_small_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_SLICE_S", 0)
    path = tmp_path / "spans.db"
    store = await filled(path, 3)
    assert [step for step in prune(path, Keep(age=AGE), later(100)) if step] == [1, 1, 1]
    await store.close()


async def test_space_is_given_back_many_pages_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    store = await filled(path)
    steps = list(prune(path, Keep(age=AGE), later(1000)))
    assert 0 < steps.count(0) < 10
    with closing(sqlite.connect_reader(path)) as db:
        assert db.execute("PRAGMA freelist_count").fetchone()[0] == 0
    await store.close()


async def test_what_goes_is_not_written_once_more(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    store = await filled(path, 1, size=8_000_000)
    await store.close()
    assert not path.with_name("spans.db-wal").exists()
    steps = prune(path, Keep(age=AGE), later(1000))
    assert next(steps) == 1
    assert path.with_name("spans.db-wal").stat().st_size < 1_000_000
    steps.close()


async def test_the_oldest_go_until_the_rest_fits_and_the_file_gets_smaller(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    store = await filled(path, 900)
    with closing(sqlite.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        before = path.stat().st_size
        assert list(prune(path, Keep(size=before), NOON)) == []
        assert sum(prune(path, Keep(size=before // 2), NOON)) in (400, 600)
        assert used(db) <= before // 2
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert path.stat().st_size <= before // 2
    kept = await ids(store)
    assert kept[0] == "899" and kept == sorted(kept, key=int, reverse=True)
    await store.close()


async def test_what_would_go(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    store = await filled(path, 900)
    with closing(sqlite.connect_reader(path)) as db:
        whole = used(db)
    for keep, expected in (
        (Keep(age=AGE), 430),
        (Keep(size=whole // 2), 450),
        (Keep(age=AGE, size=whole // 2), 450),
        (Keep(age=AGE, size=whole), 430),
        (Keep(size=1), 900),
    ):
        found = forecast(path, keep, later(429))
        assert abs(found.spans - expected) <= 1 and abs(found.size - whole * expected / 900) <= whole / 900 + 1
    assert len(await ids(store)) == 900
    await store.close()


async def test_nothing_would_go_where_there_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    await (await filled(path, 0)).close()
    assert forecast(path, Keep(age=AGE, size=1), NOON) == Forecast(0, 0)


async def test_a_file_of_before_is_pruned_too(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    store = await filled(path)
    await store.close()
    with closing(sqlite.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE").fetchall()
        db.execute("PRAGMA auto_vacuum = NONE")
        db.execute("VACUUM")
    assert sum(prune(path, Keep(age=AGE), later(10_000))) == 450


async def test_it_goes_on_by_itself_beside_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_EVERY_S", 0.01)
    path = tmp_path / "spans.db"
    store = await filled(path)
    hours = 0
    task = asyncio.create_task(prune_now_and_then(path, Keep(age=AGE), lambda: later(hours)))
    async with asyncio.timeout(60):
        for hours in (100, 300, 1000):
            while len(await ids(store)) != max(0, 449 - hours):
                assert await store.settle(draft("call", after_s=10**8, start_time=NOON), None)
                assert await store.delete("o", "call")
                await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert audits(path, None, None)["o"].missing == 0
    await store.close()
