"""When garbage is looked for."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from gateway.memory import collect_less_once


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.enable()
    gc.set_threshold(*before)
    gc.unfreeze()


async def test_no_garbage_is_looked_for_until_everything_is_loaded_and_never_in_that() -> None:
    loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    collected: list[int] = []
    gc.callbacks.append(lambda phase, info: collected.append(info["generation"]))
    frozen = gc.get_freeze_count()
    try:
        collect_less_once(loaded)
        kept = [[number] for number in range(50_000)]
        assert (collected, gc.isenabled()) == ([], False)
        loaded.set_result(None)
        await asyncio.sleep(0)
        assert (collected, gc.isenabled()) == ([], True)
        assert gc.get_freeze_count() >= frozen + len(kept)
    finally:
        gc.callbacks.pop()


async def test_loading_that_failed_ends_that_as_well() -> None:
    loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    collect_less_once(loaded)
    loaded.cancel()
    await asyncio.sleep(0)
    assert gc.isenabled()
