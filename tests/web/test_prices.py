"""What a model's tokens cost, over HTTP."""

from typing import Any

import pytest

from tests.conftest import Gateway


async def ask(gateway: Gateway, query: str) -> tuple[int, Any]:
    async with gateway.session.get(f"/api/prices/{query}") as response:
        return response.status, await response.json()


async def test_a_price_of_the_shipped_table(gateway: Gateway) -> None:
    expected = {"prompt": 0.15, "completion": 0.6, "cached_prompt": 0.075, "cache_creation": None}
    told = {"model": "gpt-4o-mini", "source": "shipped", **expected}
    assert await ask(gateway, "?model=gpt-4o-mini") == (200, {"price": told})
    assert await ask(gateway, "?model=mine&response_model=gpt-4o-mini") == (200, {"price": told})


async def test_a_price_that_depends_on_the_length_of_the_prompt(gateway: Gateway) -> None:
    _, short = await ask(gateway, "?model=gemini-2.5-pro&prompt_tokens=1")
    _, long = await ask(gateway, "?model=gemini-2.5-pro&prompt_tokens=200001")
    assert short["price"]["prompt"] < long["price"]["prompt"]


async def test_no_price(gateway: Gateway) -> None:
    assert await ask(gateway, "?model=nobody-knows-this") == (200, {"price": None})


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "model: say whose price."),
        ("?model=m&prompt_tokens=-1", "prompt_tokens: must be a whole number, 0 or more."),
        ("?model=m&time=soon", "time: must be an ISO 8601 time."),
        ("?model=m&colour=red", "colour: not supported; use model, prompt_tokens"),
    ],
)
async def test_what_is_not_understood_is_named(gateway: Gateway, query: str, named: str) -> None:
    status, reply = await ask(gateway, query)
    assert status == 400 and named in reply["detail"]
