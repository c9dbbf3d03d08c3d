"""Which upstream serves a model, and whose models are listed."""

import asyncio
import gzip
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.errors import NotFound, UpstreamUnreachable
from gateway.upstream.pool import Pool
from gateway.upstream.wire import Answer, Request
from tests.fakes.clock import FakeClock


@dataclass
class Listing:
    """An upstream that only lists its models: JSON, bytes, or an error."""

    name: str
    models: tuple[str, ...] | None
    answers: Any = field(default_factory=dict)
    inject_usage: bool = True
    asked: list[str] = field(default_factory=list)

    async def send(self, request: Request) -> Answer:
        self.asked.append(f"{request.method} {request.path_qs}")
        if isinstance(self.answers, Exception):
            raise self.answers
        return Whole(self.answers)

    async def close(self) -> None:
        self.asked.append("closed")


class Whole:
    status = 200
    reason = "OK"

    def __init__(self, value: Any) -> None:
        self.headers = CIMultiDict({"Content-Encoding": "gzip"}) if isinstance(value, bytes) else CIMultiDict[str]()
        self._pieces = [value if isinstance(value, bytes) else json.dumps(value).encode(), b""]

    async def read(self) -> bytes:
        return self._pieces.pop(0)

    def close(self) -> None:
        """Nothing is open."""


def pool(*upstreams: Listing) -> Pool:
    return Pool(upstreams, FakeClock())


def listed(*names: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name} for name in names]}


A = Listing("a", ("gpt-*", "o1"))
B = Listing("b", ("gpt-4o", "b/special", "ft:?"))
ALL = Listing("all", None)


@pytest.mark.parametrize(
    ("model", "upstream", "rest"),
    [
        ("gpt-4o", "a", "gpt-4o"),
        ("o1", "a", "o1"),
        ("o1-mini", "all", "o1-mini"),
        ("GPT-4o", "all", "GPT-4o"),
        ("ft:x", "b", "ft:x"),
        ("ft:xy", "all", "ft:xy"),
        ("b/gpt-4o", "b", "gpt-4o"),
        ("b/special", "b", "special"),
        ("b/a/gpt", "b", "a/gpt"),
        ("a/anything at all", "a", "anything at all"),
        ("a/", "all", "a/"),
        ("/x", "all", "/x"),
        ("c/x", "all", "c/x"),
        ("", "all", ""),
        (None, "a", None),
    ],
)
def test_the_choice(model: str | None, upstream: str, rest: str | None) -> None:
    choice = pool(A, B, ALL).choose(model)
    assert (choice.upstream.name, choice.model) == (upstream, rest)


def test_a_model_that_nobody_serves_is_answered_with_what_is_served() -> None:
    with pytest.raises(NotFound) as raised:
        pool(A, B).choose("claude")
    assert str(raised.value) == (
        "No upstream serves the model 'claude'. Served are: a: gpt-*, o1; b: gpt-4o, b/special, ft:?; "
        "or NAME/model, where NAME is one of a, b."
    )


@pytest.mark.parametrize("model", [None, "x"])
def test_without_upstreams_nothing_is_served(model: str | None) -> None:
    with pytest.raises(NotFound):
        pool().choose(model)


async def test_literal_names_need_no_list() -> None:
    one = Listing("a", ("m1", "m2"))
    assert await pool(one).models() == [
        {"id": "m1", "object": "model", "created": 0, "owned_by": "a"},
        {"id": "m2", "object": "model", "created": 0, "owned_by": "a"},
    ]
    assert one.asked == []


async def test_patterns_filter_the_upstreams_list() -> None:
    one = Listing("a", ("m1", "gpt-*"), listed("gpt-4o", "m1", "other"))
    every = Listing("b", None, gzip.compress(json.dumps(listed("gpt-4o", "x")).encode()))
    found = await pool(one, every).models()
    assert [model["id"] for model in found] == ["m1", "gpt-4o", "x"]
    assert (one.asked, every.asked) == (["GET /models"], ["GET /models"])


async def test_a_list_that_fails_is_empty_and_asked_for_again() -> None:
    one = Listing("a", None, UpstreamUnreachable("no"))
    both = pool(one, Listing("b", ("m",)))
    assert [model["id"] for model in await both.models()] == ["m"]
    one.answers = listed("x")
    assert [model["id"] for model in await both.models()] == ["x", "m"]
    one.answers = listed("y")
    assert [model["id"] for model in await both.models()] == ["x", "m"]


async def test_a_list_that_does_not_come_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mute(Listing):
        async def send(self, request: Request) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("gateway.upstream.pool._LIST_WITHIN_S", 0.01)
    found = await pool(Mute("a", None), Listing("b", ("m",))).models()
    assert [model["id"] for model in found] == ["m"]


async def test_other_upstreams_are_chosen_from_the_moment_of_their_replacement() -> None:
    then, stays, now = Listing("main", ("m",)), Listing("stays", ("s",)), Listing("main", ("n",))
    replaced = pool(then, stays)
    running = replaced.choose("m")
    assert replaced.replace([stays, now]) == [then]
    assert running.upstream is then
    assert [replaced.choose(model).upstream for model in (None, "s", "n", "main/m")] == [stays, stays, now, now]
    with pytest.raises(NotFound):
        replaced.choose("m")
    assert (then.asked, stays.asked, now.asked) == ([], [], [])


async def test_an_upstream_that_was_replaced_is_closed_when_it_is_let_go_and_not_again() -> None:
    then, stays = Listing("then", None), Listing("stays", None)
    replaced = pool(then, stays)
    await replaced.let_go(replaced.replace([stays]))
    assert (then.asked, stays.asked) == (["closed"], [])
    await replaced.close()
    assert (then.asked, stays.asked) == (["closed"], ["closed"])


async def test_closing_closes_also_what_was_replaced_and_not_let_go() -> None:
    then, now = Listing("a", None), Listing("a", None)
    replaced = pool(then)
    replaced.replace([now])
    await replaced.close()
    assert (then.asked, now.asked) == (["closed"], ["closed"])


async def test_the_kept_list_of_an_upstream_goes_with_it() -> None:
    then, stays = Listing("a", None, listed("then")), Listing("b", None, listed("stays"))
    replaced = pool(then, stays)
    assert [model["id"] for model in await replaced.models()] == ["then", "stays"]
    replaced.replace([Listing("a", None, listed("now")), stays])
    assert [model["id"] for model in await replaced.models()] == ["now", "stays"]
    assert stays.asked == ["GET /models"]


async def test_a_list_that_comes_after_the_replacement_is_not_kept_for_the_new_upstream() -> None:
    class Replacing(Listing):
        async def send(self, request: Request) -> Answer:
            replaced.replace([Listing("a", None, listed("now"))])
            return await super().send(request)

    replaced = pool(Replacing("a", None, listed("then")))
    assert [model["id"] for model in await replaced.models()] == ["then"]
    assert [model["id"] for model in await replaced.models()] == ["now"]


async def test_closing_closes_every_upstream() -> None:
    one, other = Listing("a", None), Listing("b", None)
    await pool(one, other).close()
    assert (one.asked, other.asked) == (["closed"], ["closed"])
