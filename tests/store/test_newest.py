"""The newest traces and threads are the same, whether found in the newest spans or among all."""

import asyncio
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.filters import THREAD_FIELDS, TRACE_FIELDS, Filter
from gateway.core.walk import NEWEST_FIRST
from gateway.store import newest, sqlite
from gateway.store.conditions import Sql
from gateway.store.store import Store
from tests.store.spans import draft
from tests.store.test_lists import store_in

SPANS = st.lists(
    st.tuples(st.sampled_from([None, "", "a", "b", "c", "d"]), st.integers(0, 3), st.sampled_from(["m", "n"])),
    max_size=12,
)


@settings(max_examples=80)
@given(SPANS, st.integers(1, 3), st.integers(0, 3), st.sampled_from([{}, {"model": "m"}]), st.integers(0, 12))
def test_pages_of_the_newest(spans: list[Any], limit: int, offset: int, filters: Any, looks: int) -> None:
    async def pages(store: Store) -> Any:
        traces: Filter = TRACE_FIELDS.parse(filters)
        threads: Filter = THREAD_FIELDS.parse(filters)
        return (
            [trace.sums for trace in await store.traces("o", traces, NEWEST_FIRST, limit=limit, offset=offset)],
            await store.threads("o", threads, NEWEST_FIRST, limit=limit, offset=offset),
        )

    async def main() -> None:
        with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            async with store_in(folder) as store:
                for number, (key, after_s, model) in enumerate(spans):
                    told = {"trace_unique_id": key, "thread_identifier": key, "model": model}
                    environment = "prod" if number % 3 else "test"
                    await store.insert(draft(str(number), after_s=after_s, environment=environment, **told))
                patch.setattr(newest, "_LOOKS_AT_MOST", looks)
                found = await pages(store)
                patch.setattr(newest, "_LOOKS_AT_MOST", -1)
                assert found == await pages(store)

    asyncio.run(main())


async def test_what_hardly_any_span_is_like_is_not_looked_for_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store_in(str(tmp_path)) as store:
        for number in range(300):
            await store.insert(draft(str(number), after_s=number, trace_unique_id=str(number)))

    def steps(looks: int) -> int:
        monkeypatch.setattr(newest, "_LOOKS_AT_MOST", looks)
        done = [0]

        def one_more() -> int:
            done[0] += 1
            return 0

        with closing(sqlite.connect_reader(tmp_path / "spans.db")) as db:
            db.set_progress_handler(one_more, 10)
            newest.newest(db, "o", ["trace_unique_id"], Sql("model = ?", ("other",)), limit=5, offset=0)
        return done[0]

    assert steps(10) < steps(300) / 5
