"""What is handed on together."""

import asyncio

from gateway.gathering import Gathering


def gathering(expected: int) -> tuple[Gathering[int], list[list[int]]]:
    handed_on: list[list[int]] = []
    return Gathering(handed_on.append, lambda: expected), handed_on


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_comes_in_turns_that_follow_each_other_is_handed_on_together() -> None:
    gathered, handed_on = gathering(expected=10)
    for number in range(3):
        gathered.add(number)
        await turns(1)
    assert handed_on == []
    await turns(1)
    assert handed_on == [[0, 1, 2]]
    gathered.add(3)
    await turns(2)
    assert handed_on == [[0, 1, 2], [3]]


async def test_where_no_more_can_come_nothing_is_waited_for() -> None:
    gathered, handed_on = gathering(expected=2)
    gathered.add(1)
    gathered.add(2)
    assert handed_on == []
    await turns(1)
    assert handed_on == [[1, 2]]


async def test_enough_is_enough() -> None:
    gathered, handed_on = gathering(expected=1000)
    for number in range(64):
        gathered.add(number)
    await turns(1)
    assert handed_on == [list(range(64))]


async def test_nobody_waits_for_ever_while_more_and_more_come() -> None:
    gathered, handed_on = gathering(expected=1000)
    for number in range(40):
        gathered.add(number)
        await turns(1)
    await turns(2)
    assert [number for together in handed_on for number in together] == list(range(40))
    assert max(map(len, handed_on)) <= 10


async def test_what_is_there_can_be_asked_for() -> None:
    gathered, handed_on = gathering(expected=10)
    gathered.add(1)
    gathered.flush()
    assert handed_on == [[1]]
    await turns(3)
    assert handed_on == [[1]]
