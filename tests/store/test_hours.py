"""Sums of hours on a real file: whatever changes meanwhile, they are what the spans come to."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.complete import Draft
from gateway.core.filters import BETWEEN, SPAN_FIELDS, Condition, Every, Filter, both
from gateway.core.reading import stored_time
from gateway.core.walk import Order
from gateway.errors import StillRunning
from gateway.store import hours, sqlite, sums
from gateway.store.hours import sum_up
from gateway.store.prune import Keep, prune
from gateway.store.store import Opened, Store
from tests.store.spans import NOON, draft
from tests.store.test_lists import priced, store_in
from tests.store.test_store import call

LATER = NOON + timedelta(days=1)
MINUTES = st.sampled_from([0, 1, 59, 60, 61, 119, 120, 300])
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["post", "open", "settle", "count", "edit", "delete", "prune", "sum", "sum a part", "sum on"]),
        MINUTES,
        st.sampled_from("abc"),
    ),
    max_size=25,
)
TIMES = st.one_of(st.none(), MINUTES.map(lambda minute: stored_time(NOON + timedelta(minutes=minute))))
ASKED = st.tuples(
    st.sampled_from(
        [
            {},
            {"model": "a"},
            {"model": {"operator": "not", "value": ["a"]}, "status": "failed"},
            {"x": {"connector": "OR", "filter_params": {"model": "b", "environment": "prod"}}},
            {"timestamp": {"operator": "gt", "value": [stored_time(NOON + timedelta(hours=1))]}},
            {"timestamp": {"operator": "lte", "value": [stored_time(NOON + timedelta(hours=2))]}, "model": ["a", "b"]},
            {"cost": {"operator": "gte", "value": [1]}},
            {"timestamp": stored_time(NOON + timedelta(hours=1))},
        ]
    ),
    TIMES,
    TIMES,
)


class Scene:
    """A store, and those who sum up its hours, each as far as it has come."""

    def __init__(self, store: Store, path: Path) -> None:
        self._store, self._path = store, path
        self._number = 0
        self._there: list[str] = []
        self._open: list[tuple[str, Opened]] = []
        self._uncounted: list[Draft] = []
        self._summing: Iterator[str] = iter(())

    async def act(self, what: str, minute: int, model: str) -> None:
        self._number += 1
        unique_id, after_s = str(self._number), 60.0 * minute
        told: dict[str, Any] = {"model": model, "latency": minute, "status": "failed" if model == "c" else "success"}
        if what == "post":
            self._uncounted.append(priced(unique_id, after_s=after_s, **told))
            await self._store.insert(self._uncounted[-1])
            self._there.append(unique_id)
        elif what == "open":
            start = NOON + timedelta(seconds=after_s)
            opened = self._store.open("o", start, call(unique_id, start_time=start, timestamp=start))
            assert opened is not None
            await opened.write.done
            self._open.append((unique_id, opened))
        elif what == "settle" and self._open:
            unique_id, opened = self._open.pop()
            await self._store.settle(priced(unique_id, after_s=after_s, start_time=NOON, cost=3, **told), opened)
        elif what == "count" and self._uncounted:
            made = self._uncounted.pop()
            made.cost_picos = 10**12 + minute
            await self._store.update_counts(made)
        elif what == "edit" and self._there:
            with suppress(StillRunning):
                await self._store.edit("o", self._there[minute % len(self._there)], {"note": "n"}, None)
        elif what == "delete" and self._there:
            await self._store.delete("o", self._there.pop(minute % len(self._there)))
        elif what == "prune":
            list(prune(self._path, Keep(age=timedelta(minutes=1)), NOON + timedelta(minutes=minute)))
        elif what == "sum":
            list(sum_up(self._path, LATER))
        elif what == "sum a part":
            self._summing = sum_up(self._path, LATER)
            next(self._summing, None)
        elif what == "sum on":
            next(self._summing, None)


@settings(max_examples=150)
@given(ACTS, st.lists(ASKED, min_size=1, max_size=4))
def test_sums_of_hours_are_those_of_their_spans(acts: list[Any], asked: list[Any]) -> None:
    async def main() -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "spans.db"
            async with store_in(folder) as store:
                scene = Scene(store, path)
                for act in acts:
                    await scene.act(*act)
                for filters, start, end in asked:
                    in_range = Condition("timestamp", BETWEEN, (start, end)) if start or end else Every()
                    which = both(in_range, SPAN_FIELDS.parse(filters))
                    by_hours = await found(store, which)
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(hours, "within", lambda which: None)
                        assert by_hours == await found(store, which), (filters, start, end)

    asyncio.run(main())


async def found(store: Store, which: Filter) -> Any:
    whole = await store.sums("o", which)
    by_model = await store.groups("o", which, "model", Order("total_cost"), limit=9, offset=0)
    steps = [(60, None), (3600, "model"), (6 * 3600, None)]
    series = [await store.series("o", which, step_s, field, groups_at_most=2, shape=list) for step_s, field in steps]
    points = [[point._replace(sums=rounded(point.sums)) for point in found] for found, _ in series]
    left_out = [number for _, number in series]
    return rounded(whole), [(key, rounded(one)) for key, one in by_model], points, left_out


def rounded(of: sums.Sums) -> sums.Sums:
    return of._replace(latency=None if of.latency is None else round(of.latency, 6))


async def test_hours_that_are_summed_are_read_no_more(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    async with store_in(str(tmp_path)) as store:
        for minute in (0, 30, 70, 130):
            await store.insert(draft(str(minute), after_s=60 * minute))
        assert len(set(sum_up(path, NOON + timedelta(hours=2, minutes=1)))) == 2
        with sqlite.connect(path) as db:
            # Behind its back, without the triggers: only what is not summed up shows it.
            db.execute("DROP TRIGGER span_went")
            db.execute("DELETE FROM span WHERE unique_id IN ('30', '130')")
        assert (await store.sums("o", Every())).spans == 3
        groups = await store.groups("o", Every(), "log_type", Order("number_of_requests"), limit=5, offset=0)
        assert [(key, one.spans) for key, one in groups] == [("chat", 3)]


async def test_two_processes_do_not_sum_up_the_same(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    async with store_in(str(tmp_path)) as store:
        for hour in range(3):
            await store.insert(priced(f"{hour}", after_s=3600 * hour))
    first, second = sum_up(path, LATER), sum_up(path, LATER)
    assert next(first)[-2:] == "14"
    # One that died might have left it like that.
    assert [hour[-2:] for hour in second] == ["14", "13", "12"]
    assert list(first) == []


async def test_an_hour_is_summed_up_once_it_is_over(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    async with store_in(str(tmp_path)) as store:
        await store.insert(draft("a"))
        assert list(sum_up(path, NOON + timedelta(minutes=60, seconds=59))) == []
        assert list(sum_up(path, NOON + timedelta(minutes=61))) == ["2026-01-02T12"]
        assert list(sum_up(path, NOON + timedelta(minutes=61))) == []


def test_spans_of_an_older_database_have_their_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spans.db"
    steps = sqlite.migrations()
    monkeypatch.setattr(sqlite, "migrations", lambda: [step for step in steps if step[0] < 9])
    sqlite.create(path)
    with sqlite.connect(path) as db:
        db.execute(
            "INSERT INTO span (id, seq, organization_id, unique_id, environment, model, log_type, stream, status,"
            " status_code, timestamp, is_custom_prompt, temperature, top_p)"
            " VALUES (1, 1, 'o', 'a', 'prod', 'm', 'chat', 0, 'success', 200, '2026-01-02T12:00:00.000000Z', 0, 1, 1)"
        )
    monkeypatch.undo()
    sqlite.create(path)
    assert list(sum_up(path, LATER)) == ["2026-01-02T12"]
    with sqlite.connect(path) as db:
        assert db.execute("SELECT organization_id, hour, model, spans FROM hourly_sum").fetchall() == [
            ("o", "2026-01-02T12", "m", 1)
        ]
        assert db.execute("SELECT day, model, spans, failed FROM daily").fetchall() == [("2026-01-02", "m", 1, 0)]


async def test_a_range_is_gone_through_once_whatever_stands(tmp_path: Path) -> None:
    path = tmp_path / "spans.db"
    async with store_in(str(tmp_path)) as store:
        for number in range(300):
            await store.insert(draft(f"{number}", after_s=600 * number))

    def steps(which: Filter) -> int:
        done = [0]

        def one_more() -> int:
            done[0] += 1
            return 0

        with closing(sqlite.connect_reader(path)) as db:
            db.set_progress_handler(one_more, 100)
            assert sums.sums(db, "o", which).spans == 300
        return done[0]

    ends = (stored_time(NOON), stored_time(NOON + timedelta(days=9)))
    assert steps(Condition("timestamp", BETWEEN, ends)) < 2 * steps(Every(()))
