"""Compressed content reads as it did before, by us; and its first words by anybody."""

import asyncio
import json
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.core.filters import Every
from gateway.core.jsontext import dump
from gateway.core.reading import columns_of
from gateway.core.walk import NEWEST_FIRST
from gateway.store import compress as module
from gateway.store import functions
from gateway.store.compress import compress
from gateway.store.prune import used
from gateway.store.sqlite import connect, connect_reader
from gateway.store.store import Store
from tests.store.spans import NOON, draft
from tests.store.test_lists import store_in
from tests.store.test_store import call
from tests.test_readme import README

SAID = "Say what the quick brown fox does, ünd why. "
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SAID * 20}]
ANSWERED = {"role": "assistant", "content": SAID * 30}


def of_a_call(unique_id: str, after_s: float = 0) -> Any:
    """One whose input and output are parts of its whole request and answer, kept there only."""
    request = {"model": "m", "messages": ASKED, "tools": [{"type": "function"}], "n": 1}
    answer = {"choices": [{"message": ANSWERED}], "usage": {"total_tokens": 5}}
    made = draft(unique_id, after_s=after_s, full_request=request, full_response=answer, input=ASKED, output=ANSWERED)
    made.inside = frozenset({"input", "output"})
    return made


async def rows(store: Store) -> list[dict[str, Any]]:
    found, _ = await store.page("o", Every(), NEWEST_FIRST, size=100, shape=list)
    return found


async def test_what_is_compressed_reads_as_before(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    async with store_in(str(tmp_path)) as store:
        for number in range(50):
            await store.insert(of_a_call(f"call {number}"))
        await store.insert(draft("posted", input=SAID * 10, output={"z": [1, None, SAID * 10]}))
        await store.insert(draft("short", input="Hi", output="Ho"))
        before = await rows(store)
        with closing(connect(path)) as db:
            size = used(db)
        assert sum(compress(path, NOON + timedelta(seconds=1))) == 52
        assert await rows(store) == before
        with closing(connect(path)) as db:
            assert used(db) < 0.6 * size
            kinds = {row[0] for row in db.execute("SELECT typeof(full_request) FROM content WHERE full_request <> ''")}
            assert kinds == {"blob"}
            of_short = "SELECT typeof(input) FROM content JOIN span ON id = span_id WHERE unique_id = 'short'"
            assert db.execute(of_short).fetchone() == ("text",)
        assert list(compress(path, NOON + timedelta(days=1))) == []


async def test_first_words_are_for_everyone(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    async with store_in(str(tmp_path)) as store:
        await store.insert(of_a_call("call"))
        parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
        await store.insert(draft("parts", input=parts, output=["a", "b"]))
        await store.insert(draft("text", input="Hi", output={"role": "assistant", "content": "Ho"}))
        await store.insert(draft("nothing", output={"x": 1}))

    def read() -> dict[str, Any]:
        # As anybody reads it, without functions of ours.
        with closing(sqlite3.connect(path)) as db:
            assert len(db.execute("SELECT * FROM spans").fetchall()) == 4
            found = db.execute("SELECT unique_id, input_text, output_text FROM texts").fetchall()
        return {unique_id: (asked, answered) for unique_id, asked, answered in found}

    others = {"parts": ('[{"type":"text","text":"Hi"}]', "b"), "text": ("Hi", "Ho"), "nothing": (None, '{"x":1}')}
    assert read() == {**others, "call": (SAID * 20, SAID * 30)}
    assert list(compress(path, NOON + timedelta(days=1))) == [4]
    assert read() == {**others, "call": ((SAID * 20)[:200], (SAID * 30)[:200])}


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    async with store_in(str(tmp_path)) as store:
        for number in range(50):
            await store.insert(draft(str(number), input=SAID * 10))
    first, second = (compress(path, NOON + timedelta(days=1)) for _ in range(2))
    assert (next(first), next(second), next(first, None), list(second)) == (20, 20, None, [10])


async def test_half_a_surrogate_pair_holds_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    async with store_in(str(tmp_path)) as store:
        await store.insert(draft("half", input=f"A\ud83d {SAID * 10}", output=SAID * 10))
        await store.insert(draft("next", input=SAID * 10))
        before = await rows(store)
        assert sum(compress(path, NOON + timedelta(days=1))) == 2
        assert await rows(store) == before
    with closing(sqlite3.connect(path)) as db:
        (asked,) = db.execute("SELECT input_text FROM texts WHERE unique_id = 'half'").fetchone()
    assert asked[0] == "A" and "Say what" in asked


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the shell of SQLite is not installed")
def test_the_shell_of_sqlite_reads_what_is_compressed(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"

    async def main() -> None:
        async with store_in(str(tmp_path)) as store:
            await store.insert(of_a_call("call"))
            assert list(compress(path, NOON + timedelta(days=1))) == [1]
            await store.insert(of_a_call("new"))

    asyncio.run(main())
    (told,) = re.findall(r"`(iif\(typeof.*)`", README)
    query = f"SELECT {told} FROM spans"
    shown = subprocess.run(["sqlite3", path, query], capture_output=True, text=True, check=True).stdout
    assert [json.loads(line)["messages"] for line in shown.splitlines()] == [ASKED, ASKED]


async def test_it_goes_as_far_as_spans_are_old_and_done(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"

    def done_after(minutes: float) -> int:
        return sum(compress(path, NOON + timedelta(minutes=minutes)))

    async with store_in(str(tmp_path)) as store:
        # What its sender says of its time does not count, but when it came: all of these came at noon.
        await store.insert(draft("of the future", after_s=10**9, input=SAID * 10))
        opened = store.open("o", NOON, call("running", start_time=NOON, timestamp=NOON))
        assert opened is not None
        await store.insert(of_a_call("behind it"))
        assert (done_after(0), done_after(1), done_after(9)) == (0, 1, 0)
        await store.settle(of_a_call("running", after_s=300), opened)
        assert (done_after(4), done_after(6), done_after(6)) == (0, 2, 0)
        assert {dump(json.loads(row["input"])) for row in await rows(store)} == {dump(ASKED), dump(SAID * 10)}


async def test_large_ones_are_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", 3000)
    async with store_in(str(tmp_path)) as store:
        for number in range(5):
            await store.insert(draft(str(number), input="x" * 1400))
        await store.insert(draft("large", input="x" * 9000))
    assert list(compress(tmp_path / "spans.db", NOON + timedelta(days=1))) == [2, 2, 1, 1]


def test_what_is_no_database_of_ours_can_be_opened_to_be_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.execute("CREATE TABLE mine (x)")
    with closing(connect_reader(tmp_path / "a.db")) as db, pytest.raises(sqlite3.Error, match="no such table"):
        db.execute("SELECT * FROM spans")


async def test_what_is_not_asked_for_is_not_even_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[bytes] = set()
    inflated = functions.inflated

    def look(value: bytes) -> str:
        seen.add(value)
        return inflated(value)

    monkeypatch.setattr(functions, "inflated", look)
    async with store_in(str(tmp_path)) as store:
        said = {"input": SAID * 10, "output": SAID * 20, "full_request": {"x": SAID * 30}}
        await store.insert(draft("a", trace_unique_id="t", **said))
        assert list(compress(tmp_path / "spans.db", NOON + timedelta(days=1))) == [1]

        async def of_a_page(columns: list[str] | None) -> int:
            seen.clear()
            await store.page("o", Every(), NEWEST_FIRST, size=5, columns=columns, shape=list)
            return len(seen)

        async def of_a_trace(*, with_content: bool) -> int:
            seen.clear()
            await store.trace("o", "t", lambda trace, rows: list(rows), shared=False, with_content=with_content)
            return len(seen)

        assert await of_a_page(columns_of(["model", "cost", "metadata", "is_open"])) == 0
        assert await of_a_page(columns_of(["input_preview"])) == await of_a_page(columns_of(["output_preview"])) == 1
        assert await of_a_page(columns_of(["messages", "output_preview"])) == 2
        assert await of_a_page(None) == 3
        assert [await of_a_trace(with_content=which) for which in (False, True)] == [0, 2]
