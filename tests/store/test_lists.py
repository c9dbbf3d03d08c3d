"""Lists and sums on a real file: laid beside what Python makes of the same spans."""

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.complete import Draft, price
from gateway.core.filters import FIELDS as SPAN_KINDS
from gateway.core.filters import OPERATORS, SPAN_FIELDS, Either, Every, Filter, Kind
from gateway.core.jsontext import dump
from gateway.core.walk import NEWEST_FIRST, SPAN_SORTS, Order, Place
from gateway.errors import StillRunning, TooMuchToRead
from gateway.store import compress, lists, sqlite
from gateway.store import store as store_module
from gateway.store.store import Opened, Store
from tests.store.spans import NOON, draft
from tests.store.test_store import call

Row = dict[str, Any]


def priced(unique_id: str, **fields: Any) -> Draft:
    made = draft(unique_id, **fields)
    price(made, lambda *_: None)
    return made


@asynccontextmanager
async def store_in(folder: str) -> AsyncIterator[Store]:
    store = Store(Path(folder) / "spans.db", synchronous="off", queue_bytes=2**24)
    try:
        yield store
    finally:
        await store.close()


async def walked(store: Store, which: Filter, by: Order, size: int = 3) -> list[Row]:
    """All pages, by their cursors."""
    found: list[Row] = []
    place: Place | None = None
    while True:
        rows, place = await store.page("o", which, by, size=size, place=place, shape=list)
        found += rows
        if place is None:
            return found


# Filters

TEXTS = st.sampled_from(["", "a", "A", "ab", "aB", "ä", "Ä", "abc ab", "%", "_", "'", "1", "true"])
NUMBERS = st.sampled_from([0, 1, 2, 0.5, -1, 2**53 + 1, 1e300, 0.1])
MEMBERS = st.dictionaries(
    st.sampled_from(["k", "K", 'q"', "$.x", ""]), st.sampled_from([None, "a", "", 1, 1.5, True, False, [1], {"z": 1}])
)
SPANS = st.fixed_dictionaries(
    {},
    optional={
        "model": TEXTS,
        "span_name": TEXTS,
        "customer_identifier": TEXTS,
        "status": st.sampled_from(["success", "failed", "error", "pending"]),
        "error_message": TEXTS,
        "status_code": st.sampled_from([200, 404, 429, 500]),
        "stream": st.booleans(),
        "positive_feedback": st.booleans(),
        "span_parent_id": TEXTS,
        "cost": st.sampled_from([0, 0.1, 0.25, 3, 1e9]),
        "latency": NUMBERS,
        "prompt_tokens": st.sampled_from([0, 1, 2, 2**53 + 1, 2**62]),
        "completion_tokens": st.sampled_from([0, 1, 2, 2**62]),
        "metadata": MEMBERS,
        "properties": MEMBERS,
        "deployment_name": TEXTS,
        "tool_calls": st.sampled_from([[], [{"id": "1"}]]),
        "log_type": st.sampled_from(["chat", "tool"]),
        "input": TEXTS,
    },
)
FIELDS = {
    "model": TEXTS,
    "span_name": TEXTS,
    "customer_identifier": TEXTS,
    "status": st.sampled_from(["success", "failed", "error"]),
    "deployment_name": TEXTS,
    "status_code": st.sampled_from([200, 404, "500"]),
    "stream": st.booleans(),
    "positive_feedback": st.booleans(),
    "is_root_span": st.booleans(),
    "has_tool_calls": st.booleans(),
    "cache_bit": st.booleans(),
    "cost": st.sampled_from([0, 0.1, 0.25, 3]),
    "latency": NUMBERS,
    "prompt_tokens": NUMBERS,
    "metadata__k": TEXTS,
    'metadata__q"': TEXTS,
    "metadata__$.x": TEXTS,
    "metadata": st.sampled_from(["k", "x"]),
}


@st.composite
def conditions(draw: Callable[..., Any]) -> tuple[str, dict[str, Any]]:
    field = draw(st.sampled_from(list(FIELDS)))
    kind = kind_of(field)
    operator = draw(st.sampled_from([one for one in OPERATORS[kind] if one != "trigram_word_similar"]))
    if operator == "isnull":
        return field, {"operator": operator, "value": [draw(st.booleans())]}
    if operator == "regex":
        return field, {"operator": operator, "value": [draw(st.sampled_from(["^a", "b$", "[%_']", "."]))]}
    values = draw(st.lists(FIELDS[field], min_size=1, max_size=3))
    if operator not in ("", "in", "not", "not_in", "empty", "not_empty"):
        values = [value for value in values if value != ""] or ["a" if kind in (Kind.TEXT, Kind.OBJECT) else 1]
    if kind is Kind.TEXT and operator == "ilike":
        values = [value.replace("ä", "a").replace("Ä", "a") for value in values]
    return field, {"operator": operator, "value": values}


def kind_of(field: str) -> Kind:
    return Kind.TEXT if "__" in field else SPAN_KINDS[field]


def shown(made: Draft) -> Row:
    fields = vars(made.span)
    extras = made.span.extras or {}
    return {
        **fields,
        "deployment_name": extras.get("deployment_name"),
        "is_root_span": not fields["span_parent_id"],
        "has_tool_calls": bool(fields["tool_calls"]),
        "cache_bit": False,
    }


def holds(of: Filter, row: Row) -> bool:
    """What a filter means, in Python."""
    match of:
        case Every(parts):
            return all(holds(part, row) for part in parts)
        case Either(parts):
            return any(holds(part, row) for part in parts)
    value = row[of.field]
    if of.key is not None:
        if not value or of.key not in value:
            return False
        value = as_text(value[of.key])
    if of.operator in ("empty", "not_empty"):
        return (value in (None, "", {})) == (of.operator == "empty")
    if of.operator == "has_key":
        return any(one in (value or {}) for one in of.values)
    if isinstance(value, dict):
        value = as_text(value)
    if of.operator in ("", "not"):
        is_equal = any((value in (None, "")) if one is None else value == one for one in of.values)
        return is_equal == (of.operator == "")
    negated = of.operator.startswith("not_")
    if value is None:
        return negated
    return any(COMPARED[of.operator.removeprefix("not_")](value, one) for one in of.values) != negated


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else dump(value)


COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda value, one: value < one,
    "lte": lambda value, one: value <= one,
    "gt": lambda value, one: value > one,
    "gte": lambda value, one: value >= one,
    "contains": lambda value, one: one in value,
    "icontains": lambda value, one: one.casefold() in value.casefold(),
    "startswith": lambda value, one: value.startswith(one),
    "endswith": lambda value, one: value.endswith(one),
    "iexact": lambda value, one: one.casefold() == value.casefold(),
    "ilike": lambda value, one: like(value, one),
    "regex": lambda value, one: re.search(one, value) is not None,
}


def like(value: str, pattern: str) -> bool:
    parts = {"%": ".*", "_": "."}
    return re.fullmatch("".join(parts.get(one, re.escape(one)) for one in pattern), value, re.I | re.S) is not None


FILTERS = st.recursive(
    st.lists(conditions(), min_size=1, max_size=2).map(dict),
    lambda inner: st.builds(
        lambda one, two, connector: {"x": {"connector": connector, "filter_params": {**one, **two}}},
        inner,
        inner,
        st.sampled_from(["AND", "OR"]),
    ),
    max_leaves=3,
)


@settings(max_examples=150)
@given(st.lists(SPANS, min_size=1, max_size=8), st.lists(FILTERS, min_size=1, max_size=12), st.booleans())
def test_a_filter_finds_what_it_says(spans: list[Row], asked: list[Row], is_compressed: bool) -> None:
    async def main() -> None:
        with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(compress, "_smaller", lambda text: text and zlib.compress(text.encode()))
            async with store_in(folder) as store:
                made = [priced(str(number), **{"model": "m", **span}) for number, span in enumerate(spans)]
                await asyncio.gather(*(store.insert(one) for one in made))
                if is_compressed:
                    list(compress.compress(Path(folder) / "spans.db", NOON + timedelta(days=1)))
                for filters in asked:
                    which = SPAN_FIELDS.parse(filters)
                    found = {row["unique_id"] for row in await walked(store, which, NEWEST_FIRST)}
                    assert found == {one.span.unique_id for one in made if holds(which, shown(one))}, filters

    asyncio.run(main())


# Walks

NAMES_OF_ACTS = st.sampled_from(["post", "open", "settle", "count", "edit"])
ACTS = st.lists(st.tuples(NAMES_OF_ACTS, st.integers(0, 5), st.sampled_from([None, 0, 1, 2])), max_size=12)


class Journal:
    """Does things to a store while somebody walks through it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._number = 0
        self.there: set[str] = set()
        self._open: list[tuple[str, Opened]] = []
        self._uncounted: list[Draft] = []

    async def act(self, what: str, when: int, value: int | None) -> None:
        self._number += 1
        unique_id = f"{self._number}"
        if what == "post":
            made = priced(unique_id, after_s=when, latency=value, cost=value)
            await self._store.insert(made)
            self._uncounted += [made] if value is None else []
        elif what == "open":
            start = NOON + timedelta(seconds=when)
            opened = self._store.open("o", start, call(unique_id, start_time=start, timestamp=start))
            assert opened is not None
            await opened.write.done
            self._open.append((unique_id, opened))
        elif what == "settle" and self._open:
            unique_id, opened = self._open.pop(when % len(self._open))
            ended = priced(unique_id, after_s=10 + when, start_time=NOON, latency=value, cost=value)
            await self._store.settle(ended, opened)
        elif what == "count" and self._uncounted:
            made = self._uncounted.pop(when % len(self._uncounted))
            made.cost_picos = 10**12 * (value or 7)
            await self._store.update_counts(made)
        elif what == "edit" and self.there:
            with suppress(StillRunning):
                await self._store.edit("o", sorted(self.there)[when % len(self.there)], {"note": "n"}, {"k": "v"})
        if what in ("post", "open"):
            self.there.add(unique_id)


@settings(max_examples=120)
@given(ACTS, st.lists(ACTS, min_size=1, max_size=6), st.sampled_from(sorted({*SPAN_SORTS.values()})), st.booleans())
def test_a_walk_shows_once_what_was_there(before: list[Any], during: list[Any], field: str, descending: bool) -> None:
    async def main() -> None:
        with TemporaryDirectory() as folder:
            async with store_in(folder) as store:
                journal = Journal(store)
                for act in before:
                    await journal.act(*act)
                there, by = set(journal.there), Order(field, descending)
                found: list[str] = []
                place: Place | None = None
                for acts in [*during, *[[]] * 20]:
                    rows, place = await store.page("o", Every(), by, size=2, place=place, shape=list)
                    found += [row["unique_id"] for row in rows]
                    if place is None:
                        break
                    for act in acts:
                        await journal.act(*act)
                assert place is None
                assert sorted(found) == sorted(there)

    asyncio.run(main())


async def test_pages_by_number_are_those_of_the_walk(tmp_path: Path) -> None:
    async with store_in(str(tmp_path)) as store:
        journal = Journal(store)
        for number, (what, value) in enumerate([("post", 1), ("open", 0), ("post", None), ("open", 0), ("post", 2)]):
            await journal.act(what, number, value)
        for by in (NEWEST_FIRST, Order("timestamp", False), Order("cost"), Order("latency", False)):
            whole = [row["unique_id"] for row in await walked(store, Every(), by, size=2)]
            paged: list[str] = []
            for offset in range(0, 8, 2):
                rows, _ = await store.page("o", Every(), by, size=2, offset=offset, shape=list)
                paged += [row["unique_id"] for row in rows]
            assert paged == whole and len(whole) == 5
        assert [row["unique_id"] for row in await walked(store, Every(), NEWEST_FIRST)] == ["4", "2", "5", "3", "1"]
        assert [row["unique_id"] for row in await walked(store, Every(), Order("cost"))] == ["5", "1", "4", "3", "2"]


# Sums


async def test_sums_are_exact_beyond_64_bits(tmp_path: Path) -> None:
    async with store_in(str(tmp_path)) as store:
        large = {"cost": 9_000_000.000000000001, "prompt_tokens": 2**62, "completion_tokens": 2**62 - 1}
        for number in range(5):
            await store.insert(priced(str(number), **large, latency=number))
        found = await store.sums("o", Every())
    assert (found.spans, found.prompt_tokens, found.completion_tokens) == (5, 5 * 2**62, 5 * (2**62 - 1))
    assert found.latency == 2.0


async def test_groups(tmp_path: Path) -> None:
    async with store_in(str(tmp_path)) as store:
        for number, model in enumerate("abbccc"):
            await store.insert(priced(str(number), model=model, cost=1 + number, after_s=number))
        await store.insert(draft("other", "another organization", model="a"))
        found = await store.groups("o", Every(), "model", Order("number_of_requests"), limit=2, offset=0)
        assert [(key, sums.spans, sums.cost_picos) for key, sums in found] == [
            ("c", 3, 15 * 10**12),
            ("b", 2, 5 * 10**12),
        ]
        rest = await store.groups("o", Every(), "model", Order("total_cost", False), limit=5, offset=1)
        assert [key for key, _ in rest] == ["b", "c"]


# What takes too long


async def test_a_pattern_that_goes_on_for_ever_is_given_up(tmp_path: Path) -> None:
    async with store_in(str(tmp_path)) as store:
        await store.insert(draft("a", span_name="a" * 60 + "b"))
        which = SPAN_FIELDS.parse({"span_name": {"operator": "regex", "value": ["(a|aa)+$"]}})
        with pytest.raises(TooMuchToRead, match="ask for a shorter time range"):
            await store.page("o", which, NEWEST_FIRST, size=1, shape=list)


async def test_a_question_over_too_much_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_READ_WITHIN_S", -1.0)
    monkeypatch.setattr(sqlite, "_LOOK_AT_CLOCK_EVERY", 1000)
    async with store_in(str(tmp_path)) as store:
        await asyncio.gather(*(store.insert(draft(str(number))) for number in range(500)))
        which = SPAN_FIELDS.parse({"input": {"operator": "icontains", "value": ["y" * 10]}})
        with pytest.raises(TooMuchToRead):
            await store.sums("o", which)


# Content, objects and what callers add


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"input": {"operator": "contains", "value": ['said "yes"']}}, "a"),
        ({"search": {"operator": "full_text_search", "value": ['"YES" line2']}}, "a"),
        ({"input": {"operator": "contains", "value": ["a\\b"]}}, "a"),
        ({"input": {"operator": "icontains", "value": ['YES"\nline2']}}, "a"),
        ({"search": {"operator": "full_text_search", "value": ["role"]}}, ""),
        ({"input": {"operator": "not_contains", "value": ["yes"]}}, "bc"),
        ({"output": {"operator": "contains", "value": ["ünï"]}}, "b"),
        ({"prompt_version_number": 3}, "b"),
        ({"prompt_version_number": {"operator": "gte", "value": [2]}}, "b"),
        ({"deployment_name": "5"}, "b"),
        ({"properties__n": 3}, "a"),
        ({"properties__n": "3"}, "ac"),
        ({"properties__n": {"operator": "gte", "value": [1]}}, "a"),
        ({"properties__b": True}, "b"),
        ({"properties__b": "true"}, "b"),
        ({"properties__b": 1}, ""),
        ({"properties__n": {"operator": "not", "value": [3]}}, "c"),
        ({"properties__n": {"operator": "startswith", "value": ["3"]}}, "ac"),
        ({"metadata__big": "12345678901234567890"}, "b"),
        ({"metadata__f": "1e+20"}, "b"),
        ({"cost": {"operator": "lt", "value": [1e308]}}, "abc"),
        ({"cost": {"operator": "gt", "value": [-1e308]}}, "abc"),
    ],
)
async def test_what_a_filter_finds(tmp_path: Path, filters: Row, expected: str) -> None:
    said = [{"role": "user", "content": 'He said "yes"\nline2 a\\b'}]
    spans: dict[str, Row] = {
        "a": {"input": said, "properties": {"n": 3}, "cost": 1},
        "b": {
            **{"output": "plain ünï", "properties": {"b": True}, "cost": 2, "prompt_version_number": 3},
            **{"deployment_name": 5, "metadata": {"big": 12345678901234567890, "f": 1e20}},
        },
        "c": {"properties": {"n": "3"}, "cost": 3},
    }
    async with store_in(str(tmp_path)) as store:
        for unique_id, fields in spans.items():
            await store.insert(priced(unique_id, **fields))
        found = await walked(store, SPAN_FIELDS.parse(filters), Order("timestamp", False))
    assert "".join(sorted(row["unique_id"] for row in found)) == expected


async def test_a_question_is_answered_from_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with store_in(str(tmp_path)) as store, store_in(str(tmp_path)) as other:
        await store.insert(draft("a", trace_unique_id="t", span_unique_id="s"))
        loop = asyncio.get_running_loop()
        summed_up = lists.rows

        def deleted_meanwhile(db: Any, ids: Any, columns: Any = None) -> Any:
            # In the reader's thread, between the sums and the root.
            asyncio.run_coroutine_threadsafe(other.delete_trace("o", "t"), loop).result(60)
            return summed_up(db, ids, columns)

        monkeypatch.setattr(lists, "rows", deleted_meanwhile)
        (trace,) = await store.traces("o", Every(), NEWEST_FIRST, limit=5, offset=0)
        assert trace.root["span_unique_id"] == "s"
        monkeypatch.undo()
        assert await store.traces("o", Every(), NEWEST_FIRST, limit=5, offset=0) == []
