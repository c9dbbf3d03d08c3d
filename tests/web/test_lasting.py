"""Answers that go on for long."""

import asyncio
from typing import Any

import pytest

from gateway.errors import TooManyAtOnce
from gateway.web.lasting import Room, Shared


def test_so_many_have_room() -> None:
    room = Room(2, "Guests")
    with room.taken():
        with room.taken(), pytest.raises(TooManyAtOnce, match="Guests: no more than 2"), room.taken():
            pass
        with room.taken():
            pass


class Steps:
    """Work that goes on when it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.given_up: list[str] = []
        self.go_on = asyncio.Event()

    async def work(self, name: str) -> str:
        self.begun.append(name)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.given_up.append(name)
            raise
        return name


async def turns() -> None:
    """Lets everything go on as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_several_want_is_done_once_and_one_thing_at_a_time() -> None:
    shared: Shared[str] = Shared()
    steps = Steps()
    tasks = [asyncio.create_task(shared.done(name, lambda name=name: steps.work(name))) for name in "aabba"]
    await turns()
    assert steps.begun == ["a"]
    steps.go_on.set()
    assert await asyncio.gather(*tasks) == [*"aabba"]
    assert steps.begun == ["a", "b"]
    assert await shared.done("a", lambda: steps.work("a")) == "a"
    assert steps.begun == ["a", "b", "a"]


async def test_what_nobody_waits_for_any_more_is_given_up() -> None:
    shared: Shared[str] = Shared()
    steps = Steps()
    first, second, third = (
        asyncio.create_task(shared.done(name, lambda name=name: steps.work(name))) for name in "aab"
    )
    await turns()
    first.cancel()
    await turns()
    assert (steps.begun, steps.given_up) == (["a"], [])
    second.cancel()
    await turns()
    assert (steps.begun, steps.given_up) == (["a", "b"], ["a"])
    steps.go_on.set()
    assert await third == "b"


async def test_what_fails_fails_for_all() -> None:
    async def failing() -> Any:
        await asyncio.sleep(0)
        raise KeyError("k")

    shared: Shared[Any] = Shared()
    found = await asyncio.gather(*(shared.done(1, failing) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [KeyError] * 3
