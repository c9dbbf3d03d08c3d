"""Prices and costs, exact: Decimal in, whole units of 1e-12 USD out."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import Any, NamedTuple

PICOS_PER_USD = 10**12
_exact = Context(prec=80, rounding=ROUND_HALF_EVEN)
_MTOK = Decimal(1_000_000)
# In units of 1e-12 USD, of 1 USD per 1 million tokens.
_PICOS_A_TOKEN = Decimal(PICOS_PER_USD) / _MTOK
_CACHED_LOOKUPS = 4096


@dataclass(frozen=True, slots=True)
class Price:
    """USD per 1 million tokens; None where there is no such price. What is cached costs `prompt` unless it says."""

    prompt: Decimal | None
    completion: Decimal | None
    cached_prompt: Decimal | None = None
    cache_creation: Decimal | None = None


class Tokens(NamedTuple):
    """What is to be paid for. `cache_is_extra`: cached and cache-creation tokens are not part of `prompt`."""

    prompt: int | None
    completion: int | None
    cached: int = 0
    cache_creation: int = 0
    cache_is_extra: bool = False

    @property
    def uncached(self) -> int:
        """Prompt tokens at the full price."""
        prompt = self.prompt or 0
        rest = prompt - self.cached - self.cache_creation
        # More cached tokens than prompt tokens: then the prompt's count cannot include them.
        return prompt if self.cache_is_extra or rest < 0 else rest

    @property
    def prompt_in_all(self) -> int:
        """Prompt tokens, cached ones included."""
        return self.uncached + self.cached + self.cache_creation


def cost(price: Price, tokens: Tokens) -> int | None:
    """The cost in units of 1e-12 USD, rounded half to even; None if a count or a price that it needs is missing."""
    if tokens.prompt is None and tokens.completion is None:
        return None
    if (exact := _whole_picos(price)) is not None:
        prompt, completion, cached_prompt, creation_prompt = exact
        return (
            tokens.uncached * prompt
            + tokens.cached * cached_prompt
            + tokens.cache_creation * creation_prompt
            + (tokens.completion or 0) * completion
        )
    cached = price.cached_prompt if price.cached_prompt is not None else price.prompt
    creation = price.cache_creation if price.cache_creation is not None else price.prompt
    total = Decimal(0)
    for count, per_million in (
        (tokens.uncached, price.prompt),
        (tokens.cached, cached),
        (tokens.cache_creation, creation),
        (tokens.completion or 0, price.completion),
    ):
        if count == 0:
            continue
        if per_million is None:
            return None
        total = _exact.add(total, _exact.multiply(Decimal(count), per_million))
    return picos(_exact.divide(total, _MTOK))


@lru_cache(maxsize=4096)
def _whole_picos(price: Price) -> tuple[int, int, int, int] | None:
    """What a token costs in units of 1e-12 USD, where all four are known and whole: then there is nothing to round.

    Prompt, completion, cached prompt, cache creation.
    """
    if price.prompt is None or price.completion is None:
        return None
    cached = price.cached_prompt if price.cached_prompt is not None else price.prompt
    creation = price.cache_creation if price.cache_creation is not None else price.prompt
    found = [_exact.multiply(usd, _PICOS_A_TOKEN) for usd in (price.prompt, price.completion, cached, creation)]
    if any(not one.is_finite() or one != one.to_integral_value() for one in found):
        return None
    prompt, completion, cached_prompt, creation_prompt = map(int, found)
    return prompt, completion, cached_prompt, creation_prompt


def picos(usd: Decimal) -> int:
    """USD as whole units of 1e-12 USD, rounded half to even."""
    return int(_exact.multiply(usd, Decimal(PICOS_PER_USD)).to_integral_value(ROUND_HALF_EVEN))


def usd(value: int | float) -> float:
    """Units of 1e-12 USD as a number of USD, the nearest that a double can hold."""
    return value / PICOS_PER_USD


def decimal(number: float) -> Decimal:
    """The number as its shortest decimal text says it, so that 0.1 is a tenth."""
    return Decimal(repr(number))


OWN, SHIPPED = "configuration", "shipped"


class Explained(NamedTuple):
    """A price, the model that it is of, and where it comes from: OWN or SHIPPED."""

    model: str
    source: str
    price: Price


class PriceList:
    """Finds a price by model name: our own prices first, then the table that genai-prices ships."""

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        self._own = dict(own or {})
        self._patterns = [name for name in self._own if any(sign in name for sign in "*?[")]
        self._found: dict[str, Price | None] = {}
        self._shipped: dict[str, Any] = {}

    def find(self, models: list[str], at: datetime, prompt_tokens: int) -> Price | None:
        """The price for the first of the models that has one; own prices for any of them before shipped ones.

        `at` and `prompt_tokens` choose where a shipped price depends on the time or on the length of the prompt.
        """
        for model in models if self._own else ():
            if model not in self._found:
                if len(self._found) >= _CACHED_LOOKUPS:
                    self._found.clear()
                self._found[model] = self._find_own(model)
            if (price := self._found[model]) is not None:
                return price
        for model in models:
            if (price := self._find_shipped(model, at, prompt_tokens)) is not None:
                return price
        return None

    def explain(self, models: list[str], at: datetime, prompt_tokens: int) -> Explained | None:
        """The price that `find` finds, and whose it is."""
        for source, find in (
            (OWN, self._find_own),
            (SHIPPED, lambda model: self._find_shipped(model, at, prompt_tokens)),
        ):
            for model in models:
                if (price := find(model)) is not None:
                    return Explained(model, source, price)
        return None

    def _find_own(self, model: str) -> Price | None:
        if model in self._own:
            return self._own[model]
        return next((self._own[name] for name in self._patterns if fnmatch.fnmatchcase(model, name)), None)

    def _find_shipped(self, model: str, at: datetime, prompt_tokens: int) -> Price | None:
        if model not in self._shipped:
            if len(self._shipped) >= _CACHED_LOOKUPS:
                self._shipped.clear()
            self._shipped[model] = _shipped_model(model)
        found = self._shipped[model]
        if found is None:
            return None
        prices = found.get_prices(at)

        def per_million(name: str) -> Decimal | None:
            price = getattr(prices, name)
            tiers = getattr(price, "tiers", None)
            if tiers is None:
                return price if isinstance(price, Decimal) else None
            reached = [tier.price for tier in tiers if prompt_tokens > tier.start]
            value = reached[-1] if reached else price.base
            return value if isinstance(value, Decimal) else None

        price = Price(
            prompt=per_million("input_mtok"),
            completion=per_million("output_mtok"),
            cached_prompt=per_million("cache_read_mtok"),
            cache_creation=per_million("cache_write_mtok"),
        )
        return None if price.prompt is None and price.completion is None else price


def load_shipped() -> None:
    """Imports the shipped table; takes a quarter second the first time, so it is not done at start."""
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()


def _shipped_model(model: str) -> Any:
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    # A name of the form provider/model, then whoever's it is, then OpenAI: the table tells OpenAI's embedding
    # models only to those who ask OpenAI.
    provider, slash, rest = model.partition("/")
    tries: list[tuple[str, str | None]] = [(rest, provider)] if slash else []
    for name, provider_id in [*tries, (model, None), (model, "openai")]:
        try:
            return snapshot.find_provider_model(name, None, provider_id, None)[1]
        except LookupError:
            continue
    return None
