"""What is looked at again after a while."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from gateway.deadlines import Deadlines


class FakeLoop:
    """A loop whose time stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 100.0
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.soon: list[tuple[Callable[..., None], tuple[object, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> object:
        self.alarms.append((when, callback))
        return callback

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        return self.call_at(self.now + delay, callback)

    def call_soon(self, callback: Callable[..., None], *args: object) -> None:
        self.soon.append((callback, args))

    def ring(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Goes on to the one alarm there is; `meanwhile` is what the loop takes in then."""
        ((self.now, callback),) = self.alarms
        self.alarms.clear()
        callback()
        for turn in range(10):
            soon, self.soon = self.soon, []
            for call, args in soon:
                call(*args)
            if turn == 0:
                meanwhile()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLoop]:
    fake = FakeLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: fake)
    yield fake


def test_each_thing_is_handed_on_after_its_time_by_one_alarm(loop: FakeLoop) -> None:
    came: list[tuple[float, str]] = []
    deadlines: Deadlines[str] = Deadlines(5.0, lambda thing: came.append((loop.now, thing)))
    deadlines.add("a")
    loop.now = 102.0
    deadlines.add("b")
    deadlines.add("c")
    loop.ring()
    assert came == [(105.0, "a")]
    loop.ring()
    assert came == [(105.0, "a"), (107.0, "b"), (107.0, "c")]
    assert loop.alarms == []
    deadlines.add("d")
    loop.ring()
    assert came[3:] == [(112.0, "d")]


def test_what_is_added_while_another_is_due_has_its_own_time(loop: FakeLoop) -> None:
    came: list[tuple[float, str]] = []

    def due(thing: str) -> None:
        came.append((loop.now, thing))
        if thing == "a":
            deadlines.add("b")

    deadlines: Deadlines[str] = Deadlines(5.0, due)
    deadlines.add("a")
    loop.ring()
    loop.ring()
    assert (came, loop.alarms) == ([(105.0, "a"), (110.0, "b")], [])


def test_what_has_come_by_then_is_taken_in_first(loop: FakeLoop) -> None:
    ended: set[str] = set()
    late: list[str] = []
    deadlines: Deadlines[str] = Deadlines(5.0, lambda thing: None if thing in ended else late.append(thing))
    deadlines.add("a")
    deadlines.add("b")
    # The loop was busy for long, and the answer lies there to be read.
    loop.alarms = [(120.0, callback) for _, callback in loop.alarms]
    loop.ring(meanwhile=lambda: ended.add("a"))
    assert late == ["b"]


def test_one_that_fails_keeps_no_other_from_its_time(loop: FakeLoop) -> None:
    came: list[str] = []

    def due(thing: str) -> None:
        came.append(thing)
        if thing == "a":
            raise ValueError(thing)

    deadlines: Deadlines[str] = Deadlines(5.0, due)
    deadlines.add("a")
    deadlines.add("b")
    with pytest.raises(ValueError, match="a"):
        loop.ring()
    loop.ring()
    assert (came, loop.alarms) == (["a", "b"], [])
