"""Prices and costs, computed by hand with exact decimals."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.prices import Price, PriceList, Tokens, cost, decimal, load_shipped, picos, usd

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def price(prompt: str, completion: str, cached: str | None = None, creation: str | None = None) -> Price:
    return Price(*(None if text is None else Decimal(text) for text in (prompt, completion, cached, creation)))


def test_openai_cached_tokens_are_part_of_the_prompt() -> None:
    tokens = Tokens(prompt=1000, completion=200, cached=600, cache_creation=100)
    # 300 at 0.15, 600 at 0.075, 100 at 0.30, 200 at 0.60 USD a million
    assert cost(price("0.15", "0.6", "0.075", "0.3"), tokens) == 45_000_000 + 45_000_000 + 30_000_000 + 120_000_000
    assert tokens.prompt_in_all == 1000


def test_anthropic_cached_tokens_come_on_top() -> None:
    tokens = Tokens(prompt=1000, completion=200, cached=600, cache_creation=100, cache_is_extra=True)
    # 1000 at 3, 600 at 0.3, 100 at 3.75, 200 at 15 USD a million
    assert cost(price("3", "15", "0.3", "3.75"), tokens) == 3_000_000_000 + 180_000_000 + 375_000_000 + 3_000_000_000
    assert tokens.prompt_in_all == 1700


def test_cached_tokens_cost_as_much_as_others_unless_there_is_a_price() -> None:
    assert cost(price("2", "0"), Tokens(100, 0, cached=60, cache_creation=20)) == 200_000_000


def test_more_cached_tokens_than_prompt_tokens_are_no_part_of_them() -> None:
    tokens = Tokens(prompt=10, completion=0, cached=60)
    assert cost(price("1", "1", "0.5"), tokens) == 10_000_000 + 30_000_000
    assert tokens.prompt_in_all == 70


def test_unknown_is_not_zero() -> None:
    assert cost(price("1", "1"), Tokens(None, None)) is None
    assert cost(Price(None, Decimal(1)), Tokens(1, 1)) is None
    assert cost(Price(Decimal(1), None), Tokens(1, 1)) is None
    assert cost(Price(Decimal(1), None), Tokens(5, None)) == 5_000_000


@given(
    st.integers(-(10**12), 10**12),
    st.integers(-(10**12), 10**12),
    st.decimals(-1000, 1000, places=6),
    st.decimals(-1000, 1000, places=6),
)
def test_costs_are_exact(prompt: int, completion: int, per_prompt: Decimal, per_completion: Decimal) -> None:
    exact = Fraction(per_prompt) * prompt + Fraction(per_completion) * completion
    assert cost(Price(per_prompt, per_completion), Tokens(prompt, completion)) == exact * 10**6


def test_money_is_no_binary_fraction() -> None:
    assert picos(decimal(0.1)) + picos(decimal(0.2)) == picos(decimal(0.3)) == 300_000_000_000
    assert usd(picos(decimal(0.1)) * 3) == 0.3
    assert picos(Decimal("0.0000000000005")) == 0
    assert picos(Decimal("0.0000000000015")) == 2
    assert picos(decimal(1e300)) == 10**312


@given(st.integers(-(10**15), 10**15))
def test_a_shown_cost_reads_back_as_itself(value: int) -> None:
    assert picos(decimal(usd(value))) == value


OWN = PriceList(
    {
        "gpt-4o-*": price("1", "1"),
        "gpt-4o-mini": price("2", "2"),
        "gpt-*": price("3", "3"),
        "*-mini": price("4", "4"),
        "lit[e]ral": price("5", "5"),
    }
)


@pytest.mark.parametrize(
    ("models", "prompt"),
    [
        (["gpt-4o-mini"], 2),
        (["gpt-4o-large"], 1),
        (["gpt-5"], 3),
        (["o4-mini"], 4),
        (["lit[e]ral"], 5),
        (["literal"], 5),
        (["unknown", "gpt-5"], 3),
        (["gpt-5", "gpt-4o-mini"], 3),
        (["claude-3-haiku-20240307", "o4-mini"], 4),
    ],
)
def test_own_prices_exact_first_then_patterns_in_file_order(models: list[str], prompt: int) -> None:
    assert OWN.find(models, NOW, 0) == price(str(prompt), str(prompt))


@pytest.mark.parametrize(
    "models", [["gpt-x"], ["gpt-4o-mini"], ["unknown-of-mine", "gpt-4o-mini"], ["none"], ["claude-a", "gpt-x"]]
)
def test_a_price_is_explained_as_it_is_found(models: list[str]) -> None:
    load_shipped()
    for prices in (OWN, PriceList()):
        found = prices.explain(models, NOW, 0)
        assert (found and found.price) == prices.find(models, NOW, 0)
        assert found is None or (found.model in models and found.source in ("configuration", "shipped"))


def test_the_shipped_table_comes_last() -> None:
    load_shipped()
    assert OWN.find(["claude-3-haiku-20240307"], NOW, 0) == price("0.25", "1.25", "0.03", "0.3")
    assert PriceList().find(["gpt-4o-mini"], NOW, 0) == price("0.15", "0.6", "0.075")
    assert PriceList().find(["openai/gpt-4o-mini"], NOW, 0) == price("0.15", "0.6", "0.075")
    assert PriceList().find(["unknown-of-mine", "gpt-4o-mini"], NOW, 0) == price("0.15", "0.6", "0.075")
    embedding = PriceList().find(["text-embedding-3-small"], NOW, 0)
    assert embedding == Price(Decimal("0.02"), None)


def test_a_shipped_price_may_depend_on_the_length_of_the_prompt() -> None:
    short, long = (PriceList().find(["gemini-2.5-pro"], NOW, tokens) for tokens in (200_000, 200_001))
    assert (short, long) == (price("1.25", "10", "0.125"), price("2.5", "15", "0.25"))


@given(st.text(st.characters(), max_size=20))
def test_any_model_name_can_be_asked_for(model: str) -> None:
    PriceList().find([model], NOW, 0)
