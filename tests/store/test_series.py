"""Sums over time on a real file."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.core.filters import Every
from gateway.store.hours import sum_up
from gateway.store.store import Store
from tests.store.spans import NOON
from tests.store.test_lists import priced, store_in


async def points(store: Store, step_s: int) -> list[tuple[str, int]]:
    found, _ = await store.series("o", Every(), step_s, None, groups_at_most=1, shape=list)
    return [(f"{datetime.fromtimestamp(point.time, UTC):%a %d %H:%M}", point.sums.spans) for point in found]


@pytest.mark.parametrize("is_summed", [False, True])
async def test_steps(tmp_path: Path, is_summed: bool) -> None:
    async with store_in(str(tmp_path)) as store:
        # NOON is of Friday, 2 January 2026.
        for number, minutes in enumerate([0, 4, 5, 59, 60, 12 * 60, 3 * 24 * 60]):
            await store.insert(priced(str(number), after_s=60 * minutes + 59.999999))
        if is_summed:
            list(sum_up(tmp_path / "spans.db", NOON + timedelta(days=9)))
        assert (await points(store, 60))[:2] == [("Fri 02 12:00", 1), ("Fri 02 12:04", 1)]
        assert (await points(store, 300))[:2] == [("Fri 02 12:00", 2), ("Fri 02 12:05", 1)]
        assert (await points(store, 3600))[:2] == [("Fri 02 12:00", 4), ("Fri 02 13:00", 1)]
        assert (await points(store, 6 * 3600))[:2] == [("Fri 02 12:00", 5), ("Sat 03 00:00", 1)]
        assert await points(store, 86_400) == [("Fri 02 00:00", 5), ("Sat 03 00:00", 1), ("Mon 05 00:00", 1)]
        assert await points(store, 7 * 86_400) == [("Mon 29 00:00", 6), ("Mon 05 00:00", 1)]


async def test_times_before_those_of_unix(tmp_path: Path) -> None:
    async with store_in(str(tmp_path)) as store:
        await store.insert(priced("a", timestamp=datetime(1969, 12, 31, 23, 30, tzinfo=UTC)))
        assert await points(store, 3600) == [("Wed 31 23:00", 1)]


@pytest.mark.parametrize("is_summed", [False, True])
async def test_groups_and_percentiles(tmp_path: Path, is_summed: bool) -> None:
    async with store_in(str(tmp_path)) as store:
        for number in range(100):
            model = "a" if number < 60 else "b" if number < 90 else "c"
            await store.insert(priced(f"{number}", model=model, latency=1 + number / 10, after_s=number))
        await store.insert(priced("none", model="c", time_to_first_token=0.25))
        if is_summed:
            list(sum_up(tmp_path / "spans.db", NOON + timedelta(days=9)))
        found, left_out = await store.series("o", Every(), 3600, "model", groups_at_most=2, shape=list)
        assert [(point.key, point.sums.spans) for point in found] == [("a", 60), ("b", 30)]
        assert left_out == 11
        # 1 to 6.9: half of them are not above 3.9, and 57 of 60 not above 6.6.
        assert found[0].percentiles["latency"] == (3.9, 6.6, 6.9)
        assert found[0].percentiles["time_to_first_token"] == (None, None, None)
        (whole,), _ = await store.series("o", Every(), 3600, None, groups_at_most=2, shape=list)
        # To two digits: 10.5 is either 10 or 11.
        assert whole.percentiles["latency"][:2] == (5.9, 10.0)
        assert whole.percentiles["time_to_first_token"] == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("is_summed", [False, True])
async def test_percentiles_by_a_field_of_the_same_values(tmp_path: Path, is_summed: bool) -> None:
    async with store_in(str(tmp_path)) as store:
        for number, (model, latency) in enumerate([("a", 1), ("b", 1), ("b", 1), ("b", 2), ("a", 2), ("a", 2)]):
            await store.insert(priced(f"{number}", model=model, latency=latency))
        if is_summed:
            list(sum_up(tmp_path / "spans.db", NOON + timedelta(days=9)))
        found, _ = await store.series("o", Every(), 3600, "model", groups_at_most=2, shape=list)
        assert [(point.key, point.percentiles["latency"][:2]) for point in found] == [
            ("a", (2.0, 2.0)),
            ("b", (1.0, 2.0)),
        ]
